//! Signing in and out, and what a session is good for.

use std::time::Duration;

use finishline::clock::Clock;
use reqwest::Method;
use serde_json::json;

use super::{form_token, post_form, support::*};

const KEY: &str = "key-of-the-support-team";
const READER: &str = "key-of-someone-who-reads";

async fn with_keys(clock: &Clock) -> Service {
    let keys = json!([
        {"name": "support", "key": KEY},
        {"name": "reader", "key": READER, "scopes": ["read"]},
    ]);
    Setup::new().clock(clock).set("API__KEYS", keys).start().await
}

/// Signs in; the answer, and the cookie as a browser sends it back.
async fn sign_in(service: &Service, key: &str, next: &str) -> (Answer, String) {
    let page = service.get("/sign-in").await.expect(200).text();
    let fields = [("formToken", form_token(&page)), ("key", key.into()), ("next", next.into())];
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = post_form(service, "/sign-in", &fields, "").await;
    let cookie = answer.header("set-cookie").unwrap_or_default();
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    (answer, cookie)
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
    let html = service.get(place).await.expect(200).text();
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
    let again = post_form(&service, "/sign-in", &fields, &cookie).await;
    assert_eq!(again.status, 303, "a form shown without the session may be sent with it");
    let cookie = again.header("set-cookie").and_then(|set| set.split(';').next());
    let cookie = cookie.expect("a cookie").to_owned();
    let known = get(&service, place, &cookie).await;
    let led = (known.status, known.header("location"));
    assert_eq!(led, (303, Some("/jobs?status=failed")), "whoever is known is led on");
    let (astray, _) = sign_in(&service, KEY, "//evil.example").await;
    assert_eq!(astray.header("location"), Some("/jobs"));
}

#[tokio::test]
async fn behind_https_the_cookie_travels_by_https_only() {
    let service = with_keys(&Clock::system()).await;
    let page = service.get("/sign-in").await.text();
    let token = form_token(&page);
    let form = format!("formToken={token}&key={KEY}");
    let request = service.request(Method::POST, "/sign-in").header("x-forwarded-proto", "https");
    let kind = "application/x-www-form-urlencoded";
    let answer = Answer::of(request.header("content-type", kind).body(form)).await.expect(303);
    let set = answer.header("set-cookie").expect("a cookie");
    assert!(set.starts_with("__Host-finishline_session=") && set.contains("; Secure"), "{set}");
    let cookie = set.split(';').next().expect("a pair");
    get(&service, "/jobs", cookie).await.expect(200);
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

#[tokio::test]
async fn a_session_ends_when_its_holder_or_its_time_says_so() {
    let clock = Clock::manual("2026-03-01T12:00:00Z".parse().expect("a time"));
    let service = with_keys(&clock).await;
    let (_, first) = sign_in(&service, KEY, "/jobs").await;
    let (_, second) = sign_in(&service, KEY, "/jobs").await;
    let page = get(&service, "/jobs", &first).await.expect(200).text();
    let left = post_form(&service, "/sign-out", &[("formToken", &form_token(&page))], &first).await;
    assert_eq!((left.status, left.header("location")), (303, Some("/sign-in")));
    get(&service, "/jobs", &first).await.expect(303);
    get(&service, "/v1/jobs", &first).await.problem(401, "unauthorized");
    get(&service, "/jobs", &second).await.expect(200);
    clock.advance(Duration::from_secs(12 * 3600));
    get(&service, "/jobs", &second).await.expect(303);
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
