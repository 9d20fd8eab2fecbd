//! A store that fails on purpose behind the running service: what callers hear.
//!
//! The invariant: nothing is acknowledged that is not on disk, and what was refused may be sent
//! again.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    evidence::*,
    failing_store::{FailingStore, Failure, Plan},
    support::*,
};

const FAILURES: [(Failure, &str); 2] =
    [(Failure::Unavailable, "storage-unavailable"), (Failure::Overloaded, "overloaded")];

/// A service without a spool, whose store fails on command.
async fn service() -> (Service, Arc<FailingStore>) {
    let setup = Setup::new().set("SPOOL__SIZE", "0").set("CALLBACKS__MAX_BODY", "4KiB");
    let setup = setup.set("CALLBACKS__INBOX_SECRET", "inbox-secret-0123456789");
    let (setup, store) = FailingStore::in_setup(setup);
    (setup.start().await, store())
}

#[track_caller]
fn expect_refusal(answer: &Answer, code: &str) {
    answer.problem(503, code);
    let wait = answer.header("retry-after").expect("Retry-After");
    assert!(wait.parse::<u64>().is_ok_and(|seconds| seconds > 0), "{wait}");
    assert!(!answer.text().contains("on command"), "the cause is for the log: {}", answer.text());
}

#[tokio::test]
async fn a_callback_that_cannot_be_stored_is_refused_and_taken_later() {
    let (service, store) = service().await;
    for (failure, code) in FAILURES {
        let (id, url) = running_job(&service).await;
        let before = service.job(&id).await;
        store.fail(Plan::always(failure));
        for body in [r#"{"success":true}"#, "{}", "not JSON", "", &"x".repeat(5_000)] {
            expect_refusal(&service.post_to(&url, body.to_owned()).await, code);
        }
        let inbox = format!("{}/inbox/inbox-secret-0123456789", service.callbacks);
        expect_refusal(&service.post_to(&inbox, r#"{"success":true}"#).await, code);
        store.heal();
        assert_eq!(service.job(&id).await, before);
        assert!(service.deliveries(&id).await.is_empty());
        assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
        assert_eq!(service.job(&id).await["status"], "succeeded");
    }
    assert_eq!(service.jobs().await.len(), 2, "nothing came in through the inbox");
}

#[tokio::test]
async fn a_callback_whose_commit_is_in_doubt_is_not_acknowledged_and_a_repeat_does_no_harm() {
    let (service, store) = service().await;
    let (id, url) = running_job(&service).await;
    store.fail(Plan::always(Failure::Unavailable).late().only("receive").times(2));
    let body = r#"{"success":true}"#;
    for _ in 0..2 {
        expect_refusal(&service.post_to(&url, body).await, "storage-unavailable");
    }
    assert_eq!(store.failures(), 2);
    assert_eq!(service.outcome(&url, body).await, "duplicate");
    let job = service.job(&id).await;
    assert_eq!((&job["status"], &job["deliveries"]), (&json!("succeeded"), &json!(1)));
    assert_eq!(service.deliveries(&id).await[0]["repeats"], 2);
}

#[tokio::test]
async fn under_a_store_that_fails_now_and_then_exactly_the_acknowledged_is_on_record() {
    let (service, store) = service().await;
    let mut jobs = Vec::new();
    for _ in 0..40 {
        jobs.push(running_job(&service).await);
    }
    store.fail(Plan::always(Failure::Unavailable).every(3).only("receive"));
    let answers = jobs.iter().map(|(_, url)| service.post_to(url, r#"{"success":true}"#));
    let answers = futures_util::future::join_all(answers).await;
    store.heal();
    let mut refused = 0;
    for ((id, _), answer) in jobs.iter().zip(&answers) {
        let status = service.job(id).await["status"].clone();
        match answer.status {
            200 => assert_eq!(status, "succeeded"),
            _ => {
                expect_refusal(answer, "storage-unavailable");
                assert_eq!(status, "submitted");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 13, "every third of 40");
}

#[tokio::test]
async fn a_submission_that_cannot_be_recorded_is_not_sent() {
    let (service, store) = service().await;
    for (failure, code) in FAILURES {
        store.fail(Plan::always(failure));
        expect_refusal(&service.submit(&ready_job()).await, code);
        let body = ready_job().to_string();
        expect_refusal(&service.submit_once("key", &body).await, code);
    }
    store.heal();
    assert_eq!(service.engine.requests().submissions, 0);
    assert!(service.jobs().await.is_empty());
    service.submit_once("key", &ready_job().to_string()).await.expect(201);
    assert_eq!(service.engine.requests().submissions, 1);
}

#[tokio::test]
async fn an_answer_of_the_engine_is_recorded_once_the_store_takes_it() {
    let (service, store) = service().await;
    store.fail(Plan::always(Failure::Unavailable).only("record_answer").times(1));
    let job = service.submit(&ready_job()).await.expect(201).json();
    assert_eq!(store.failures(), 1, "it was refused at first");
    assert_eq!(job["status"], "submitted");
    assert_eq!(job["engineJobId"], service.engine.jobs()[0].engine_job_id);
    assert_eq!(service.engine.requests().submissions, 1, "and the Engine was called once");
    assert_eq!(service.event_types(text(&job["id"])).await, ["job.submitted"]);
}

#[tokio::test]
async fn no_question_is_answered_by_a_store_that_refuses() {
    let (service, store) = service().await;
    let (id, url) = running_job(&service).await;
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
    let delivery = text(&service.deliveries(&id).await[0]["id"]).to_owned();
    let paths = [
        "/v1/jobs".to_owned(),
        "/v1/stats".into(),
        format!("/v1/jobs/{id}"),
        format!("/v1/jobs/{id}/result"),
        format!("/v1/jobs/{id}/deliveries"),
        format!("/v1/jobs/{id}/events"),
        format!("/v1/deliveries/{delivery}"),
        format!("/v1/deliveries/{delivery}/body"),
    ];
    for (failure, code) in FAILURES {
        store.fail(Plan::always(failure));
        for path in &paths {
            expect_refusal(&service.get(path).await, code);
        }
        expect_refusal(&service.delete(&format!("/v1/jobs/{id}")).await, code);
        expect_refusal(&service.delete("/v1/jobs?endUserId=x").await, code);
        wait_for("the next probe", async || {
            (service.get("/readyz").await.status == 503).then_some(())
        })
        .await;
        service.get("/healthz").await.expect(200);
        let probe = Answer::of(service.request_to(Method::GET, &url)).await;
        probe.expect(204);
    }
    store.heal();
    for path in &paths {
        service.get(path).await.expect(200);
    }
    wait_for("the next probe", async || (service.get("/readyz").await.status == 200).then_some(()))
        .await;
}

#[tokio::test]
async fn a_stream_of_jobs_that_breaks_off_does_not_look_complete() {
    let (service, store) = service().await;
    for _ in 0..3 {
        running_job(&service).await;
    }
    let stream = || {
        let request = service.request(Method::GET, "/v1/jobs");
        request.header("accept", "application/x-ndjson").send()
    };
    let whole = stream().await.expect("an answer").text().await.expect("the whole stream");
    let lines: Vec<Value> =
        whole.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3);
    store.fail(Plan::always(Failure::Unavailable).only("jobs").late());
    let broken = match stream().await {
        // Refused before it began, or cut off so that the reader notices.
        Ok(answer) if answer.status() == 200 => answer.bytes().await.is_err(),
        Ok(answer) => answer.status() == 503,
        Err(_) => true,
    };
    assert!(broken, "a part was passed off as the whole");
    assert_eq!(store.failures(), 1);
}
