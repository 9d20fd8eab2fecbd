//! Problems as pages.
//!
//! Renders the errors of page handlers. A page has the same status and text as the API's problem,
//! and a link to continue.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::header::RETRY_AFTER,
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use maud::html;

use super::{
    super::{Context, error::Problem},
    layout::{self, Page},
    visitor::Visitor,
};
use crate::{config::Scope, domain::page::BadCursor, store::StoreError};

/// Why a page is not shown.
pub enum Refusal {
    /// Nobody has signed in; the sign-in leads back to `next`.
    SignInFirst { next: String },
    /// The API's problem.
    Problem(Problem),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Problem(error.into())
    }
}

impl From<BadCursor> for Refusal {
    fn from(error: BadCursor) -> Self {
        Self::Problem(error.into())
    }
}

/// A problem that [`show`] will render, which knows the visitor.
#[derive(Clone)]
struct Unshown(Arc<Problem>);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::SignInFirst { next } => {
                let query = url::form_urlencoded::Serializer::new(String::new())
                    .append_pair("next", &next)
                    .finish();
                Redirect::to(&format!("/sign-in?{query}")).into_response()
            }
            Self::Problem(problem) => {
                let mut response = problem.status().into_response();
                response.extensions_mut().insert(Unshown(Arc::new(problem)));
                response
            }
        }
    }
}

/// Middleware of all pages: renders refusals.
pub(super) async fn show(State(context): State<Context>, request: Request, next: Next) -> Response {
    let visitor = Visitor::of(request.headers(), &context);
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Unshown>() {
        Some(Unshown(problem)) => page(&problem, visitor.as_ref()),
        None => response,
    }
}

fn page(problem: &Problem, visitor: Option<&Visitor>) -> Response {
    let may_read = visitor.is_some_and(|visitor| visitor.may(Scope::Read));
    let content = html! {
        section.card.alone {
            p.eyebrow { (problem.status().as_u16()) " " (problem.code()) }
            h1 { (problem.title()) }
            p.lead { (problem.detail()) }
            @if may_read {
                p { a.button href="/jobs" { "To the jobs" } }
            } @else {
                p { a.button href="/sign-in" { "Sign in with another key" } }
            }
        }
    };
    let page = Page { title: problem.title(), place: None, live: None, visitor };
    let mut response = (problem.status(), layout::render(&page, content)).into_response();
    if let Some(seconds) = problem.retry_after_seconds() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}
