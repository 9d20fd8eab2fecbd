//! The actions on a job: refresh, resubmit, resend a relay, erase.
//!
//! Forms that work without scripts and call the same code as the API. Only what the visitor's key
//! allows is offered, and every request is checked again; actions that cost money or cannot be
//! undone ask for confirmation.

use axum::{
    extract::State,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use uuid::Uuid;

use super::super::{
    super::{
        Context,
        error::Problem,
        extract::{JobPath, Segments},
        jobs::{erase_job, found},
        orders, submission,
    },
    form::{self, Form},
    layout::{self, Page, Place},
    parts::{self, Tone},
    refusal::Refusal,
    visitor::Visitor,
};
use crate::{
    config::Scope,
    domain::{
        ids::JobId,
        job::{Job, JobStatus},
    },
};

/// The field that confirms an action.
const CONFIRM: &str = "confirm";

/// Notices: the word in the address, tone, sentence.
const NOTICES: [(&str, Tone, &str); 4] = [
    ("refreshed", Tone::Good, "The Engine was asked; what it said is below."),
    ("resubmitted", Tone::Good, "The job was sent to the Engine again."),
    ("resent", Tone::Good, "The result is being sent again."),
    ("unconfirmed", Tone::Warning, "Nothing was done: tick the box to confirm."),
];

/// The notice that the address names, if any.
pub(super) fn notice(query: &str) -> Markup {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let word = pairs.find(|(name, _)| name == "notice").map(|(_, word)| word);
    let known = NOTICES.iter().find(|(known, ..)| word.as_deref() == Some(known));
    html! {
        @if let Some((_, tone, sentence)) = known {
            p class={ "notice " (tone.class()) } role="status" { (sentence) }
        }
    }
}

/// The actions that the visitor may use.
pub(super) fn bar(job: &Job, visitor: &Visitor) -> Markup {
    let address = |action: &str| format!("/jobs/{}/{action}", job.id);
    let is_resubmittable =
        matches!(job.status, JobStatus::Unsent | JobStatus::Rejected | JobStatus::Unconfirmed);
    html! {
        div.actions {
            @if visitor.may(Scope::Operate) && job.engine_job_id.is_some() {
                form method="post" action=(address("refresh")) {
                    (form::token(visitor))
                    button type="submit" title="Asks the Engine once for the result" { "Refresh" }
                }
            }
            @if visitor.may(Scope::Submit) && is_resubmittable {
                form method="post" action=(address("resubmit")) {
                    (form::token(visitor))
                    @if job.status == JobStatus::Unconfirmed {
                        label.confirm { input type="checkbox" name=(CONFIRM) value="yes" required;
                            "The Engine may be running it and would bill it twice" }
                    }
                    button type="submit" { "Submit again" }
                }
            }
            @if visitor.may(Scope::Erase) { a.button.danger href=(address("erase")) { "Erase…" } }
        }
    }
}

/// Asks the Engine once for the result.
pub(in super::super) async fn refresh(
    visitor: Visitor,
    State(context): State<Context>,
    JobPath(id): JobPath,
    _: Form,
) -> Result<Redirect, Refusal> {
    visitor.require(Scope::Operate)?;
    orders::look_up_to_the_end(context, id).await?;
    Ok(back(id, "refreshed"))
}

/// Sends a job to the Engine again.
pub(in super::super) async fn resubmit(
    visitor: Visitor,
    State(context): State<Context>,
    JobPath(id): JobPath,
    form: Form,
) -> Result<Redirect, Refusal> {
    visitor.require(Scope::Submit)?;
    submission::resubmit(context, id, form.get(CONFIRM).is_some()).await?;
    Ok(back(id, "resubmitted"))
}

/// Sends a relay again.
pub(in super::super) async fn resend(
    visitor: Visitor,
    State(context): State<Context>,
    Segments((job, relay)): Segments<(String, String)>,
    _: Form,
) -> Result<Redirect, Refusal> {
    visitor.require(Scope::Operate)?;
    let id: JobId = job.parse().map_err(Problem::from)?;
    let relay = Uuid::try_parse(&relay).map_err(|_| Problem::NotFound)?;
    if !context.store.resend_relay(relay, context.clock.now()).await? {
        return Err(Problem::NotFound.into());
    }
    Ok(back(id, "resent"))
}

/// Asks for confirmation before a job is erased.
pub(in super::super) async fn ask_to_erase(
    visitor: Visitor,
    State(context): State<Context>,
    JobPath(id): JobPath,
) -> Result<Response, Refusal> {
    visitor.require(Scope::Erase)?;
    let job = found(context.store.job(id).await?)?;
    let content = html! {
        section.card.alone {
            p.eyebrow { (parts::status(job.status)) " " code { (id) } }
            h1 { "Erase this job?" }
            p.lead {
                @if let Some(reference) = &job.reference { "“" (reference) "”, its " } @else { "Its " }
                "deliveries, its result and its relays will be nowhere in the database. "
                "A late callback for it will be turned away. This cannot be undone."
            }
            @if job.status.is_in_flight() {
                p.notice.is-warning { "The Engine may still be working on it, and its result would be lost." }
            }
            form.actions method="post" action={ "/jobs/" (id) "/erase" } {
                (form::token(&visitor))
                input type="hidden" name=(CONFIRM) value="yes";
                button.danger type="submit" { "Erase it for good" }
                a.button href={ "/jobs/" (id) } { "Keep it" }
            }
        }
    };
    let page =
        Page { title: "Erase", place: Some(Place::Jobs), live: None, visitor: Some(&visitor) };
    Ok(layout::render(&page, content).into_response())
}

/// Erases a job.
pub(in super::super) async fn erase(
    visitor: Visitor,
    State(context): State<Context>,
    JobPath(id): JobPath,
    form: Form,
) -> Result<Redirect, Refusal> {
    visitor.require(Scope::Erase)?;
    if form.get(CONFIRM).is_none() {
        return Ok(back(id, "unconfirmed"));
    }
    erase_job(&context, id).await?;
    Ok(Redirect::to("/jobs?notice=erased"))
}

/// Redirects to the job's page, which shows the notice.
fn back(id: JobId, notice: &str) -> Redirect {
    Redirect::to(&format!("/jobs/{id}?notice={notice}"))
}
