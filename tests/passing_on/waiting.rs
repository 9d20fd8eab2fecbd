//! Waiting for a job to finish.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::support::{Service, Setup, ready_job, text, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_is_answered_as_soon_as_the_job_finishes() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let (by_job, by_result) =
        (format!("/v1/jobs/{id}?wait=60"), format!("/v1/jobs/{id}/result?wait=60"));
    let finish = async {
        service.get(&format!("/v1/jobs/{id}")).await.expect(200);
        assert!(service.engine.finish(text(&job["engineJobId"])));
    };
    let (shown, result, ()) =
        within(async { tokio::join!(service.get(&by_job), service.get(&by_result), finish) }).await;
    assert_eq!(shown.expect(200).json()["status"], "succeeded");
    assert_eq!(result.expect(200).json()["success"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_time_is_up_the_job_is_shown_as_it_stands() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let started = Instant::now();
    let shown = service.get(&format!("/v1/jobs/{id}?wait=1")).await.expect(200).json();
    assert_eq!(shown["status"], "submitted");
    assert!(started.elapsed() >= Duration::from_secs(1));
    service.get(&format!("/v1/jobs/{id}/result?wait=1")).await.expect(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_cannot_be_is_refused() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    for wait in ["61", "-1", "x", "", "1.5", "1000000000000"] {
        let answer = service.get(&format!("/v1/jobs/{id}?wait={wait}")).await;
        assert_eq!(answer.invalid_at(), ["/wait"], "{wait}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_may_wait_for_its_result() {
    let service = Setup::new().finishing_at_once().start().await;
    let request =
        service.request(Method::POST, "/v1/jobs").header("prefer", "respond-async, wait=30");
    let answer = request.json(&ready_job()).send().await.expect("an answer");
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["preference-applied"], "wait=30");
    let job: serde_json::Value = answer.json().await.expect("JSON");
    assert_eq!(job["status"], json!("succeeded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_waiters_go() {
    let mut service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let path = format!("/v1/jobs/{}?wait=60", text(&job["id"]));
    let waiter = tokio::spawn(service.request(Method::GET, &path).send());
    // A second request on the same door is answered while the first waits.
    service.get("/healthz").await.expect(200);
    within(service.stop()).await;
    // Answered with the job as it stood, or, if the stop came before it was read, not at all.
    if let Ok(answer) = within(waiter).await.expect("no panic") {
        assert_eq!(answer.status(), 200);
    }
}
