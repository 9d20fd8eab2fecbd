//! Forged callback addresses: refused by arithmetic alone.
//!
//! The invariant: whoever did not get the address from us writes nothing, and asks the database
//! nothing.

use std::sync::Arc;

use finishline::domain::{ids::JobId, signature};
use reqwest::Method;

use crate::{evidence::*, failing_store::FailingStore, support::*};

/// A service whose store counts its calls.
async fn counting_service() -> (Service, Arc<FailingStore>) {
    let (setup, store) = FailingStore::in_setup(Setup::new().set("CALLBACKS__MAX_BODY", "4KiB"));
    (setup.start().await, store())
}

/// Addresses that are almost those of `id`, by name.
fn forgeries(key: &[u8; 32], id: JobId, other: JobId) -> Vec<(&'static str, String)> {
    let genuine = signature::sign(key, id);
    let flipped = |at: usize| {
        let mut bytes = genuine.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).expect("ASCII")
    };
    let of = |signature: &str| format!("/callbacks/{id}/{signature}");
    let last = genuine.len() - 1;
    // The last letter holds two bits that mean nothing: another spelling is not another truth.
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = letters.find(&genuine[last..]).expect("a letter of base64url");
    let respelled = format!("{}{}", &genuine[..last], &letters[place + 1..place + 2]);
    vec![
        ("first letter", of(&flipped(0))),
        ("middle letter", of(&flipped(20))),
        ("last letter", of(&flipped(last))),
        ("unused bits", of(&respelled)),
        ("truncated", of(&genuine[..last])),
        ("half", of(&genuine[..20])),
        ("longer", of(&format!("{genuine}A"))),
        ("padded", of(&format!("{genuine}="))),
        ("upper case", of(&genuine.to_uppercase())),
        ("lower case", of(&genuine.to_lowercase())),
        ("space before", of(&format!("%20{genuine}"))),
        ("line end after", of(&format!("{genuine}%0A"))),
        ("zero after", of(&format!("{genuine}%00"))),
        ("not base64", of("!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!")),
        ("not UTF-8", of("%ff%fe")),
        ("zeros", of(&"A".repeat(43))),
        ("long", of(&"A".repeat(5_000))),
        ("other job's", of(&signature::sign(key, other))),
        ("other instance's", of(&signature::sign(&[7; 32], id))),
        ("empty key's", of(&signature::sign(&[0; 32], id))),
        ("for an unknown job", format!("/callbacks/{}/{genuine}", unknown_job())),
        ("no id", format!("/callbacks/x/{genuine}")),
        ("id without hyphens", format!("/callbacks/{}/{genuine}", id.0.simple())),
        ("id in braces", format!("/callbacks/%7B{id}%7D/{genuine}")),
        ("no signature", format!("/callbacks/{id}")),
        ("empty signature", format!("/callbacks/{id}/")),
        ("one segment more", of(&format!("{genuine}/x"))),
    ]
}

#[tokio::test]
async fn a_forged_callback_is_not_found_and_never_reaches_the_database() {
    let (service, store) = counting_service().await;
    let (id, url) = running_job(&service).await;
    let (other, _) = running_job(&service).await;
    let key = signing_key(&service.database).await;
    let id: JobId = id.parse().expect("an id");
    assert!(url.ends_with(&callback_path(&key, id)), "the genuine one is known");

    let mut database = connect(&service.database).await;
    let (version, calls) = (data_version(&mut database).await, store.calls());
    let forgeries = forgeries(&key, id, other.parse().expect("an id"));
    for (name, path) in &forgeries {
        let forged = format!("{}{path}", service.callbacks);
        assert_ne!(forged, url, "{name}");
        for body in [r#"{"success":true}"#.to_owned(), "not JSON".into(), "x".repeat(5_000)] {
            let answer = service.post_to(&forged, body).await;
            assert_eq!(answer.status, 404, "{name}: {path}: {}", answer.text());
            answer.problem(404, "not-found");
        }
        for method in [Method::GET, Method::HEAD] {
            let answer = Answer::of(service.request_to(method, &forged)).await;
            assert_eq!(answer.status, 404, "{name}: {path}");
        }
    }
    assert_eq!(store.calls(), calls, "the store was not asked");
    assert_eq!(data_version(&mut database).await, version, "nothing was written");

    // Both measures do show what is genuine.
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
    assert!(store.calls() > calls);
    assert_ne!(data_version(&mut database).await, version);
    assert_eq!(service.job(&id.to_string()).await["deliveries"], 1);
}

#[tokio::test]
async fn a_forged_callback_is_refused_before_its_body_is_read() {
    let (service, _) = counting_service().await;
    let forged = format!("{}/callbacks/{}/{}", service.callbacks, unknown_job(), "A".repeat(43));
    // A gigabyte is announced and not a byte of it is sent.
    let mut wire = Wire::to(&forged).await;
    wire.send(post_head(&forged, "content-length: 1000000000\r\n")).await;
    let head = wire.read_until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
}

#[tokio::test]
async fn the_address_that_was_sent_to_the_engine_shows_nowhere_in_the_api() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
    let signature = url.rsplit('/').next().expect("a signature");
    assert_eq!(signature.len(), 43);
    let delivery = text(&service.deliveries(&id).await[0]["id"]).to_owned();
    for path in [
        format!("/v1/jobs/{id}"),
        "/v1/jobs".into(),
        format!("/v1/jobs/{id}/events"),
        format!("/v1/jobs/{id}/deliveries"),
        format!("/v1/deliveries/{delivery}"),
    ] {
        let shown = service.get(&path).await.expect(200).text();
        assert!(shown.contains(&id), "{path} is about the job");
        assert!(!shown.contains(signature), "{path} shows the signature");
    }
}
