//! The pages under a reader's fingers: every control is reached, and shows that it is.

use std::collections::BTreeSet;

use crate::{browser::Browser, scene::Scene, support::*};

/// The protocol's codes of keys.
const TAB: &str = "\u{E004}";
const ENTER: &str = "\u{E007}";

/// More than any page here has to step through.
const MANY: usize = 250;

/// What has the focus: how to tell it, and whether one sees that it does.
const FOCUSED: &str = "
    const element = document.activeElement;
    if (element === document.body) return null;
    const shown = element.matches('input[type=checkbox]') && element.nextElementSibling ? element.nextElementSibling : element;
    const style = getComputedStyle(shown);
    const box = shown.getBoundingClientRect();
    const isSeen = box.width > 0 && box.height > 0 && box.right > 0 && box.bottom > 0 && box.top < innerHeight;
    return [element.outerHTML.slice(0, 200), isSeen && style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];";

#[tokio::test]
async fn the_first_key_leads_past_the_navigation() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.visit(&format!("{}/jobs", service.api)).await;
    browser.press(TAB).await;
    assert_eq!(browser.run("return document.activeElement.innerText").await, "Skip to content");
    assert_eq!(browser.run(FOCUSED).await[1], true, "it is seen");
    browser.press(ENTER).await;
    browser.wait_until("location.hash === '#content'").await;
    assert_eq!(browser.run("return document.activeElement.id").await, "content");
}

#[tokio::test]
async fn every_control_is_reached_by_keys_and_shows_it() {
    let Some(browser) = Browser::open().await else { return };
    let scene = Scene::play().await;
    for path in ["/jobs".to_owned(), format!("/jobs/{}", scene.dead)] {
        browser.visit(&format!("{}{path}", scene.service.api)).await;
        let mut reached = BTreeSet::new();
        for _ in 0..MANY {
            browser.press(TAB).await;
            let focused = browser.run(FOCUSED).await;
            if focused.is_null() {
                break;
            }
            assert_eq!(focused[1], true, "{path}: the focus is not seen on {}", focused[0]);
            reached.insert(focused[0].to_string());
        }
        let all = reached.into_iter().collect::<String>();
        let wanted: &[&str] = match path.as_str() {
            "/jobs" => &["name=\\\"q\\\"", "name=\\\"status\\\"", "<summary", "Apply", "/jobs/"],
            _ => &["Refresh", "Erase", "Send again", "<summary", "the exact bytes"],
        };
        for control in wanted {
            assert!(all.contains(control), "{path}: {control} is not reached: {all}");
        }
    }
}
