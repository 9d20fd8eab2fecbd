//! `/sign-in` and `/sign-out`: from an API key to a session and back.
//!
//! The invariants: the key itself is neither kept nor shown again, and a sign-in leads nowhere but
//! to a page of ours.

use axum::{
    extract::{RawQuery, State},
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{ORIGIN, SET_COOKIE},
    },
    response::{AppendHeaders, IntoResponse, Redirect, Response},
};
use maud::{Markup, html};

use super::{
    super::{
        Context, access,
        session::{self, Transport},
    },
    form::{self, Form},
    layout::{self, Page},
    visitor::Visitor,
};
use crate::config::Scope;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Where a sign-in leads if it was not on the way to another page.
pub(super) const START: &str = "/jobs";

/// Shows the form, or leads on whoever needs none.
pub(super) async fn show(
    State(context): State<Context>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let next = next_of(query.as_deref().unwrap_or_default().as_bytes());
    if context.config.api.is_open() {
        return Redirect::to(&next).into_response();
    }
    match Visitor::of(&headers, &context) {
        // A link on another site led here: browsers keep the session's cookie to themselves until
        // a page of ours asks again, as the form's script does.
        Some(visitor) if visitor.may(Scope::Read) => Redirect::to(&next).into_response(),
        visitor => {
            let token = form::token_of_nobody(&context);
            page(&next, token, visitor.as_ref(), None)
        }
    }
}

/// Opens a session for the holder of a key.
pub(super) async fn sign_in(State(context): State<Context>, form: Form) -> Response {
    let next = local(form.get("next").unwrap_or_default());
    let keys = &context.config.api.keys;
    if context.config.api.is_open() {
        return Redirect::to(&next).into_response();
    }
    let Some(key) = access::find_key(form.get("key").unwrap_or_default().trim(), keys) else {
        let token = form::token_of_nobody(&context);
        let wrong = "This is not one of the service's keys. They stand under api.keys in its \
            settings; without any, the key is in its file finishline.key.";
        return (StatusCode::UNAUTHORIZED, page(&next, token, None, Some(wrong))).into_response();
    };
    let now = context.clock.now();
    // Whoever signs in again leaves what was open before.
    context.sessions.end(&form.headers, keys, now);
    let cookie = context.sessions.open(key, now, transport(&form.headers));
    tracing::info!(key = key.name, "signed in to the inspector");
    (AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to(&next)).into_response()
}

/// Ends the session.
pub(super) async fn sign_out(State(context): State<Context>, form: Form) -> Response {
    context.sessions.end(&form.headers, &context.config.api.keys, context.clock.now());
    let cookies = session::forget().map(|cookie| (SET_COOKIE, cookie));
    (AppendHeaders(cookies), Redirect::to("/sign-in")).into_response()
}

/// How the browser reached us: a proxy says so, or the browser does by the form's origin.
pub(super) fn transport(headers: &HeaderMap) -> Transport {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let is_https = text(X_FORWARDED_PROTO)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
        || text(ORIGIN).is_some_and(|origin| origin.starts_with("https://"));
    if is_https { Transport::Https } else { Transport::Http }
}

fn next_of(query: &[u8]) -> String {
    let mut pairs = url::form_urlencoded::parse(query);
    let next = pairs.find(|(name, _)| name == "next").map(|(_, value)| value);
    local(&next.unwrap_or_default())
}

/// `next` if it is a path on this host, else the start: `//host` and `/\host` are other hosts to a
/// browser.
fn local(next: &str) -> String {
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let is_local = next.starts_with('/') && !next.starts_with("//") && is_plain;
    if is_local { next.to_owned() } else { START.to_owned() }
}

fn page(next: &str, token: Markup, visitor: Option<&Visitor>, wrong: Option<&str>) -> Response {
    let content = html! {
        section.card.sign-in {
            h1 { "Sign in" }
            p.lead { "With one of the service's API keys. What you may do here is what the key may do." }
            (key_form(next, token, wrong))
        }
    };
    let page = Page { title: "Sign in", place: None, live: None, visitor };
    layout::render(&page, content).into_response()
}

fn key_form(next: &str, token: Markup, wrong: Option<&str>) -> Markup {
    html! {
        form method="post" action=(form::SIGN_IN) data-already=[wrong.is_none().then_some(next)] {
            (token)
            input type="hidden" name="next" value=(next);
            label for="key" { "API key" }
            input #key type="password" name="key" autocomplete="current-password" required autofocus
                aria-invalid=[wrong.map(|_| "true")] aria-describedby=[wrong.map(|_| "wrong")];
            @if let Some(wrong) = wrong {
                p #wrong.wrong role="alert" { (wrong) }
            }
            button.primary type="submit" { "Sign in" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::local;

    #[test]
    fn a_sign_in_leads_to_paths_of_this_host_only() {
        assert_eq!(
            local("/jobs?status=failed&reference=a%20b"),
            "/jobs?status=failed&reference=a%20b"
        );
        for elsewhere in [
            "",
            "jobs",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\r\nb",
            "/\tx",
        ] {
            assert_eq!(local(elsewhere), "/jobs", "{elsewhere:?}");
        }
    }
}
