//! `deploy/nginx.conf` in a real nginx: callbacks and the API come through it whole, and no callback's
//! address stays in its logs.
//!
//! The very file is used, over TLS; only its ports, certificates and the folder of its logs are those
//! of the test.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

#[path = "../support/mod.rs"]
mod support;

use std::{fs, io::Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use finishline::simulator::{Options, Processing, Simulator};
use flate2::{Compression, write::GzEncoder};
use futures_util::{StreamExt, stream};
use reqwest::{Body, Client, Method, RequestBuilder};
use serde_json::{Value, json};
use support::*;
use tempfile::TempDir;

const CONFIGURATION: &str = include_str!("../../deploy/nginx.conf");
const CERTIFICATE: &[u8] = include_bytes!("../operations/self_signed.der");
const CERTIFICATE_KEY: &[u8] = include_bytes!("../operations/self_signed_key.der");

/// The names that the file has.
const HOOKS: &str = "hooks.example.com";
const API: &str = "finishline.example.com";

const KEY: &str = "key-of-an-nginx-reader-0123";
const MIB: usize = 1024 * 1024;
/// `callbacks.max_body` unless set.
const MAX_BODY: usize = 16 * MIB;

/// nginx with the file, in front of two doors.
struct Front {
    nginx: Nginx,
    http: Client,
    /// Where nginx writes its logs.
    folder: TempDir,
}

impl Front {
    /// `None`, said loudly, where there is no nginx. `change` is made to the file first.
    async fn of(callbacks: &str, api: &str, change: impl FnOnce(String) -> String) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().display().to_string();
        fs::write(folder.path().join("pem"), pem("CERTIFICATE", CERTIFICATE)).expect("written");
        fs::write(folder.path().join("key"), pem("PRIVATE KEY", CERTIFICATE_KEY)).expect("written");
        let replace = |text: String, (from, to): (&str, &str)| {
            assert!(text.contains(from), "deploy/nginx.conf has {from}");
            text.replace(from, to)
        };
        let configuration = [
            ("listen 443 ssl;", "listen 127.0.0.1:{port} ssl;"),
            ("127.0.0.1:8085", callbacks.trim_start_matches("http://")),
            ("127.0.0.1:8086", api.trim_start_matches("http://")),
            ("/etc/ssl/finishline/hooks.pem", &format!("{path}/pem")),
            ("/etc/ssl/finishline/hooks.key", &format!("{path}/key")),
            ("/etc/ssl/finishline/api.pem", &format!("{path}/pem")),
            ("/etc/ssl/finishline/api.key", &format!("{path}/key")),
            ("/var/log/nginx/", &format!("{path}/")),
        ]
        .into_iter()
        .fold(CONFIGURATION.to_owned(), replace);
        let nginx = Nginx::start(&change(configuration)).await?;
        let http = Client::builder()
            .no_proxy()
            .tls_danger_accept_invalid_certs(true)
            .resolve(HOOKS, nginx.address())
            .resolve(API, nginx.address())
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .timeout(DEADLINE)
            .build()
            .expect("a client");
        Some(Self { nginx, http, folder })
    }

    /// In front of a service whose API asks for a key.
    async fn started() -> Option<(Self, Service)> {
        let keys = json!([{ "name": "app", "key": KEY }]);
        let service = Setup::new().key(KEY).set("API__KEYS", keys).start().await;
        let front = Self::of(&service.callbacks, &service.api, |text| text).await?;
        Some((front, service))
    }

    /// A request to one of the two names.
    fn request(&self, method: Method, host: &str, path: &str) -> RequestBuilder {
        let port = self.nginx.address().port();
        self.http.request(method, format!("https://{host}:{port}{path}"))
    }

    /// A request to the API with its key.
    fn api(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, API, path).bearer_auth(KEY)
    }

    async fn call_back(&self, path: &str, body: impl Into<Body>) -> Answer {
        let request = self.request(Method::POST, HOOKS, path);
        Answer::of(request.header("content-type", "application/json").body(body)).await
    }

    /// Lines of the access log, once there are this many.
    async fn accesses(&self, count: usize) -> Vec<String> {
        let file = self.folder.path().join("finishline.log");
        wait_for("nginx to log what it served", async || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
        .await
    }

    /// All that nginx wrote anywhere but into the access log.
    fn errors(&self) -> String {
        let file = self.folder.path().join("finishline-error.log");
        fs::read_to_string(file).unwrap_or_default() + &self.nginx.log()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A running job: its id and the path of its callback address.
async fn running_job(service: &Service) -> (String, String) {
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]).to_owned();
    let path = service.callback_url(&id);
    let path = path.strip_prefix(&service.callbacks).expect("our address").to_owned();
    (id, path)
}

/// A result of this many bytes that gzip cannot shrink much.
fn result_of(bytes: usize) -> Bytes {
    let start = br#"{"success":true,"outputFiles":{},"padding":""#;
    let end = br#""}"#;
    let padding = (0u32..).map(|number| b'a' + (number.wrapping_mul(2_654_435_761) >> 28) as u8);
    let padding = padding.take(bytes - start.len() - end.len());
    start.iter().copied().chain(padding).chain(end.iter().copied()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes every byte");
    encoder.finish().expect("memory takes every byte")
}

/// Sent piece by piece, so without a `Content-Length`.
fn chunked(bytes: &Bytes) -> Body {
    let pieces: Vec<_> =
        bytes.chunks(70_000).map(|piece| Ok::<_, std::io::Error>(bytes.slice_ref(piece))).collect();
    Body::wrap_stream(stream::iter(pieces))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_of_max_body_comes_through_plain_chunked_and_packed() {
    let Some((front, service)) = Front::started().await else { return };
    let largest = result_of(MAX_BODY);
    let ways: [(&str, Body); 3] = [
        ("identity", largest.clone().into()),
        ("identity", chunked(&largest)),
        ("gzip", gzip(&largest).into()),
    ];
    for (coding, body) in ways {
        let (id, path) = running_job(&service).await;
        let request = front.request(Method::POST, HOOKS, &path).header("content-encoding", coding);
        let answer = Answer::of(request.body(body)).await.expect(200);
        assert_eq!(answer.json(), json!({"outcome": "stored"}), "{coding}");
        let kept = service.get(&format!("/v1/jobs/{id}/result")).await.expect(200).body;
        assert!(kept == largest, "{coding}: {} bytes were kept", kept.len());
    }
    assert!(!front.errors().contains("temporary file"), "{}", front.errors());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_max_body_is_refused_by_the_service_itself() {
    let Some((front, service)) = Front::started().await else { return };
    let (id, path) = running_job(&service).await;
    let answer = front.call_back(&path, result_of(MAX_BODY + 1)).await;
    answer.problem(413, "payload-too-large");
    assert_eq!(service.job(&id).await["status"], "submitted");
    front.call_back(&path, "{\"success\":true,\"outputFiles\":{}}").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_with_get_or_head_is_answered_as_at_the_door_itself() {
    let Some((front, service)) = Front::started().await else { return };
    let (_, callback) = running_job(&service).await;
    for path in [callback.as_str(), "/healthz", "/readyz", "/", "/v1/jobs"] {
        for method in [Method::GET, Method::HEAD] {
            let direct = format!("{}{path}", service.callbacks);
            let direct = Answer::of(service.request_to(method.clone(), &direct)).await;
            let behind = Answer::of(front.request(method.clone(), HOOKS, path)).await;
            assert_eq!(behind.status, direct.status, "{method} {path}");
            for name in ["content-type", "cache-control", "content-security-policy"] {
                assert_eq!(behind.header(name), direct.header(name), "{method} {path}: {name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_shows_the_headers_that_the_sender_sent() {
    let Some((front, service)) = Front::started().await else { return };
    let (id, path) = running_job(&service).await;
    let headers = [
        ("user-agent", "relu-engine/24.06"),
        ("content-type", "application/json; charset=utf-8"),
        ("x-request-id", "of-the-engine-4711"),
        ("x_engine_build", "7"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let mut request = front.request(Method::POST, HOOKS, &path);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let body = "{\"success\":true,\"outputFiles\":{}}";
    Answer::of(request.body(body)).await.expect(200);
    let deliveries = service.get(&format!("/v1/jobs/{id}/deliveries")).await.expect(200).json();
    let kept = deliveries["deliveries"][0]["headers"].as_array().expect("a list").clone();
    let host = format!("{HOOKS}:{}", front.nginx.address().port());
    let beside = [("host", host.as_str()), ("x-forwarded-for", "127.0.0.1")];
    for (name, value) in headers.into_iter().chain(beside) {
        let of_name: Vec<&Value> = kept.iter().filter(|header| header[0] == name).collect();
        assert_eq!(of_name, [&json!([name, value])], "{kept:?}");
    }
}

/// Every way in which nginx has something to say about a request.
async fn go_wrong(front: &Front, service: &mut Service) -> Vec<String> {
    let (_, path) = running_job(service).await;
    front.call_back(&path, "{\"success\":true,\"outputFiles\":{}}").await.expect(200);
    let forged = format!("{path}0");
    front.call_back(&forged, "{}").await.expect(404);
    let inbox = "/inbox/a-secret-of-an-inbox-0123".to_owned();
    front.call_back(&inbox, "{}").await.expect(404);
    let request = front.request(Method::POST, HOOKS, &path).header("content-length", 40 * MIB);
    let refused = request.body(Body::wrap_stream(stream::pending::<std::io::Result<Bytes>>()));
    assert_eq!(Answer::of(refused).await.status, 413, "nginx's own limit");
    let link = "/sign-in/a-link-that-works-once?of=somebody".to_owned();
    Answer::of(front.request(Method::GET, API, &link)).await;
    service.stop().await;
    front.call_back(&path, "{}").await.expect(502);
    Answer::of(front.request(Method::GET, API, &link)).await.expect(502);
    vec![path, inbox, "a-link-that-works-once".to_owned(), "somebody".to_owned()]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_of_nginx_shows_an_address_that_is_a_secret() {
    let Some((front, mut service)) = Front::started().await else { return };
    let secrets = go_wrong(&front, &mut service).await;
    let lines = front.accesses(7).await;
    let of_callback = lines.iter().find(|line| line.contains(" POST 200 ")).expect("a line");
    let request_id = of_callback.rsplit(' ').next().expect("a word");
    assert!(request_id.len() > 8, "the service's own id ends the line: {of_callback}");
    assert!(lines.iter().any(|line| line.contains(" POST 502 ")), "{lines:?}");
    let logs = format!("{}\n{}", lines.join("\n"), front.errors());
    for secret in &secrets {
        assert!(!logs.contains(secret), "{secret}: {logs}");
    }

    // Without the lowered level it does: so this test would see it.
    assert_eq!(CONFIGURATION.matches(" emerg;").count(), 2);
    service.start_again().await;
    let raised = |text: String| text.replace(" emerg;", " error;");
    let front = Front::of(&service.callbacks, &service.api, raised).await.expect("nginx");
    let secrets = go_wrong(&front, &mut service).await;
    front.accesses(7).await;
    assert!(front.errors().contains(&secrets[0]), "{}", front.errors());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_service_are_kept_and_shorter_than_it_keeps_them() {
    let options = Options { processing: Processing::Manual, ..Options::default() };
    let engine = Simulator::start(free_port().await, options).await.expect("a simulator");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keys = json!([{ "name": "app", "key": KEY }]).to_string();
    let service = Program::serve(
        folder.path(),
        &[
            ("API__KEYS", &keys),
            ("CALLBACKS__PUBLIC_URL", "http://127.0.0.1"),
            ("ENGINE__BASE_URL", &engine.base_url()),
            ("ENGINE__AUTH__TOKEN_URL", &engine.token_url()),
            ("ENGINE__AUTH__CLIENT_ID", "test"),
            ("ENGINE__AUTH__CLIENT_SECRET", "test-secret"),
            ("SPOOL__SIZE", "1MiB"),
        ],
    )
    .await;
    let Some(front) = Front::of(&service.callbacks, &service.api, |text| text).await else {
        return;
    };
    let request = front.api(Method::POST, "/v1/jobs").header("content-type", "application/json");
    Answer::of(request.body(ready_job().to_string())).await.expect(201);
    let url = engine.jobs()[0].callback_url.clone().expect("an address");
    let path = url.strip_prefix("http://127.0.0.1").expect("our address");

    for _ in 0..40 {
        front.call_back(path, "{\"success\":true,\"outputFiles\":{}}").await.expect(200);
    }
    let figures = Answer::of(front.api(Method::GET, "/metrics")).await.expect(200).text();
    let open = "finishline_http_connections{door=\"callbacks\"} ";
    let open = figures.lines().find_map(|line| line.strip_prefix(open)).expect("a figure");
    // One at a time came, so that one connection was enough. A probe may have one beside it.
    assert!(["1", "2"].contains(&open), "{open} connections are open");

    let kept = CONFIGURATION.matches("keepalive_timeout ").count();
    assert_eq!((kept, CONFIGURATION.matches("keepalive_timeout 60s;").count()), (2, 2));
    assert!(load(&[]).service.keep_alive > std::time::Duration::from_secs(60));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_whole_behind_it() {
    let Some((front, service)) = Front::started().await else { return };
    let request = front.api(Method::GET, "/v1/events").header("accept", "text/event-stream");
    let events = within(request.send()).await.expect("an answer");
    assert_eq!(events.status(), 200);
    let mut events = events.bytes_stream();

    let request = front.api(Method::POST, "/v1/jobs").header("content-type", "application/json");
    let job = json!({
        "inputFiles": {"cbct": {"extension": ".dcm"}},
        "outputFiles": {"meshes": [{"extension": ".stl", "structures": ["mandible"]}]},
    });
    let job = Answer::of(request.body(job.to_string())).await.expect(201).json();
    let id = text(&job["id"]);
    // Larger than nginx takes by itself, and than a callback may be.
    let scan = result_of(MAX_BODY * 2 + 1);
    let upload = front.api(Method::PUT, &format!("/v1/jobs/{id}/inputs/cbct")).body(scan);
    let uploaded = Answer::of(upload).await;
    assert!(matches!(uploaded.status, 200..=204), "{}", uploaded.text());

    let wait = front.api(Method::GET, &format!("/v1/jobs/{id}/result?wait=20"));
    let (waited, _) = tokio::join!(Answer::of(wait), service.finish(&job));
    waited.expect(200);
    let mut seen = String::new();
    while !seen.contains("event: job.finished\n") {
        let piece = within(events.next()).await.expect("the stream goes on").expect("bytes");
        seen.push_str(std::str::from_utf8(&piece).expect("UTF-8"));
    }

    let page = Answer::of(front.request(Method::GET, API, "/jobs")).await.expect(303);
    assert!(page.header("location").expect("a form").starts_with("/sign-in?"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_that_nginx_has_by_itself_is_found_before_a_result_is_lost() {
    // nginx needs the service's address first, and the service nginx's.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let callbacks = free.local_addr().expect("an address").to_string();
    drop(free);
    let Some(nginx) = Nginx::in_front_of(&format!("http://{callbacks}")).await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [
        ("CALLBACKS__LISTEN", callbacks.as_str()),
        ("CALLBACKS__PUBLIC_URL", &nginx.origin()),
        ("ENGINE__BASE_URL", "http://127.0.0.1:1/24.06"),
        ("ENGINE__AUTH__TOKEN_URL", "http://127.0.0.1:1/oauth/token"),
        ("ENGINE__AUTH__CLIENT_ID", "a"),
        ("ENGINE__AUTH__CLIENT_SECRET", "b"),
    ];
    let program = Program::serve(folder.path(), &settings).await;
    let found = wait_for("a finding about the public URL", async || {
        let ready = Answer::of(http_client().get(format!("{}/readyz", program.api))).await;
        let public_url = ready.json()["checks"]["publicUrl"].clone();
        (!public_url["checkedAt"].is_null()).then_some(public_url)
    })
    .await;
    assert_eq!(found["ok"], false, "{found}");
    assert!(found.to_string().contains("client_max_body_size"), "{found}");
    assert!(nginx.log().contains("too large body"), "{}", nginx.log());
}
