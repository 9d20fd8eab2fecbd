//! The two front doors: what each serves, and whom it lets in.
//!
//! The invariant: a stored result is reached through no other door than the API's, and never
//! without the scope for it.

use std::time::Duration;

use finishline::clock::Clock;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

pub(super) const SCOPES: [&str; 4] = ["submit", "read", "operate", "erase"];

/// A route of the OpenAPI document, with an address to try it at.
#[derive(Debug)]
struct Operation {
    method: Method,
    path: String,
    is_guarded: bool,
    /// As its description says.
    scope: Option<String>,
}

async fn operations(service: &Service) -> Vec<Operation> {
    let document = service.get("/openapi.json").await.expect(200).json();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("operations") {
            let description = operation["description"].as_str().unwrap_or_default();
            let scope =
                description.split_once("Scope: `").and_then(|(_, rest)| rest.split('`').next());
            operations.push(Operation {
                method: method.to_uppercase().parse().expect("a method"),
                path: path
                    .replace("{id}", "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55")
                    .replace(['{', '}'], ""),
                is_guarded: !operation["security"].is_null(),
                scope: scope.map(str::to_owned),
            });
        }
    }
    operations
}

pub(super) fn key_of(scope: &str) -> String {
    format!("key-with-the-scope-{scope}")
}

/// Every key that has all scopes but one.
fn key_without(scope: &str) -> String {
    format!("key-without-the-scope-{scope}")
}

pub(super) fn keys() -> Value {
    let mut keys = vec![json!({"name": "all", "key": key_of("all")})];
    for scope in SCOPES {
        keys.push(json!({"name": scope, "key": key_of(scope), "scopes": [scope]}));
        let others: Vec<_> = SCOPES.into_iter().filter(|other| *other != scope).collect();
        let name = format!("not-{scope}");
        keys.push(json!({"name": name, "key": key_without(scope), "scopes": others}));
    }
    keys.into()
}

async fn with_keys() -> Service {
    Setup::new().set("API__KEYS", keys()).start().await
}

async fn ask(service: &Service, operation: &Operation, authorization: Option<&str>) -> Answer {
    let mut request = service.request(operation.method.clone(), &operation.path);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    Answer::of(request).await
}

#[tokio::test]
async fn the_door_to_the_internet_serves_callbacks_and_nothing_else() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let job = service.finish(&job).await;
    let id = text(&job["id"]);
    let delivery = service.get(&format!("/v1/jobs/{id}/deliveries")).await.json();
    let delivery = text(&delivery["deliveries"][0]["id"]).to_owned();
    let paths = [
        "/".to_owned(),
        "/v1/jobs".to_owned(),
        format!("/v1/jobs/{id}"),
        format!("/v1/jobs/{id}/result"),
        format!("/v1/jobs/{id}/deliveries"),
        format!("/v1/jobs/{id}/events"),
        format!("/v1/deliveries/{delivery}"),
        format!("/v1/deliveries/{delivery}/body"),
        "/v1/stats".to_owned(),
        "/docs".to_owned(),
        "/docs/".to_owned(),
        "/openapi.json".to_owned(),
        "/metrics".to_owned(),
        "/inbox/an-inbox-secret-of-a-test".to_owned(),
    ];
    for path in &paths {
        let url = format!("{}{path}", service.callbacks);
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = Answer::of(service.request_to(method.clone(), &url)).await;
            // The inbox is a route of this door, for `POST` only, and off.
            match (path.starts_with("/inbox"), method == Method::POST) {
                (true, false) => _ = answer.problem(405, "method-not-allowed"),
                _ => _ = answer.problem(404, "not-found"),
            }
        }
    }
    for path in &paths[1..13] {
        let answer = service.get(path).await;
        assert!(answer.status < 400, "the API's own door serves {path}: {}", answer.text());
    }
    service.get_from(&service.callbacks, "/healthz").await.expect(200);
    let ready = service.get_from(&service.callbacks, "/readyz").await.expect(200);
    assert_eq!(ready.json(), json!({"status": "ready"}), "no details at this door");
    let callback = service.callback_url(id);
    let callback = callback.strip_prefix(&service.callbacks).expect("our address");
    service.get_from(&service.callbacks, callback).await.expect(204);
    service.get(callback).await.problem(404, "not-found");
    service.post("/inbox/an-inbox-secret-of-a-test", "{}").await.problem(404, "not-found");
}

#[tokio::test]
async fn the_door_to_the_internet_answers_under_any_name() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let url = service.callback_url(text(&job["id"]));
    let request = service.request_to(Method::POST, &url).header("host", "x.ngrok.app");
    let request = request.header("origin", "https://evil.example").body(r#"{"success":true}"#);
    Answer::of(request).await.expect(200);
}

#[tokio::test]
async fn one_merged_door_serves_both_and_the_api_only_with_a_key() {
    let keys = json!([{"name": "all", "key": key_of("all")}]);
    let setup = Setup::new().set("API__LISTEN", "same").set("API__KEYS", keys);
    let service = setup.start().await;
    assert_eq!(service.api, service.callbacks);
    let submit = service.request(Method::POST, "/v1/jobs").bearer_auth(key_of("all"));
    let job = Answer::of(submit.body(ready_job().to_string())).await.expect(201).json();
    let id = text(&job["id"]);
    service.get(&format!("/v1/jobs/{id}/result")).await.problem(401, "unauthorized");
    let url = service.callback_url(id);
    service.post_to(&url, r#"{"success":true}"#).await.expect(200);
    let request = service.request(Method::GET, &format!("/v1/jobs/{id}/result"));
    let answer = Answer::of(request.bearer_auth(key_of("all"))).await.expect(200);
    assert_eq!(answer.text(), r#"{"success":true}"#);
    for path in ["/healthz", "/readyz", "/docs/", "/openapi.json"] {
        service.get(path).await.expect(200);
    }
}

#[tokio::test]
async fn the_inbox_is_open_to_whoever_knows_its_secret_only() {
    let setup = Setup::new().set("CALLBACKS__INBOX_SECRET", "an-inbox-secret-of-a-test");
    let service = setup.start().await;
    let post = async |secret: &str, body: &'static str| {
        service.post_to(&format!("{}/inbox/{secret}", service.callbacks), body).await
    };
    let body = r#"{"jobId":"elsewhere-1","success":true}"#;
    for wrong in ["an-inbox-secret-of-a-tesT", "an-inbox-secret-of-a-test-", "x"] {
        post(wrong, body).await.problem(404, "not-found");
    }
    assert!(service.jobs().await.is_empty());
    assert_eq!(
        post("an-inbox-secret-of-a-test", body).await.expect(200).json(),
        json!({"outcome": "stored"})
    );
    let jobs = service.jobs().await;
    assert_eq!((&jobs[0]["origin"], &jobs[0]["status"]), (&json!("inbox"), &json!("succeeded")));
    assert_eq!((jobs.len(), &jobs[0]["engineJobId"]), (1, &json!("elsewhere-1")));
}

#[tokio::test]
async fn every_guarded_route_asks_for_a_key_and_for_its_scope() {
    let clock = Clock::manual("2026-03-01T12:00:00Z".parse().expect("a time"));
    let service = Setup::new().clock(&clock).set("API__KEYS", keys()).start().await;
    let operations = operations(&service).await;
    let scope_of = |method: Method, path: &str| {
        let found = operations.iter().find(|one| one.method == method && one.path == path);
        found.unwrap_or_else(|| panic!("{method} {path} is documented")).scope.clone()
    };
    assert_eq!(scope_of(Method::POST, "/v1/jobs").as_deref(), Some("submit"));
    assert_eq!(scope_of(Method::DELETE, "/v1/jobs").as_deref(), Some("erase"));
    assert_eq!(scope_of(Method::GET, "/v1/jobs").as_deref(), Some("read"));
    assert_eq!(scope_of(Method::GET, "/metrics").as_deref(), Some("read"));

    let must_be_guarded = |one: &&Operation| one.path.starts_with("/v1/") || one.path == "/metrics";
    let guarded: Vec<_> = operations.iter().filter(must_be_guarded).collect();
    assert!(guarded.len() >= 11, "the walk finds the routes: {guarded:?}");
    for operation in guarded {
        let name = format!("{} {}", operation.method, operation.path);
        assert!(operation.is_guarded, "{name} is documented with its key");
        let scope = operation.scope.as_deref().unwrap_or_else(|| panic!("{name} names its scope"));
        assert!(SCOPES.contains(&scope), "{name}: {scope}");
        let key = key_of("all");
        // Those before are no failures of this minute.
        clock.advance(Duration::from_secs(61));
        for wrong in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer not-a-key-of-this-service"),
            Some(&*format!("Basic {key}")),
            Some(&*format!("Bearer {}", key.to_uppercase())),
            Some(&*key),
        ] {
            let answer = ask(&service, operation, wrong).await;
            assert_eq!(answer.status, 401, "{name} with {wrong:?}");
            answer.problem(401, "unauthorized");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{name}");
        }
        let lacking =
            ask(&service, operation, Some(&format!("Bearer {}", key_without(scope)))).await;
        assert_eq!(lacking.status, 403, "{name}");
        let problem = lacking.problem(403, "forbidden-scope");
        assert!(text(&problem["detail"]).contains(scope), "{name}: {problem}");
        for enough in [format!("Bearer {}", key_of(scope)), format!("bearer {key}")] {
            let answer = ask(&service, operation, Some(&enough)).await;
            assert!(!matches!(answer.status, 401 | 403), "{name}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn what_is_open_stays_open_when_keys_are_set() {
    let service = with_keys().await;
    for path in ["/healthz", "/docs/", "/openapi.json"] {
        service.get(path).await.expect(200);
    }
    let bare = service.get("/readyz").await.expect(200).json();
    assert_eq!(bare, json!({"status": "ready"}), "details only with a key");
    let request = service.request(Method::GET, "/readyz").bearer_auth(key_of("read"));
    let full = Answer::of(request).await.expect(200).json();
    assert_eq!(
        (&full["checks"]["database"]["ok"], &full["checks"]["publicUrl"]["ok"]),
        (&json!(true), &json!(true))
    );
    let request = service.request(Method::GET, "/readyz").bearer_auth("not-a-key-of-ours");
    assert_eq!(Answer::of(request).await.expect(200).json(), bare);
}

#[tokio::test]
async fn who_has_no_key_is_turned_away_before_the_body_is_looked_at() {
    let service = with_keys().await;
    for body in ["", "not json", &"x".repeat(2_000_000)] {
        service.post("/v1/jobs", body.to_owned()).await.problem(401, "unauthorized");
    }
    assert_eq!(service.engine.requests(), Default::default());
}

#[tokio::test]
async fn what_a_browser_says_to_come_from_another_site_changes_nothing_even_with_a_key() {
    let service = with_keys().await;
    let send = async |method: Method, sites: &[&str]| {
        let request = service.request(method, "/v1/jobs?endUserId=nobody");
        let request = request.bearer_auth(key_of("all")).header("origin", service.api.as_str());
        let request = sites.iter().fold(request, |it, site| it.header("sec-fetch-site", *site));
        Answer::of(request.body(ready_job().to_string())).await
    };
    for sites in [&["cross-site"][..], &["Cross-Site"], &["same-origin", "cross-site"]] {
        for method in [Method::POST, Method::DELETE] {
            send(method, sites).await.problem(403, "forbidden-origin");
        }
        send(Method::GET, sites).await.expect(200);
    }
    assert_eq!(service.engine.requests(), Default::default(), "nothing was sent");
    for sites in [&[][..], &["same-origin"], &["same-site"], &["none"]] {
        send(Method::POST, sites).await.expect(201);
    }
}

#[tokio::test]
async fn a_key_may_be_set_by_its_digest_and_asks_for_no_host() {
    use sha2::{Digest, Sha256};
    let key = "a-key-known-by-its-digest";
    let digest: [u8; 32] = Sha256::digest(key).into();
    let keys = json!([{"name": "one", "key_sha256": finishline::domain::digest::hex(&digest)}]);
    let service = Setup::new().set("API__KEYS", keys).start().await;
    let request = service.request(Method::GET, "/v1/jobs").bearer_auth(key);
    Answer::of(request.header("host", "finishline.example.com")).await.expect(200);
    service.get("/v1/jobs").await.problem(401, "unauthorized");
}

#[tokio::test]
async fn without_keys_other_sites_are_kept_out() {
    let service = Service::start().await;
    let port = service.api.rsplit(':').next().expect("a port");
    let send = async |method: Method, host: Option<&str>, origin: Option<&str>| {
        let mut request = service.request(method, "/v1/jobs?endUserId=nobody");
        for (name, value) in [("host", host), ("origin", origin)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        Answer::of(request.body(ready_job().to_string())).await
    };
    for host in [
        "evil.example",
        "evil.example:8086",
        "localhost.evil.example",
        "10.0.0.1",
        "127.0.0.1.nip.io",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            send(method, Some(host), None).await.problem(403, "forbidden-origin");
        }
    }
    for origin in ["https://evil.example", "http://localhost:1", "null", "http://127.0.0.1"] {
        for method in [Method::POST, Method::DELETE] {
            send(method, None, Some(origin)).await.problem(403, "forbidden-origin");
        }
        send(Method::GET, None, Some(origin)).await.expect(200);
    }
    assert!(service.jobs().await.is_empty());
    assert_eq!(service.engine.requests(), Default::default(), "nothing was sent");
    let own = format!("http://127.0.0.1:{port}");
    send(Method::POST, None, Some(&own)).await.expect(201);
    let name = format!("localhost:{port}");
    send(Method::POST, Some(&name), Some(&format!("http://{name}"))).await.expect(201);
    send(Method::GET, Some("[::1]:8086"), None).await.expect(200);
}

#[tokio::test]
async fn an_api_that_others_could_reach_does_not_start_open() {
    let keys = r#"[{"name": "all", "key": "a-key-that-is-long-enough"}]"#;
    for listen in ["0.0.0.0:0", "[::]:0", "192.168.1.10:8086", "same", "127.0.0.1:8085"] {
        let settings =
            [("FINISHLINE__API__LISTEN", listen), ("FINISHLINE__API__OPEN_ON_LOOPBACK", "true")];
        let folder = tempfile::tempdir().expect("a folder");
        let ended = run_program(folder.path(), &["serve"], &settings).await;
        assert_eq!(ended.code, Some(2), "{settings:?}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(
            ended.stderr.contains("api.listen") && ended.stderr.contains("open_on_loopback"),
            "{}",
            ended.stderr
        );
        assert_eq!(ended.stdout, "");
        let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").collect();
        assert!(left.is_empty(), "no database was made: {left:?}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [("API__LISTEN", "0.0.0.0:0"), ("API__KEYS", keys)];
    Program::serve(folder.path(), &settings).await;
}
