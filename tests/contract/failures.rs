//! Those who cannot get in: heard in the log and the figures, slowed down, and no burden.
//!
//! The invariants: a right key is let in whatever its address has tried before; no key is logged.

use finishline::simulator::{Options, Simulator};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::support::*;

const KEY: &str = "a-key-that-is-long-enough";
const WRONG: &str = "no-key-of-this-service-at-all";
const INBOX: &str = "an-inbox-secret-of-a-test";

/// How many wrong keys of one minute are answered with 401.
const ALLOWED: usize = 10;

async fn serve() -> (Program, TempDir, Simulator) {
    let engine = Simulator::start(free_port().await, Options::default()).await.expect("an Engine");
    let folder = tempfile::tempdir().expect("a folder");
    let keys = json!([{"name": "all", "key": KEY}]).to_string();
    let (base, token) = (engine.base_url(), engine.token_url());
    let settings = [
        ("API__KEYS", keys.as_str()),
        ("CALLBACKS__INBOX_SECRET", INBOX),
        ("CALLBACKS__PUBLIC_URL", "http://127.0.0.1"),
        ("ENGINE__BASE_URL", &base),
        ("ENGINE__AUTH__TOKEN_URL", &token),
    ];
    (Program::serve(folder.path(), &settings).await, folder, engine)
}

async fn get(program: &Program, path: &str, key: &str) -> Answer {
    let request = http_client().get(format!("{}{path}", program.api));
    Answer::of(if key.is_empty() { request } else { request.bearer_auth(key) }).await
}

async fn figure(program: &Program, reason: &str) -> u64 {
    let metrics = get(program, "/metrics", KEY).await.expect(200).text();
    let name = format!("finishline_access_failures_total{{reason=\"{reason}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |number| number.parse().expect("a number"))
}

fn lines<'a>(log: &'a str, words: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(words)).collect()
}

#[tokio::test]
async fn wrong_keys_are_logged_counted_and_answered_late_and_a_right_one_always_at_once() {
    let (program, _folder, _engine) = serve().await;
    for path in ["/v1/jobs", "/v1/stats", "/metrics", "/v1/relays", "/v1/jobs/x"] {
        get(&program, path, "").await.problem(401, "unauthorized");
        for _ in 0..2 {
            get(&program, path, WRONG).await.problem(401, "unauthorized");
        }
    }
    for (path, method) in [("/v1/jobs", Method::GET), ("/v1/jobs", Method::POST)] {
        let request = http_client().request(method, format!("{}{path}", program.api));
        let answer = Answer::of(request.bearer_auth(WRONG)).await;
        answer.problem(429, "too-many-failures");
        let wait: u64 = answer.header("retry-after").expect("a time").parse().expect("seconds");
        assert!((1..=60).contains(&wait), "{wait}");
        get(&program, path, KEY).await.expect(200);
        get(&program, path, "").await.problem(401, "unauthorized");
    }
    // Where no key is needed a wrong one is heard too, and gets what no key gets.
    assert_eq!(
        get(&program, "/readyz", WRONG).await.json().as_object().map(|it| it.len()),
        Some(1)
    );
    assert_eq!(figure(&program, "wrong-key").await, ALLOWED as u64 + 3);

    let log = program.stderr();
    let heard = lines(&log, "a request came with a wrong API key");
    assert_eq!(heard.len(), ALLOWED, "{log}");
    for (line, route) in [(heard[0], "/v1/jobs"), (heard[9], "/v1/jobs/{id}")] {
        assert!(
            line.contains("WARN") && line.contains("127.0.0.1") && line.contains(route),
            "{line}"
        );
    }
    assert_eq!(lines(&log, "too many wrong API keys").len(), 1, "{log}");
    assert!(!log.contains(WRONG) && !log.contains(KEY), "{log}");
}

#[tokio::test]
async fn sign_ins_that_fail_count_with_the_wrong_keys_and_a_right_one_gets_in() {
    let (program, _folder, _engine) = serve().await;
    let page = get(&program, "/sign-in", "").await.expect(200);
    let cookie = page.header("set-cookie").and_then(|set| set.split(';').next()).expect("a cookie");
    let html = page.text();
    let (_, token) = html.split_once("name=\"formToken\" value=\"").expect("a form");
    let token = token.split('"').next().expect("a value");
    let sign_in = async |key: &str| {
        let form = format!("formToken={token}&next=%2Fjobs&key={key}");
        let request = http_client().post(format!("{}/sign-in", program.api));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        Answer::of(request.header("cookie", cookie).body(form)).await
    };
    sign_in("").await.expect(401);
    for _ in 0..ALLOWED {
        sign_in(WRONG).await.expect(401);
    }
    let late = sign_in(WRONG).await.expect(429);
    assert!(late.header("retry-after").is_some());
    assert!(late.text().contains("Too many wrong keys") && late.text().contains("name=\"key\""));
    sign_in(KEY).await.expect(303);
    get(&program, "/v1/jobs", WRONG).await.problem(429, "too-many-failures");
    assert_eq!(figure(&program, "sign-in").await, ALLOWED as u64 + 1);
    let log = program.stderr();
    assert_eq!(lines(&log, "tried to sign in with a wrong API key").len(), ALLOWED, "{log}");
    assert!(log.contains("/sign-in") && !log.contains(WRONG), "{log}");
}

#[tokio::test]
async fn forged_callbacks_and_inbox_secrets_are_404_counted_and_logged_once() {
    let (program, _folder, _engine) = serve().await;
    let job = "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55";
    let forged = [
        format!("/callbacks/{job}/{}", "A".repeat(43)),
        format!("/callbacks/{job}/%ff"),
        "/callbacks/x/y".to_owned(),
    ];
    let mut sent = 0;
    for path in forged.iter().cycle().take(60) {
        for method in [Method::POST, Method::GET] {
            let request = http_client().request(method, format!("{}{path}", program.callbacks));
            Answer::of(request.body("{\"success\":true}")).await.problem(404, "not-found");
            sent += 1;
        }
    }
    assert_eq!(figure(&program, "forged-callback").await, sent);
    let log = program.stderr();
    assert_eq!(lines(&log, "not ours").len(), 1, "{log}");
    assert!(!log.contains("AAAA"), "{log}");

    let (program, _folder, _engine) = serve().await;
    for secret in ["an-inbox-secret-of-a-tesT", "x", "%ff"] {
        let url = format!("{}/inbox/{secret}", program.callbacks);
        Answer::of(http_client().post(url).body("{}")).await.problem(404, "not-found");
    }
    assert_eq!(figure(&program, "wrong-inbox-secret").await, 3);
    let log = program.stderr();
    assert_eq!(lines(&log, "wrong secret").len(), 1, "{log}");
    assert!(!log.contains("an-inbox-secret"), "{log}");
}

#[tokio::test]
async fn a_new_key_gets_in_by_the_line_that_is_printed_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = run_program(folder.path(), &["key", "new", "--name", "the \"portal\""], &[]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let lines: Vec<&str> = made.stdout.lines().collect();
    let [key, setting, variable] = lines[..] else { panic!("three lines: {made:?}") };
    assert!(key.len() >= 22 && !setting.contains(key) && !variable.contains(key), "{made:?}");
    assert!(!made.stderr.contains(key));
    let again = run_program(folder.path(), &["key", "new"], &[]).await;
    assert_ne!(again.stdout.lines().next(), Some(key), "each is new");

    let file = folder.path().join("settings.toml");
    std::fs::write(&file, format!("[api]\n{setting}\n")).expect("written");
    let from_file = finishline::config::load(Some(&file), std::iter::empty()).expect("settings");
    let (name, value) = variable.split_once('=').expect("a variable");
    let value = value.trim_matches('\'').to_owned();
    let from_environment =
        finishline::config::load(None, [(name.to_owned(), value.clone())].into_iter());
    let from_environment = from_environment.expect("settings");
    for config in [&from_file, &from_environment] {
        assert_eq!(config.api.keys[0].name, "the \"portal\"");
        assert_eq!(config.api.keys[0].digest, from_file.api.keys[0].digest);
    }
    let program = Program::serve(folder.path(), &[("API__KEYS", &value)]).await;
    get(&program, "/v1/jobs", key).await.expect(200);

    let json = run_program(folder.path(), &["key", "new", "--json"], &[]).await;
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("one JSON value");
    assert!(json["key"].is_string() && json["keySha256"].is_string(), "{json}");
}
