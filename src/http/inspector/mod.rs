//! The inspector: pages that show every job, every callback and what was done with it.
//!
//! One file per page, rendered here on the server; the scripts only keep a page fresh and times in
//! the reader's zone. The invariants: nothing is loaded from anywhere else, no script or style
//! stands in a page, what came from outside is text, and a GET changes nothing.

mod assets;
mod curl;
mod form;
mod job;
mod jobs;
mod layout;
mod link;
mod overview;
mod parts;
mod refusal;
mod sign_in;
mod submit;
mod visitor;

use axum::{
    Router,
    extract::Request,
    http::{
        HeaderName, HeaderValue,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
    },
    middleware::{Next, from_fn, from_fn_with_state},
    response::{Redirect, Response},
    routing::{get, post},
};

use super::{Context, access};

/// Every page does with its own files; whatever a payload smuggles in is not run.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";

/// What every answer of the inspector says to its browser.
const HEADERS: [(HeaderName, &str); 4] = [
    (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

#[rustfmt::skip]
pub(super) fn routes(context: &Context) -> Router<Context> {
    Router::new()
        .route("/", get(async || Redirect::to("/jobs")))
        .route("/jobs", get(jobs::show))
        .route("/jobs/{id}", get(job::show))
        .route("/jobs/{id}/refresh", post(job::actions::refresh))
        .route("/jobs/{id}/resubmit", post(job::actions::resubmit))
        .route("/jobs/{id}/erase", get(job::actions::ask_to_erase).post(job::actions::erase))
        .route("/jobs/{id}/relays/{relay}/resend", post(job::actions::resend))
        .route("/overview", get(overview::show))
        .route("/submit", get(submit::show).post(submit::submit))
        .route("/search", get(jobs::search::lead))
        .route("/sign-in", get(sign_in::show).post(sign_in::sign_in))
        .route("/sign-in/{secret}", get(link::show).post(link::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/assets/{version}/{name}", get(assets::serve))
        .layer(from_fn_with_state(context.clone(), refusal::show))
        .layer(from_fn(guard_browser))
        .layer(from_fn_with_state(context.clone(), access::only_this_host))
}

/// Adds [`HEADERS`]; pages are not kept by browsers unless they say so themselves.
async fn guard_browser(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
