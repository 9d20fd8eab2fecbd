//! What every answer of both doors says to browsers and caches.
//!
//! Walks the route table that the service itself was built from, so a new route is walked too.

use std::sync::{Arc, OnceLock};

use finishline::domain::{ids::JobId, signature};
use reqwest::Method;
use serde_json::json;

use crate::{
    failing_store::{FailingStore, Failure, Plan},
    support::*,
};

const KEY: &str = "a-key-of-this-test-0123456789";

/// For whatever is not a page.
const SANDBOX: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";

/// Seven usual methods and one that nobody knows.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"];

#[track_caller]
fn assert_headers(what: &str, answer: &Answer) {
    let what = format!("{what}, {}", answer.status);
    let is = |name: &str, value: &str| assert_eq!(answer.header(name), Some(value), "{what}");
    is("x-content-type-options", "nosniff");
    is("referrer-policy", "no-referrer");
    is("cross-origin-resource-policy", "same-origin");
    let kind = answer.header("content-type").unwrap_or_default();
    let policies: Vec<_> = answer.headers.get_all("content-security-policy").iter().collect();
    assert_eq!(policies.len(), 1, "{what}");
    let policy = policies[0].to_str().expect("text");
    if kind.starts_with("text/html") {
        for part in
            ["default-src 'none'", "script-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(part), "{what}: {policy}");
        }
        assert!(!policy.contains("script-src 'self' 'unsafe"), "{what}: {policy}");
    } else {
        assert_eq!(policy, SANDBOX, "{what}");
    }
    let stored: Vec<_> = answer.headers.get_all("cache-control").iter().collect();
    assert_eq!(stored.len(), 1, "{what}");
    let is_stream = kind.starts_with("text/event-stream") || kind == "application/x-ndjson";
    match stored[0].to_str().expect("text") {
        "no-store, no-transform" => assert!(is_stream, "{what}"),
        "no-store" => assert!(!is_stream, "{what}"),
        "private, no-cache" => assert!(answer.header("etag").is_some(), "{what}"),
        "public, max-age=31536000, immutable" => {
            assert!(
                matches!(
                    kind.split(';').next(),
                    Some("text/css" | "text/javascript" | "image/svg+xml")
                ),
                "{what}"
            );
        }
        other => panic!("{what}: {other}"),
    }
    assert_eq!(answer.header("x-accel-buffering"), is_stream.then_some("no"), "{what}");
    let names = answer.headers.keys().map(|name| name.as_str());
    let cors: Vec<_> = names.filter(|name| name.starts_with("access-control-")).collect();
    assert!(cors.is_empty(), "{what}: {cors:?}");
    assert!(answer.header("x-request-id").is_some(), "{what}");
}

/// A pattern with something in each of its places.
fn filled(pattern: &str, id: &str) -> String {
    let segment = |segment: &str| match segment {
        "{id}" | "{job}" => id.to_owned(),
        _ => segment.replace(['{', '}', '*'], ""),
    };
    pattern.split('/').map(segment).collect::<Vec<_>>().join("/")
}

async fn walk(service: &Service, door: &str, patterns: &[&'static str], ids: &[&str]) -> usize {
    let mut statuses = std::collections::BTreeSet::new();
    let unknown = ["/nothing/is/here", "/..%2f", "/v1"];
    for pattern in patterns.iter().copied().chain(unknown) {
        for id in ids {
            let url = format!("{door}{}", filled(pattern, id));
            for method in METHODS {
                let name = format!("{method} {url}");
                let verb = Method::from_bytes(method.as_bytes()).expect("a method");
                for key in [None, Some(KEY), Some("not-a-key-of-this-service-000")] {
                    // Erased or submitted jobs would not disturb, but waiting would.
                    let mut request = service.request_to(verb.clone(), &url);
                    if let Some(key) = key {
                        request = request.bearer_auth(key);
                    }
                    let answer = Answer::of(request).await;
                    statuses.insert(answer.status);
                    assert_headers(&name, &answer);
                }
            }
        }
    }
    statuses.len()
}

#[tokio::test]
async fn every_route_of_both_doors_answers_with_the_headers_whatever_it_answers() {
    let keys = json!([{"name": "all", "key": KEY}]);
    let service = Setup::new().set("API__KEYS", keys).start().await;
    let submit = service.request(Method::POST, "/v1/jobs").bearer_auth(KEY);
    let job = Answer::of(submit.body(ready_job().to_string())).await.expect(201).json();
    let ids = [text(&job["id"]), "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55", "no-id"];
    let patterns = service.patterns();
    assert!(patterns.api.len() > 30 && patterns.callbacks.len() >= 4, "the walk finds the routes");
    // 200, 401, 403, 404, 405 and more.
    assert!(walk(&service, &service.api, &patterns.api, &ids).await >= 5);
    assert!(walk(&service, &service.callbacks, &patterns.callbacks, &ids).await >= 3);
}

#[tokio::test]
async fn every_documented_route_is_one_of_the_routes_that_are_walked() {
    let service = Service::start().await;
    let document = service.get("/openapi.json").await.expect(200).json();
    let patterns = service.patterns();
    for path in document["paths"].as_object().expect("paths").keys() {
        let is_walked =
            patterns.api.contains(&path.as_str()) || patterns.callbacks.contains(&path.as_str());
        assert!(is_walked, "{path}");
    }
}

#[tokio::test]
async fn answers_of_every_kind_carry_the_headers_in_a_service_without_keys() {
    let service = Setup::new().set("MIRROR__STORE", "memory:///").start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let callback = service.callback_url(id);
    service.finish(&job).await;
    wait_for("the files to be copied", async || {
        Some(service.job(id).await).filter(|job| job["secured"] == true)
    })
    .await;
    let delivery = service.get(&format!("/v1/jobs/{id}/deliveries")).await.json();
    let delivery = text(&delivery["deliveries"][0]["id"]).to_owned();
    let page = service.get("/jobs").await.expect(200).text();
    let asset = page.split('"').find(|text| text.starts_with("/assets/")).expect("an asset");
    let kinds = [
        ("/v1/jobs".to_owned(), 200, "no-store"),
        (format!("/v1/jobs/{id}"), 200, "no-store"),
        (format!("/v1/jobs/{id}/result"), 200, "private, no-cache"),
        (format!("/v1/jobs/{id}/outputs/meshes-0"), 200, "private, no-cache"),
        (format!("/v1/jobs/{id}/outputs?bundle=zip"), 200, "no-store"),
        (format!("/v1/deliveries/{delivery}/body"), 200, "no-store"),
        ("/v1/events".to_owned(), 200, "no-store, no-transform"),
        ("/v1/jobs?limit=0".to_owned(), 422, "no-store"),
        ("/metrics".to_owned(), 200, "no-store"),
        ("/healthz".to_owned(), 200, "no-store"),
        ("/readyz".to_owned(), 200, "no-store"),
        ("/openapi.json".to_owned(), 200, "no-store"),
        ("/docs".to_owned(), 303, "no-store"),
        ("/docs/".to_owned(), 200, "no-store"),
        ("/docs/swagger-ui.css".to_owned(), 200, "no-store"),
        ("/docs/nothing.js".to_owned(), 404, "no-store"),
        ("/".to_owned(), 303, "no-store"),
        ("/jobs".to_owned(), 200, "no-store"),
        (format!("/jobs/{id}"), 200, "no-store"),
        ("/jobs?limit=0".to_owned(), 422, "no-store"),
        (asset.to_owned(), 200, "public, max-age=31536000, immutable"),
        ("/assets/0/page.js".to_owned(), 404, "no-store"),
    ];
    for (path, status, stored) in &kinds {
        let answer = service.get(path).await.expect(*status);
        assert_headers(path, &answer);
        assert_eq!(answer.header("cache-control"), Some(*stored), "{path}");
    }
    for path in ["result", "outputs/meshes-0"] {
        let path = format!("/v1/jobs/{id}/{path}");
        let etag = service.get(&path).await.header("etag").expect("an ETag").to_owned();
        let again = service.request(Method::GET, &path).header("if-none-match", &etag);
        assert_headers(&path, &Answer::of(again).await.expect(304));
        let part = service.request(Method::GET, &path).header("range", "bytes=0-3");
        assert_headers(&path, &Answer::of(part).await);
        let beyond = service.request(Method::GET, &path).header("range", "bytes=99999999-");
        assert_headers(&path, &Answer::of(beyond).await);
    }
    let lines = service.request(Method::GET, "/v1/jobs").header("accept", "application/x-ndjson");
    let lines = Answer::of(lines).await.expect(200);
    assert_headers("NDJSON", &lines);
    assert_eq!(lines.header("cache-control"), Some("no-store, no-transform"));
    for (what, answer) in [
        ("a repeat", service.post_to(&callback, r#"{"success":true}"#).await.expect(200)),
        ("no JSON", service.post_to(&callback, "not JSON").await.expect(400)),
        ("a probe", service.get_from(&callback, "").await.expect(204)),
        ("another site", {
            let request = service.request(Method::GET, "/v1/jobs").header("host", "evil.example");
            Answer::of(request).await.expect(403)
        }),
        ("a large head", {
            let request =
                service.request(Method::GET, "/v1/jobs").header("x-long", "y".repeat(20_000));
            Answer::of(request).await.expect(431)
        }),
    ] {
        assert_headers(what, &answer);
    }
}

#[tokio::test]
async fn an_answer_after_a_panic_carries_the_headers_at_both_doors() {
    let made = Arc::new(OnceLock::new());
    let keep = made.clone();
    let setup = Setup::new();
    let setup =
        setup.wrap(Arc::new(move |store| keep.get_or_init(|| FailingStore::around(store)).clone()));
    let service = setup.start().await;
    let store: &Arc<FailingStore> = made.get().expect("the service has it");
    let id = JobId::new(service.clock.now());
    let signature = signature::sign(&service.store().signing_key(), id);
    let callback = format!("{}/callbacks/{id}/{signature}", service.callbacks);
    let job = format!("{}/v1/jobs/{id}", service.api);
    for (method, url, fails) in [
        (Method::GET, &job, "job"),
        (Method::GET, &callback, "callback_address"),
        (Method::POST, &callback, "callback_address"),
        (Method::POST, &callback, "receive"),
    ] {
        // The workers call other methods: one of them that panics ends the process.
        store.fail(Plan::always(Failure::Panic).only(fails));
        let answer = Answer::of(service.request_to(method, url).body("{}")).await;
        answer.problem(500, "internal");
        assert_headers(fails, &answer);
    }
}

/// The answer to a head whose body does not come.
async fn unsent(door: &str, path: &str, headers: &str) -> Answer {
    let request = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    within(Answer::of_bytes(door, request.as_bytes())).await
}

#[tokio::test]
async fn refusals_of_both_doors_carry_the_headers() {
    let setup = Setup::new().set("SERVICE__BODY_TIMEOUT", "300ms");
    let setup = setup.set("SERVICE__HEADER_TIMEOUT", "300ms");
    let service = setup.set("CALLBACKS__MAX_BODY", "2KiB").start().await;
    let job = service.submitted(&ready_job()).await;
    let address = service.callback_url(text(&job["id"]));
    let callback = address.strip_prefix(&service.callbacks).expect("our address");
    let json = "content-type: application/json\r\ncontent-length:";
    let [callbacks, api] = [service.callbacks.as_str(), service.api.as_str()];
    for (what, status, answer) in [
        ("callback: no body", 408, unsent(callbacks, callback, &format!("{json} 9\r\n")).await),
        ("submission: no body", 408, unsent(api, "/v1/jobs", &format!("{json} 9\r\n")).await),
        ("callback: half a head", 408, half_a_head(callbacks).await),
        ("API: half a head", 408, half_a_head(api).await),
        ("callback: large", 413, unsent(callbacks, callback, &format!("{json} 4000\r\n")).await),
        ("submission: large", 413, unsent(api, "/v1/jobs", &format!("{json} 4000000\r\n")).await),
        ("callbacks: nothing", 404, service.get_from(callbacks, "/nothing").await),
        ("API: nothing", 404, service.get("/nothing").await),
        (
            "callbacks: no such method",
            405,
            Answer::of(service.request_to(Method::DELETE, &address)).await,
        ),
        ("API: no such method", 405, service.post("/v1/stats", "").await),
    ] {
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert_headers(what, &answer);
    }
}

/// The answer to a request that ends within its head.
async fn half_a_head(door: &str) -> Answer {
    within(Answer::of_bytes(door, b"GET /healthz HTTP/1.1\r\nhost: loc")).await
}
