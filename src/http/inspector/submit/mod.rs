//! `/submit`: a form next to the job body that it writes.
//!
//! With scripts the page posts the JSON to the API and uploads the scans; without, the form or the
//! JSON is posted here. Both use the same code as every submission. The page's idempotency key
//! keeps a double click from creating two jobs.

mod draft;
mod fields;

use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};

use self::{
    draft::Draft,
    fields::{FieldErrors, Placeholders},
};
use super::{
    super::{
        Context,
        error::Problem,
        jobs::{defaults, once},
        submission::{self, Submitted},
    },
    form::{self, Form},
    layout::{self, Page, Place},
    refusal::Refusal,
    visitor::Visitor,
};
use crate::{
    config::Scope,
    domain::{
        ids::{DeliveryId, JobId},
        request::JobRequest,
    },
};

/// The field that holds the page's idempotency key.
const KEY: &str = "idempotencyKey";

/// The content of the page.
struct FormState {
    draft: Draft,
    body: String,
    /// Idempotency key: one job, however often the page is sent.
    key: String,
    problem: Option<Problem>,
}

/// Shows the form with its defaults.
pub(super) async fn show(
    visitor: Visitor,
    State(context): State<Context>,
) -> Result<Response, Refusal> {
    visitor.require(Scope::Submit)?;
    let draft = Draft::default();
    let state = FormState { body: draft.body(), draft, key: new_key(&context), problem: None };
    Ok(page(&context, &visitor, &state).await)
}

/// Submits the form, or the JSON next to it.
pub(super) async fn submit(
    visitor: Visitor,
    State(context): State<Context>,
    form: Form,
) -> Result<Response, Refusal> {
    visitor.require(Scope::Submit)?;
    let draft = Draft::of(&form);
    let is_json = form.get("from") == Some("json");
    let body = match form.get("body") {
        Some(body) if is_json => body.to_owned(),
        _ => draft.body(),
    };
    let key = form.get(KEY).filter(|key| !key.is_empty()).map(str::to_owned);
    let key = key.unwrap_or_else(|| new_key(&context));
    let problem = match submit_form(&context, &visitor, &body, &key).await {
        Ok(id) => return Ok(Redirect::to(&format!("/jobs/{id}")).into_response()),
        Err(problem) => problem,
    };
    let key = if is_settled(&problem) { new_key(&context) } else { key };
    let status = problem.status();
    let state = FormState { draft, body, key, problem: Some(problem) };
    Ok((status, page(&context, &visitor, &state).await).into_response())
}

async fn submit_form(
    context: &Context,
    visitor: &Visitor,
    body: &str,
    key: &str,
) -> Result<JobId, Problem> {
    let request = JobRequest::parse(body.as_bytes(), &defaults(context))?;
    let idempotency = once(visitor.name(), key, &request);
    match submission::submit(context.clone(), request, Some(idempotency)).await? {
        Submitted::Now(job) | Submitted::Replay(job) => Ok(job.id),
    }
}

/// Whether the key is used up: it would return the same answer again.
fn is_settled(problem: &Problem) -> bool {
    matches!(problem, Problem::EngineRejected { .. } | Problem::IdempotencyMismatch | Problem::Gone)
}

/// Any unique id can serve as a key.
fn new_key(context: &Context) -> String {
    DeliveryId::new(context.clock.now()).to_string()
}

async fn page(context: &Context, visitor: &Visitor, state: &FormState) -> Response {
    let unknown = context.public_url.current().await.err();
    let errors = FieldErrors::of(state.problem.as_ref());
    let content = html! {
        div.heading { h1 { "Submit a job" } }
        @if let Some(unknown) = &unknown {
            p.notice.is-warning { strong { "Nothing can be submitted now. " } (unknown) }
        }
        (alert(state.problem.as_ref(), &errors))
        form.submit #submit method="post" action="/submit" autocomplete="off" {
            (form::token(visitor))
            input type="hidden" name=(KEY) value=(state.key);
            div.write { (fields::all(&state.draft, &errors, &Placeholders::of(context))) }
            (editor(&state.body))
        }
        section.card.part #uploads hidden aria-labelledby="uploads-title" {
            h2 #uploads-title tabindex="-1" { "The job is submitted" }
            p.muted { "The Engine begins when it has the scans. Keep this page open until they are there." }
            ul.uploads {}
            p.actions { a.button #to-the-job href="/jobs" { "To the job" } }
        }
        (layout::script("submit.js"))
    };
    let page = Page {
        title: "Submit a job",
        place: Some(Place::Submit),
        live: None,
        visitor: Some(visitor),
    };
    layout::render(&page, content).into_response()
}

/// The error as a whole; errors of a field are shown at the field.
fn alert(problem: Option<&Problem>, errors: &FieldErrors) -> Markup {
    html! {
        div.notice.is-bad #alert role="alert" hidden[problem.is_none()] {
            @if let Some(problem) = problem {
                p { strong { (problem.title()) ". " } (problem.detail()) }
                @if let Problem::EngineRejected { engine_body: Some(body), .. } = problem {
                    pre.raw { (body.get()) }
                }
                @if !errors.elsewhere().is_empty() {
                    ul { @for line in errors.elsewhere() { li { (line) } } }
                }
                @if let Some(id) = job_of(problem) {
                    p { a href={ "/jobs/" (id) } { "It is on record as a job" } }
                }
            }
        }
    }
}

/// The job that was recorded before the Engine was asked.
fn job_of(problem: &Problem) -> Option<JobId> {
    match problem {
        Problem::EngineRejected { job_id, .. }
        | Problem::EngineAuth { job_id, .. }
        | Problem::EngineUnavailable { job_id, .. }
        | Problem::EngineTimeout { job_id, .. }
        | Problem::AnswerNotRecorded { job_id, .. }
        | Problem::EngineBusy { job_id, .. } => Some(*job_id),
        _ => None,
    }
}

fn editor(body: &str) -> Markup {
    html! {
        div.edit {
            section.card.part aria-labelledby="body-title" {
                h2 #body-title { label for="body" { "Job body" } }
                p.muted #body-hint {
                    "What is sent. Whatever the form has no field for is written here; unknown fields reach the Engine as they are."
                }
                textarea #body name="body" rows="20" spellcheck="false" autocomplete="off"
                    aria-describedby="body-hint body-wrong" { (body) }
                p.wrong #body-wrong data-wrong hidden {}
                div.actions {
                    button.without-script name="from" value="json" { "Submit this JSON" }
                    button.primary.with-script type="submit" { "Submit" }
                    p.muted role="status" data-submit-state {}
                }
            }
        }
    }
}
