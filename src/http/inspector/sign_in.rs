//! `/sign-in` and `/sign-out`: opens a session with an API key, and ends it.
//!
//! Invariants: the key itself is neither stored nor shown again; a sign-in redirects only to our
//! own pages.

use axum::{
    extract::{RawQuery, Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{RETRY_AFTER, SET_COOKIE},
    },
    middleware::Next,
    response::{AppendHeaders, IntoResponse, Redirect, Response},
};
use maud::{Markup, html};

use super::{
    super::{
        Context, access,
        cookie::{SESSION, Transport},
        error::Problem,
        failures::Failure,
    },
    form::{self, Form},
    layout::{self, Page},
    refusal::Refusal,
    visitor::Visitor,
};
use crate::config::Scope;

/// The page after a sign-in, unless another one was requested.
pub(super) const START: &str = "/jobs";

const WRONG: &str = "This is not one of the service's keys. They are under api.keys in its \
    settings; without any, the key is in its file finishline.key.";
const TOO_MANY: &str = "Too many wrong keys came from your address. A right key is let in at any \
    time.";

/// Shows the form, or redirects visitors who are signed in already.
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
        // After a link on another site, browsers withhold the session cookie until one of our pages
        // makes a request, as the form's script does.
        Some(visitor) if visitor.may(Scope::Read) => Redirect::to(&next).into_response(),
        visitor => page(&context, &headers, SignInForm { next, visitor, wrong: None }),
    }
}

/// Opens a session for the holder of a key.
pub(super) async fn sign_in(
    State(context): State<Context>,
    form: Form,
) -> Result<Response, Refusal> {
    let next = local(form.get("next").unwrap_or_default());
    let keys = &context.config.api.keys;
    if context.config.api.is_open() {
        return Ok(Redirect::to(&next).into_response());
    }
    let given = form.get("key").unwrap_or_default().trim();
    let Some(key) = access::find_key(given, keys) else {
        return Ok(refused(&context, &form, given.is_empty(), next).await);
    };
    // A new sign-in ends the previous session.
    leave(&context, &form.parts.headers).await?;
    let transport = Transport::of(&form.parts.headers, &context.config.api);
    let cookie = context.sessions.open(key, context.clock.now(), transport);
    tracing::info!(key = key.name, "signed in to the inspector");
    Ok((AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to(&next)).into_response())
}

async fn refused(context: &Context, form: &Form, is_missing: bool, next: String) -> Response {
    let problem = match is_missing {
        true => Problem::Unauthorized,
        false => access::wrong_key(Failure::SignIn, &form.parts, context).await,
    };
    let (status, retry_after) = (problem.status(), problem.retry_after_seconds());
    let wrong = if status == StatusCode::TOO_MANY_REQUESTS { TOO_MANY } else { WRONG };
    let content = SignInForm { next, visitor: None, wrong: Some(wrong) };
    let mut response = (status, page(context, &form.parts.headers, content)).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Ends the session.
pub(super) async fn sign_out(
    State(context): State<Context>,
    form: Form,
) -> Result<Response, Refusal> {
    leave(&context, &form.parts.headers).await?;
    let cookies = SESSION.forget().map(|cookie| (SET_COOKIE, cookie));
    Ok((AppendHeaders(cookies), Redirect::to("/sign-in")).into_response())
}

/// Ends a request's session, if there is one. It ends in this process even if the database fails;
/// an error means that after a restart it would be valid again.
pub(super) async fn leave(context: &Context, headers: &HeaderMap) -> Result<(), Refusal> {
    let now = context.clock.now();
    let Some(signed_out) = context.sessions.end(headers, &context.config.api, now) else {
        return Ok(());
    };
    Ok(context.store.sign_out(signed_out, now).await?)
}

/// Middleware of all pages: renews a session cookie whose recorded last use is long ago.
pub(super) async fn renew(
    State(context): State<Context>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers().clone();
    let mut response = next.run(request).await;
    let (api, now) = (&context.config.api, context.clock.now());
    if !response.headers().contains_key(SET_COOKIE)
        && let Some(session) = context.sessions.current(&headers, api, now)
        && let transport = Transport::of(&headers, api)
        && let Some(cookie) = context.sessions.renewed(session, now, transport)
    {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

fn next_of(query: &[u8]) -> String {
    let mut pairs = url::form_urlencoded::parse(query);
    let next = pairs.find(|(name, _)| name == "next").map(|(_, value)| value);
    local(&next.unwrap_or_default())
}

/// `next` if it is a path on this host, else the start page: browsers read `//host` and `/\host` as
/// other hosts.
fn local(next: &str) -> String {
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let is_local = next.starts_with('/') && !next.starts_with("//") && is_plain;
    if is_local { next.to_owned() } else { START.to_owned() }
}

/// The content of the sign-in page.
struct SignInForm {
    next: String,
    visitor: Option<Visitor>,
    wrong: Option<&'static str>,
}

fn page(context: &Context, headers: &HeaderMap, shown: SignInForm) -> Response {
    let (token, cookie) = form::token_of_browser(headers, context);
    let content = html! {
        section.card.sign-in {
            h1 { "Sign in" }
            p.lead { "With one of the service's API keys. What you may do here is what the key may do." }
            (key_form(&shown.next, token, shown.wrong))
        }
    };
    let visitor = shown.visitor.as_ref();
    let page = Page { title: "Sign in", place: None, live: None, visitor };
    let mut response = layout::render(&page, content).into_response();
    if let Some(cookie) = cookie {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
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
