//! The inspector as a browser without scripts sees it: pages, forms and cookies over HTTP.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

mod actions;
#[path = "../support/failing_store.rs"]
mod failing_store;
mod list;
mod meshes;
mod overview;
mod pages;
mod payloads;
mod prefix;
mod sessions;
mod submit;
#[path = "../support/mod.rs"]
mod support;

use reqwest::Method;
use support::{Answer, Service};

/// The token that the forms of a page hold.
#[track_caller]
fn form_token(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"formToken\" value=\"").expect("a form of ours");
    rest.split('"').next().expect("a value").to_owned()
}

/// The cookie of an answer, as a browser sends it back; empty if it sets none.
fn cookie_of(answer: &Answer) -> String {
    let set = answer.header("set-cookie").unwrap_or_default();
    set.split(';').next().unwrap_or_default().to_owned()
}

/// Signs in as a browser does that was shown the form; the answer, and the session's cookie.
async fn sign_in(service: &Service, key: &str, next: &str) -> (Answer, String) {
    let page = service.get("/sign-in").await.expect(200);
    let token = form_token(&page.text());
    let fields = [("formToken", token.as_str()), ("key", key), ("next", next)];
    let answer = post_form(service, "/sign-in", &fields, &cookie_of(&page)).await;
    let cookie = cookie_of(&answer);
    (answer, cookie)
}

/// Sends a form as a browser does for a page of ours: without a referrer, so without an origin.
async fn post_form(service: &Service, path: &str, fields: &[(&str, &str)], cookie: &str) -> Answer {
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let request = service.request(Method::POST, path).header("origin", "null");
    let request = request.header("cookie", cookie);
    let kind = "application/x-www-form-urlencoded";
    Answer::of(request.header("content-type", kind).body(form)).await
}
