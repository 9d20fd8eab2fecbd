//! Jobs per day by status, as a chart and as a table.
//!
//! Invariant: every status belongs to exactly one group, so a column's height is the number of the
//! day's jobs.

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use maud::{Markup, html};

use super::chart::{self, Chart, Column, Fill, Tick, grouped};
use crate::{domain::job::JobStatus, store::Stats};

/// Days that are shown, today included.
const DAYS: usize = 30;

/// Days between two labels: five labels fit on a phone.
const LABEL_EVERY: usize = 7;

/// Groups of statuses, from the bottom of a column to its top.
const GROUPS: [(&str, Fill, &[JobStatus]); 7] = [
    ("succeeded", Fill::Solid("series-succeeded"), &[JobStatus::Succeeded]),
    ("partial", Fill::Pattern("stripes"), &[JobStatus::Partial]),
    ("failed", Fill::Solid("series-failed"), &[JobStatus::Failed]),
    ("rejected", Fill::Pattern("crosses"), &[JobStatus::Rejected]),
    ("unsent", Fill::Pattern("lines"), &[JobStatus::Unsent]),
    ("unconfirmed", Fill::Pattern("rings"), &[JobStatus::Unconfirmed]),
    ("at the Engine", Fill::Pattern("dots"), &[JobStatus::Submitted, JobStatus::Submitting]),
];

type Counts = [u64; GROUPS.len()];

/// A day (UTC) and its jobs by group.
struct Day {
    date: Date,
    counts: Counts,
}

impl Day {
    fn jobs(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The jobs of the last days.
pub(super) struct Days(Vec<Day>);

impl Days {
    pub(super) fn of(stats: &Stats, now: Timestamp) -> Self {
        let today = TimeZone::UTC.to_datetime(now).date();
        let mut dates = Vec::from_iter(today.series(-jiff::Span::new().days(1)).take(DAYS));
        dates.reverse();
        Self(dates.into_iter().map(|date| Day { date, counts: counts(stats, date) }).collect())
    }

    pub(super) fn jobs(&self) -> u64 {
        self.0.iter().map(Day::jobs).sum()
    }

    /// Jobs of all days, by group.
    fn totals(&self) -> Counts {
        let mut totals = Counts::default();
        for day in &self.0 {
            for (total, count) in totals.iter_mut().zip(day.counts) {
                *total += count;
            }
        }
        totals
    }

    pub(super) fn render(&self) -> Markup {
        let totals = self.totals();
        let shown: Vec<usize> = (0..GROUPS.len()).filter(|group| totals[*group] > 0).collect();
        html! {
            ul.legend {
                @for group in shown.iter().rev() {
                    @let (name, fill, _) = GROUPS[*group];
                    li { (chart::swatch(fill)) (name) " " strong { (grouped(totals[*group])) } }
                }
            }
            (self.chart(totals).render())
            details.fold {
                summary { "As a table" }
                (self.table(&shown))
            }
        }
    }

    fn chart(&self, totals: Counts) -> Chart {
        let highest = self.0.iter().map(Day::jobs).max().unwrap_or(0);
        let first_highest = self.0.iter().position(|day| day.jobs() == highest);
        let columns = self.0.iter().enumerate().map(|(place, day)| Column {
            told: format!("{}: {}", day.date, told(day.counts)),
            parts: GROUPS
                .iter()
                .zip(day.counts)
                .map(|((_, fill, _), count)| (*fill, count))
                .collect(),
            is_labelled: Some(place) == first_highest || place + 1 == DAYS,
        });
        let ticks = self.0.iter().enumerate().rev().step_by(LABEL_EVERY).map(|(place, day)| Tick {
            at: (place as f64 + 0.5) / DAYS as f64,
            label: day.date.strftime("%b %-d").to_string(),
        });
        Chart {
            told: format!("Jobs of each of the last {DAYS} days. In all: {}", told(totals)),
            columns: columns.collect(),
            ticks: ticks.collect(),
            marks: Vec::new(),
        }
    }

    fn table(&self, shown: &[usize]) -> Markup {
        html! {
            div.scroll tabindex="0" {
                table.plain.numbers {
                    caption.visually-hidden { "Jobs per day by status, newest first" }
                    thead {
                        tr {
                            th scope="col" { "Day (UTC)" }
                            th scope="col" { "Jobs" }
                            @for group in shown { th scope="col" { (GROUPS[*group].0) } }
                        }
                    }
                    tbody {
                        @for day in self.0.iter().rev().filter(|day| day.jobs() > 0) {
                            tr {
                                th scope="row" { (day.date) }
                                td { (grouped(day.jobs())) }
                                @for group in shown { td { (grouped(day.counts[*group])) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn counts(stats: &Stats, date: Date) -> Counts {
    let mut counts = Counts::default();
    let day = date.to_string();
    let statuses = stats.days.iter().filter(|(known, _)| *known == day);
    for (status, jobs) in statuses.flat_map(|(_, statuses)| statuses) {
        for (count, (.., members)) in counts.iter_mut().zip(GROUPS) {
            if members.contains(status) {
                *count += jobs;
            }
        }
    }
    counts
}

/// `3 succeeded, 1 failed`.
fn told(counts: Counts) -> String {
    let groups = GROUPS.iter().zip(counts).filter(|(_, count)| *count > 0);
    let told: Vec<_> =
        groups.map(|((name, ..), count)| format!("{} {name}", grouped(count))).collect();
    if told.is_empty() { "none".to_owned() } else { told.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_belongs_to_one_group() {
        for status in JobStatus::ALL {
            let groups = GROUPS.iter().filter(|(.., members)| members.contains(&status));
            assert_eq!(groups.count(), 1, "{status}");
        }
    }

    #[test]
    fn days_without_a_job_are_shown_and_older_ones_are_not() {
        let of = |day: &str| (day.to_owned(), vec![(JobStatus::Failed, 2)]);
        let stats = Stats {
            days: vec![of("2026-03-01"), of("2026-01-31"), of("2026-01-30")],
            ..Stats::default()
        };
        let now = "2026-03-01T23:59:59Z".parse().expect("a time");
        let days = Days::of(&stats, now);
        assert_eq!((days.0.len(), days.jobs()), (DAYS, 4));
        assert_eq!(days.0[0].date.to_string(), "2026-01-31");
        assert_eq!((days.0[0].jobs(), days.0[1].jobs(), days.0[29].jobs()), (2, 0, 2));
    }
}
