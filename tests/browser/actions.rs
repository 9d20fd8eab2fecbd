//! The buttons of a job's page do what they say, and ask before what cannot be undone.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{http::StatusCode, routing::post};
use finishline::simulator::FaultRate;
use serde_json::json;

use crate::{browser::Browser, support::*};

async fn visit_job(browser: &Browser, service: &Service, id: &str) {
    browser.visit(&format!("{}/jobs/{id}", service.api)).await;
    browser.wait_until("document.querySelector('[data-live-state].is-on')").await;
}

#[tokio::test]
async fn refresh_fetches_the_result_that_no_callback_brought() {
    let Some(browser) = Browser::open().await else { return };
    let service =
        Setup::new().engine(|options| options.drop_callbacks = FaultRate::Always).start().await;
    let job = service.submitted(&ready_job()).await;
    assert!(service.engine.finish(text(&job["engineJobId"])));
    visit_job(&browser, &service, text(&job["id"])).await;
    browser.click("form[action$='/refresh'] button").await;
    browser.wait_until("document.querySelector('#job .status.is-succeeded')").await;
    assert!(browser.text_of(".notice").await.contains("The Engine was asked"));
}

#[tokio::test]
async fn a_dead_relay_is_sent_again_and_seen_to_arrive() {
    let Some(browser) = Browser::open().await else { return };
    let is_well = Arc::new(AtomicBool::new(false));
    let health = is_well.clone();
    let answer = async move || match health.load(Ordering::Relaxed) {
        true => StatusCode::OK,
        false => StatusCode::BAD_GATEWAY,
    };
    let origin = serve(axum::Router::new().route("/hook", post(answer))).await;
    let targets = json!([{"name": "app", "url": format!("{origin}/hook"),
        "secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}]);
    let setup = Setup::new().set("RELAY__TARGETS", targets).set("RELAY__SCHEDULE", "[]");
    let service = setup.start().await;
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    visit_job(&browser, &service, text(&job["id"])).await;
    browser.wait_until("document.querySelector('.relay').innerText.includes('dead')").await;
    is_well.store(true, Ordering::Relaxed);
    browser.click("form[action$='/resend'] button").await;
    browser.wait_until("document.querySelector('.relay').innerText.includes('delivered')").await;
}

#[tokio::test]
async fn an_unconfirmed_job_is_sent_again_once_the_box_is_ticked() {
    let Some(browser) = Browser::open().await else { return };
    let setup = Setup::new().engine(|options| {
        options.answer = Some(500);
        options.answer_after_accept = true;
    });
    let service = setup.start().await;
    let id = text(&service.submit(&ready_job()).await.json()["jobId"]).to_owned();
    service.engine.set(|options| options.answer = None);
    visit_job(&browser, &service, &id).await;
    browser.click("form[action$='/resubmit'] button").await;
    assert_eq!(service.job(&id).await["status"], "unconfirmed");
    browser.click("form[action$='/resubmit'] input[type=checkbox]").await;
    // The page keeps itself fresh meanwhile, and the tick stays.
    service.post_to(&service.callback_url(&id), "{}").await.expect(200);
    browser.wait_until("document.body.innerText.includes('unrecognised')").await;
    browser.click("form[action$='/resubmit'] button").await;
    browser.wait_until("document.querySelector('#job .status.is-submitted')").await;
    assert_eq!(service.job(&id).await["status"], "submitted");
}

#[tokio::test]
async fn a_job_is_erased_by_whoever_confirms_it_and_by_nobody_else() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let job = service.finish(&job).await;
    let id = text(&job["id"]);
    visit_job(&browser, &service, id).await;
    browser.click("a[href$='/erase']").await;
    browser.click("form[action$='/erase'] a.button").await;
    browser.wait_until("document.querySelector('#job')").await;
    service.get(&format!("/v1/jobs/{id}")).await.expect(200);
    browser.click("a[href$='/erase']").await;
    browser.click("form[action$='/erase'] button.danger").await;
    browser.wait_until("location.pathname === '/jobs'").await;
    assert!(browser.text_of(".notice").await.contains("are erased"));
    service.get(&format!("/v1/jobs/{id}")).await.expect(410);
    assert!(!browser.source().await.contains(id), "the list does not show it");
}
