//! Following the events.

use std::collections::BTreeSet;

use finishline::simulator::Simulator;
use futures_util::StreamExt;
use reqwest::Method;
use serde_json::Value;

use crate::support::{Service, Setup, ready_job, text, within};

/// The numbers and types of the next `count` events of an open stream.
struct Stream {
    body: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffer: String,
}

impl Stream {
    async fn open(service: &Service, path: &str, last: Option<i64>) -> Self {
        let mut request = service.request(Method::GET, path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { body: answer.bytes_stream().boxed(), buffer: String::new() }
    }

    /// The next event as (id, event, data); `None` at the end of the stream.
    async fn next(&mut self) -> Option<(i64, String, Value)> {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                let block: String = self.buffer.drain(..end + 2).collect();
                let field = |name: &str| {
                    block.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
                };
                let Some(id) = field("id") else { continue };
                let data = serde_json::from_str(field("data").expect("data")).expect("JSON");
                let id = id.parse().expect("a number");
                return Some((id, field("event").expect("a type").to_owned(), data));
            }
            let piece = within(self.body.next()).await?.expect("the stream is not broken off");
            self.buffer.push_str(std::str::from_utf8(&piece).expect("UTF-8"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_what_was_and_then_what_comes() {
    let service = Service::start().await;
    let first = service.submitted(&ready_job()).await;
    let mut stream = Stream::open(&service, "/v1/events?after=0", None).await;
    let (id, kind, data) = stream.next().await.expect("an event");
    assert_eq!(
        (kind.as_str(), &data["jobId"], &data["seq"]),
        ("job.submitted", &first["id"], &id.into())
    );
    service.finish(&first).await;
    let (next, kind, _) = stream.next().await.expect("an event");
    assert_eq!(kind, "job.finished");
    assert!(next > id);

    let mut resumed = Stream::open(&service, "/v1/events?after=0", Some(id)).await;
    assert_eq!(resumed.next().await.expect("an event").0, next, "the header is the stronger one");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_number_it_follows_from_now_and_one_job_may_be_chosen() {
    let service = Service::start().await;
    let first = service.submitted(&ready_job()).await;
    let other = service.submitted(&ready_job()).await;
    let path = format!("/v1/events?jobId={}", text(&other["id"]));
    let mut stream = Stream::open(&service, &path, None).await;
    service.finish(&first).await;
    service.finish(&other).await;
    let (_, kind, data) = stream.next().await.expect("an event");
    assert_eq!((kind.as_str(), &data["jobId"]), ("job.finished", &other["id"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_followed_is_refused() {
    let service = Service::start().await;
    for query in ["after=x", "after=-1", "jobId=7", "jobid=x"] {
        service.get(&format!("/v1/events?{query}")).await.problem(422, "validation-failed");
    }
}

/// Ten restarts, reconnecting each time after the last event seen.
#[tokio::test(flavor = "multi_thread")]
async fn over_ten_restarts_a_follower_misses_nothing_and_sees_nothing_twice() {
    let mut service = Setup::new().finishing_at_once().start().await;
    let mut seen: Vec<i64> = Vec::new();
    let mut finished = BTreeSet::new();
    let mut submitted = BTreeSet::new();
    for round in 0..11 {
        let last = seen.last().copied().unwrap_or(0);
        let mut stream = Stream::open(&service, "/v1/events", Some(last)).await;
        for _ in 0..5 {
            submitted.insert(text(&service.submitted(&ready_job()).await["id"]).to_owned());
        }
        // In some rounds the stream is cut with events unread.
        let to_read = if round == 10 { usize::MAX } else { 3 + round % 5 };
        for _ in 0..to_read {
            if round == 10 && finished == submitted {
                break;
            }
            let (id, kind, data) = stream.next().await.expect("an event");
            seen.push(id);
            if kind == "job.finished" {
                finished.insert(text(&data["jobId"]).to_owned());
            }
        }
        if round < 10 {
            // The Engine sends a callback once: one that met the stop would leave its job open.
            let are_sent =
                |engine: &Simulator| engine.answered_callbacks().len() == submitted.len();
            within(service.engine.wait_until(are_sent)).await;
            service.restart().await;
        }
    }
    assert_eq!(finished, submitted);
    assert!(seen.is_sorted_by(|left, right| left < right), "in order and none twice: {seen:?}");
    let expected: Vec<i64> = (1..=*seen.last().expect("events")).collect();
    assert_eq!(seen, expected, "no gap");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_close_at_once_when_the_service_stops() {
    let mut service = Service::start().await;
    let mut stream = Stream::open(&service, "/v1/events?after=0", None).await;
    let ((), ended) = within(async { tokio::join!(service.stop(), stream.next()) }).await;
    assert!(ended.is_none());
}
