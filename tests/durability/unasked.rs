//! What the Engine was not asked for: kept as evidence, and nothing that is served changes.
//!
//! The invariant: once a job has a result, only an answer that we asked the Engine for renews a
//! link; and 7 days later its address and the inbox take nothing for it.

use std::time::Duration;

use finishline::{
    clock::Clock,
    domain::{bounds::MAX_LIMIT, delivery::Outcome, ids::DeliveryId},
    store::{Addressee, Receipt, Spooled},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    conformance::{Subject, arrival, begun, found, now},
    evidence::*,
    failing_store::{FailingStore, Failure, Plan},
    support::*,
    taken,
};

const SECRET: &str = "a-long-inbox-secret-0123456789";
const WEEK: u64 = 7 * 24 * 3600;

/// Everything that is served of a job, but the count of what was received.
async fn served(service: &Service, id: &str) -> Value {
    let mut job = service.job(id).await;
    job.as_object_mut().expect("an object").remove("deliveries");
    let result = service.get(&format!("/v1/jobs/{id}/result")).await.expect(200);
    let etag = result.header("etag").map(str::to_owned);
    let output = service.get(&format!("/v1/jobs/{id}/outputs/meshes-0")).await;
    let relays = service.get(&format!("/v1/relays?jobId={id}")).await.expect(200).json();
    json!([job, result.text(), etag, output.header("location"), relays])
}

/// Second callbacks that say something else, each in its own way.
fn second_callbacks() -> Vec<(&'static str, String)> {
    let swapped = json!({"jobId": "another", "id": "another", "success": true, "outputFiles": {
        "meshes": [{"extension": ".stl", "structures": ["mandible"], "status": "Available",
                    "url": "https://evil.example/other-patient.stl"}]}});
    let twice = json!({"success": true, "outputFiles": {"meshes": [
        {"extension": ".stl", "structures": ["mandible"], "status": "Available", "url": "https://evil.example/1"},
        {"extension": ".stl", "structures": ["skull"], "status": "Available", "url": "https://evil.example/2"}]}});
    vec![
        ("refreshed", result("Available", "https://evil.example/other-patient.stl")),
        ("refreshed", swapped.to_string()),
        ("refreshed", result("Available", "not a link")),
        ("conflict", result("Failed", "https://evil.example/failed.stl")),
        ("conflict", twice.to_string()),
        ("conflict", r#"{"success":false,"jobId":"another"}"#.into()),
        ("unrecognised", r#"{"jobId":"another","status":"running"}"#.into()),
        ("unrecognised", r#"{"success":true,"success":false}"#.into()),
    ]
}

#[tokio::test]
async fn a_callback_after_the_result_changes_nothing_that_is_served() {
    let service = Setup::new().set("CALLBACKS__INBOX_SECRET", SECRET).start().await;
    let (id, url) = running_job(&service).await;
    let first = result("Available", "https://store.example/1.stl");
    assert_eq!(service.outcome(&url, first).await, "stored");
    let before = served(&service, &id).await;
    for (outcome, body) in second_callbacks() {
        assert_eq!(service.outcome(&url, body.clone()).await, outcome, "{body}");
        assert_eq!(served(&service, &id).await, before, "{body}");
    }
    service.post_to(&url, "not JSON").await.problem(400, "malformed-json");
    assert_eq!(served(&service, &id).await, before);
    // It is evidence all the same.
    let outcomes: Vec<Value> =
        service.deliveries(&id).await.iter().map(|one| one["outcome"].clone()).collect();
    let expected = second_callbacks().into_iter().map(|(outcome, _)| json!(outcome));
    let expected: Vec<Value> =
        [json!("stored")].into_iter().chain(expected).chain([json!("malformed")]).collect();
    assert_eq!(outcomes, expected);
    let events = service.event_types(&id).await;
    assert_eq!(events.iter().filter(|kind| *kind == "delivery.refreshed").count(), 3);
}

#[tokio::test]
async fn neither_the_inbox_nor_a_recovered_job_nor_the_spool_renews_a_link() {
    let (setup, store) =
        FailingStore::in_setup(Setup::new().set("CALLBACKS__INBOX_SECRET", SECRET));
    let service = setup.start().await;
    let store = store();
    let inbox = format!("{}/inbox/{SECRET}", service.callbacks);
    let key = signing_key(&service.database).await;
    let recovered = format!("{}{}", service.callbacks, callback_path(&key, unknown_job()));
    let body = |link: &str| {
        json!({"jobId": "e1", "success": true, "outputFiles": {"meshes": [
            {"extension": ".stl", "structures": ["skull"], "status": "Available", "url": link}]}})
        .to_string()
    };
    for url in [&inbox, &recovered] {
        assert_eq!(service.outcome(url, body("https://store.example/1")).await, "stored");
        let id = text(&service.jobs().await[0]["id"]).to_owned();
        let before = served(&service, &id).await;
        assert_eq!(service.outcome(url, body("https://evil.example/2")).await, "refreshed");
        store.fail(Plan::always(Failure::Unavailable).only("receive"));
        assert_eq!(service.outcome(url, body("https://evil.example/3")).await, "spooled");
        store.heal();
        wait_for("the spool to be taken in", async || {
            let events = service.event_types(&id).await;
            events.contains(&"delivery.spooled".to_owned()).then_some(())
        })
        .await;
        assert_eq!(served(&service, &id).await, before);
        assert_eq!(service.deliveries(&id).await.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_was_asked_for_renews_links() {
    let service = Setup::new().engine(|options| options.resign_polls = true).start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let finished = service.finish(&job).await;
    let theirs = finished["outputs"][0]["url"].clone();
    let said = service.get(&format!("/v1/jobs/{id}/result")).await.expect(200).text();
    let forged = said.replace(text(&theirs), "https://evil.example/other.stl");
    assert_ne!(forged, said);
    assert_eq!(service.outcome(&service.callback_url(id), forged).await, "refreshed");
    assert_eq!(service.job(id).await["outputs"][0]["url"], theirs);
    let refreshed = service.post(&format!("/v1/jobs/{id}/refresh"), "").await.expect(200).json();
    assert_ne!(refreshed["outputs"][0]["url"], theirs, "it was asked for");
    assert!(text(&refreshed["outputs"][0]["url"]).starts_with(&service.engine.origin()));
    let deliveries = service.deliveries(id).await;
    let last = deliveries.last().expect("a delivery");
    assert_eq!((&last["source"], &last["outcome"]), (&json!("engine"), &json!("refreshed")));
}

#[tokio::test]
async fn seven_days_after_the_job_its_address_takes_nothing() {
    let clock = Clock::manual("2026-03-01T12:00:00Z".parse().expect("a time"));
    let setup = Setup::new().clock(&clock).set("CALLBACKS__MAX_BODY", "4KiB");
    let service = setup.set("CALLBACKS__INBOX_SECRET", SECRET).start().await;
    let (id, url) = running_job(&service).await;
    let inbox = format!("{}/inbox/{SECRET}", service.callbacks);
    let of_inbox = r#"{"jobId":"e","success":true}"#;
    clock.advance(Duration::from_secs(WEEK * 3));
    let probe = async |method| Answer::of(service.request_to(method, &url)).await.status;
    assert_eq!(probe(Method::GET).await, 204, "a job that runs has its address, however long");
    let body = result("Available", "https://store.example/1");
    assert_eq!(service.outcome(&url, body.clone()).await, "stored");
    assert_eq!(service.outcome(&inbox, of_inbox).await, "stored");

    clock.advance(Duration::from_secs(WEEK));
    assert_eq!(service.outcome(&url, body.clone()).await, "duplicate", "to the last moment");
    assert_eq!(service.outcome(&inbox, of_inbox).await, "duplicate");
    assert_eq!(probe(Method::HEAD).await, 204);

    clock.advance(Duration::from_millis(1));
    let before = (service.job(&id).await, service.deliveries(&id).await, service.events(&id).await);
    for late in [
        body.clone(),
        result("Available", "https://store.example/2"),
        result("Failed", ""),
        "{}".into(),
        "not JSON".into(),
        String::new(),
        "x".repeat(5_000),
    ] {
        service.post_to(&url, late).await.problem(410, "gone");
    }
    let mut announced = Wire::to(&url).await;
    announced.send(post_head(&url, "content-length: 1000000000\r\n")).await;
    assert!(announced.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 410 "));
    service.post_to(&inbox, of_inbox).await.problem(410, "gone");
    service.post_to(&inbox, r#"{"jobId":"e","success":false}"#).await.problem(410, "gone");
    assert_eq!((probe(Method::GET).await, probe(Method::HEAD).await), (410, 410));
    let after = (service.job(&id).await, service.deliveries(&id).await, service.events(&id).await);
    assert_eq!(after, before, "nothing is kept");

    // What the Engine is asked for has no address that could end.
    let job = service.job(&id).await;
    service.engine.finish(text(&job["engineJobId"]));
    service.post(&format!("/v1/jobs/{id}/refresh"), "").await.expect(200);
    assert_eq!(service.deliveries(&id).await.len(), before.1.len() + 1);
}

#[tokio::test]
async fn a_spooled_arrival_is_taken_in_if_it_came_within_the_seven_days() {
    let subject = &Subject::sqlite().await;
    let job = begun(subject, 0).await;
    let first = arrival(Addressee::Job(job.id), DeliveryId::new(now(0)), 0, r#"{"success":true}"#);
    taken!(subject.receive(first.clone()));
    let spool = |number: u64, seconds: u64| {
        let body = format!("[{number}]");
        let arrival = arrival(Addressee::Job(job.id), DeliveryId::new(now(0)), seconds, &body);
        Spooled { arrival, spool: [7; 16], number, is_oldest: true }
    };
    let in_time = subject.store.receive_spooled(spool(1, WEEK)).await.expect("taken");
    let outcome = Outcome::Unrecognised;
    assert_eq!(in_time, Some(Receipt::Kept { job_id: job.id, outcome }));
    let events = found(taken!(subject.events(job.id, None, MAX_LIMIT))).rows.len();
    let late = subject.store.receive_spooled(spool(2, WEEK + 1)).await.expect("taken");
    assert_eq!(late, Some(Receipt::Ended));
    assert_eq!(found(taken!(subject.deliveries(job.id, None, MAX_LIMIT))).rows.len(), 2);
    assert_eq!(
        found(taken!(subject.events(job.id, None, MAX_LIMIT))).rows.len(),
        events,
        "not even an event"
    );
}

#[tokio::test]
async fn an_erased_job_is_gone_for_those_who_probe_too() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    service.delete(&format!("/v1/jobs/{id}")).await.expect(200);
    assert_eq!(Answer::of(service.request_to(Method::GET, &url)).await.status, 410);
    service.post_to(&url, "{}").await.problem(410, "gone");
}

#[tokio::test]
async fn an_ended_or_erased_address_answers_before_a_byte_of_the_body_is_read() {
    let clock = Clock::manual("2026-03-01T12:00:00Z".parse().expect("a time"));
    let service = Setup::new().clock(&clock).start().await;
    let (_, ended) = running_job(&service).await;
    assert_eq!(service.outcome(&ended, r#"{"success":true}"#).await, "stored");
    clock.advance(Duration::from_secs(WEEK) + Duration::from_millis(1));
    let (id, erased) = running_job(&service).await;
    service.delete(&format!("/v1/jobs/{id}")).await.expect(200);
    let (_, running) = running_job(&service).await;
    let bodies = [
        "content-length: 1\r\n",
        "content-length: 1000\r\n",
        "content-length: 1000000000\r\n",
        "transfer-encoding: chunked\r\n",
        "content-length: 1000\r\ncontent-encoding: gzip\r\n",
    ];
    for (url, is_gone) in [(&ended, true), (&erased, true), (&running, false)] {
        for body in bodies {
            let mut wire = Wire::to(url).await;
            wire.send(post_head(url, body)).await;
            if is_gone {
                let head = wire.read_until("\r\n\r\n").await;
                assert!(head.starts_with("HTTP/1.1 410 "), "{url}, {body}: {head}");
            }
        }
    }
    assert_eq!(service.outcome(&running, r#"{"success":true}"#).await, "stored");
}
