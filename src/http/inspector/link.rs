//! `/sign-in/{secret}`: the page behind the link that `serve` prints.
//!
//! The invariants: looking at the page uses nothing up, since programs that preview links do that;
//! the button does, once. What it opens is a session of the service's own key.

use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::SET_COOKIE},
    response::{AppendHeaders, IntoResponse, Redirect, Response},
};
use maud::{Markup, html};

use super::{
    super::{
        Context,
        access::{self, Site},
        cookie::Transport,
        error::Problem,
    },
    layout::{self, Page},
    refusal::Refusal,
    sign_in,
};

/// Shows the button.
pub(super) async fn show(State(context): State<Context>, Path(secret): Path<String>) -> Response {
    if !context.sign_in_link.works(&secret, context.clock.now()) {
        return used_up();
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
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    if access::origin(&headers) == Site::Other {
        let problem = Problem::ForbiddenOrigin("the form was sent by another site");
        return Err(problem.into());
    }
    let (keys, now) = (&context.config.api.keys, context.clock.now());
    let key = keys.first().filter(|_| context.sign_in_link.take(&secret, now));
    let Some(key) = key else { return Ok(used_up()) };
    sign_in::leave(&context, &headers).await?;
    let cookie = context.sessions.open(key, now, Transport::of(&headers, &context.config.api));
    tracing::info!(key = key.name, "signed in to the inspector by the link");
    Ok((AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to(sign_in::START)).into_response())
}

fn used_up() -> Response {
    let content = html! {
        p.lead { "This link has been used, or its time is up. A restart of the service prints a new one." }
        p { a.button href="/sign-in" { "Sign in with a key" } }
    };
    (StatusCode::GONE, page(content)).into_response()
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
