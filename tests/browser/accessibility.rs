//! axe-core's judgement of every page, light and dark, wide and narrow.
//!
//! axe-core comes from npm (see `.ci/run`) and is no part of the project.

use std::{env, fs, path::Path};

use serde_json::Value;

use crate::{
    browser::{Browser, Scheme},
    chromedriver::absent,
    scene::Scene,
    support::*,
};

/// Names another place of `axe.min.js`.
const PLACE: &str = "FINISHLINE_AXE";

/// Where `.ci/run` puts it.
const USUAL_PLACE: &str = "target/browser/node_modules/axe-core/axe.min.js";

/// A desk and a phone.
const SIZES: [(u32, u32); 2] = [(1280, 800), (360, 740)];

/// Runs the rules of WCAG 2.1, levels A and AA; answers what breaks them, and where.
const AUDIT: &str = "
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'];
    const found = await axe.run(document, { runOnly: tags, resultTypes: ['violations'] });
    return found.violations.map((one) => `${one.id}: ${one.help}: ` +
        one.nodes.slice(0, 4).map((node) => node.html.slice(0, 160) + ' ' + node.failureSummary).join(' | '))";

fn axe() -> Option<String> {
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join(USUAL_PLACE);
    let place = env::var_os(PLACE).map_or(usual, Into::into);
    let script = fs::read_to_string(&place).ok();
    if script.is_none() {
        absent(&format!("axe-core is not at {}", place.display()));
    }
    script
}

async fn violations(browser: &Browser, axe: &str) -> Vec<String> {
    browser.run(axe).await;
    let audit = format!("return (async () => {{ {AUDIT} }})()");
    let found = browser.run(&audit).await;
    let found = found.as_array().expect("a list");
    found.iter().map(|one| text(one).to_owned()).collect()
}

#[tokio::test]
async fn every_page_keeps_to_the_rules_of_accessibility() {
    let Some(axe) = axe() else { return };
    let Some(browser) = Browser::open().await else { return };
    let scene = Scene::play().await;
    let mut pages = scene.pages();
    pages.push(("refusal", "/jobs?limit=0".to_owned()));
    let mut found = Vec::new();
    for (name, path) in pages {
        for size in SIZES {
            for scheme in Scheme::BOTH {
                browser.look_at(size, scheme).await;
                browser.visit(&format!("{}{path}", scene.service.api)).await;
                // What is replaced while the judge looks at it has no colours.
                browser.settle().await;
                for one in violations(&browser, &axe).await {
                    found.push(format!("{name}, {}, {} px: {one}", scheme.name(), size.0));
                }
            }
        }
    }
    let keys = serde_json::json!([{"name": "support", "key": "key-of-the-support-team"}]);
    let service = Setup::new().set("API__KEYS", keys).start().await;
    for scheme in Scheme::BOTH {
        browser.look_at(SIZES[1], scheme).await;
        browser.visit(&format!("{}/jobs", service.api)).await;
        found.extend(violations(&browser, &axe).await);
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[tokio::test]
async fn the_judge_sees_what_is_wrong() {
    let Some(axe) = axe() else { return };
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.visit(&format!("{}/jobs", service.api)).await;
    let spoil = "document.querySelector('h1').insertAdjacentHTML('afterend', '<input type=text>');
        return document.querySelectorAll('h1 + input').length";
    assert_eq!(browser.run(spoil).await, Value::from(1));
    let found = violations(&browser, &axe).await;
    assert!(found.iter().any(|one| one.starts_with("label")), "{found:?}");
}
