//! A job's timeline, drawn to scale, and its events as a list.
//!
//! All rows share one scale, from the job's first instant to its last (to now while it is in
//! flight), so lengths can be compared.

use jiff::Timestamp;
use maud::{Markup, html};

use super::{super::parts, JobPageData};
use crate::domain::{
    bounds::{MAX_CELL_CHARS, beginning},
    delivery::{Delivery, Outcome},
    event::Event,
    relay::Attempt,
};

/// Width of a row's drawing, in its own units.
const WIDTH: f64 = 1_000.0;

/// The narrowest visible mark.
const NARROWEST: f64 = 5.0;

/// The event for "every output is copied".
const SECURED: &str = "job.secured";

/// Job events that have rows of their own.
const TOLD_ELSEWHERE: [&str; 3] = ["job.submitted", "job.finished", SECURED];

/// An instant or a period.
struct Span {
    from: Timestamp,
    to: Timestamp,
    class: &'static str,
    told: String,
}

struct Row {
    name: String,
    spans: Vec<Span>,
    /// All spans in a few words.
    told: String,
}

impl Row {
    fn new(name: impl Into<String>, spans: Vec<Span>) -> Self {
        let told: Vec<&str> = spans.iter().map(|span| span.told.as_str()).collect();
        let told = told.join(", ");
        Self { name: name.into(), spans, told }
    }
}

/// Shows the timeline and the list of events.
pub(super) fn show(data: &JobPageData, now: Timestamp) -> Markup {
    let rows = rows(data, now);
    let spans = || rows.iter().flat_map(|row| &row.spans);
    let begin = spans().map(|span| span.from).min().unwrap_or(data.job.created_at);
    let end = spans().map(|span| span.to).max().unwrap_or(begin);
    let whole = parts::millis_between(begin, end).max(1);
    html! {
        div.lanes {
            @for row in &rows { (lane(row, begin, whole)) }
            div.lane.axis aria-hidden="true" {
                span {}
                span.marks {
                    span { "0" }
                    span { (parts::duration(whole / 2)) }
                    span { (parts::duration(whole)) }
                }
            }
        }
        (events(data, begin))
    }
}

fn lane(row: &Row, begin: Timestamp, whole: u64) -> Markup {
    html! {
        div.lane {
            span.lane-name { (row.name) }
            svg viewBox="0 0 1000 20" preserveAspectRatio="none" role="img" aria-label={ (row.name) ": " (row.told) } {
                line.ground x1="0" y1="10" x2="1000" y2="10" {}
                @for span in &row.spans {
                    @let (x, width) = place(span, begin, whole);
                    rect class=(span.class) x=(format!("{x:.2}")) y="3" width=(format!("{width:.2}")) height="14" {
                        title { (span.told) }
                    }
                }
            }
            span.lane-told title=(row.told) { (row.told) }
        }
    }
}

/// A span's position and width in the drawing.
fn place(span: &Span, begin: Timestamp, whole: u64) -> (f64, f64) {
    let unit = WIDTH / whole as f64;
    let width = (parts::millis_between(span.from, span.to) as f64 * unit).max(NARROWEST);
    let x = parts::millis_between(begin, span.from) as f64 * unit;
    (x.min(WIDTH - NARROWEST), width.min(WIDTH))
}

fn rows(data: &JobPageData, now: Timestamp) -> Vec<Row> {
    let job = &data.job;
    let answered = job.submitted_at.unwrap_or(job.created_at);
    let mut rows = vec![
        Row::new("Submission", vec![going_on(job.created_at, answered, "calm")]),
        Row::new("Uploads", marks(data, |kind| kind.starts_with("input."))),
    ];
    if let Some(submitted_at) = job.submitted_at {
        let (end, class) = match job.finished_at {
            Some(finished_at) => (finished_at, "accent"),
            None => (now, "accent running"),
        };
        rows.push(Row::new("At the Engine", vec![going_on(submitted_at, end, class)]));
    }
    rows.push(Row::new("Deliveries", data.deliveries.rows.iter().map(received).collect()));
    let is_of_mirror = |kind: &str| kind.starts_with("output.") || kind == SECURED;
    rows.push(Row::new("Mirror", marks(data, is_of_mirror)));
    let is_note = |kind: &str| kind.starts_with("job.") && !TOLD_ELSEWHERE.contains(&kind);
    rows.push(Row::new("Notes", marks(data, is_note)));
    for (relay, attempts) in &data.relays {
        let name = format!("Relay to {}", relay.target);
        let spans = attempts.iter().map(attempted).collect();
        let told = format!("{}, attempts: {}", relay.state.as_str(), attempts.len());
        rows.push(Row { told, ..Row::new(name, spans) });
    }
    rows.retain(|row| !row.spans.is_empty());
    rows
}

fn received(delivery: &Delivery) -> Span {
    let class = match delivery.outcome {
        Outcome::Stored | Outcome::Refreshed | Outcome::Duplicate => "good",
        Outcome::Unrecognised => "warning",
        Outcome::Conflict | Outcome::Malformed => "bad",
    };
    let (at, told) = (delivery.received_at, delivery.outcome.as_str().to_owned());
    Span { from: at, to: at, class, told }
}

fn going_on(from: Timestamp, to: Timestamp, class: &'static str) -> Span {
    Span { from, to, class, told: parts::duration(parts::millis_between(from, to)) }
}

fn attempted(attempt: &Attempt) -> Span {
    let to =
        attempt.at + jiff::SignedDuration::from_millis(i64::try_from(attempt.millis).unwrap_or(0));
    let is_taken = attempt.status.is_some_and(|status| (200..300).contains(&status));
    let answer = attempt.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    Span {
        from: attempt.at,
        to,
        class: if is_taken { "good" } else { "bad" },
        told: format!(
            "attempt {}: {answer} after {}",
            attempt.number,
            parts::duration(attempt.millis)
        ),
    }
}

/// Marks for the events of these types.
fn marks(data: &JobPageData, is_meant: impl Fn(&str) -> bool) -> Vec<Span> {
    let mark = |event: &Event| Span {
        from: event.at,
        to: event.at,
        class: match event.kind.as_str() {
            "output.mirror_failed" => "bad",
            SECURED => "good",
            kind if kind.starts_with("job.") => "warning",
            _ => "good",
        },
        told: event.kind.split_once('.').map_or("", |(_, what)| what).replace('_', " "),
    };
    data.events.rows.iter().filter(|event| is_meant(&event.kind)).map(mark).collect()
}

fn events(data: &JobPageData, begin: Timestamp) -> Markup {
    let events = &data.events.rows;
    html! {
        details.fold data-key="events" {
            summary { "Events " span.muted { "· " (events.len()) } }
            div.scroll tabindex="0" {
                table.plain.cards {
                    thead { tr { th scope="col" { "When" } th scope="col" { "After" } th scope="col" { "Event" } th scope="col" { "Data" } } }
                    tbody {
                        @for event in events {
                            tr {
                                td data-label="When" { (parts::moment(event.at)) }
                                td data-label="After" { "+" (parts::duration(parts::millis_between(begin, event.at))) }
                                td data-label="Event" { code { (event.kind) } }
                                td data-label="Data" { code.data { (beginning(&event.data, MAX_CELL_CHARS)) } }
                            }
                        }
                    }
                }
            }
            @if data.events.next.is_some() {
                p.cut { "The first " (events.len()) ". " a href={ "/v1/jobs/" (data.job.id) "/events" } { "All of them as JSON" } }
            }
        }
    }
}
