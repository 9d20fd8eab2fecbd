//! No API without a key: the one that the service makes for itself, the link that signs in with it,
//! and the client commands that find it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, http::header::LOCATION};
use reqwest::Method;

use crate::support::*;

/// A service that says nothing of keys, as everyone starts it first.
async fn keyless(folder: &Path, settings: &[(&str, &str)]) -> Program {
    let all = [&[("API__OPEN_ON_LOOPBACK", "false")], settings].concat();
    Program::serve(folder, &all).await
}

fn key_in(folder: &Path) -> String {
    let file = folder.join("finishline.key");
    let mode = fs::metadata(&file).expect("a key file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::read_to_string(file).expect("text").trim_end().to_owned()
}

async fn ask(url: &str, key: &str) -> Answer {
    let request = http_client().get(url);
    Answer::of(if key.is_empty() { request } else { request.bearer_auth(key) }).await
}

/// The line of the log that names the key's file and the sign-in link.
async fn announced(program: &Program) -> String {
    program.said("signs in to the inspector once").await;
    let log = program.stderr();
    let line = log.lines().find(|line| line.contains("signs in to the inspector once"));
    line.expect("a line").to_owned()
}

async fn link(program: &Program) -> String {
    let line = announced(program).await;
    let link = line.split_whitespace().find(|word| word.contains("/sign-in/"));
    link.expect("a link").to_owned()
}

#[tokio::test]
async fn without_a_key_the_service_makes_one_that_alone_opens_the_api() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = keyless(folder.path(), &[]).await;
    let key = key_in(folder.path());
    assert!(key.len() >= 43, "256 bits");
    for path in ["/v1/jobs", "/v1/events", "/v1/stats", "/metrics", "/v1/relays"] {
        ask(&format!("{}{path}", program.api), "").await.problem(401, "unauthorized");
    }
    for wrong in ["not-the-key-of-this-service", &key.to_uppercase(), &key[1..]] {
        ask(&format!("{}/v1/jobs", program.api), wrong).await.problem(401, "unauthorized");
    }
    let send = |url: String| Answer::of(http_client().post(url).body(ready_job().to_string()));
    send(format!("{}/v1/jobs", program.api)).await.problem(401, "unauthorized");
    let page = Answer::of(http_client().get(format!("{}/jobs", program.api))).await;
    assert_eq!((page.status, page.header("location")), (303, Some("/sign-in?next=%2Fjobs")));
    ask(&format!("{}/v1/jobs", program.api), &key).await.expect(200);
    let line = announced(&program).await;
    let file = folder.path().canonicalize().expect("a path").join("finishline.key");
    assert!(line.contains(&file.display().to_string()), "{line}");
    assert!(!program.stderr().contains(&key), "the key is in no log");

    let ended = program.terminate().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let program = keyless(folder.path(), &[]).await;
    assert_eq!(key_in(folder.path()), key, "the next start reads it");
    ask(&format!("{}/v1/jobs", program.api), &key).await.expect(200);
}

#[tokio::test]
async fn wherever_it_listens_the_api_asks_for_the_key_that_was_made() {
    for listen in ["0.0.0.0:0", "[::1]:0", "same"] {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let state = state.path().join("made/by/the/service");
        let settings =
            [("API__LISTEN", listen), ("SERVICE__STATE_DIR", state.to_str().expect("text"))];
        let program = keyless(folder.path(), &settings).await;
        let key = key_in(&state);
        let mode = fs::metadata(&state).expect("a folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(!folder.path().join("finishline.key").exists());
        let api = program.api.replace("0.0.0.0", "127.0.0.1");
        ask(&format!("{api}/v1/jobs"), "").await.problem(401, "unauthorized");
        ask(&format!("{api}/v1/jobs"), &key).await.expect(200);
        assert!(link(&program).await.starts_with(&format!("{api}/sign-in/")), "{listen}");
        assert!(state.join("finishline.db-spool").exists(), "the spool is in there too");
    }
}

#[tokio::test]
async fn keys_of_the_settings_leave_the_file_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = r#"[{"name": "all", "key": "a-key-of-some-length-1234"}]"#;
    let program = Program::serve(folder.path(), &[("API__KEYS", keys)]).await;
    assert!(!folder.path().join("finishline.key").exists());
    assert!(!program.stderr().contains("/sign-in/"));
    let both = [("API__KEYS", keys), ("API__OPEN_ON_LOOPBACK", "true")];
    let other = tempfile::tempdir().expect("a folder");
    let program = Program::serve(other.path(), &both).await;
    ask(&format!("{}/v1/jobs", program.api), "").await.problem(401, "unauthorized");
    program.said("api.open_on_loopback has no effect beside api.keys").await;
}

#[tokio::test]
async fn a_key_file_that_holds_no_key_stops_the_start_with_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = format!("sqlite://{}/finishline.db", folder.path().display());
    let settings = [
        ("FINISHLINE__CALLBACKS__LISTEN", "127.0.0.1:0"),
        ("FINISHLINE__API__LISTEN", "127.0.0.1:0"),
        ("FINISHLINE__DATABASE__URL", &*database),
        ("FINISHLINE__LOG__LEVEL", "off"),
    ];
    for content in ["", "topsecret", "topsecret topsecret topsecret"] {
        fs::write(folder.path().join("finishline.key"), content).expect("written");
        let ended = run_program(folder.path(), &["serve"], &settings).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains("finishline.key"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("topsecret"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn the_sign_in_link_opens_one_session_and_looking_at_it_uses_nothing_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = keyless(folder.path(), &[("LOG__LEVEL", "trace")]).await;
    let link = link(&program).await;
    let key = key_in(folder.path());
    assert!(!link.contains(&key));
    for method in [Method::HEAD, Method::GET, Method::GET] {
        let look = Answer::of(http_client().request(method, &link)).await.expect(200);
        assert_eq!(look.header("set-cookie"), None);
        assert!(!look.text().contains(&key));
    }
    for (name, value) in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")] {
        let foreign = Answer::of(http_client().post(&link).header(name, value)).await;
        assert_eq!((foreign.status, foreign.header("set-cookie")), (403, None), "{name}");
    }
    let wrong = format!("{}/sign-in/{}", program.api, "x".repeat(43));
    assert_eq!(Answer::of(http_client().post(wrong)).await.status, 410);
    let takers = (0..8).map(|_| Answer::of(http_client().post(&link)));
    let answers = futures_util::future::join_all(takers).await;
    let cookies: Vec<_> = answers.iter().filter_map(|one| one.header("set-cookie")).collect();
    assert_eq!(cookies.len(), 1, "one of them gets in");
    assert!(answers.iter().all(|one| matches!(one.status, 303 | 410)), "{answers:?}");
    let cookie = cookies[0].split(';').next().expect("a pair");
    for path in ["/jobs", "/v1/jobs"] {
        let request = http_client().get(format!("{}{path}", program.api));
        Answer::of(request.header("cookie", cookie)).await.expect(200);
    }
    for method in [Method::GET, Method::POST] {
        let again = Answer::of(http_client().request(method, &link)).await;
        assert_eq!((again.status, again.header("set-cookie")), (410, None));
    }
    let secret = link.rsplit('/').next().expect("a secret");
    let metrics = ask(&format!("{}/metrics", program.api), &key).await.expect(200).text();
    assert!(!metrics.contains(secret));
    let log = program.terminate().await.stderr;
    assert_eq!(log.matches(secret).count(), 1, "it is in that one line alone");
}

#[tokio::test]
async fn client_commands_find_the_key_of_a_service_on_this_machine() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = keyless(folder.path(), &[]).await;
    let api = ("FINISHLINE_API", program.api.as_str());
    for args in [["jobs", "list"], ["relays", "list"]] {
        let ended = run_program(folder.path(), &args, &[api]).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?}: {ended:?}");
    }
    // From elsewhere the settings lead there.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let ended = run_program(elsewhere.path(), &["jobs", "list"], &[api]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("unauthorized"), "{ended:?}");
    let settings = format!("[service]\nstate_dir = \"{}\"\n", folder.path().display());
    fs::write(elsewhere.path().join("mine.toml"), settings).expect("written");
    for args in
        [["--config", "mine.toml", "jobs", "list"], ["jobs", "list", "--config", "mine.toml"]]
    {
        let ended = run_program(elsewhere.path(), &args, &[api]).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let database = format!("sqlite://{}/finishline.db", folder.path().display());
    let environment = [api, ("FINISHLINE__DATABASE__URL", &*database)];
    let ended = run_program(elsewhere.path(), &["jobs", "list"], &environment).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // A key that is given is the one that is sent.
    let given = [api, ("FINISHLINE_KEY", "not-the-key-of-this-service")];
    let ended = run_program(folder.path(), &["jobs", "list"], &given).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
}

#[tokio::test]
async fn a_key_leaves_this_machine_encrypted_unless_told_otherwise() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("finishline.key"), "0123456789abcdefghijklmn\n").expect("written");
    let key = ("FINISHLINE_KEY", "0123456789abcdefghijklmn");
    let ask = async |api: &str, more: &[&str], environment: &[(&str, &str)]| {
        let args = [&["--api", api, "jobs", "list"], more].concat();
        run_program(folder.path(), &args, environment).await
    };
    for api in [
        "http://finishline.invalid:8086",
        "http://192.0.2.1:8086",
        "http://0.0.0.0:8086",
        "http://localhost.invalid",
        "http://localhost.:8086",
        "http://[2001:db8::1]:8086",
    ] {
        let ended = ask(api, &[], &[key]).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{api}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains("--insecure-http"), "{}", ended.stderr);
        assert!(!ended.stderr.contains(key.1), "{}", ended.stderr);
    }
    let named = "http://finishline.invalid:8086";
    // Nobody is there: the key would have been sent.
    assert_eq!(ask(named, &["--insecure-http"], &[key]).await.code, Some(3));
    let told = [key, ("FINISHLINE_INSECURE_HTTP", "true")];
    assert_eq!(ask(named, &[], &told).await.code, Some(3));
    assert_eq!(ask("https://finishline.invalid", &[], &[key]).await.code, Some(3));
    // Without a key there is nothing to protect; the one of this machine is for this machine.
    assert_eq!(ask(named, &[], &[]).await.code, Some(3));
}

#[tokio::test]
async fn a_redirect_takes_the_key_nowhere() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let elsewhere = serve(Router::new().fallback(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { "{}" }
    }))
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    for status in [301, 302, 303, 307, 308] {
        let place = elsewhere.clone();
        let door = serve(Router::new().fallback(move || {
            let place = [(LOCATION, place.clone())];
            async move { (axum::http::StatusCode::from_u16(status).expect("a status"), place) }
        }))
        .await;
        let key = ("FINISHLINE_KEY", "0123456789abcdefghijklmn");
        let environment = [key, ("FINISHLINE_API", &*door)];
        let ended = run_program(folder.path(), &["jobs", "list"], &environment).await;
        assert_eq!(ended.code, Some(3), "{status}: {ended:?}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

async fn figure(program: &Program, key: &str, reason: &str) -> u64 {
    let metrics = ask(&format!("{}/metrics", program.api), key).await.expect(200).text();
    let name = format!("finishline_access_failures_total{{reason=\"{reason}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |number| number.parse().expect("a number"))
}

#[tokio::test]
async fn a_link_that_does_not_work_is_heard_and_slowed_down_as_a_wrong_key_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = keyless(folder.path(), &[]).await;
    let (link, key) = (link(&program).await, key_in(folder.path()));
    let send =
        async |method: Method, url: &str| Answer::of(http_client().request(method, url)).await;
    let wrong = format!("{}/sign-in/{}", program.api, "x".repeat(43));
    send(Method::POST, &link).await.expect(303);
    for number in 0..10 {
        let method = if number % 2 == 0 { Method::GET } else { Method::POST };
        let url = if number < 5 { &link } else { &wrong };
        assert!(send(method, url).await.expect(410).text().contains("has been used"));
    }
    for method in [Method::GET, Method::POST] {
        let late = send(method, &wrong).await.expect(429);
        let wait: u64 = late.header("retry-after").expect("a time").parse().expect("seconds");
        assert!((1..=60).contains(&wait) && late.header("set-cookie").is_none());
        assert!(late.text().contains("Too many wrong keys"), "{}", late.text());
    }
    let jobs = format!("{}/v1/jobs", program.api);
    ask(&jobs, "not-the-key-of-this-service").await.problem(429, "too-many-failures");
    ask(&jobs, &key).await.expect(200);
    assert_eq!(figure(&program, &key, "sign-in-link").await, 12);
    let log = program.stderr();
    let heard = log.lines().filter(|line| line.contains("a sign-in link that does not work"));
    let heard: Vec<_> = heard.collect();
    assert_eq!(heard.len(), 10, "{log}");
    for line in heard {
        assert!(line.contains("WARN") && line.contains("/sign-in/{secret}"), "{line}");
    }
}

#[tokio::test]
async fn a_right_link_is_let_in_after_any_number_of_wrong_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = keyless(folder.path(), &[]).await;
    let link = link(&program).await;
    let wrong = format!("{}/sign-in/x", program.api);
    let tries = (0..20).map(|_| Answer::of(http_client().get(&wrong)));
    let tries = futures_util::future::join_all(tries).await;
    assert_eq!(tries.iter().filter(|answer| answer.status == 410).count(), 10);
    Answer::of(http_client().get(&link)).await.expect(200);
    Answer::of(http_client().post(&link)).await.expect(303);
}

#[tokio::test]
async fn the_sign_in_link_leads_to_where_browsers_reach_the_api() {
    for (public_url, begins) in [
        ("https://portal.example.com", "https://portal.example.com/sign-in/"),
        (
            "https://portal.example.com/finishline/",
            "https://portal.example.com/finishline/sign-in/",
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let program = keyless(folder.path(), &[("API__PUBLIC_URL", public_url)]).await;
        let link = link(&program).await;
        assert!(link.starts_with(begins), "{link}");
        // Without the prefix that the proxy takes off.
        let here = link.replace(begins, &format!("{}/sign-in/", program.api));
        let session = Answer::of(http_client().post(here)).await.expect(303);
        let cookie = session.header("set-cookie").expect("a cookie");
        assert!(cookie.starts_with("__Host-") && cookie.contains("; Secure"), "{cookie}");
    }
}
