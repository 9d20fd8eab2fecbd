//! `/docs` under its own content policy.

use crate::{browser::Browser, support::*};

#[tokio::test]
async fn the_documentation_is_shown_under_its_policy() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.visit(&format!("{}/docs/", service.api)).await;
    browser.wait_until("document.querySelector('.opblock-tag')").await;
    let words = browser.words().await;
    assert!(words.contains("Finishline") && words.contains("/v1/jobs"), "{words}");
    browser.click(".opblock-summary-control").await;
    browser.wait_until("document.querySelector('.opblock-body')").await;
    if let Ok(place) = std::env::var("FINISHLINE_PICTURE") {
        std::fs::write(place, browser.picture().await).expect("a picture");
    }
    assert_eq!(browser.complaints().await, [""; 0]);
}
