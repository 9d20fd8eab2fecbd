//! The submit page: the form writes the JSON, the JSON becomes the job, refusals stand at their
//! fields.

use serde_json::{Value, json};

use crate::{browser::Browser, support::*};

/// The JSON beside the form.
async fn written(browser: &Browser) -> Value {
    let body = browser.run("return document.querySelector('#body').value").await;
    serde_json::from_str(text(&body)).expect("JSON")
}

#[tokio::test]
async fn what_the_form_says_stands_in_the_json_and_becomes_the_job() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.visit(&format!("{}/submit", service.api)).await;
    browser.settle().await;
    browser.click(".scan:has([data-scan=cbct]) summary").await;
    browser.type_into("[name='url.cbct']", "https://store.example/scan.dcm").await;
    browser.click("label.chip:has([value=left_nerve])").await;
    browser.type_into("[name=reference]", "case-42").await;
    let job = written(&browser).await;
    assert_eq!(job["inputFiles"]["cbct"]["downloadUrl"], "https://store.example/scan.dcm");
    assert_eq!(job["outputFiles"]["meshes"].as_array().expect("a list").len(), 2);
    assert_eq!(job["finishline"], json!({"reference": "case-42"}));
    browser.click("#submit .edit button[type=submit]").await;
    browser.wait_until("location.pathname.startsWith('/jobs/')").await;
    assert_eq!(browser.text_of("h1").await, "case-42");
    let made = &service.jobs().await[0];
    assert_eq!(made["request"]["outputFiles"], job["outputFiles"]);
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn a_refusal_is_shown_and_the_form_stays_as_it_was() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.visit(&format!("{}/submit", service.api)).await;
    browser.settle().await;
    browser.click(".scan:has([data-scan=cbct]) summary").await;
    browser.type_into("[name='url.cbct']", "ftp://store.example/<b>scan</b>").await;
    browser.click("#submit .edit button[type=submit]").await;
    browser
        .wait_until("document.querySelector('[data-part=inputs]').innerText.includes('http')")
        .await;
    let kept = browser.run("return document.querySelector('[name=\"url.cbct\"]').value").await;
    assert_eq!(kept, "ftp://store.example/<b>scan</b>");
    assert!(service.jobs().await.is_empty());
}
