//! How a body travels: gzip, chunks, any `Content-Type`; and what is kept of its journey.
//!
//! The invariant: what is kept is the Engine's text, with where it came from and no credential.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{evidence::*, support::*};

const GZIP: [(&str, &str); 1] = [("content-encoding", "gzip")];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory takes every byte");
    encoder.finish().expect("memory takes every byte")
}

#[tokio::test]
async fn a_gzip_body_is_kept_decoded() {
    let service = Service::start().await;
    let body = result("Available", &format!("https://store.example/{}", "a".repeat(2_000)));
    let packed = gzip(body.as_bytes());
    assert!(packed.len() < body.len());
    let (first, second) = packed.split_at(20);
    let members = [gzip(&body.as_bytes()[..50]), gzip(&body.as_bytes()[50..])].concat();
    for (encoding, sent) in [
        ("gzip", packed.clone()),
        ("GZip", packed.clone()),
        ("x-gzip", packed.clone()),
        ("gzip", members),
        ("gzip", [first, second].concat()),
    ] {
        let (id, url) = running_job(&service).await;
        let answer = service.post_with(&url, &[("content-encoding", encoding)], sent).await;
        assert_eq!(outcome(&answer), "stored", "{encoding}");
        service.holds(&service.deliveries(&id).await[0], body.as_bytes()).await;
        assert_eq!(service.get(&format!("/v1/jobs/{id}/result")).await.body, body);
        // The same text without gzip is the same delivery.
        assert_eq!(service.outcome(&url, body.clone()).await, "duplicate");
        let answer = service.post_with(&url, &GZIP, packed.clone()).await;
        assert_eq!(outcome(&answer), "duplicate");
        assert_eq!(service.deliveries(&id).await[0]["repeats"], 2);
    }
}

#[tokio::test]
async fn broken_gzip_is_malformed_and_kept_as_it_came() {
    let service = Service::start().await;
    let packed = gzip(&result("Available", "https://store.example/1").into_bytes());
    let mut flipped = packed.clone();
    flipped[packed.len() / 2] ^= 0xff;
    let mut wrong_sum = packed.clone();
    wrong_sum[packed.len() - 8] ^= 0xff;
    for (name, broken) in [
        ("cut", packed[..packed.len() - 9].to_vec()),
        ("without its sum", packed[..packed.len() - 8].to_vec()),
        ("flipped", flipped),
        ("wrong sum", wrong_sum),
        ("rubbish after", [&packed[..], b"rubbish"].concat()),
        ("only a head", packed[..10].to_vec()),
        ("no gzip at all", b"hello".to_vec()),
        ("empty", Vec::new()),
    ] {
        let (id, url) = running_job(&service).await;
        let answer = service.post_with(&url, &GZIP, broken.clone()).await;
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        answer.problem(400, "malformed-json");
        let deliveries = service.deliveries(&id).await;
        assert_eq!(
            (deliveries.len(), &deliveries[0]["outcome"]),
            (1, &json!("malformed")),
            "{name}"
        );
        service.holds(&deliveries[0], &broken).await;
        let answer = service.post_with(&url, &GZIP, packed.clone()).await;
        assert_eq!(outcome(&answer), "stored", "after {name}");
    }
}

#[tokio::test]
async fn a_result_that_is_only_announced_as_gzip_is_stored() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    let body = result("Available", "https://store.example/1");
    // As behind a proxy that unpacks and leaves the header.
    let answer = service.post_with(&url, &GZIP, body.clone()).await;
    assert_eq!(outcome(&answer), "stored");
    let job = service.job(&id).await;
    assert_eq!(job["status"], "succeeded", "the bytes on record are its result: {job}");
    assert_eq!(service.get(&format!("/v1/jobs/{id}/result")).await.expect(200).body, body);
    assert_eq!(service.outcome(&url, body).await, "duplicate");
    assert_eq!(service.deliveries(&id).await.len(), 1);
}

#[tokio::test]
async fn a_gzip_bomb_is_too_large_and_costs_no_more_than_the_limit() {
    let service = Setup::new().set("CALLBACKS__MAX_BODY", "64KiB").start().await;
    let (id, url) = running_job(&service).await;
    let bomb = gzip(&vec![b' '; 12 * 1024 * 1024]);
    assert!(bomb.len() < 64 * 1024, "it is small on the way: {}", bomb.len());
    let answer = service.post_with(&url, &GZIP, bomb).await;
    answer.problem(413, "payload-too-large");
    let inner = gzip(&vec![b' '; 6 * 1024 * 1024]);
    let answer = service.post_with(&url, &GZIP, gzip(&inner)).await;
    answer.problem(400, "malformed-json");
    assert_eq!(service.event_types(&id).await[1..], ["delivery.oversize", "delivery.malformed"]);
    let exact = format!("{:64000}{}", r#"{"success":true}"#, " ".repeat(1_536));
    let over = gzip(format!("{exact} ").as_bytes());
    service.post_with(&url, &GZIP, over).await.problem(413, "payload-too-large");
    let answer = service.post_with(&url, &GZIP, gzip(exact.as_bytes())).await;
    assert_eq!(outcome(&answer), "stored");
    service.holds(&service.deliveries(&id).await[1], exact.as_bytes()).await;
}

#[tokio::test]
async fn a_body_is_taken_whatever_its_content_type() {
    let service = Service::start().await;
    for kind in [
        "application/json",
        "application/json; charset=utf-16",
        "text/plain",
        "text/html",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "image/png",
        "nonsense",
        "",
    ] {
        let (id, url) = running_job(&service).await;
        let body = r#"{"success":true}"#;
        let answer = service.post_with(&url, &[("content-type", kind)], body).await;
        assert_eq!(outcome(&answer), "stored", "{kind:?}");
        let delivery = &service.deliveries(&id).await[0];
        service.holds(delivery, body.as_bytes()).await;
        let headers = delivery["headers"].as_array().expect("a list");
        assert!(headers.contains(&json!(["content-type", kind])), "{delivery}");
    }
    let (id, url) = running_job(&service).await;
    assert_eq!(outcome(&service.post_with(&url, &[], r#"{"success":true}"#).await), "stored");
    let headers = service.deliveries(&id).await[0]["headers"].to_string();
    assert!(!headers.contains("content-type"), "there was none: {headers}");
}

#[tokio::test]
async fn a_body_is_taken_in_chunks_and_from_an_old_client() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    let mut wire = Wire::to(&url).await;
    wire.send(post_head(&url, "transfer-encoding: chunked\r\n")).await;
    for piece in [r#"{"succ"#, "ess\":tr", "ue}"] {
        wire.send(format!("{:x};ext=1\r\n{piece}\r\n", piece.len())).await;
    }
    wire.send("0\r\nx-trailer: 1\r\n\r\n").await;
    let answer = wire.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("stored"), "{answer}");
    service.holds(&service.deliveries(&id).await[0], br#"{"success":true}"#).await;

    let (id, url) = running_job(&service).await;
    let head = post_head(&url, "content-length: 16\r\n").replace("HTTP/1.1", "HTTP/1.0");
    let request = format!("{head}{{\"success\":true}}");
    let answer = Answer::of_bytes(&service.callbacks, request.as_bytes()).await;
    assert_eq!(answer.json(), json!({"outcome": "stored"}));
    assert_eq!(service.job(&id).await["status"], "succeeded");
}

#[tokio::test]
async fn headers_are_kept_and_credentials_only_by_name() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    let secrets = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "x-api-key",
        "x-auth-token",
        "x-amz-security-token",
    ];
    let mut request = service.request_to(Method::POST, &url).body(r#"{"success":true}"#);
    for name in secrets {
        request = request.header(name, format!("Bearer top-secret-{name}"));
    }
    request = request.header("X-Engine-Build", "24.06").header("user-agent", "engine/1");
    request = request.header("x-many", "one").header("x-many", "two");
    request = request.header("x-bytes", reqwest::header::HeaderValue::from_bytes(b"\xe9").unwrap());
    assert_eq!(outcome(&Answer::of(request).await), "stored");
    let delivery = &service.deliveries(&id).await[0];
    let headers = delivery["headers"].as_array().expect("a list");
    for name in secrets {
        let kept = headers.iter().filter(|header| header[0] == name);
        assert_eq!(kept.collect::<Vec<_>>(), [&json!([name, "[redacted]"])]);
    }
    for expected in [
        json!(["x-engine-build", "24.06"]),
        json!(["user-agent", "engine/1"]),
        json!(["content-length", "16"]),
        json!(["x-bytes", "\u{fffd}"]),
    ] {
        assert!(headers.contains(&expected), "{expected}: {delivery}");
    }
    let many: Vec<&Value> = headers.iter().filter(|header| header[0] == "x-many").collect();
    assert_eq!(many, [&json!(["x-many", "one"]), &json!(["x-many", "two"])]);
    for file in std::fs::read_dir(service.folder()).expect("a folder") {
        let bytes = std::fs::read(file.expect("a file").path()).expect("a readable file");
        let mark = b"top-secret";
        assert!(!bytes.windows(mark.len()).any(|window| window == mark), "a credential on disk");
    }
}

/// Ours name a request too: neither the name that we make nor that we leave one out may show.
#[tokio::test]
async fn a_delivery_shows_the_headers_that_were_sent_and_no_others() {
    let setup = Setup::new().set("CALLBACKS__INBOX_SECRET", "a-long-inbox-secret-0123456789");
    let service = setup.start().await;
    let long = "y".repeat(200);
    for (number, ids) in [
        vec![],
        vec!["engine-request-1"],
        vec!["with spaces in it"],
        vec![long.as_str()],
        vec!["one", "two"],
        vec!["caf\u{e9}"],
        vec![""],
    ]
    .into_iter()
    .enumerate()
    {
        let (id, url) = running_job(&service).await;
        let inbox = format!("{}/inbox/a-long-inbox-secret-0123456789", service.callbacks);
        let of_inbox = format!(r#"{{"jobId":"elsewhere-{number}","success":true}}"#);
        for (url, body) in [(&url, r#"{"success":true}"#), (&inbox, &of_inbox)] {
            let mut sent = vec![("host", "engine.example"), ("connection", "close")];
            sent.extend(ids.iter().map(|id| ("x-request-id", *id)));
            let length = body.len().to_string();
            sent.extend([("zz-first", "1"), ("content-length", &length), ("aa-last", "2")]);
            let lines: Vec<String> =
                sent.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let path = url::Url::parse(url).expect("an address").path().to_owned();
            let mut wire = Wire::to(url).await;
            wire.send(format!("POST {path} HTTP/1.1\r\n{}\r\n{body}", lines.concat())).await;
            let answer = wire.rest().await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(answer.to_lowercase().contains("\r\nx-request-id: "), "{answer}");
            let job = match url == &inbox {
                false => id.clone(),
                true => text(&service.jobs().await[0]["id"]).to_owned(),
            };
            let delivery = &service.deliveries(&job).await[0];
            assert_eq!(delivery["headers"], json!(sent), "{ids:?}");
        }
    }
}

#[tokio::test]
async fn the_source_address_and_the_arrival_are_kept() {
    let start = "2026-03-01T12:00:00.123Z".parse().expect("a time");
    let clock = finishline::clock::Clock::manual(start);
    let service = Setup::new().clock(&clock).start().await;
    let (id, url) = running_job(&service).await;
    clock.advance(std::time::Duration::from_secs(61));
    let mut wire = Wire::to(&url).await;
    let address = wire.address();
    // What a header claims is evidence, not the source.
    let head = post_head(&url, "content-length: 16\r\nx-forwarded-for: 203.0.113.7\r\n");
    wire.send(format!("{head}{{\"success\":true}}")).await;
    assert!(wire.rest().await.starts_with("HTTP/1.1 200 "));
    let delivery = &service.deliveries(&id).await[0];
    assert_eq!(delivery["source"], address.to_string());
    assert_eq!(delivery["receivedAt"], "2026-03-01T12:01:01.123Z");
    assert_eq!(service.job(&id).await["finishedAt"], "2026-03-01T12:01:01.123Z");
    assert!(delivery["headers"].to_string().contains("203.0.113.7"));
}
