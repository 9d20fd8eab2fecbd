//! `/sign-in/{secret}`: the page behind the link that `serve` prints.
//!
//! Opening the page does not use up the link, since programs that preview links open it; pressing
//! the button does. The session is one of the service's own key.

use axum::{
    extract::{Path, State},
    http::{
        StatusCode,
        header::{RETRY_AFTER, SET_COOKIE},
        request::Parts,
    },
    response::{AppendHeaders, IntoResponse, Redirect, Response},
};
use maud::{Markup, html};

use super::{
    super::{
        Context,
        access::{self, Site},
        cookie::Transport,
        error::Problem,
        failures::Failure,
    },
    layout::{self, Page},
    refusal::Refusal,
    sign_in,
};

const USED_UP: &str = "This link has been used, or its time is up. A restart of the service prints a \
    new one.";
const TOO_MANY: &str = "Too many wrong keys and links came from your address. The right one is let in \
    at any time.";

/// Shows the button.
pub(super) async fn show(
    State(context): State<Context>,
    Path(secret): Path<String>,
    parts: Parts,
) -> Response {
    if !context.sign_in_link.works(&secret, context.clock.now()) {
        return refused(&parts, &context).await;
    }
    page(html! {
        p.lead { "This link signs you in once, with the key that the service made for itself." }
        form method="post" {
            button.primary type="submit" autofocus { "Sign in" }
        }
    })
}

/// Opens the session.
pub(super) async fn sign_in(
    State(context): State<Context>,
    Path(secret): Path<String>,
    parts: Parts,
) -> Result<Response, Refusal> {
    let (headers, api) = (&parts.headers, &context.config.api);
    if access::origin(headers, api) == Site::Other {
        let problem = Problem::ForbiddenOrigin("the form was sent by another site");
        return Err(problem.into());
    }
    let now = context.clock.now();
    let key = api.keys.first().filter(|_| context.sign_in_link.take(&secret, now));
    let Some(key) = key else { return Ok(refused(&parts, &context).await) };
    sign_in::leave(&context, headers).await?;
    let cookie = context.sessions.open(key, now, Transport::of(headers, api));
    tracing::info!(key = key.name, "signed in to the inspector by the link");
    Ok((AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to(sign_in::START)).into_response())
}

/// The answer to a link that does not work, which may be a guess.
async fn refused(parts: &Parts, context: &Context) -> Response {
    let problem = access::wrong_key(Failure::SignInLink, parts, context).await;
    let retry_after = problem.retry_after_seconds();
    let (status, sentence) = match retry_after {
        Some(_) => (problem.status(), TOO_MANY),
        None => (StatusCode::GONE, USED_UP),
    };
    let content = html! {
        p.lead { (sentence) }
        p { a.button href="/sign-in" { "Sign in with a key" } }
    };
    let mut response = (status, page(content)).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn page(content: Markup) -> Response {
    let content = html! {
        section.card.sign-in {
            h1 { "Sign in" }
            (content)
        }
    };
    let page = Page { title: "Sign in", place: None, live: None, visitor: None };
    layout::render(&page, content).into_response()
}
