//! What is passed on, from where, and how.

use axum::{http::StatusCode, response::IntoResponse};
use serde_json::Value;

use super::{cursor_of, finished, forward, forward_to, in_order};
use crate::{
    ask, ask_with, assert_failed,
    receiver::Receiver,
    support::{Service, text, wait_for},
};

#[tokio::test(flavor = "multi_thread")]
async fn results_arrive_in_order_byte_for_byte_and_signed() {
    let (service, receiver) = (Service::start().await, Receiver::start().await);
    let before = finished(&service, 1).await;
    let process = forward(&service, &receiver, &[]);
    process.says("forwarding to").await;
    let jobs = finished(&service, 5).await;
    let lines = process.shows(5).await;
    // Whatever is not signed rightly, the receiver refuses and does not keep.
    assert_eq!(in_order(&receiver), jobs, "and not {before:?}, which finished before");
    for (one, line) in receiver.received().iter().zip(&lines) {
        let path = format!("/v1/jobs/{}/result", one.job_id);
        assert_eq!(one.body, service.get(&path).await.text());
        assert_eq!(one.headers["content-type"], "application/json");
        let path = format!("/v1/jobs/{}/deliveries", one.job_id);
        let delivery = service.get(&path).await.json()["deliveries"][0]["id"].clone();
        assert_eq!(one.webhook_id, format!("msg_{}_{}", one.job_id, text(&delivery)));
        assert!(line.contains("delivered") && line.contains(&one.job_id), "{line}");
        assert!(line.ends_with(" 204"), "{line}");
    }
    assert_eq!(lines.len(), 5, "one line each");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finished_while_it_was_off_arrives_when_it_is_back() {
    let (service, receiver) = (Service::start().await, Receiver::start().await);
    let process = forward(&service, &receiver, &[]);
    process.says("forwarding to").await;
    process.kill();
    let while_off = finished(&service, 3).await;
    let process = forward(&service, &receiver, &["--json"]);
    let lines = process.shows(3).await;
    assert_eq!(in_order(&receiver), while_off);
    for (line, id) in lines.iter().zip(&while_off) {
        let report: Value = serde_json::from_str(line).expect("JSON in each line");
        assert_eq!((text(&report["jobId"]), text(&report["outcome"])), (id.as_str(), "delivered"));
        assert_eq!((&report["attempts"], &report["status"]), (&1.into(), &204.into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_begins_where_it_is_told_to() {
    let (service, receiver) = (Service::start().await, Receiver::start().await);
    let jobs = finished(&service, 4).await;
    let timeline = service.get(&format!("/v1/jobs/{}/events", jobs[1])).await.json();
    let second = &timeline["events"][1];
    assert_eq!(second["type"], "job.finished");
    let (number, at) = (second["seq"].to_string(), text(&second["at"]));
    for (start, expected) in [
        (["--last", "1"], &jobs[3..]),
        (["--last", "3"], &jobs[1..]),
        (["--last", "99"], &jobs[..]),
        (["--since", "0"], &jobs[..]),
        (["--since", &number], &jobs[2..]),
        (["--since", at], &jobs[1..]),
        (["--since", "2020-01-01T00:00:00Z"], &jobs[..]),
    ] {
        let before = receiver.received().len();
        // A cursor from the round before is there, and is not asked.
        let process = forward(&service, &receiver, &start);
        process.shows(expected.len()).await;
        process.kill();
        let received = receiver.received();
        let ids: Vec<&String> = received[before..].iter().map(|one| &one.job_id).collect();
        assert_eq!(ids, expected.iter().collect::<Vec<_>>(), "{start:?}");
    }
    let process = forward(&service, &receiver, &["--since", "2120-01-01T00:00:00Z"]);
    process.says("forwarding to").await;
    let next = finished(&service, 1).await;
    assert!(process.shows(1).await[0].contains(&next[0]), "and nothing that was before");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_target_does_not_take_is_skipped_loudly_and_the_next_goes_on() {
    let (service, receiver) = (Service::start().await, Receiver::start().await);
    receiver.answering(|number| match number {
        0 => StatusCode::GONE.into_response(),
        1 | 2 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    });
    let process = forward(&service, &receiver, &["--since", "0", "--give-up", "2"]);
    let jobs = finished(&service, 3).await;
    let lines = process.shows(3).await;
    assert!(lines[0].contains("skipped") && lines[0].contains("410"), "{}", lines[0]);
    assert!(lines[1].contains("skipped") && lines[1].contains("2 tries"), "{}", lines[1]);
    assert!(lines[1].contains("500"), "{}", lines[1]);
    assert!(lines[2].contains("delivered"), "{}", lines[2]);
    assert_eq!(in_order(&receiver), jobs[2..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_job_is_skipped_with_a_line() {
    let (service, receiver) = (Service::start().await, Receiver::start().await);
    receiver.answering(|_| StatusCode::SERVICE_UNAVAILABLE.into_response());
    let process = forward(&service, &receiver, &["--since", "0"]);
    let jobs = finished(&service, 2).await;
    process.says("503").await;
    // Both events are with the forwarder, which tries the first result again and again.
    service.delete(&format!("/v1/jobs/{}", jobs[1])).await.expect(200);
    receiver.answering(|_| StatusCode::NO_CONTENT.into_response());
    let last = finished(&service, 1).await;
    let lines = process.shows(2).await;
    assert!(lines[0].contains("delivered") && lines[0].contains(&jobs[0]), "{}", lines[0]);
    let lines = wait_for("the last one", async || {
        let lines = process.stdout();
        lines.last().is_some_and(|line| line.contains(&last[0])).then_some(lines)
    })
    .await;
    // Whether the event of the erased job was read before it went is the connection's affair.
    for line in &lines[1..lines.len() - 1] {
        assert!(line.contains("skipped") && line.contains("erased"), "{line}");
    }
    assert_eq!(in_order(&receiver), [jobs[0].clone(), last[0].clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_checked_and_never_shown() {
    let service = Service::start().await;
    for secret in ["whsec_not*base64", "whsec_", "c29tZSBrZXk="] {
        let args = ["forward", "--to", "http://127.0.0.1:9", "--secret", secret];
        let ended = ask(&service, &args).await;
        assert_failed(&ended, 2, &["--secret", "whsec_"]);
        assert!(!ended.stderr.contains("base64*") && !ended.stderr.contains("c29tZSBrZXk"));
    }
    let environment = [("FINISHLINE_FORWARD_SECRET", "whsec_very*secret")];
    let ended = ask_with(&service, &["forward", "--to", "http://127.0.0.1:9"], &environment).await;
    assert_eq!(ended.code, Some(2));
    assert!(!ended.stderr.contains("very*secret"), "{}", ended.stderr);
    let help = ask_with(&service, &["forward", "--help"], &environment).await;
    assert!(!help.stdout.contains("very*secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_s_query_is_not_shown() {
    let (service, receiver) = (Service::start().await, Receiver::start().await);
    receiver.answering(|number| match number {
        0 => StatusCode::BAD_GATEWAY.into_response(),
        _ => StatusCode::OK.into_response(),
    });
    let url = format!("{}?token=of-the-developer", receiver.url);
    let process = forward_to(&service, &url, &["--since", "0"]);
    finished(&service, 1).await;
    let lines = process.shows(1).await;
    assert!(lines[0].ends_with("200 at try 2"), "{}", lines[0]);
    process.says("502").await;
    let said = process.stderr().join("\n");
    assert!(!said.contains("of-the-developer"), "{said}");
    assert!(cursor_of(&service)["after"].as_i64().unwrap() > 0);
}
