//! Pages that keep themselves fresh, and filters that stay.

use serde_json::json;

use crate::{browser::Browser, support::*};

/// Set in a page to see that it is not loaded anew.
const MARK: &str = "window.stayed = true";

#[tokio::test]
async fn a_job_appears_in_the_list_and_changes_there_without_a_reload() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    browser.visit(&format!("{}/jobs", service.api)).await;
    browser.wait_until("document.querySelector('[data-live-state].is-on')").await;
    browser.run(MARK).await;
    let body = ready_job_with(json!({"finishline": {"reference": "case-42"}}));
    let job = service.submitted(&body).await;
    let row = format!("[data-row=\"{}\"]", text(&job["id"]));
    browser.wait_until(&format!("document.querySelector('{row} .is-submitted')")).await;
    assert!(browser.text_of(&row).await.contains("case-42"));
    service.finish(&job).await;
    browser.wait_until(&format!("document.querySelector('{row} .is-succeeded')")).await;
    assert_eq!(browser.run("return window.stayed").await, true, "the page was not loaded anew");
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn a_job_s_page_shows_its_result_the_moment_it_comes_and_keeps_what_is_open() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    browser.visit(&format!("{}/jobs/{}", service.api, text(&job["id"]))).await;
    browser.wait_until("document.querySelector('[data-live-state].is-on')").await;
    browser.run(MARK).await;
    browser.click("details[data-key=request] > summary").await;
    service.finish(&job).await;
    browser.wait_until("document.querySelector('#job .status.is-succeeded')").await;
    browser.wait_until("document.querySelector('details[data-key=request]').open").await;
    assert!(browser.words().await.contains("Available"));
    assert_eq!(browser.run("return window.stayed").await, true, "the page was not loaded anew");
}

#[tokio::test]
async fn filters_stand_in_the_address_and_survive_a_reload() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let of = |user: &str| ready_job_with(json!({ "endUserId": user }));
    let kept = service.submitted(&of("clinic & sons")).await;
    service.submitted(&of("someone else")).await;
    let finished = service.submitted(&of("clinic & sons")).await;
    service.finish(&finished).await;
    browser.visit(&format!("{}/jobs", service.api)).await;
    browser.click("label.chip:has([value=submitted])").await;
    browser.wait_until("location.search.includes('status=submitted')").await;
    browser.click("details.more > summary").await;
    browser.type_into("[name=endUserId]", "clinic & sons").await;
    browser.click(".filters button[type=submit]").await;
    browser.wait_until("location.search.includes('endUserId')").await;
    let address = browser.address().await;
    let query = "/jobs?status=submitted&endUserId=clinic+%26+sons";
    assert!(address.ends_with(query), "{address}");
    browser.reload().await;
    let rows = "return [...document.querySelectorAll('[data-row]')].map((row) => row.dataset.row)";
    assert_eq!(browser.run(rows).await, json!([kept["id"]]));
    let state = "return [document.querySelector('[value=submitted]').checked,
        document.querySelector('[name=endUserId]').value]";
    assert_eq!(browser.run(state).await, json!([true, "clinic & sons"]));
    assert_eq!(browser.address().await, address);
}
