//! The inspector: web pages that show every job, every callback and what was done with it.
//!
//! One file per page, rendered on the server; scripts only update pages and show times in the
//! reader's zone. Invariants: nothing is loaded from another host, pages contain no inline script
//! or style, received data is escaped as text, and a GET changes nothing.

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
    extract::{Request, State},
    http::{
        HeaderName, HeaderValue,
        header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    middleware::{Next, from_fn_with_state, map_response},
    response::{Redirect, Response},
    routing::{get, post},
};

use self::refusal::Refusal;
use super::{Context, access, answers, error::Problem, routes::Routes};

/// Pages load only our own files; a script that a payload injects is not run.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";

/// Security headers of every page, beside those that `headers` adds to all answers.
const HEADERS: [(HeaderName, &str); 2] = [
    (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

#[rustfmt::skip]
pub(super) fn routes(context: &Context) -> Routes {
    Routes::new()
        .route("/", get(async || Redirect::to("/jobs")))
        .route("/jobs", get(jobs::show))
        .route("/jobs/{id}", get(job::show))
        .route("/jobs/{id}/refresh", post(job::actions::refresh))
        .route("/jobs/{id}/resubmit", post(job::actions::resubmit))
        .route("/jobs/{id}/erase", get(job::actions::ask_to_erase).post(job::actions::erase))
        .route("/jobs/{id}/relays/{relay}/resend", post(job::actions::resend))
        .route("/overview", get(overview::show))
        .route("/submit", get(submit::show).post(submit::submit))
        .route("/search", get(jobs::search::redirect_to_match))
        .route("/sign-in", get(sign_in::show).post(sign_in::sign_in))
        .route("/sign-in/{secret}", get(link::show).post(link::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .layer(from_fn_with_state(context.clone(), count))
        .route("/assets/{version}/{name}", get(assets::serve))
        .layer(from_fn_with_state(context.clone(), refusal::show))
        .layer(from_fn_with_state(context.clone(), sign_in::renew))
        .layer(map_response(guard_browser))
        .layer(from_fn_with_state(context.clone(), access::only_this_host))
}

/// Counts a page's bytes against the memory limit until they are sent.
async fn count(
    State(context): State<Context>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    Ok(answers::counted(&context, next.run(request).await).map_err(Problem::from)?)
}

/// Adds [`HEADERS`] to pages, not to styles, scripts and redirects.
async fn guard_browser(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let kind = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    if kind.starts_with(b"text/html") {
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    response
}
