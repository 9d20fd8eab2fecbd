//! Turnaround of jobs, as a distribution with the median and the 95th percentile.
//!
//! Invariant: each of the recently finished jobs is in exactly one bin; the slowest share the last
//! one.

use maud::{Markup, html};

use super::{
    super::{super::stats::percentile, parts},
    chart::{Chart, Column, Fill, Mark, Tick, grouped},
};

/// Most columns: more would be too thin to point at.
const MAX_BINS: u64 = 24;

/// The chart ends at this many times the 95th percentile.
const REACH_OVER_P95: f64 = 1.5;

/// Approximate number of labels below the columns.
const LABELS: u64 = 4;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Bin widths in milliseconds, in units that people use.
#[rustfmt::skip]
const WIDTHS: [u64; 24] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND, 15 * SECOND,
    30 * SECOND, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, DAY,
];

/// Jobs counted by turnaround.
struct Bins {
    /// Milliseconds per bin.
    width: u64,
    /// Jobs per bin; the last bin also counts all longer ones.
    counts: Vec<u64>,
    is_last_open: bool,
}

impl Bins {
    /// `None` if there are no times. The times must be ascending.
    fn of(ascending_millis: &[u64]) -> Option<Self> {
        let p95 = percentile(ascending_millis, 95)?;
        let longest = *ascending_millis.last()?;
        let reach = ((p95 as f64 * REACH_OVER_P95) as u64).min(longest).max(1);
        let width = WIDTHS.into_iter().find(|width| reach / width < MAX_BINS).unwrap_or(DAY);
        let bins = (reach / width + 1).min(MAX_BINS);
        let mut counts = vec![0; bins as usize];
        for millis in ascending_millis {
            counts[(millis / width).min(bins - 1) as usize] += 1;
        }
        Some(Self { width, counts, is_last_open: longest >= bins * width })
    }

    fn told(&self, bin: usize) -> String {
        let from = bin as u64 * self.width;
        let is_open = self.is_last_open && bin + 1 == self.counts.len();
        match is_open {
            true => format!("{} or more", short(from)),
            false => format!("{} to {}", short(from), short(from + self.width)),
        }
    }

    /// A time's position in the chart, from 0 to 1.
    fn place(&self, millis: u64) -> f64 {
        (millis as f64 / (self.width * self.counts.len() as u64) as f64).min(1.0)
    }
}

/// Shows the distribution; the times must be ascending.
pub(super) fn render(ascending_millis: &[u64]) -> Markup {
    let Some(bins) = Bins::of(ascending_millis) else {
        return html! { p.muted { "No job has finished yet. Its turnaround, from submission to result, is counted here." } };
    };
    let chart = chart(&bins, ascending_millis);
    html! {
        p.muted {
            @match ascending_millis.len() {
                1 => "From submission to result, of the one job that has finished.",
                jobs => { "From submission to result, of the " (grouped(jobs as u64)) " jobs that finished last." }
            }
        }
        (chart.render())
        details.fold {
            summary { "As a table" }
            div.scroll tabindex="0" {
                table.plain.numbers {
                    caption.visually-hidden { "Jobs by turnaround" }
                    thead { tr { th scope="col" { "Turnaround" } th scope="col" { "Jobs" } } }
                    tbody {
                        @for (bin, count) in bins.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                            tr { th scope="row" { (bins.told(bin)) } td { (grouped(*count)) } }
                        }
                    }
                }
            }
        }
    }
}

fn chart(bins: &Bins, ascending_millis: &[u64]) -> Chart {
    let columns = bins.counts.iter().enumerate().map(|(bin, count)| Column {
        told: format!("{}: {} jobs", bins.told(bin), grouped(*count)),
        parts: vec![(Fill::Solid("series-turnaround"), *count)],
        is_labelled: false,
    });
    let marks = [("p50", 50), ("p95", 95)].into_iter().filter_map(|(name, percent)| {
        let millis = percentile(ascending_millis, percent)?;
        Some(Mark { at: bins.place(millis), label: format!("{name} {}", parts::duration(millis)) })
    });
    let marks: Vec<Mark> = marks.collect();
    let bin_count = bins.counts.len() as u64;
    let every = bin_count.div_ceil(LABELS).max(1);
    let ticks = (0..bin_count)
        .step_by(every as usize)
        .map(|bin| Tick { at: bin as f64 / bin_count as f64, label: short(bin * bins.width) });
    let told: Vec<&str> = marks.iter().map(|mark| mark.label.as_str()).collect();
    Chart {
        told: format!("How long jobs took: {}", told.join(", ")),
        columns: columns.collect(),
        ticks: ticks.collect(),
        marks,
    }
}

/// A short form of a round duration: `45 s`, `2 min`, `1.5 h`.
fn short(millis: u64) -> String {
    let of = |unit: u64, name: &str| format!("{} {name}", (millis * 10 / unit) as f64 / 10.0);
    match millis {
        0 => "0".to_owned(),
        1..SECOND => of(1, "ms"),
        SECOND..MINUTE => of(SECOND, "s"),
        MINUTE..HOUR => of(MINUTE, "min"),
        HOUR..DAY => of(HOUR, "h"),
        _ => of(DAY, "d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_is_in_one_bin_and_the_slowest_share_the_last() {
        let mut millis: Vec<u64> = (1..=100).map(|minute| minute * MINUTE).collect();
        millis.push(40 * DAY);
        let bins = Bins::of(&millis).expect("there are times");
        assert!(bins.counts.len() as u64 <= MAX_BINS);
        assert_eq!(bins.counts.iter().sum::<u64>(), 101);
        assert!(bins.is_last_open && bins.told(bins.counts.len() - 1).ends_with("or more"));
        assert_eq!(bins.told(0), "0 to 10 min");
    }

    #[test]
    fn few_quick_or_endless_jobs_are_drawn_too() {
        for millis in [&[0][..], &[7], &[3, 3, 3], &[u64::from(u32::MAX) * DAY]] {
            let bins = Bins::of(millis).expect("there are times");
            assert_eq!(bins.counts.iter().sum::<u64>(), millis.len() as u64, "{millis:?}");
            assert!((0.0..=1.0).contains(&bins.place(millis[0])));
        }
        assert!(Bins::of(&[]).is_none());
    }
}
