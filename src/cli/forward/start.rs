//! Finds the event that forwarding begins after: now, an event, a time, or a number of finished
//! jobs ago.
//!
//! Only as many of the newest events are read as needed, so it is as fast on a database of years as
//! on a new one.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;

use crate::{
    cli::{Failure, connection::until_answered},
    client::{Client, ClientError, EventStream, Followed},
    domain::time,
};

/// The number of newest events that are searched first, and the factor for each further search.
const FIRST_WINDOW: i64 = 1_000;
const WIDER: i64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Now,
    /// After the event with this number.
    After(i64),
    /// With the first event at this time or later.
    At(Timestamp),
    /// With the last jobs that finished, this many.
    Last(u32),
}

/// Reads `--since` for clap.
pub(super) fn since(text: &str) -> Result<Start, String> {
    if let Ok(number) = text.parse::<i64>() {
        let is_number = number >= 0;
        return is_number.then_some(Start::After(number)).ok_or("below 0".into());
    }
    let at = time::parse(text).map(Start::At);
    at.ok_or("expected the number of an event, or a time such as 2026-11-23T20:15:00Z".into())
}

/// The number of the event to begin after.
pub(super) async fn find(client: &Client, start: Start, silence: Duration) -> Result<i64, Failure> {
    if let Start::After(number) = start {
        return Ok(number);
    }
    let search = Search { client, start, silence };
    until_answered(async || search.run().await).await
}

struct Search<'a> {
    client: &'a Client,
    start: Start,
    silence: Duration,
}

impl Search<'_> {
    async fn run(&self) -> Result<i64, ClientError> {
        let (_, last) = self.read(None).await?;
        if self.start == Start::Now {
            return Ok(last);
        }
        let mut window = FIRST_WINDOW;
        loop {
            let from = last.saturating_sub(window).max(0);
            let (found, end) = self.read(Some(from)).await?;
            match found {
                Some(after) => return Ok(after),
                // There is no match: begin with the next event.
                None if from == 0 => return Ok(end),
                None => window = window.saturating_mul(WIDER),
            }
        }
    }

    /// Reads the events after a number, or none; returns where to begin, if that is among them, and
    /// the number of the last event.
    async fn read(&self, from: Option<i64>) -> Result<(Option<i64>, i64), ClientError> {
        let mut stream = self.client.follow(None, from, self.silence).await?;
        let mut seen = Seen { is_all: from == Some(0), ..Seen::default() };
        loop {
            match next(self.client, &mut stream).await? {
                Followed::Event { event, .. } => {
                    seen.event(self.start, event.seq, &event.kind, event.at);
                }
                Followed::CaughtUp(last) => return Ok((seen.begin(self.start), last)),
            }
        }
    }
}

async fn next(client: &Client, stream: &mut EventStream) -> Result<Followed, ClientError> {
    let broken_off = || ClientError::Unreachable(client.base().clone());
    stream.next().await?.ok_or_else(broken_off)
}

/// What was found in a window of events.
#[derive(Default)]
struct Seen {
    /// The window holds every event there is.
    is_all: bool,
    /// An event before the wanted time was seen.
    has_earlier: bool,
    /// The first event of that time or later.
    first: Option<i64>,
    /// The last jobs that finished.
    finished: VecDeque<i64>,
}

impl Seen {
    fn event(&mut self, start: Start, seq: i64, kind: &str, at: Timestamp) {
        match start {
            Start::At(begin) if at < begin => self.has_earlier |= self.first.is_none(),
            Start::At(_) => _ = self.first.get_or_insert(seq),
            Start::Last(count) if kind == "job.finished" => {
                self.finished.push_back(seq);
                if self.finished.len() > count as usize {
                    self.finished.pop_front();
                }
            }
            _ => {}
        }
    }

    /// The number to begin after; `None` if it is not in the window, or nothing matches.
    fn begin(&self, start: Start) -> Option<i64> {
        let first = match start {
            Start::At(_) if self.has_earlier || self.is_all => self.first,
            Start::Last(count) if self.is_all || self.finished.len() == count as usize => {
                self.finished.front().copied()
            }
            _ => None,
        };
        first.map(|seq| seq - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(start: Start, is_all: bool, events: &[(i64, &str, i64)]) -> Option<i64> {
        let mut seen = Seen { is_all, ..Seen::default() };
        for (seq, kind, second) in events {
            seen.event(start, *seq, kind, Timestamp::from_second(*second).expect("in range"));
        }
        seen.begin(start)
    }

    const EVENTS: [(i64, &str, i64); 4] = [
        (11, "job.submitted", 100),
        (12, "job.finished", 110),
        (15, "job.finished", 120),
        (16, "relay.failed", 130),
    ];

    #[test]
    fn the_last_so_many_are_counted_by_jobs_that_finished() {
        assert_eq!(begin(Start::Last(1), false, &EVENTS), Some(14));
        assert_eq!(begin(Start::Last(2), false, &EVENTS), Some(11));
        assert_eq!(begin(Start::Last(3), false, &EVENTS), None, "the window is too small");
        assert_eq!(begin(Start::Last(3), true, &EVENTS), Some(11), "there are no more");
        assert_eq!(begin(Start::Last(1), true, &[]), None);
    }

    #[test]
    fn a_time_is_found_only_where_something_earlier_is_seen() {
        let at = |second| Start::At(Timestamp::from_second(second).expect("in range"));
        assert_eq!(begin(at(110), false, &EVENTS), Some(11));
        assert_eq!(begin(at(111), false, &EVENTS), Some(14));
        assert_eq!(begin(at(90), false, &EVENTS), None, "the window is too small");
        assert_eq!(begin(at(90), true, &EVENTS), Some(10));
        assert_eq!(begin(at(200), true, &EVENTS), None);
    }

    #[test]
    fn since_is_a_number_or_a_time() {
        assert_eq!(since("0"), Ok(Start::After(0)));
        assert!(matches!(since("2026-11-23T20:15:00+01:00"), Ok(Start::At(_))));
        for wrong in ["-1", "yesterday", "2026-11-23", ""] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
