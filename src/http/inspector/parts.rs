//! Small pieces that pages share: statuses, times, durations, sizes and ids.
//!
//! The server writes times in UTC, with the exact instant in an attribute; scripts show them in the
//! reader's zone.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::domain::{job::JobStatus, time};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// How prominent a mark is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Quiet,
    Good,
    Warning,
    Bad,
}

impl Tone {
    /// The CSS class.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Quiet => "is-quiet",
            Self::Good => "is-good",
            Self::Warning => "is-warning",
            Self::Bad => "is-bad",
        }
    }
}

/// A job's status.
pub(super) fn status(status: JobStatus) -> Markup {
    html! { span class={ "status is-" (status.as_str()) } { (status.as_str()) } }
}

/// A tag, with its reason as a tooltip.
pub(super) fn tag(tone: Tone, word: &str, why: &str) -> Markup {
    html! { span class={ "tag " (tone.class()) } title=(why) { (word) } }
}

/// An instant; scripts show it in the reader's zone.
pub(super) fn moment(at: Timestamp) -> Markup {
    let exact = time::render(at);
    html! {
        time datetime=(exact) title=(exact) { (at.strftime("%Y-%m-%d %H:%M:%S")) " UTC" }
    }
}

/// A duration in at most two units: `420 ms`, `2.1 s`, `4 min 05 s`, `3 h 12 min`, `2 d 4 h`.
pub(super) fn duration(millis: u64) -> String {
    match millis {
        0..SECOND => format!("{millis} ms"),
        SECOND..MINUTE => format!("{}.{} s", millis / SECOND, millis % SECOND / 100),
        MINUTE..HOUR => format!("{} min {:02} s", millis / MINUTE, millis % MINUTE / SECOND),
        HOUR..DAY => format!("{} h {:02} min", millis / HOUR, millis % HOUR / MINUTE),
        _ => format!("{} d {} h", millis / DAY, millis % DAY / HOUR),
    }
}

/// Milliseconds from one instant to a later one; 0 if it is not later.
pub(super) fn millis_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

/// A size in binary units: `312 B`, `1.2 KiB`.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// The end of an id, which differs from similar ids: a UUIDv7 begins with the time.
pub(super) fn short_id(id: &str) -> &str {
    id.rsplit('-').next().unwrap_or(id)
}

/// Text with a copy button, which needs scripts.
pub(super) fn copyable(text: &str) -> Markup {
    html! {
        span.copyable { code { (text) } button.copy type="button" data-copy=(text) hidden { "Copy" } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_told_in_at_most_two_units() {
        for (millis, told) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (2_149, "2.1 s"),
            (59_999, "59.9 s"),
            (245_000, "4 min 05 s"),
            (11_520_000, "3 h 12 min"),
            (187_200_000, "2 d 4 h"),
        ] {
            assert_eq!(duration(millis), told);
        }
    }
}
