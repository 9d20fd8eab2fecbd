//! The token endpoint of any issuer, in good and in bad days: what it says is read tolerantly, told
//! truthfully, and never lets a job be paid twice.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use finishline::{clock::Clock, simulator::FaultRate};
use serde_json::Value;

use crate::support::*;

type Script = Arc<Mutex<Box<dyn Fn() -> Response + Send>>>;

/// A token endpoint that answers as it is told, and counts.
#[derive(Clone)]
struct Issuer {
    url: String,
    calls: Arc<AtomicUsize>,
    script: Script,
}

impl Issuer {
    async fn start(answer: impl Fn() -> Response + Send + 'static) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let script: Script = Arc::new(Mutex::new(Box::new(answer)));
        let (count, told) = (calls.clone(), script.clone());
        let issue = move || {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = (told.lock().unwrap())();
            async move { answer }
        };
        let url = serve(Router::new().route("/token", post(issue))).await + "/token";
        Self { url, calls, script }
    }

    fn answer(&self, answer: impl Fn() -> Response + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(answer);
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// A service that asks it; the Engine itself takes any token, and keeps what it was shown.
    fn setup(&self) -> Setup {
        let setup = Setup::new().engine(|options| options.require_token = false);
        setup.set("ENGINE__AUTH__TOKEN_URL", &self.url)
    }
}

fn body(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [("content-type", content_type)], body.into()).into_response()
}

fn busy(status: u16, retry_after: Option<String>) -> Response {
    let mut headers = HeaderMap::new();
    headers.extend(
        retry_after.map(|wait| (axum::http::header::RETRY_AFTER, wait.parse().expect("a header"))),
    );
    (StatusCode::from_u16(status).expect("a status"), headers).into_response()
}

/// Submits a job that must not be taken; its problem.
async fn refused(service: &Service, status: u16, code: &str) -> (Answer, Value) {
    let answer = service.submit(&ready_job()).await;
    let problem = answer.problem(status, code);
    let id = text(&problem["jobId"]).to_owned();
    assert_eq!(service.job(&id).await["status"], "unsent", "{problem}");
    assert_eq!(problem.get("engineStatus"), None, "the Engine itself was not asked");
    assert!(text(&problem["detail"]).contains("was not taken"), "{problem}");
    let events = service.get(&format!("/v1/jobs/{id}/events")).await.json();
    let last = events["events"].as_array().expect("events").last().expect("one").clone();
    assert_eq!(last["data"]["detail"], problem["detail"], "the timeline says the same: {last}");
    (answer, problem)
}

#[tokio::test]
async fn the_token_of_every_issuer_is_taken() {
    let padded = format!(r#"{{"padding":"{}","access_token":"t"}}"#, "x".repeat(400_000));
    let answers: Vec<(u16, &str, Vec<u8>)> = vec![
        (200, "application/json", br#"{"access_token":"t","expires_in":"3599"}"#.to_vec()),
        (201, "text/html", b"\xef\xbb\xbf{\"access_token\":\" t\\n\",\"expires_in\":0}".to_vec()),
        (
            200,
            "application/json",
            br#"{"access_token":"t","token_type":"BEARER","expires_in":-5}"#.to_vec(),
        ),
        (
            200,
            "application/json",
            br#"{"access_token":"t","expires_in":3599.5,"ext_expires_in":"9","expires_on":"1"}"#
                .to_vec(),
        ),
        (
            200,
            "application/json",
            br#"{"access_token":"t","expires_in":1e999,"not-before-policy":0}"#.to_vec(),
        ),
        (200, "application/json", br#"{"access_token":"t","expires_in":null}"#.to_vec()),
        (200, "application/x-www-form-urlencoded", b"access_token=t&expires_in=60".to_vec()),
        (200, "text/plain", padded.into_bytes()),
    ];
    for (status, content_type, bytes) in answers {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        let issuer = Issuer::start(move || body(status, content_type, bytes.clone())).await;
        let service = issuer.setup().start().await;
        for _ in 0..2 {
            let answer = service.submit(&ready_job()).await;
            assert_eq!(answer.status, 201, "{shown}: {}", answer.text());
        }
        assert_eq!(issuer.calls(), 1, "it is kept: {shown}");
    }
}

#[tokio::test]
async fn each_way_to_have_no_token_has_its_own_words_and_blames_the_settings_only_if_they_are_to_blame()
 {
    const BLAME: &str = "engine.auth in the settings may be wrong";
    let oauth = |status, code: &str| {
        let json = format!(r#"{{"error":"{code}","error_description":"for test-secret"}}"#);
        move || body(status, "application/json", json.clone())
    };
    let issuer = Issuer::start(oauth(401, "invalid_client")).await;
    type Script = Box<dyn Fn() -> Response + Send>;
    let page = "<!doctype html><title>hello</title>";
    let newline = r#"{"access_token":"a\nb"}"#;
    let cases: Vec<(Script, &str, bool)> = vec![
        (Box::new(oauth(401, "invalid_client")), "401 invalid_client: for [redacted]", true),
        (Box::new(oauth(400, "unauthorized_client")), "400 unauthorized_client", true),
        (Box::new(oauth(403, "access_denied")), "403 access_denied", true),
        (Box::new(oauth(200, "invalid_client")), "200 invalid_client", true),
        (Box::new(move || body(403, "text/html", page)), "refuses the request (403)", false),
        (Box::new(|| body(500, "text/plain", "")), "answers with an error (500)", false),
        (Box::new(|| body(404, "text/plain", "")), "answers with an error (404)", false),
        (Box::new(|| body(302, "text/plain", "")), "answers with a redirect (302)", false),
        (Box::new(|| busy(503, None)), "answers with an error (503)", false),
        (Box::new(move || body(200, "text/html", page)), "a web page", false),
        (Box::new(move || body(200, "application/json", newline)), "no header can carry", false),
        (Box::new(|| body(200, "application/json", "{}")), "something else", false),
        (
            Box::new(|| body(200, "application/json", vec![b' '; 2_000_000])),
            "more than 1 MiB",
            false,
        ),
    ];
    for (script, words, is_blamed) in cases {
        issuer.answer(script);
        let service = issuer.setup().start().await;
        let (_, problem) = refused(&service, 502, "engine-auth").await;
        let detail = text(&problem["detail"]);
        assert!(detail.contains(words), "{words}: {detail}");
        assert_eq!(detail.contains(BLAME), is_blamed, "{detail}");
        assert!(!detail.contains("test-secret"), "{detail}");
        assert_eq!(service.engine.requests().submissions, 0);
    }

    let plain = free_port().await;
    let without_tls = format!("https://{}/token", plain.local_addr().expect("an address"));
    tokio::spawn(axum::serve(plain, Router::new()).into_future());
    for (url, words) in [
        (format!("http://{}/token", dead_port().await), "nothing answers there"),
        ("http://no-such-host.invalid/token".to_owned(), "its name leads to no address"),
        (without_tls, "TLS fails"),
    ] {
        let service = Setup::new().set("ENGINE__AUTH__TOKEN_URL", url).start().await;
        let (_, problem) = refused(&service, 502, "engine-auth").await;
        let detail = text(&problem["detail"]);
        assert!(detail.contains(words) && !detail.contains(BLAME), "{words}: {detail}");
    }
}

#[tokio::test]
async fn a_busy_token_endpoint_is_waited_for_within_the_budget_and_then_passed_on() {
    let date = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(90);
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date);
    let date = date.expect("a date in reach");
    for (status, named, least, most) in [
        (429, None, 30, 30),
        (429, Some("7".to_owned()), 7, 7),
        (503, Some("7".to_owned()), 7, 7),
        (429, Some(date), 60, 90),
        (429, Some("99999999999".to_owned()), 60, 24 * 60 * 60),
    ] {
        let issuer = Issuer::start(move || busy(status, named.clone())).await;
        let service = issuer.setup().start().await;
        let (answer, _) = refused(&service, 503, "engine-busy").await;
        let seconds: u64 = answer.header("retry-after").expect("a time").parse().expect("seconds");
        assert!((least..=most).contains(&seconds), "{status}: {seconds}");
    }

    let issuer = Issuer::start(|| busy(429, Some("1".to_owned()))).await;
    let setup = issuer.setup().set("ENGINE__RETRY_BUDGET", "15s");
    let service = setup.start().await;
    let recovering = async {
        wait_for("the first call", async || (issuer.calls() == 1).then_some(())).await;
        issuer.answer(|| body(200, "application/json", r#"{"access_token":"t"}"#));
    };
    let body = ready_job();
    let (answer, ()) = tokio::join!(service.submit(&body), recovering);
    answer.expect(201);
    assert_eq!((issuer.calls(), service.engine.requests().submissions), (2, 1));
}

#[tokio::test]
async fn an_endpoint_that_refused_is_left_alone_for_its_time_whoever_asks() {
    for status in [401, 403, 429, 503] {
        for (named, pause) in [(None, 5), (Some("20".to_owned()), 20)] {
            let clock = Clock::manual(Clock::system().now());
            let issuer = Issuer::start(move || busy(status, named.clone())).await;
            let service = issuer.setup().clock(&clock).start().await;
            let body = ready_job();
            let together = (0..5).map(|_| service.submit(&body));
            for answer in futures_util::future::join_all(together).await {
                assert!(matches!(answer.status, 502 | 503), "{}", answer.text());
            }
            service.submit(&body).await;
            clock.advance(Duration::from_millis(pause * 1000 - 1));
            service.submit(&body).await;
            assert_eq!(issuer.calls(), 1, "{status}, {pause} s");
            clock.advance(Duration::from_millis(1));
            service.submit(&body).await;
            assert_eq!(issuer.calls(), 2, "{status}, {pause} s");
        }
    }
}

#[tokio::test]
async fn what_fails_before_the_first_byte_is_unsent_however_short_the_time() {
    // Takes connections, and never greets.
    let silent = free_port().await;
    let address = format!("https://{}/24.06", silent.local_addr().expect("an address"));
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            held.push(stream);
        }
    });
    let setup = Setup::new().set("ENGINE__BASE_URL", address).set("ENGINE__TIMEOUT", "300ms");
    let service = setup.start().await;
    let (_, problem) = refused(&service, 502, "engine-unavailable").await;
    assert!(text(&problem["detail"]).contains("cannot be reached"), "{problem}");
}

#[tokio::test]
async fn a_look_up_that_fails_never_says_that_the_job_was_not_taken() {
    let service = Service::start().await;
    let id = text(&service.submitted(&ready_job()).await["id"]).to_owned();
    for status in [400, 401, 429, 500, 302] {
        service.engine.set(|options| options.poll_answer = Some(status));
        let answer = service.post(&format!("/v1/jobs/{id}/refresh"), "").await;
        assert!(answer.status >= 400, "{}", answer.text());
        let detail = text(&answer.json()["detail"]).to_owned();
        assert!(!detail.contains("not taken") && !detail.contains("send again"), "{detail}");
    }
    assert_eq!(service.job(&id).await["status"], "submitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_of_a_job_that_may_be_running_what_the_problem_says() {
    let engine = Service::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (base_url, token_url) = (engine.engine.base_url(), engine.engine.token_url());
    let settings = [
        ("CALLBACKS__PUBLIC_URL", "http://127.0.0.1"),
        ("ENGINE__BASE_URL", base_url.as_str()),
        ("ENGINE__AUTH__TOKEN_URL", token_url.as_str()),
        ("ENGINE__AUTH__CLIENT_ID", "test"),
        ("ENGINE__AUTH__CLIENT_SECRET", "test-secret"),
        ("ENGINE__RETRY_BUDGET", "0s"),
    ];
    let program = Program::serve(folder.path(), &settings).await;
    let submit = async || {
        let url = format!("{}/v1/jobs", program.api);
        let request = engine.request_to(reqwest::Method::POST, &url);
        let request = request.header("content-type", "application/json");
        Answer::of(request.body(ready_job().to_string())).await
    };
    engine.engine.set(|options| options.lose_reply = FaultRate::First(1));
    let problem = submit().await.problem(502, "engine-unavailable");
    let detail = text(&problem["detail"]);
    assert!(detail.contains("may be running") && detail.contains("paid twice"), "{detail}");
    program.said(detail).await;
    assert!(!program.stderr().contains("not take"), "{}", program.stderr());

    engine.engine.set(|options| options.answer = Some(429));
    let problem = submit().await.problem(503, "engine-busy");
    program.said(text(&problem["detail"])).await;
    assert!(text(&problem["detail"]).contains("safe to send again"), "{problem}");
}
