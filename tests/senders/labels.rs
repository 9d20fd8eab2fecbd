//! The number of series in `/metrics` does not depend on what senders make up.

use std::collections::BTreeSet;

use crate::{
    program::{Program, Setup},
    wire::{Answer, Sender},
};

/// Made-up values of each kind.
const MADE_UP: usize = 100;

/// Methods that a label may name.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "other"];

const KEY: &str = "a-key-of-this-test-0123456789";

/// Which doors there are, and whether they ask for a key.
struct Doors {
    program: Program,
    has_key: bool,
}

impl Doors {
    async fn open(settings: &[(&str, &str)]) -> Self {
        let setup =
            settings.iter().fold(Setup::new(), |setup, (name, value)| setup.set(name, value));
        let has_key = settings.iter().any(|(name, _)| *name == "API__KEYS");
        Self { program: setup.start().knowing_its_key().await, has_key }
    }

    fn authorization(&self) -> String {
        if self.has_key { format!("authorization: Bearer {KEY}\r\n") } else { String::new() }
    }

    /// Every series, without its value.
    async fn series(&self) -> BTreeSet<String> {
        let head =
            format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\n{}\r\n", self.authorization());
        let answer = ask(self.program.api, &head).await;
        assert_eq!(answer.status, 200);
        let text = String::from_utf8(answer.body).expect("text");
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    }

    /// Requests whose every word that a sender chooses is different for each `number`.
    async fn send_made_up(&self, number: usize) {
        let unknown = "01890000-0000-7000-8000-000000000000";
        for door in [self.program.callbacks, self.program.api] {
            let heads = [
                format!("BREW{number} /healthz HTTP/1.1\r\nhost: localhost\r\n"),
                format!("brew{number} /v1/jobs/{unknown} HTTP/1.1\r\nhost: localhost\r\n"),
                format!("GET /made/up/{number} HTTP/1.1\r\nhost: localhost\r\n"),
                format!("GET /v1/jobs/{number} HTTP/1.1\r\nhost: localhost\r\n"),
                format!("GET /docs/{number}.js HTTP/1.1\r\nhost: localhost\r\n"),
                format!("GET /jobs?q{number}={number} HTTP/1.1\r\nhost: localhost\r\n"),
                format!("GET /healthz HTTP/1.1\r\nhost: host-{number}.example\r\n"),
                format!("GET /callbacks/{number}/{number} HTTP/1.1\r\nhost: localhost\r\n"),
                format!(
                    "POST /inbox/{number} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n"
                ),
                format!("{:A>17} / HTTP/1.1\r\nhost: localhost\r\n", number),
                format!(
                    "GET / HTTP/1.1\r\nhost: localhost\r\nx-long: {}\r\n",
                    "y".repeat(20_000 + number)
                ),
            ];
            for head in heads {
                ask(door, &format!("{head}connection: close\r\n{}\r\n", self.authorization()))
                    .await;
                ask(door, &format!("{head}connection: close\r\n\r\n")).await;
            }
        }
        for body in [
            format!(
                "{{\"success\": true, \"outputFiles\": {{\"kind{number}\": [{{\"status\": \"S{number}\"}}]}}}}"
            ),
            format!("{{\"success\": \"outcome-{number}\"}}"),
            format!("no JSON {number}"),
        ] {
            let (_, path) = self.program.fresh_callback();
            let mut sender = Sender::connect(self.program.callbacks).await;
            sender.post(&path, body).await;
            sender.answer().await.expect("an answer");
        }
    }
}

async fn ask(door: std::net::SocketAddr, head: &str) -> Answer {
    let mut sender = Sender::connect(door).await;
    sender.send(head).await;
    sender.answer().await.expect("an answer")
}

/// The value of one label of a series.
fn label<'a>(series: &'a str, name: &str) -> Option<&'a str> {
    series.split_once(&format!("{name}=\""))?.1.split('"').next()
}

async fn made_up_words_add_no_series(settings: &[(&str, &str)]) {
    let doors = Doors::open(settings).await;
    // What is known comes with the first ones: `other`, `unmatched`, each outcome.
    doors.send_made_up(0).await;
    let before = doors.series().await;
    let before = &before | &doors.series().await;
    for number in 1..=MADE_UP {
        doors.send_made_up(number).await;
    }
    let after = doors.series().await;
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{settings:?}: {new:?}");
    for series in &after {
        let method = label(series, "method");
        assert!(method.is_none_or(|method| METHODS.contains(&method)), "{series}");
        let route = label(series, "route");
        assert!(
            route.is_none_or(|route| route == "unmatched" || route.starts_with('/')),
            "{series}"
        );
        assert!(!series.to_lowercase().contains("brew"), "{series}");
    }
    assert!(after.iter().any(|series| label(series, "method") == Some("other")), "{after:?}");
    assert!(after.iter().any(|series| label(series, "route") == Some("unmatched")), "{after:?}");
}

#[tokio::test]
async fn what_senders_make_up_adds_no_series_at_two_doors_without_keys() {
    made_up_words_add_no_series(&[]).await;
}

#[tokio::test]
async fn what_senders_make_up_adds_no_series_at_two_doors_with_keys() {
    let keys = format!("[{{\"name\": \"all\", \"key\": \"{KEY}\"}}]");
    made_up_words_add_no_series(&[("API__KEYS", &keys)]).await;
}

#[tokio::test]
async fn what_senders_make_up_adds_no_series_at_a_merged_door() {
    let keys = format!("[{{\"name\": \"all\", \"key\": \"{KEY}\"}}]");
    made_up_words_add_no_series(&[
        ("API__KEYS", &keys),
        ("API__LISTEN", "same"),
        ("API__OPEN_ON_LOOPBACK", "false"),
    ])
    .await;
}

#[tokio::test]
async fn a_method_of_more_than_16_bytes_is_refused_with_the_head() {
    let doors = Doors::open(&[]).await;
    for door in [doors.program.callbacks, doors.program.api] {
        for path in ["/healthz", "/nothing"] {
            let head =
                |method: &str| format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            let long = ask(door, &head(&"M".repeat(17))).await;
            long.assert_problem(431, "headers-too-large");
            let fits = ask(door, &head(&"M".repeat(16))).await;
            assert!(matches!(fits.status, 404 | 405), "{fits:?}");
        }
    }
}
