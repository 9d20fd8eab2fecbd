//! The relays of a job's result, with every attempt and its answer.
//!
//! Invariant: a target is shown by its name or origin only; its path and query may contain secrets.

use maud::{Markup, html};

use super::{
    super::{
        form,
        parts::{self, Tone},
        visitor::Visitor,
    },
    JobPageData,
};
use crate::{
    config::Scope,
    domain::{
        bounds::{MAX_CELL_CHARS, MAX_SHOWN_ATTEMPTS},
        relay::{Attempt, Relay, RelayState, webhook_id},
    },
};

pub(super) fn show(data: &JobPageData, visitor: &Visitor) -> Markup {
    html! {
        @if data.relays.is_empty() {
            p.muted {
                @if data.job.status.is_finished() { "The result is passed on to nobody: no target is configured, and the job named none." }
                @else { "Nothing is passed on before the result." }
            }
        }
        @for (relay, attempts) in &data.relays { (one(data, relay, attempts, visitor)) }
    }
}

fn one(data: &JobPageData, relay: &Relay, attempts: &[Attempt], visitor: &Visitor) -> Markup {
    let (tone, why) = match relay.state {
        RelayState::Pending => (Tone::Quiet, "Another attempt follows"),
        RelayState::Delivered => (Tone::Good, "Its target took it"),
        RelayState::Dead => (Tone::Bad, "Given up; it can be sent again"),
        RelayState::Paused => {
            (Tone::Warning, "Its target failed often and is left alone for a while")
        }
    };
    html! {
        article.relay id={ "relay-" (relay.id) } {
            header {
                h3 { (relay.target) }
                (parts::tag(tone, relay.state.as_str(), why))
                @if let Some(at) = relay.next_attempt_at { span.muted { "next attempt " (parts::moment(at)) } }
                @if visitor.may(Scope::Operate) {
                    form method="post" action={ "/jobs/" (relay.job_id) "/relays/" (relay.id) "/resend" } {
                        (form::token(visitor))
                        button type="submit" { "Send again" }
                    }
                }
            }
            p.data { span { "webhook-id " (parts::copyable(&webhook_id(relay.job_id, relay.id))) } }
            @if attempts.is_empty() { p.muted { "No attempt yet." } }
            @else {
                div.scroll tabindex="0" {
                    table.plain.cards {
                        thead { tr { th scope="col" { "Attempt" } th scope="col" { "When" } th scope="col" { "Took" } th scope="col" { "Answer" } } }
                        tbody {
                            @for attempt in attempts.iter().rev().take(MAX_SHOWN_ATTEMPTS).rev() { (tried(data, attempt)) }
                        }
                    }
                }
            }
        }
    }
}

fn tried(data: &JobPageData, attempt: &Attempt) -> Markup {
    let is_taken = attempt.status.is_some_and(|status| (200..300).contains(&status));
    let tone = if is_taken { Tone::Good } else { Tone::Bad };
    let (answer, is_all) = data.redactor.redact_bytes(&attempt.answer, MAX_CELL_CHARS);
    html! {
        tr {
            td data-label="Attempt" { (attempt.number) }
            td data-label="When" { (parts::moment(attempt.at)) }
            td data-label="Took" { (parts::duration(attempt.millis)) }
            td data-label="Answer" {
                @if let Some(status) = attempt.status { (parts::tag(tone, &status.to_string(), "HTTP status")) }
                @if let Some(error) = &attempt.error { (parts::tag(tone, error, "Why there was no answer")) }
                @if !answer.is_empty() { pre.raw { (answer) @if !is_all { "…" } } }
            }
        }
    }
}
