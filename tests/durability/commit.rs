//! The moment of acknowledgement: a 2xx comes after the commit, once per sender, and no sender can
//! undo it.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use serde_json::json;
use sqlx::Connection;

use crate::{evidence::*, failing_store::FailingStore, support::*};

/// How long an answer that comes too early is watched out for.
const WATCH: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_callback_is_committed_before_it_is_acknowledged() {
    let service = Service::start().await;
    let mut answers = Vec::new();
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(running_job(&service).await);
    }
    let mut database = connect(&service.database).await;
    let lock = database.begin_with("begin immediate").await.expect("the lock");
    for (_, url) in &jobs {
        let mut wire = Wire::to(url).await;
        wire.send(post_head(url, "content-length: 16\r\n") + r#"{"success":true}"#).await;
        answers.push(tokio::spawn(async move { wire.rest().await }));
    }
    let early = tokio::time::timeout(WATCH, join_all(&mut answers)).await;
    assert!(early.is_err(), "answered while nothing can be committed: {early:?}");
    assert!(answers.iter().all(|answer| !answer.is_finished()));
    for (id, _) in &jobs {
        assert_eq!(service.job(id).await["status"], "submitted", "readers are not in the way");
    }
    lock.rollback().await.expect("the lock goes");
    for answer in answers {
        let answer = answer.await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("stored"), "{answer}");
    }
    for (id, _) in &jobs {
        assert_eq!(service.job(id).await["status"], "succeeded");
    }
}

#[tokio::test]
async fn a_submission_reaches_the_engine_only_after_it_is_committed() {
    let service = Service::start().await;
    let mut database = connect(&service.database).await;
    let lock = database.begin_with("begin immediate").await.expect("the lock");
    let body = ready_job();
    let mut submission = std::pin::pin!(service.submit(&body));
    assert!(tokio::time::timeout(WATCH, &mut submission).await.is_err());
    assert_eq!(service.engine.requests().submissions, 0);
    lock.rollback().await.expect("the lock goes");
    submission.await.expect(201);
    assert_eq!(service.engine.requests().submissions, 1);
}

#[tokio::test]
async fn whoever_hears_of_it_finds_it_on_disk() {
    let service = Service::start().await;
    let mut database = connect(&service.database).await;
    for number in 1..=20 {
        let (_, url) = running_job(&service).await;
        assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
        let finished =
            "select count(*) from jobs join deliveries on deliveries.seq = result_delivery
             join delivery_bodies on delivery_seq = deliveries.seq where status = 'succeeded'";
        assert_eq!(count(&mut database, finished).await, number);
    }
}

/// Sends each job its result while nothing can be committed, and hangs up unanswered once `is_sent`
/// has it; then every one must get on record.
async fn hang_up(service: &Service, jobs: &[(String, String)], is_sent: impl Fn(usize) -> bool) {
    let mut database = connect(&service.database).await;
    let lock = database.begin_with("begin immediate").await.expect("the lock");
    let of_bytes =
        |bytes: usize| format!(r#"{{"success":true,"padding":"{}"}}"#, "x".repeat(bytes));
    for (number, (_, url)) in jobs.iter().enumerate() {
        let mut wire = Wire::to(url).await;
        let body = of_bytes(number * 500);
        let head = post_head(url, &format!("content-length: {}\r\n", body.len()));
        wire.send(head + &body).await;
        wait_for("the callback to arrive", async || is_sent(number).then_some(())).await;
        drop(wire);
    }
    lock.rollback().await.expect("the lock goes");
    for (number, (id, _)) in jobs.iter().enumerate() {
        service.job_with_status(id, "succeeded").await;
        service.holds(&service.deliveries(id).await[0], of_bytes(number * 500).as_bytes()).await;
    }
}

#[tokio::test]
async fn a_sender_that_hangs_up_before_the_answer_loses_nothing() {
    let (setup, store) = FailingStore::in_setup(Setup::new());
    let service = setup.start().await;
    let mut jobs = Vec::new();
    for _ in 0..40 {
        jobs.push(running_job(&service).await);
    }
    let store = store();
    let calls = store.calls();
    // Each callback asks the store twice: whether its address is good, and to keep it.
    hang_up(&service, &jobs, |number| store.calls() > calls + 2 * number as u64 + 1).await;
}

#[tokio::test]
async fn a_sender_that_hangs_up_with_the_last_byte_loses_nothing() {
    let service = Service::start().await;
    let mut jobs = Vec::new();
    for _ in 0..40 {
        jobs.push(running_job(&service).await);
    }
    hang_up(&service, &jobs, |_| true).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_taken_for_a_whole_one() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    let whole = r#"{"success":true}"#;
    for head in ["content-length: 17\r\n", "transfer-encoding: chunked\r\n"] {
        let mut wire = Wire::to(&url).await;
        let sent = match head.starts_with("content") {
            true => whole.to_owned(),
            false => format!("{:x}\r\n{whole}\r\n", whole.len()),
        };
        wire.send(post_head(&url, head) + &sent).await;
        drop(wire);
    }
    // Neither is on record once a later callback has been through the same door and queue.
    assert_eq!(service.outcome(&url, "{}").await, "unrecognised");
    let deliveries = service.deliveries(&id).await;
    assert_eq!((deliveries.len(), &deliveries[0]["outcome"]), (1, &json!("unrecognised")));
    assert_eq!(service.job(&id).await["status"], "submitted");
}

/// How often each outcome was answered.
fn tally(outcomes: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    outcomes.into_iter().fold(BTreeMap::new(), |mut tally, outcome| {
        *tally.entry(outcome).or_default() += 1;
        tally
    })
}

fn of(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(outcome, count)| ((*outcome).to_owned(), *count)).collect()
}

#[tokio::test]
async fn a_thousand_identical_callbacks_at_once_are_one_result_and_999_repeats() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    let body = result("Available", "https://store.example/1");
    let request = format!("content-length: {}\r\n", body.len());
    let request = (post_head(&url, &request) + &body).replace("connection: close\r\n", "");
    // Two hundred senders, each with five on its way before the first answer.
    let senders = (0..200).map(async |_| {
        let mut wire = Wire::to(&url).await;
        wire.send(request.repeat(5)).await;
        let mut outcomes = Vec::new();
        for _ in 0..5 {
            let head = wire.read_until("\r\n\r\n").await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let body = wire.read_until("}").await;
            let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            outcomes.push(text(&body["outcome"]).to_owned());
        }
        outcomes
    });
    let outcomes = join_all(senders).await.into_iter().flatten();
    assert_eq!(tally(outcomes), of(&[("stored", 1), ("duplicate", 999)]));
    let deliveries = service.deliveries(&id).await;
    assert_eq!((deliveries.len(), &deliveries[0]["repeats"]), (1, &json!(999)));
    service.holds(&deliveries[0], body.as_bytes()).await;
    let job = service.job(&id).await;
    assert_eq!((&job["status"], &job["deliveries"]), (&json!("succeeded"), &json!(1)));
    let events = tally(service.event_types(&id).await);
    let expected = [("job.submitted", 1), ("job.finished", 1), ("delivery.duplicate", 10)];
    assert_eq!(events, of(&expected), "further repeats are counted only");
}

#[tokio::test]
async fn of_contradicting_callbacks_at_once_exactly_one_is_the_result() {
    let service = Service::start().await;
    for _ in 0..5 {
        let (id, url) = running_job(&service).await;
        let words = ["Available", "Missing", "Failed"];
        let bodies: Vec<String> = (0..30)
            .map(|number| result(words[number % 3], &format!("https://store.example/{number}")))
            .collect();
        let senders = bodies.iter().map(|body| service.outcome(&url, body.clone()));
        let outcomes = join_all(senders).await;
        // Those that say the same as the result are refreshed, the others contradict it.
        let expected = of(&[("stored", 1), ("refreshed", 9), ("conflict", 20)]);
        assert_eq!(tally(outcomes.clone()), expected);
        let winner = outcomes.iter().position(|outcome| outcome == "stored").expect("one");
        let stored = service.get(&format!("/v1/jobs/{id}/result")).await.expect(200);
        assert_eq!(stored.body, bodies[winner]);
        let job = service.job(&id).await;
        assert_eq!(job["outputs"][0]["status"], words[winner % 3]);
        // The result, and as many as a job keeps after it.
        assert_eq!(job["deliveries"], 21);
        let deliveries = service.deliveries(&id).await;
        let kept = deliveries.iter().map(|delivery| text(&delivery["outcome"]).to_owned());
        assert_eq!(tally(kept).values().sum::<usize>(), 21);
        assert_eq!(deliveries[0]["outcome"], "stored");
    }
}
