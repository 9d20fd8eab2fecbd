//! What holds for every page in a browser: it loads cleanly, reads without scripts, fits a phone.

use serde_json::json;

use crate::{
    browser::{Browser, Scheme},
    scene::Scene,
    support::*,
};

/// The narrowest phone.
const PHONE: (u32, u32) = (360, 740);

#[tokio::test]
async fn every_page_loads_without_a_complaint_on_the_console() {
    let Some(browser) = Browser::open().await else { return };
    let scene = Scene::play().await;
    for (name, path) in scene.pages() {
        browser.visit(&format!("{}{path}", scene.service.api)).await;
        browser.settle().await;
        assert_eq!(browser.complaints().await, [""; 0], "{name}");
        assert_ne!(browser.text_of("h1").await, "", "{name}");
    }
}

#[tokio::test]
async fn whoever_has_a_key_signs_in_works_and_signs_out() {
    let Some(browser) = Browser::open().await else { return };
    let key = "key-of-the-support-team";
    let keys = json!([{"name": "support", "key": key}]);
    let service = Setup::new().set("API__KEYS", keys).start().await;
    browser.visit(&format!("{}/jobs?status=failed", service.api)).await;
    browser.type_into("#key", "not-a-key-of-this-service").await;
    browser.click(".sign-in button").await;
    browser.wait_until("document.querySelector('#wrong')").await;
    // The refusal itself is a line on the console: the answer was 401.
    browser.complaints().await;
    browser.type_into("#key", key).await;
    browser.click(".sign-in button").await;
    browser.wait_until("document.querySelector('[data-live-state].is-on')").await;
    assert!(browser.address().await.ends_with("/jobs?status=failed"));
    assert_eq!(browser.run("return document.cookie").await, "", "no script sees the session");
    assert_eq!(browser.complaints().await, [""; 0]);
    browser.click(".leave button").await;
    browser.wait_until("document.querySelector('#key')").await;
    browser.visit(&format!("{}/jobs", service.api)).await;
    assert!(browser.address().await.contains("/sign-in"), "the session is over");
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn every_page_reads_the_same_without_scripts() {
    let Some(browser) = Browser::open_without_scripts().await else { return };
    let scene = Scene::play().await;
    for (path, words) in [
        ("/jobs".to_owned(), vec!["implant-0416", "conflict", "overdue", "2026-03-05"]),
        (format!("/jobs/{}", scene.conflict), vec!["Difference from the result", "Time line"]),
        (format!("/jobs/{}", scene.dead), vec!["upstream is down", "502", "Send again"]),
        (format!("/jobs/{}/erase", scene.dead), vec!["Erase this job?", "Keep it"]),
    ] {
        browser.visit(&format!("{}{path}", scene.service.api)).await;
        let words_of_page = browser.words().await;
        for word in words {
            assert!(words_of_page.contains(word), "{path} lacks {word}: {words_of_page}");
        }
    }
    browser.visit(&format!("{}/jobs/{}/erase", scene.service.api, scene.dead)).await;
    browser.click("button.danger").await;
    wait_for("the erasure", async || {
        let answer = scene.service.get(&format!("/v1/jobs/{}", scene.dead)).await;
        (answer.status == 410).then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_page_is_wider_than_a_phone() {
    let Some(browser) = Browser::open().await else { return };
    let scene = Scene::play().await;
    browser.look_at(PHONE, Scheme::Light).await;
    // As long as a reference may be.
    let long = "x".repeat(256);
    let odd = ready_job_with(json!({"endUserId": long, "finishline": {"reference": long}}));
    let job = scene.service.submitted(&odd).await;
    let mut pages = scene.pages();
    pages.push(("long words", format!("/jobs/{}", text(&job["id"]))));
    for (name, path) in pages {
        browser.visit(&format!("{}{path}", scene.service.api)).await;
        browser
            .run("document.querySelectorAll('details').forEach((fold) => fold.open = true)")
            .await;
        let beyond = browser.run(BEYOND).await;
        assert_eq!(beyond, json!([]), "{name} is wider than the window");
    }
}

/// What reaches over the window's edge, outside of parts that scroll by themselves.
const BEYOND: &str = "
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return [];
    return [...document.querySelectorAll('body *')]
        .filter((element) => element.getBoundingClientRect().right > width + 1)
        .map((element) => `${element.tagName}.${element.className} ${Math.round(element.getBoundingClientRect().right)}`)
        .slice(0, 12)";
