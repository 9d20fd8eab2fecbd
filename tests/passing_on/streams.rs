//! Event streams on the wire: behind a proxy, in silence, and taken up again.

use std::{collections::BTreeSet, time::Duration};

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

/// Of a client that reads; a proxy's calls are refused without one.
const KEY: &str = "stream-key-0123456789abcdef";

/// The first bytes of a stream of events, until they hold all of these marks.
struct Wire {
    body: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Wire {
    async fn open(request: reqwest::RequestBuilder) -> Self {
        let answer = within(request.header("accept", "text/event-stream").send()).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store, no-transform");
        Self { body: answer.bytes_stream().boxed(), text: String::new() }
    }

    /// Reads on until the text is as wanted.
    async fn read_until(&mut self, is_enough: impl Fn(&str) -> bool) -> &str {
        while !is_enough(&self.text) {
            let piece = within(self.body.next()).await.expect("the stream goes on");
            let piece = piece.expect("the stream is not broken off");
            self.text.push_str(std::str::from_utf8(&piece).expect("UTF-8"));
        }
        &self.text
    }

    /// All blocks up to and with `caught-up`.
    async fn until_caught_up(&mut self) -> Vec<Block> {
        let end = |text: &str| {
            let begun = text.find("event: caught-up\n")?;
            Some(begun + text[begun..].find("\n\n")? + 2)
        };
        let text = self.read_until(|text| end(text).is_some()).await;
        blocks(&text[..end(text).expect("it is there")])
    }
}

/// What stands between two empty lines, as the plainest of clients reads it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Block {
    id: Option<i64>,
    kind: String,
    data: Value,
}

/// Every whole block.
fn blocks(text: &str) -> Vec<Block> {
    let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let read = |block: &str| {
        let mut read = Block::default();
        for line in block.lines().filter(|line| !line.starts_with(':')) {
            match line.split_once(": ").unwrap_or_else(|| panic!("a field: {line:?}")) {
                ("id", id) => read.id = Some(id.parse().expect("a number")),
                ("event", kind) => kind.clone_into(&mut read.kind),
                ("data", data) => read.data = serde_json::from_str(data).expect("JSON"),
                (name, _) => panic!("an unknown field {name}"),
            }
        }
        read
    };
    whole.split("\n\n").filter(|block| !block.is_empty()).map(read).collect()
}

fn caught_up(seq: i64) -> Block {
    Block { id: None, kind: "caught-up".to_owned(), data: json!({ "seq": seq }) }
}

fn ids(blocks: &[Block]) -> Vec<i64> {
    blocks.iter().filter_map(|block| block.id).collect()
}

fn with_key() -> Setup {
    Setup::new().key(KEY).set("API__KEYS", json!([{ "name": "app", "key": KEY }]))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_arrives_behind_a_proxy_that_buffers() {
    let service = with_key().start().await;
    let Some(nginx) = Nginx::in_front_of(&service.api).await else { return };
    let events = format!("{}/v1/events", nginx.origin());
    let mut wire = Wire::open(service.request_to(Method::GET, &events)).await;
    assert_eq!(wire.until_caught_up().await, [caught_up(0)], "before anything has happened");
    let job = service.submitted(&ready_job()).await;
    wire.read_until(|text| text.contains("event: job.submitted\n")).await;
    service.finish(&job).await;
    wire.read_until(|text| text.contains("event: job.finished\n")).await;

    let lines = format!("{}/v1/jobs", nginx.origin());
    let request = service.request_to(Method::GET, &lines).header("accept", "application/x-ndjson");
    let lines = Answer::of(request).await.expect(200);
    assert_eq!(lines.header("cache-control"), Some("no-store, no-transform"));
    assert_eq!(lines.text().lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_heartbeat_is_an_event_even_to_a_client_that_takes_every_block_for_one() {
    let service = Setup::new().heartbeat(Duration::from_millis(20)).start().await;
    let mut wire = Wire::open(service.request(Method::GET, "/v1/events")).await;
    let beats = |text: &str| text.lines().filter(|line| line.starts_with(':')).count();
    wire.read_until(|text| beats(text) >= 3).await;
    let job = service.submitted(&ready_job()).await;
    let begun = beats(wire.read_until(|text| text.contains("event: job.submitted\n")).await);
    wire.read_until(|text| beats(text) >= begun + 3).await;
    service.finish(&job).await;
    let text = wire.read_until(|text| {
        text.split_once("event: job.finished\n").is_some_and(|(_, rest)| rest.contains("\n\n"))
    });
    let text = text.await;
    assert!(!text.contains("\n\n\n") && !text.starts_with('\n'), "no empty block: {text}");
    let kinds: BTreeSet<String> = blocks(text).into_iter().map(|block| block.kind).collect();
    let expected = ["caught-up", "job.finished", "job.submitted"].map(str::to_owned);
    assert_eq!(kinds, BTreeSet::from(expected), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_once_that_it_has_caught_up_and_with_which_number() {
    let service = Service::start().await;
    let mut wire = Wire::open(service.request(Method::GET, "/v1/events")).await;
    assert_eq!(wire.until_caught_up().await, [caught_up(0)], "nothing has ever happened");

    let first = service.submitted(&ready_job()).await;
    service.finish(&first).await;
    let other = service.submitted(&ready_job()).await;
    let mut wire = Wire::open(service.request(Method::GET, "/v1/events?after=0")).await;
    let replay = wire.until_caught_up().await;
    let numbers = ids(&replay);
    let last = *numbers.last().expect("events");
    assert_eq!(replay.last(), Some(&caught_up(last)));
    assert_eq!(replay.len(), numbers.len() + 1, "only the last has no id: {replay:?}");

    // From now, after the last, beyond it, and after all of one job: there is nothing to replay.
    let beyond = last + 1000;
    let of_first = format!("?jobId={}", text(&first["id"]));
    for query in [
        String::new(),
        format!("?after={last}"),
        format!("?after={beyond}"),
        of_first.clone(),
        format!("{of_first}&after={}", last - 1),
    ] {
        let path = format!("/v1/events{query}");
        let mut wire = Wire::open(service.request(Method::GET, &path)).await;
        assert_eq!(wire.until_caught_up().await, [caught_up(last)], "{query}");
    }
    // The events of other jobs are behind it too.
    let path = format!("/v1/events{of_first}&after=0");
    let mut wire = Wire::open(service.request(Method::GET, &path)).await;
    let replay = wire.until_caught_up().await;
    assert_eq!(replay.last(), Some(&caught_up(last)));
    assert!(ids(&replay).len() >= 2 && !ids(&replay).contains(&last), "{replay:?}");
    // What comes then is not followed by another one.
    let mut wire = Wire::open(service.request(Method::GET, "/v1/events")).await;
    wire.until_caught_up().await;
    service.finish(&other).await;
    service.submitted(&ready_job()).await;
    let text = wire.read_until(|text| text.contains("event: job.submitted\n")).await;
    assert_eq!(text.matches("event: caught-up\n").count(), 1);
}

/// Each client says in its own way where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_resumed_as_every_client_asks_for_it() {
    let service = Service::start().await;
    for _ in 0..3 {
        let job = service.submitted(&ready_job()).await;
        service.finish(&job).await;
    }
    let mut wire = Wire::open(service.request(Method::GET, "/v1/events?after=0")).await;
    let all = ids(&wire.until_caught_up().await);
    let seen = all[2];
    let rest: Vec<i64> = all.iter().copied().filter(|id| *id > seen).collect();
    let number = seen.to_string();
    let later = (seen + 2).to_string();
    let padded = format!(" {number}\t");
    let joined = format!("{number}, {number}");
    let differing = format!("{later},{number}");
    let ways: [(String, Vec<&str>); 11] = [
        (format!("?after={seen}"), vec![]),
        (format!("?after={seen}"), vec![""]),
        (format!("?after={seen}"), vec!["  "]),
        ("?after=0".into(), vec![&number]),
        (format!("?lastEventId={seen}"), vec![]),
        (format!("?after=0&lastEventId={seen}"), vec![""]),
        (format!("?after=0&lastEventId={later}"), vec![&number]),
        (String::new(), vec![&padded]),
        (String::new(), vec![&number, &number]),
        (String::new(), vec![&joined]),
        (String::new(), vec![&differing]),
    ];
    for (query, headers) in ways {
        let mut request = service.request(Method::GET, &format!("/v1/events{query}"));
        for header in &headers {
            request = request.header("last-event-id", *header);
        }
        let replay = Wire::open(request).await.until_caught_up().await;
        assert_eq!(ids(&replay), rest, "{query} {headers:?}");
    }
    // An empty one alone: from now.
    let request = service.request(Method::GET, "/v1/events").header("last-event-id", "");
    let replay = Wire::open(request).await.until_caught_up().await;
    assert_eq!(replay, [caught_up(*all.last().expect("events"))]);
    for wrong in ["x", "-1", "1.5", "1,x", "99999999999999999999"] {
        let request = service.request(Method::GET, "/v1/events").header("last-event-id", wrong);
        let refused = Answer::of(request).await;
        assert_eq!(refused.invalid_at(), ["/Last-Event-ID"], "{wrong}");
    }
}
