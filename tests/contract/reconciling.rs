//! Reconciliation, look-ups and resubmission: what becomes of jobs whose callback does not come.

use std::time::Duration;

use finishline::{
    clock::Clock,
    simulator::{FaultRate, Running},
};
use jiff::Timestamp;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Service, Setup, ready_job, text, wait_for};

const MINUTE: Duration = Duration::from_secs(60);

fn clock() -> Clock {
    Clock::manual(Timestamp::from_second(1_800_000_000).expect("in range"))
}

/// A service on a manual clock whose Engine drops every callback.
async fn without_callbacks(clock: &Clock) -> Setup {
    let setup = Setup::new().clock(clock).set("ENGINE__AUTH__TOKEN_URL", "");
    setup.engine(|options| {
        options.drop_callbacks = FaultRate::Always;
        options.require_token = false;
    })
}

async fn event_types(service: &Service, job: &Value) -> Vec<String> {
    let path = format!("/v1/jobs/{}/events", text(&job["id"]));
    let events = service.get(&path).await.expect(200).json();
    let events = events["events"].as_array().expect("events").clone();
    events.iter().map(|event| text(&event["type"]).to_owned()).collect()
}

async fn step_until_finished(service: &Service, job: &Value) -> Value {
    let id = text(&job["id"]);
    wait_for(&format!("job {id} to be found"), async || {
        service.reconcile().await;
        Some(service.job(id).await).filter(|job| !job["finishedAt"].is_null())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_callback_was_lost_is_looked_up_once_it_is_due() {
    let clock = clock();
    let service = without_callbacks(&clock).await.start().await;
    let job = service.submitted(&ready_job()).await;
    service.engine.finish(text(&job["engineJobId"]));

    clock.advance(29 * MINUTE);
    service.reconcile().await;
    assert_eq!(service.job(text(&job["id"])).await["status"], "submitted", "not due yet");
    assert_eq!(service.engine.requests().polls, 0);

    clock.advance(MINUTE);
    let found = step_until_finished(&service, &job).await;
    assert_eq!(found["status"], "succeeded");
    assert_eq!(found["overdue"], false);
    let types = event_types(&service, &job).await;
    assert_eq!(types, ["job.submitted", "job.finished", "job.reconciled"]);
    let path = format!("/v1/jobs/{}/deliveries", text(&job["id"]));
    let deliveries = service.get(&path).await.expect(200).json();
    assert_eq!(deliveries["deliveries"][0]["source"], "engine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_never_taken_for_a_failed_one_in_any_dialect() {
    for running in
        [Running::Accepted, Running::WithoutSuccess, Running::SuccessFalse, Running::NotFound]
    {
        let clock = clock();
        let setup = without_callbacks(&clock).await.engine(|options| options.running = running);
        let service = setup.start().await;
        let job = service.submitted(&ready_job()).await;
        let id = text(&job["id"]);
        clock.advance(31 * MINUTE);
        wait_for("a look", async || {
            service.reconcile().await;
            (service.engine.requests().polls > 0).then_some(())
        })
        .await;
        let overdue = wait_for("it to be overdue", async || {
            Some(service.job(id).await).filter(|job| job["overdue"] == true)
        })
        .await;
        assert_eq!(overdue["status"], "submitted", "{running:?}");
        assert_eq!(event_types(&service, &job).await, ["job.submitted", "job.overdue"]);

        let refreshed = service.post(&format!("/v1/jobs/{id}/refresh"), "").await;
        assert_eq!(refreshed.expect(200).json()["status"], "submitted", "{running:?}");
        service.engine.finish(text(&job["engineJobId"]));
        let refreshed = service.post(&format!("/v1/jobs/{id}/refresh"), "").await;
        assert_eq!(refreshed.expect(200).json()["status"], "succeeded", "{running:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_stays_silent_is_given_up_and_its_late_callback_is_still_taken() {
    let clock = clock();
    let service = without_callbacks(&clock).await.start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    for _ in 0..40 {
        clock.advance(2 * 60 * MINUTE);
        service.reconcile().await;
    }
    wait_for("the job to be given up", async || {
        service.reconcile().await;
        event_types(&service, &job).await.contains(&"job.given_up".to_owned()).then_some(())
    })
    .await;
    let polls = service.engine.requests().polls;
    clock.advance(24 * 60 * MINUTE);
    service.reconcile().await;
    assert_eq!(service.engine.requests().polls, polls, "a job that was given up is left alone");
    assert_eq!(service.job(id).await["overdue"], true);

    service.engine.finish(text(&job["engineJobId"]));
    let answer = service.engine.send_callback(text(&job["engineJobId"])).await;
    assert_eq!(answer, Some(200));
    assert_eq!(service.job(id).await["status"], "succeeded");
    assert_eq!(service.job(id).await["overdue"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_job_becomes_overdue_and_waits_for_a_person() {
    let clock = clock();
    let setup = without_callbacks(&clock).await.engine(|options| {
        options.lose_reply = FaultRate::First(1);
    });
    let service = setup.start().await;
    service.submit(&ready_job()).await.problem(502, "engine-unavailable");
    let job = service.jobs().await.remove(0);
    let id = text(&job["id"]);
    assert_eq!(job["status"], "unconfirmed");
    for _ in 0..40 {
        clock.advance(2 * 60 * MINUTE);
        service.reconcile().await;
    }
    let job = wait_for("it to be given up", async || {
        service.reconcile().await;
        let types = event_types(&service, &job).await;
        types.contains(&"job.given_up".to_owned()).then_some(service.job(id).await)
    })
    .await;
    assert_eq!((&job["status"], &job["overdue"]), (&json!("unconfirmed"), &json!(true)));
    assert_eq!(service.engine.jobs().len(), 1, "nothing was repeated blindly");

    let path = format!("/v1/jobs/{id}/resubmit");
    let refused = service.post(&path, "").await;
    assert_eq!(refused.invalid_at(), ["/confirm"]);
    service.post(&path, r#"{"confirm":false}"#).await.problem(422, "validation-failed");
    assert_eq!(service.engine.jobs().len(), 1);
    let again = service.post(&path, r#"{"confirm":true}"#).await.expect(201).json();
    assert_eq!((&again["id"], &again["status"]), (&job["id"], &json!("submitted")));
    assert_eq!(again["overdue"], false);
    assert_eq!(service.engine.jobs().len(), 2);
    service.post(&path, r#"{"confirm":true}"#).await.problem(422, "validation-failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_certainly_not_taken_is_sent_again_without_more_ado() {
    let service = Setup::new()
        .engine(|options| {
            options.answer = Some(StatusCode::TOO_MANY_REQUESTS.as_u16());
            options.answer_rate = FaultRate::First(1);
        })
        .start()
        .await;
    service.submit(&ready_job()).await.problem(503, "engine-busy");
    let job = service.jobs().await.remove(0);
    assert_eq!(job["status"], "unsent");
    let path = format!("/v1/jobs/{}/resubmit", text(&job["id"]));
    let again = service.post(&path, "").await.expect(201).json();
    assert_eq!((&again["id"], &again["status"]), (&job["id"], &json!("submitted")));
    assert_eq!(service.engine.jobs().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_with_a_dead_callback_address_are_listed_and_looked_up_first() {
    let clock = clock();
    let mut service = without_callbacks(&clock).await.start().await;
    let job = service.submitted(&ready_job()).await;
    service.engine.finish(text(&job["engineJobId"]));
    let stale = service.get("/v1/jobs?staleCallback=true").await.expect(200).json();
    assert_eq!(stale["jobs"].as_array().map(Vec::len), Some(0));

    service.move_public_url("http://127.0.0.1:9");
    service.restart().await;
    let stale = wait_for("the job to be listed or found", async || {
        let job = service.job(text(&job["id"])).await;
        let listed = service.get("/v1/jobs?staleCallback=true").await.expect(200).json();
        let is_listed = listed["jobs"].as_array().map(Vec::len) == Some(1);
        (is_listed || !job["finishedAt"].is_null()).then_some(())
    });
    stale.await;
    // Long before it is due: its callback cannot come.
    let found = step_until_finished(&service, &job).await;
    assert_eq!(found["status"], "succeeded");
    let stale = service.get("/v1/jobs?staleCallback=true").await.expect(200).json();
    assert_eq!(stale["jobs"].as_array().map(Vec::len), Some(0), "it is in flight no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_callback_has_its_job_looked_up_soon() {
    let clock = clock();
    let service = without_callbacks(&clock).await.start().await;
    let job = service.submitted(&ready_job()).await;
    service.engine.finish(text(&job["engineJobId"]));
    let url = service.callback_url(text(&job["id"]));
    service.post_to(&url, "{\"success\":tr").await.problem(400, "malformed-json");
    assert_eq!(step_until_finished(&service, &job).await["status"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_never_overwrites_what_a_callback_said() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let url = service.callback_url(id);
    let said = r#"{"success":false,"error":"no teeth"}"#;
    service.post_to(&url, said).await.expect(200);
    service.engine.finish(text(&job["engineJobId"]));
    let refreshed = service.post(&format!("/v1/jobs/{id}/refresh"), "").await.expect(200).json();
    assert_eq!(refreshed["status"], "failed");
    assert_eq!(service.get(&format!("/v1/jobs/{id}/result")).await.expect(200).text(), said);
    assert!(event_types(&service, &job).await.contains(&"delivery.conflict".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_without_the_engines_id_says_so() {
    let service = Setup::new()
        .engine(|options| options.id_field = finishline::simulator::IdField::None)
        .start()
        .await;
    let job = service.submitted(&ready_job()).await;
    let path = format!("/v1/jobs/{}/refresh", text(&job["id"]));
    service.post(&path, "").await.problem(409, "no-engine-id");
}
