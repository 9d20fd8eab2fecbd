//! The deliveries of a job, each with its evidence, and the differences between conflicting ones.
//!
//! Bodies are read only to compare a conflict with the result, or to show the beginning of an
//! unreadable delivery; at most [`MAX_BODIES`] of them.

use std::collections::HashMap;

use bytes::Bytes;
use maud::{Markup, html};

use super::{
    super::{
        super::Context,
        curl::{Api, command},
        parts::{self, Tone},
        refusal::Refusal,
    },
    Body, JobPageData, body_of, difference, tree,
};
use crate::domain::{
    bounds::MAX_CELL_CHARS,
    delivery::{Delivery, Outcome},
    digest::hex,
    ids::DeliveryId,
};

/// Deliveries whose bodies are shown.
const MAX_BODIES: usize = 4;

/// A larger body is only linked.
const MAX_BODY_BYTES: u64 = 1024 * 1024;

/// The bodies to show.
pub(super) async fn bodies(
    context: &Context,
    data: &JobPageData,
) -> Result<HashMap<DeliveryId, Bytes>, Refusal> {
    let is_meant = |delivery: &&Delivery| {
        let is_odd = matches!(
            delivery.outcome,
            Outcome::Conflict | Outcome::Unrecognised | Outcome::Malformed
        );
        is_odd && delivery.bytes <= MAX_BODY_BYTES
    };
    let mut bodies = HashMap::new();
    for delivery in data.deliveries.rows.iter().filter(is_meant).take(MAX_BODIES) {
        bodies.extend(body_of(context, delivery.id).await?.map(|body| (delivery.id, body)));
    }
    Ok(bodies)
}

pub(super) fn show(data: &JobPageData, bodies: &HashMap<DeliveryId, Bytes>, api: &Api) -> Markup {
    html! {
        @if data.deliveries.rows.is_empty() { p.muted { "Nothing was received yet." } }
        @for delivery in &data.deliveries.rows {
            (one(data, delivery, bodies.get(&delivery.id), api))
        }
        @if data.deliveries.next.is_some() {
            p.cut { "The first " (data.deliveries.rows.len()) ". "
                a href={ "/v1/jobs/" (data.job.id) "/deliveries" } { "All of them as JSON" } }
        }
    }
}

fn one(data: &JobPageData, delivery: &Delivery, body: Option<&Bytes>, api: &Api) -> Markup {
    let (tone, why) = meaning(delivery.outcome);
    let id = delivery.id;
    let is_open = delivery.outcome == Outcome::Conflict;
    html! {
        details.fold id={ "delivery-" (id) } data-key={ "delivery-" (id) } open[is_open] {
            summary {
                (parts::tag(tone, delivery.outcome.as_str(), why)) " "
                (parts::moment(delivery.received_at))
                span.muted { " · " (delivery.source) " · " (parts::size(delivery.bytes))
                    @if delivery.repeats > 0 { " · came " (delivery.repeats + 1) " times" }
                }
            }
            p { (why) "." }
            dl.properties {
                div { dt { "Delivery id" } dd { (parts::copyable(&id.to_string())) } }
                div { dt { "SHA-256" } dd { (parts::copyable(&hex(&delivery.sha256))) } }
                div { dt { "Bytes" } dd { (delivery.bytes) ", "
                    a href={ "/v1/deliveries/" (id) "/body" } { "the exact ones" } } }
            }
            @if !delivery.headers.is_empty() {
                h3 { "Headers" }
                dl.headers {
                    @for (name, value) in &delivery.headers {
                        @let (shown, is_all) = data.redactor.redact_beginning(value, true, MAX_CELL_CHARS);
                        div { dt { (name) } dd { (shown) @if !is_all { "…" } } }
                    }
                }
            }
            (shown_body(data, delivery, body))
            h3 { "Copy as curl" }
            (command(&api.body(id)))
            p { "Replayed against the callbacks' door, where " code { "SIGNATURE" }
                " is the last part of the address that the Engine was given; no page shows it." }
            (command(&api.replay(delivery)))
        }
    }
}

fn shown_body(data: &JobPageData, delivery: &Delivery, body: Option<&Bytes>) -> Markup {
    let key = format!("body-{}", delivery.id);
    html! {
        @match (delivery.outcome, body, &data.result) {
            (Outcome::Conflict, Some(body), Body::Found(result)) => {
                h3 { "Difference from the result" }
                (difference::between(&result.body, body, &data.redactor))
            }
            (Outcome::Conflict, ..) => p.muted { "It is too large to be compared here." },
            (Outcome::Malformed | Outcome::Unrecognised, Some(body), _) => {
                h3 { "What came" }
                (tree::body(body, &key, &data.redactor))
            }
            _ => {}
        }
    }
}

fn meaning(outcome: Outcome) -> (Tone, &'static str) {
    match outcome {
        Outcome::Stored => (Tone::Good, "It is the job's result"),
        Outcome::Duplicate => (Tone::Quiet, "The same bytes had come before"),
        Outcome::Refreshed => (
            Tone::Good,
            "The same result with other links; they are taken where the Engine was asked for them",
        ),
        Outcome::Conflict => {
            (Tone::Bad, "It says something else than the result, which stands; this is evidence")
        }
        Outcome::Unrecognised => (Tone::Warning, "JSON, but no job result; it changes nothing"),
        Outcome::Malformed => (Tone::Bad, "Not JSON; its sender was told so"),
    }
}
