//! What a job keeps of what is received for it, however much that is.
//!
//! The invariants: the result is kept always; what is beyond a budget is counted and answered as if
//! it had been kept; and a job that was flooded costs no other one anything.

use finishline::{
    domain::{
        bounds::MAX_LIMIT,
        delivery::{
            MAX_KEPT, MAX_KEPT_AFTER_RESULT, MAX_OVERSIZE_EVENTS, MAX_REPEAT_EVENTS, Outcome,
        },
        ids::{DeliveryId, JobId},
    },
    store::{Addressee, Arrival, Receipt, sqlite::SqliteStore},
};
use serde_json::{Value, json};
use sqlx::{Connection, migrate::Migrator};

use crate::{
    conformance::{Subject, arrival, begun, found, now},
    evidence::*,
    support::*,
    taken,
};

const MIB: usize = 1024 * 1024;

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

fn to(id: JobId, body: &str) -> Arrival {
    arrival(Addressee::Job(id), DeliveryId::new(now(1)), 1, body)
}

async fn unkept(database: &mut sqlx::SqliteConnection, id: &str) -> i64 {
    let id: JobId = id.parse().expect("an id");
    let query = sqlx::query_scalar("select unkept_count from jobs where id = ?").bind(id.0);
    query.fetch_one(database).await.expect("a number")
}

/// The events that say that something was not kept.
fn unkept_events(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|event| event["data"]["kept"] == false).collect()
}

#[tokio::test]
async fn a_flood_before_the_result_is_counted_and_the_result_is_kept() {
    let service = Service::start().await;
    let mut database = connect(&service.database).await;
    let (id, url) = running_job(&service).await;
    let flood = i64::from(MAX_KEPT) + 30;
    for number in 0..flood {
        assert_eq!(service.outcome(&url, format!("[{number}]")).await, "unrecognised");
    }
    assert_eq!(service.job(&id).await["deliveries"], MAX_KEPT);
    assert_eq!(unkept(&mut database, &id).await, 30);
    let events = service.events(&id).await;
    let told = unkept_events(&events);
    assert_eq!(told.len(), 1, "told once");
    assert_eq!(told[0]["type"], "delivery.unrecognised");
    assert_eq!(told[0]["data"], json!({"kept": false, "limit": "deliveries"}));
    assert_eq!(service.outcome(&url, "[0]").await, "duplicate", "those that are kept are known");
    service.post_to(&url, "not JSON").await.problem(400, "malformed-json");

    let body = result("Available", "https://store.example/1");
    assert_eq!(service.outcome(&url, body.clone()).await, "stored");
    assert_eq!(service.get(&format!("/v1/jobs/{id}/result")).await.expect(200).body, body);
    assert_eq!(service.job(&id).await["deliveries"], MAX_KEPT + 1);
    assert_eq!(service.outcome(&url, body).await, "duplicate");
    assert_eq!(service.outcome(&url, r#"{"success":false}"#).await, "conflict");
    assert_eq!(service.job(&id).await["deliveries"], MAX_KEPT + 1);
    let events = service.events(&id).await;
    assert_eq!(unkept_events(&events).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_after_the_result_keeps_a_few_and_stops_no_refresh() {
    let service = Setup::new().engine(|options| options.resign_polls = true).start().await;
    let mut database = connect(&service.database).await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let finished = service.finish(&job).await;
    let url = service.callback_url(id);
    for number in 0..MAX_KEPT_AFTER_RESULT + 5 {
        let body = format!(r#"{{"success":false,"n":{number}}}"#);
        assert_eq!(service.outcome(&url, body).await, "conflict");
    }
    assert_eq!(service.job(id).await["deliveries"], MAX_KEPT_AFTER_RESULT + 1);
    assert_eq!(unkept(&mut database, id).await, 5);
    let events = service.events(id).await;
    let limits: Vec<&Value> =
        unkept_events(&events).iter().map(|event| &event["data"]["limit"]).collect();
    assert_eq!(limits, ["deliveriesAfterResult"]);
    let refreshed = service.post(&format!("/v1/jobs/{id}/refresh"), "").await.expect(200).json();
    assert_ne!(refreshed["outputs"][0]["url"], finished["outputs"][0]["url"], "it was asked for");
}

#[tokio::test]
async fn repeats_and_bodies_too_large_are_counted_and_told_of_a_few_times() {
    let service = Setup::new().set("CALLBACKS__MAX_BODY", "4KiB").start().await;
    let (id, url) = running_job(&service).await;
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
    let times = MAX_REPEAT_EVENTS + 7;
    for _ in 0..times {
        assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "duplicate");
        service.post_to(&url, "x".repeat(5_000)).await.problem(413, "payload-too-large");
    }
    assert_eq!(service.deliveries(&id).await[0]["repeats"], times);
    let types = service.event_types(&id).await;
    let count = |kind: &str| types.iter().filter(|one| *one == kind).count();
    assert_eq!(count("delivery.duplicate") as u64, MAX_REPEAT_EVENTS);
    assert_eq!(count("delivery.oversize") as u64, u64::from(MAX_OVERSIZE_EVENTS));
}

#[tokio::test]
async fn sixty_four_mebibytes_are_kept_beside_the_result() {
    let subject = &Subject::sqlite().await;
    let job = begun(subject, 0).await;
    let body = |number: usize, bytes: usize| format!("[{number},\"{}\"]", "x".repeat(bytes - 5));
    for number in 0..4 {
        taken!(subject.receive(to(job.id, &body(number, 16 * MIB - 10))));
    }
    assert_eq!(found(taken!(subject.deliveries(job.id, None, MAX_LIMIT))).rows.len(), 4);
    let outcome = Outcome::Unrecognised;
    let receipt = taken!(subject.receive(to(job.id, &body(4, MIB))));
    assert_eq!(receipt, Receipt::Kept { job_id: job.id, outcome }, "answered as if it were kept");
    assert_eq!(found(taken!(subject.deliveries(job.id, None, MAX_LIMIT))).rows.len(), 4);
    let result = format!(r#"{{"success":true,"x":"{}"}}"#, "x".repeat(16 * MIB));
    taken!(subject.receive(to(job.id, &result)));
    assert_eq!(found(taken!(subject.result(job.id))).expect("a result").body.len(), result.len());
    // The result takes nothing from the rest: what still fits is kept.
    taken!(subject.receive(to(job.id, "[]")));
    assert_eq!(found(taken!(subject.deliveries(job.id, None, MAX_LIMIT))).rows.len(), 6);
}

#[tokio::test]
async fn a_job_that_was_flooded_before_the_upgrade_is_counted_and_gets_its_result() {
    const FLOOD: u64 = 15_000;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("old.db");
    let id = JobId::new(now(0));
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut old = sqlx::SqliteConnection::connect_with(&options).await.expect("a database");
    MIGRATIONS.run_to(5, &mut old).await.expect("the schema of before");
    sqlx::query(
        "insert into jobs (seq, id, origin, status, created_at, delivery_count)
         values (1, ?1, 'submitted', 'submitted', 0, ?2)",
    )
    .bind(id.0)
    .bind(FLOOD as i64)
    .execute(&mut old)
    .await
    .expect("a job");
    sqlx::query(
        "with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < ?)
         insert into deliveries
             (seq, id, job_seq, received_at, source, outcome, size_bytes, sha256, headers)
         select n, randomblob(16), 1, 0, 'x', 'unrecognised', 2, randomblob(32), '[]' from numbers",
    )
    .bind(FLOOD as i64)
    .execute(&mut old)
    .await
    .expect("its deliveries");
    old.close().await.expect("closed");

    let (store, _) = SqliteStore::open(&path, now(0)).await.expect("the database opens");
    let subject = &Subject::of(store);
    let receive = async |body: &str| taken!(subject.receive(to(id, body)));
    let kept = |outcome| Receipt::Kept { job_id: id, outcome };
    assert_eq!(receive("[]").await, kept(Outcome::Unrecognised));
    assert_eq!(found(taken!(subject.job(id))).deliveries as u64, FLOOD, "no further one is kept");
    assert_eq!(receive(r#"{"success":true}"#).await, kept(Outcome::Stored));
    assert_eq!(receive(r#"{"success":true}"#).await, kept(Outcome::Duplicate));
    assert_eq!(found(taken!(subject.result(id))).expect("a result").body, r#"{"success":true}"#);
    let mut database = connect(&path).await;
    let bytes = count(&mut database, "select bytes_beside_result from jobs").await;
    assert_eq!(bytes as u64, FLOOD * 2, "what was there is counted");
}

#[tokio::test]
async fn a_third_body_for_one_address_waits_and_no_other_address_does() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    let (_, other) = running_job(&service).await;
    let body = r#"{"success":true}"#;
    let head = post_head(&url, &format!("content-length: {}\r\n", body.len()));
    let expecting = head.replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    let (mut one, mut two, mut three) =
        (Wire::to(&url).await, Wire::to(&url).await, Wire::to(&url).await);
    for wire in [&mut one, &mut two] {
        wire.send(&expecting).await;
        assert!(wire.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 100 "), "it is read");
        wire.send(&body[..4]).await;
    }
    three.send(format!("{head}{body}")).await;
    for _ in 0..3 {
        let forged = format!("{}/callbacks/{id}/{}", service.callbacks, "A".repeat(43));
        service.post_to(&forged, body).await.problem(404, "not-found");
    }
    assert_eq!(service.outcome(&other, body).await, "stored", "another address is free");
    two.send(&body[4..]).await;
    assert!(two.rest().await.starts_with("HTTP/1.1 200 "));
    assert!(three.rest().await.starts_with("HTTP/1.1 200 "));
    one.send(&body[4..]).await;
    assert!(one.rest().await.starts_with("HTTP/1.1 200 "));
    let delivery = &service.deliveries(&id).await[0];
    assert_eq!(delivery["repeats"], 2);
}

#[tokio::test]
async fn who_waits_in_vain_at_a_busy_address_is_told_to_come_again() {
    let service = Setup::new().set("SERVICE__BODY_TIMEOUT", "2s").start().await;
    let (_, url) = running_job(&service).await;
    let head = post_head(&url, "content-length: 16\r\n");
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::to(&url).await;
        // Its answer to the head says that it is being read.
        wire.send(head.replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n")).await;
        assert!(wire.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 100 "));
        slow.push(wire);
    }
    let mut third = Wire::to(&url).await;
    third.send(head.replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n")).await;
    let answer = third.read_until("\r\n\r\n").await;
    // Its place came free when the first two had had their time, or its own time was up before.
    let is_right = answer.starts_with("HTTP/1.1 503 ") || answer.starts_with("HTTP/1.1 100 ");
    assert!(is_right, "{answer}");
    for mut wire in slow {
        assert!(wire.rest().await.starts_with("HTTP/1.1 408 "), "a slow sender has had its time");
    }
}
