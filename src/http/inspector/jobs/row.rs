//! One job as a row of the list.
//!
//! Anything unusual about a job is a word in its row, never a colour alone.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maud::{Markup, html};

use super::super::parts::{self, Tone};
use crate::domain::{
    bounds::MAX_NAMES_IN_A_ROW,
    job::{InputState, Job, JobFlags},
};

/// Finished jobs that are needed for an expectation.
const EXPECTED_FROM: usize = 5;

/// The bar's full length is this many times the 95th percentile.
const BAR_OVER_P95: f64 = 1.25;

/// Length of the bar's drawing, in its own units.
const BAR: f64 = 100.0;

/// Durations of recent jobs, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Expected {
    median: u64,
    p95: u64,
}

impl Expected {
    /// `None` while too few jobs have finished. The times must be ascending.
    pub(in super::super) fn of(ascending_millis: &[u64]) -> Option<Self> {
        let at = |percent: usize| {
            let rank = (ascending_millis.len() * percent).div_ceil(100).max(1);
            ascending_millis.get(rank - 1).copied()
        };
        if ascending_millis.len() < EXPECTED_FROM {
            return None;
        }
        Some(Self { median: at(50)?, p95: at(95)? })
    }
}

/// The data of a row.
pub(super) struct Row<'a> {
    pub job: &'a Job,
    pub marks: JobFlags,
    pub expected: Option<Expected>,
    pub now: Timestamp,
}

impl Row<'_> {
    pub(super) fn render(&self) -> Markup {
        let job = self.job;
        let id = job.id.to_string();
        html! {
            tr data-row=(id) {
                td.state { (parts::status(job.status)) (marks(job, self.marks)) }
                td.name {
                    a.title href={ "/jobs/" (id) } {
                        @match &job.reference {
                            Some(reference) => (reference),
                            None => code { (parts::short_id(&id)) },
                        }
                    }
                    p.beside {
                        @if job.reference.is_some() { code title=(id) { (parts::short_id(&id)) } }
                        @if let Some(end_user) = &job.end_user_id { span title="End user" { (end_user) } }
                    }
                }
                td.files data-label="Inputs → outputs" { (files(job)) }
                td.time data-label="Turnaround" { (turnaround(job, self.expected, self.now)) }
                td.made data-label="Created" { (parts::moment(job.created_at)) }
            }
        }
    }
}

/// Words for what is unusual about a job.
pub(in super::super) fn marks(job: &Job, marks: JobFlags) -> Markup {
    html! {
        @if job.overdue {
            (parts::tag(Tone::Warning, "overdue", "Past its due time without a result"))
        }
        @if marks.has_stale_callback {
            (parts::tag(Tone::Warning, "stale callback", "Its callback address is no longer the public URL: it is looked up instead"))
        }
        @if marks.has_conflict {
            (parts::tag(Tone::Bad, "conflict", "A later delivery says something else than the result"))
        }
        @if marks.has_dead_relay {
            (parts::tag(Tone::Bad, "dead relay", "The result was not taken by one of its targets"))
        }
    }
}

fn files(job: &Job) -> Markup {
    let awaiting: Vec<&str> = job
        .inputs
        .iter()
        .filter(|input| input.state == InputState::Awaiting && job.status.is_in_flight())
        .map(|input| input.name.as_str())
        .collect();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut statuses: BTreeMap<&str, usize> = BTreeMap::new();
    for output in &job.outputs {
        *kinds.entry(&output.kind).or_default() += 1;
        if let Some(status) = &output.status {
            *statuses.entry(status).or_default() += 1;
        }
    }
    html! {
        p {
            @for (position, input) in job.inputs.iter().take(MAX_NAMES_IN_A_ROW).enumerate() {
                @if position > 0 { ", " }
                (input.name)
            }
            (more(job.inputs.len()))
            @if job.inputs.is_empty() { span.muted { "unknown" } }
            span.arrow aria-label="to" { " → " }
            @for (position, (kind, count)) in kinds.iter().take(MAX_NAMES_IN_A_ROW).enumerate() {
                @if position > 0 { ", " }
                (kind)
                @if *count > 1 { " × " (count) }
            }
            (more(kinds.len()))
            @if kinds.is_empty() { span.muted { "unknown" } }
        }
        @if !awaiting.is_empty() {
            p.beside {
                "awaits " (awaiting[..awaiting.len().min(MAX_NAMES_IN_A_ROW)].join(", "))
                (more(awaiting.len()))
            }
        } @else if !statuses.is_empty() {
            p.beside {
                @for (position, (status, count)) in statuses.iter().take(MAX_NAMES_IN_A_ROW).enumerate() {
                    @if position > 0 { ", " }
                    (count) " " (status)
                }
                (more(statuses.len()))
            }
        }
    }
}

/// Shows how many names the row leaves out.
fn more(count: usize) -> Markup {
    let more = count.saturating_sub(MAX_NAMES_IN_A_ROW);
    html! { @if more > 0 { " and " (more) " more" } }
}

/// How long a job took, or has been running, as text and as a bar against the expectation.
pub(in super::super) fn turnaround(
    job: &Job,
    expected: Option<Expected>,
    now: Timestamp,
) -> Markup {
    let from = job.submitted_at.unwrap_or(job.created_at);
    let millis = match job.finished_at {
        Some(finished_at) => parts::millis_between(from, finished_at),
        None if job.status.is_in_flight() => parts::millis_between(from, now),
        None => return html! { span.muted { "–" } },
    };
    html! {
        span.took { (parts::duration(millis)) @if job.finished_at.is_none() { span.muted data-age { " so far" } } }
        @if let Some(expected) = expected { (bar(millis, job.finished_at.is_some(), expected)) }
    }
}

fn bar(millis: u64, is_finished: bool, expected: Expected) -> Markup {
    let Expected { median, p95 } = expected;
    let scale = (p95 as f64 * BAR_OVER_P95).max(1.0);
    let place = |millis: u64| (millis as f64 / scale * BAR).min(BAR);
    let state = match (is_finished, millis > p95) {
        (true, false) => "is-done",
        (false, false) => "is-running",
        (_, true) => "is-long",
    };
    let told = format!(
        "{} of the usual {}, at most {} for 95 of 100 jobs",
        parts::duration(millis),
        parts::duration(median),
        parts::duration(p95)
    );
    html! {
        svg class={ "bar-of-time " (state) } viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label=(told) {
            title { (told) }
            rect.track x="0" y="2" width="100" height="4" {}
            rect.fill x="0" y="2" width=(format!("{:.2}", place(millis).max(1.0))) height="4" {}
            @for (name, mark) in [("median", median), ("p95", p95)] {
                @let x = format!("{:.2}", place(mark));
                line class=(name) x1=(x) y1="0" x2=(x) y2="8" {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Expected;

    #[test]
    fn an_expectation_needs_some_finished_jobs() {
        assert!(Expected::of(&[1, 2, 3, 4]).is_none());
        let expected = Expected::of(&[1, 2, 3, 4, 50]).expect("enough");
        assert_eq!((expected.median, expected.p95), (3, 50));
    }
}
