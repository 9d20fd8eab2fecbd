//! Signing in and out, and what a session is good for.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use finishline::clock::Clock;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use sqlx::ConnectOptions;

use super::{
    cookie_of,
    failing_store::{FailingStore, Failure, Plan},
    form_token, post_form, sign_in,
    support::*,
};

const KEY: &str = "key-of-the-support-team";
const READER: &str = "key-of-someone-who-reads";

/// Each of nearly a megabyte: more than the buffers of a connection hold.
const JOBS_OF_A_STREAM: usize = 24;

async fn with_keys(clock: &Clock) -> Service {
    let keys = json!([
        {"name": "support", "key": KEY},
        {"name": "reader", "key": READER, "scopes": ["read"]},
    ]);
    Setup::new().clock(clock).set("API__KEYS", keys).start().await
}

async fn get(service: &Service, path: &str, cookie: &str) -> Answer {
    Answer::of(service.request(Method::GET, path).header("cookie", cookie)).await
}

async fn submit(service: &Service, cookie: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = service.request(Method::POST, "/v1/jobs").header("cookie", cookie);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.header("content-type", "application/json");
    Answer::of(request.body(ready_job().to_string())).await
}

#[tokio::test]
async fn a_key_opens_a_session_that_leads_back_to_where_it_was_asked_for() {
    let service = with_keys(&Clock::system()).await;
    let answer = service.get("/jobs?status=failed").await;
    let place = "/sign-in?next=%2Fjobs%3Fstatus%3Dfailed";
    assert_eq!((answer.status, answer.header("location")), (303, Some(place)));
    let shown = service.get(place).await.expect(200);
    let (html, browser) = (shown.text(), cookie_of(&shown));
    assert!(html.contains("name=\"next\" value=\"/jobs?status=failed\""), "{html}");

    let (wrong, cookie) = sign_in(&service, "not-a-key-of-this-service", "/jobs").await;
    assert_eq!((wrong.status, cookie.as_str()), (401, ""));
    assert!(wrong.text().contains("not one of the service"), "{}", wrong.text());
    assert!(!wrong.text().contains("not-a-key-of-this-service"));

    let (right, cookie) = sign_in(&service, KEY, "/jobs?status=failed").await;
    assert_eq!((right.status, right.header("location")), (303, Some("/jobs?status=failed")));
    let set = right.header("set-cookie").expect("a cookie");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Secure") && !set.contains(KEY), "{set}");
    let page = get(&service, "/jobs", &cookie).await.expect(200).text();
    assert!(page.contains("support") && page.contains("Sign out"), "{page}");
    let fields = [("formToken", form_token(&html)), ("key", KEY.to_owned())];
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let again = post_form(&service, "/sign-in", &fields, &format!("{cookie}; {browser}")).await;
    assert_eq!(again.status, 303, "a form shown without the session may be sent with it");
    let cookie = cookie_of(&again);
    let known = get(&service, place, &cookie).await;
    let led = (known.status, known.header("location"));
    assert_eq!(led, (303, Some("/jobs?status=failed")), "whoever is known is led on");
    let (astray, _) = sign_in(&service, KEY, "//evil.example").await;
    assert_eq!(astray.header("location"), Some("/jobs"));
}

#[tokio::test]
async fn the_settings_or_the_host_say_whether_the_cookie_is_for_https_only() {
    let (https, http) = ("https://portal.example.com/finishline", "http://10.0.0.5:8086");
    for (public_url, host, is_secure) in [
        ("", "127.0.0.1:8086", false),
        ("", "localhost", false),
        ("", "[::1]:8086", false),
        ("", "finishline.example.com", true),
        ("", "10.0.0.5:8086", true),
        ("", "localhost.evil.example", true),
        (https, "127.0.0.1:8086", true),
        (https, "finishline.example.com", true),
        (http, "10.0.0.5:8086", false),
        (http, "finishline.example.com", false),
    ] {
        let keys = json!([{"name": "support", "key": KEY}]);
        let setup = Setup::new().set("API__KEYS", keys).set("API__PUBLIC_URL", public_url);
        let service = setup.start().await;
        // What anyone can set decides nothing.
        for proto in ["https", "http"] {
            let send = async |request: RequestBuilder| {
                let request = request.header("host", host).header("x-forwarded-proto", proto);
                let request = request.header("forwarded", format!("proto={proto}"));
                Answer::of(request.header("origin", "null")).await
            };
            let page = send(service.request(Method::GET, "/sign-in")).await.expect(200);
            let form = format!("formToken={}&key={KEY}", form_token(&page.text()));
            let kind = "application/x-www-form-urlencoded";
            let request = service.request(Method::POST, "/sign-in").header("content-type", kind);
            let answer = send(request.header("cookie", cookie_of(&page)).body(form)).await;
            let session = answer.expect(303);
            for (answer, name) in [(&page, "finishline_browser"), (&session, "finishline_session")]
            {
                let set = answer.header("set-cookie").expect("a cookie");
                let place = format!("{public_url:?} {host} {proto}: {set}");
                let begins = if is_secure { format!("__Host-{name}=") } else { format!("{name}=") };
                assert!(set.starts_with(&begins), "{place}");
                assert_eq!(set.contains("; Secure"), is_secure, "{place}");
                assert!(set.contains("; Path=/") && !set.contains("Domain"), "{place}");
            }
            get(&service, "/jobs", &cookie_of(&session)).await.expect(200);
        }
    }
}

#[tokio::test]
async fn a_sign_in_form_is_good_in_the_browser_it_was_shown_to_only() {
    let service = with_keys(&Clock::system()).await;
    let [ours, theirs] = [service.get("/sign-in").await, service.get("/sign-in").await];
    let [our_cookie, their_cookie] = [&ours, &theirs].map(cookie_of);
    assert_ne!(our_cookie, their_cookie);
    let token = form_token(&ours.text());
    let fields = [("formToken", token.as_str()), ("key", KEY)];
    let (_, session) = sign_in(&service, READER, "/jobs").await;
    // Another site's form, with a token that its owner was shown, must not sign a victim in.
    for cookie in [&their_cookie, "", "finishline_browser=", &session] {
        let answer = post_form(&service, "/sign-in", &fields, cookie).await;
        assert!(answer.header("set-cookie").is_none_or(|set| !set.contains("session")), "{cookie}");
        assert!(answer.expect(403).text().contains("forbidden-origin"));
    }
    let page = get(&service, "/jobs", &session).await.expect(200).text();
    let of_session = form_token(&page);
    let of_session = [("formToken", of_session.as_str()), ("key", KEY)];
    post_form(&service, "/sign-in", &of_session, &our_cookie).await.expect(403);
    let again = get(&service, "/sign-in", &our_cookie).await.expect(200);
    assert_eq!(form_token(&again.text()), token, "a second tab is the same browser");
    post_form(&service, "/sign-in", &fields, &our_cookie).await.expect(303);
}

#[tokio::test]
async fn a_session_reads_the_api_and_changes_it_for_its_own_pages_only() {
    let service = with_keys(&Clock::system()).await;
    let (_, cookie) = sign_in(&service, KEY, "/jobs").await;
    get(&service, "/v1/jobs", &cookie).await.expect(200);
    get(&service, "/v1/events", &cookie).await.expect(200);
    for foreign in [
        &[][..],
        &[("origin", "null")],
        &[("origin", "https://evil.example")],
        &[("origin", service.api.as_str()), ("sec-fetch-site", "cross-site")],
    ] {
        submit(&service, &cookie, foreign).await.problem(403, "forbidden-origin");
    }
    submit(&service, &cookie, &[("origin", service.api.as_str())]).await.expect(201);
    submit(&service, &cookie, &[("sec-fetch-site", "same-origin")]).await.expect(201);
    let wrong =
        [("origin", service.api.as_str()), ("authorization", "Bearer no-key-of-this-service")];
    submit(&service, &cookie, &wrong).await.problem(401, "unauthorized");
    submit(&service, "finishline_session=x", &[]).await.problem(401, "unauthorized");
}

const MINUTE: Duration = Duration::from_secs(60);

async fn sign_out(service: &Service, cookie: &str) -> Answer {
    let page = get(service, "/jobs", cookie).await.expect(200).text();
    post_form(service, "/sign-out", &[("formToken", &form_token(&page))], cookie).await
}

#[tokio::test]
async fn a_session_ends_when_its_holder_or_its_time_says_so() {
    let clock = Clock::manual("2026-03-01T12:00:00Z".parse().expect("a time"));
    let service = with_keys(&clock).await;
    let (_, first) = sign_in(&service, KEY, "/jobs").await;
    let (_, second) = sign_in(&service, KEY, "/jobs").await;
    let left = sign_out(&service, &first).await;
    assert_eq!((left.status, left.header("location")), (303, Some("/sign-in")));
    get(&service, "/jobs", &first).await.expect(303);
    get(&service, "/v1/jobs", &first).await.problem(401, "unauthorized");
    get(&service, "/jobs", &second).await.expect(200);
    for _ in 0..12 {
        clock.advance(59 * MINUTE);
        get(&service, "/v1/jobs", &second).await.expect(200);
    }
    clock.advance(12 * MINUTE);
    get(&service, "/jobs", &second).await.expect(303);
}

#[tokio::test]
async fn a_session_that_nobody_uses_is_over_after_an_hour() {
    let clock = Clock::manual("2026-03-01T12:00:00Z".parse().expect("a time"));
    let service = with_keys(&clock).await;
    let (_, cookie) = sign_in(&service, KEY, "/jobs").await;
    clock.advance(50 * MINUTE);
    let used = get(&service, "/jobs", &cookie).await.expect(200);
    let renewed = cookie_of(&used);
    assert!(renewed.starts_with("finishline_session=") && renewed != cookie, "{renewed}");
    clock.advance(50 * MINUTE);
    // A page that is left open asks by itself, and follows the events: that is no use.
    let request = service.request(Method::GET, "/jobs").header("cookie", &renewed);
    Answer::of(request.header("finishline-by-itself", "1")).await.expect(200);
    get(&service, "/v1/events", &renewed).await.expect(200);
    clock.advance(10 * MINUTE);
    for cookie in [&cookie, &renewed] {
        get(&service, "/jobs", cookie).await.expect(303);
        get(&service, "/v1/jobs", cookie).await.problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn a_restart_keeps_who_is_signed_in_and_who_has_signed_out() {
    let clock = Clock::manual("2026-03-01T12:00:00Z".parse().expect("a time"));
    let mut service = with_keys(&clock).await;
    let (_, left) = sign_in(&service, KEY, "/jobs").await;
    let (_, stays) = sign_in(&service, KEY, "/jobs").await;
    clock.advance(30 * MINUTE);
    let renewed = cookie_of(&get(&service, "/jobs", &left).await.expect(200));
    sign_out(&service, &left).await.expect(303);
    let stays = cookie_of(&get(&service, "/jobs", &stays).await.expect(200));
    service.restart().await;
    clock.advance(45 * MINUTE);
    for cookie in [&left, &renewed] {
        get(&service, "/jobs", cookie).await.expect(303);
    }
    get(&service, "/jobs", &stays).await.expect(200);

    // What would be over by itself is not kept.
    let rows = async || {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&service.database);
        let mut connection = options.connect().await.expect("the database");
        let count = sqlx::query_scalar::<_, i64>("select count(*) from sign_outs");
        count.fetch_one(&mut connection).await.expect("a number")
    };
    assert_eq!(rows().await, 1);
    clock.advance(12 * 60 * MINUTE);
    let (_, last) = sign_in(&service, KEY, "/jobs").await;
    sign_out(&service, &last).await.expect(303);
    assert_eq!(rows().await, 1);
}

#[tokio::test]
async fn a_sign_out_that_cannot_be_stored_is_said_and_holds_all_the_same() {
    let failing = Arc::new(OnceLock::new());
    let kept = failing.clone();
    let keys = json!([{"name": "support", "key": KEY}]);
    let setup = Setup::new()
        .set("API__KEYS", keys)
        .wrap(Arc::new(move |store| kept.get_or_init(|| FailingStore::around(store)).clone()));
    let service = setup.start().await;
    let (_, cookie) = sign_in(&service, KEY, "/jobs").await;
    let store = failing.get().expect("the service has it");
    store.fail(Plan::always(Failure::Unavailable).only("sign_out"));
    let answer = sign_out(&service, &cookie).await;
    assert!(answer.expect(503).text().contains("storage-unavailable"));
    assert_eq!(store.failures(), 1);
    get(&service, "/jobs", &cookie).await.expect(303);
    get(&service, "/v1/jobs", &cookie).await.problem(401, "unauthorized");
}

#[tokio::test]
async fn streams_and_waiting_calls_end_with_their_session() {
    let clock = Clock::manual("2026-03-01T12:00:00Z".parse().expect("a time"));
    let service = with_keys(&clock).await;
    let ends: [(&str, Option<Duration>); 2] = [("signed out", None), ("unused", Some(60 * MINUTE))];
    for (why, idle) in ends {
        let (_, cookie) = sign_in(&service, KEY, "/jobs").await;
        let job = submit(&service, &cookie, &[("origin", service.api.as_str())]).await.expect(201);
        let id = text(&job.json()["id"]).to_owned();
        let open = |path: &str| service.request(Method::GET, path).header("cookie", &cookie);
        let stream = open("/v1/events?after=0").send().await.expect("an answer");
        let waits = ["", "/result"].map(|part| open(&format!("/v1/jobs/{id}{part}?wait=60")));
        let waits = waits.map(|request| tokio::spawn(Answer::of(request)));
        let by_key = service.request(Method::GET, "/v1/events?after=0").bearer_auth(KEY);
        let mut by_key = by_key.send().await.expect("an answer");
        match idle {
            // The waits' own time would be up with the session's.
            Some(idle) => clock.advance(idle),
            None => _ = sign_out(&service, &cookie).await.expect(303),
        }
        within(stream.bytes()).await.unwrap_or_else(|error| panic!("{why}: {error}"));
        for wait in waits {
            let answer = within(wait).await.expect("no panic");
            assert!(idle.is_some() || answer.status == 401, "{why}: {}", answer.text());
        }
        assert!(within(by_key.chunk()).await.expect("a chunk").is_some(), "a key's stream goes on");
    }
}

#[tokio::test]
async fn a_session_without_the_scope_to_read_is_shown_nothing() {
    let keys = json!(["submit", "operate", "erase"].map(|scope| json!({
        "name": scope, "key": format!("a-key-that-may-only-{scope}"), "scopes": [scope],
    })));
    let keys = [keys.as_array().expect("a list").clone(), vec![json!({"name": "all", "key": KEY})]];
    let service = Setup::new().set("API__KEYS", json!(keys.concat())).start().await;
    let (_, all) = sign_in(&service, KEY, "/jobs").await;
    let origin = [("origin", service.api.as_str())];
    let job = submit(&service, &all, &origin).await.expect(201).json();
    let id = text(&job["id"]);
    for scope in ["submit", "operate", "erase"] {
        let (_, cookie) = sign_in(&service, &format!("a-key-that-may-only-{scope}"), "/jobs").await;
        for path in [
            "/jobs".to_owned(),
            format!("/jobs/{id}"),
            format!("/jobs/{id}/erase"),
            "/overview".to_owned(),
            "/submit".to_owned(),
            format!("/search?q={id}"),
        ] {
            let shown = get(&service, &path, &cookie).await.expect(403).text();
            assert!(shown.contains("forbidden-scope"), "{path} with {scope}: {shown}");
            assert!(!shown.contains(id) && !shown.contains("mandible"), "{path} with {scope}");
        }
        for action in ["refresh", "resubmit", "erase"] {
            let path = format!("/jobs/{id}/{action}");
            let fields = [("formToken", "x"), ("confirm", "yes")];
            let answer = post_form(&service, &path, &fields, &cookie).await;
            assert!(answer.expect(403).text().contains("forbidden"), "{path} with {scope}");
        }
        get(&service, "/sign-in", &cookie).await.expect(200);
    }
    get(&service, &format!("/jobs/{id}"), &all).await.expect(200);
}

#[tokio::test]
async fn scopes_decide_what_is_offered_and_what_is_done() {
    let service = with_keys(&Clock::system()).await;
    let (_, support) = sign_in(&service, KEY, "/jobs").await;
    let job =
        submit(&service, &support, &[("origin", service.api.as_str())]).await.expect(201).json();
    let path = format!("/jobs/{}", text(&job["id"]));
    let offered = get(&service, &path, &support).await.expect(200).text();
    let (_, reader) = sign_in(&service, READER, "/jobs").await;
    let page = get(&service, &path, &reader).await.expect(200).text();
    for action in ["/refresh\"", "/erase\""] {
        assert!(offered.contains(action), "{action} is offered: {offered}");
        assert!(!page.contains(action), "{action} is not offered: {page}");
    }
    let token = form_token(&page);
    for action in ["refresh", "erase", "resubmit"] {
        let fields = [("formToken", token.as_str()), ("confirm", "yes")];
        let answer = post_form(&service, &format!("{path}/{action}"), &fields, &reader).await;
        assert!(answer.expect(403).text().contains("forbidden-scope"));
    }
    get(&service, &path, &reader).await.expect(200);
}

#[tokio::test]
async fn behind_https_only_cookies_that_this_host_set_count() {
    let (said, guessed) = (["https://portal.example", "localhost"], ["", "portal.example"]);
    for [public_url, host] in [said, guessed] {
        let keys = json!([{"name": "support", "key": KEY}]);
        let setup = Setup::new().set("API__KEYS", keys).set("API__PUBLIC_URL", public_url);
        let service = setup.start().await;
        let ask = async |path: &str, cookie: &str| {
            let request = service.request(Method::GET, path).header("host", host);
            Answer::of(request.header("cookie", cookie)).await
        };
        let sign_in = async |cookie: &str, form: String| {
            let request = service.request(Method::POST, "/sign-in").header("host", host);
            let request = request.header("origin", "null").header("cookie", cookie);
            let kind = "application/x-www-form-urlencoded";
            Answer::of(request.header("content-type", kind).body(form)).await
        };
        let page = ask("/sign-in", "").await.expect(200);
        let (form, browser) =
            (format!("formToken={}&key={KEY}", form_token(&page.text())), cookie_of(&page));
        let plain = |cookie: &str| cookie.strip_prefix("__Host-").expect("a prefix").to_owned();
        let planted = sign_in(&plain(&browser), form.clone()).await;
        assert!(planted.expect(403).text().contains("forbidden-origin"), "{public_url}");
        let session = cookie_of(&sign_in(&browser, form).await.expect(303));
        ask("/jobs", &plain(&session)).await.expect(303);
        ask("/v1/jobs", &plain(&session)).await.problem(401, "unauthorized");
        for cookies in [session.clone(), format!("finishline_session=planted; {session}")] {
            ask("/jobs", &cookies).await.expect(200);
            ask("/v1/jobs", &cookies).await.expect(200);
        }
    }
}

#[tokio::test]
async fn a_page_of_plain_http_changes_nothing_where_ours_come_by_https() {
    let keys = json!([{"name": "support", "key": KEY}]);
    let setup = Setup::new().set("API__KEYS", keys);
    let service = setup.set("API__PUBLIC_URL", "https://portal.example").start().await;
    let (_, cookie) = sign_in(&service, KEY, "/jobs").await;
    for (origin, status) in [
        ("http://portal.example", 403),
        ("http://portal.example:443", 403),
        ("https://portal.example.evil", 403),
        ("https://portal.example:8443", 403),
        ("https://portal.example", 201),
        ("https://portal.example:443", 201),
    ] {
        let headers = [("host", "portal.example"), ("origin", origin)];
        let answer = submit(&service, &cookie, &headers).await;
        assert_eq!(answer.status, status, "{origin}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_lines_breaks_off_when_its_session_is_over() {
    let service = with_keys(&Clock::system()).await;
    let body = ready_job_with(json!({ "padding": "x".repeat(900_000) })).to_string();
    for _ in 0..JOBS_OF_A_STREAM {
        let request = service.request(Method::POST, "/v1/jobs").bearer_auth(KEY);
        Answer::of(request.header("content-type", "application/json").body(body.clone()))
            .await
            .expect(201);
    }
    let (_, cookie) = sign_in(&service, KEY, "/jobs").await;
    let open = || {
        let request = service.request(Method::GET, "/v1/jobs");
        request.header("accept", "application/x-ndjson")
    };
    let mut by_session = open().header("cookie", &cookie).send().await.expect("an answer");
    let mut by_key = open().bearer_auth(KEY).send().await.expect("an answer");
    for stream in [&mut by_session, &mut by_key] {
        assert_eq!(stream.status(), 200);
        assert!(within(stream.chunk()).await.expect("a chunk").is_some());
    }
    sign_out(&service, &cookie).await.expect(303);
    let cut = within(by_session.bytes()).await;
    assert!(cut.is_err(), "who reads it must not take the part for all");
    let rest = within(by_key.bytes()).await.expect("a key's stream comes to its end");
    assert!(rest.len() > (JOBS_OF_A_STREAM - 2) * 900_000, "{}", rest.len());
}
