//! Failed attempts to get in: logged, counted, and slowed down where there are too many.
//!
//! Reported by `access` (wrong keys), the inspector's sign-in, and `callbacks` (forged addresses,
//! wrong inbox secrets). Invariants: a right key is never checked against these records; no key and
//! no path of a request is logged; neither memory nor the log grows with the number of attempts.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::peers::{Peer, Peers, Row};
use crate::telemetry;

/// Failures of one peer within [`MINUTE`] that are answered without delay.
const ALLOWED: usize = 10;

const MINUTE: Duration = Duration::from_secs(60);

/// Delay of the answer to a failure beyond [`ALLOWED`].
const DELAY: Duration = Duration::from_millis(500);

/// Answers delayed at once, since each keeps a connection; further ones are sent without delay.
const MAX_DELAYED: usize = 64;

/// Lines in the log within a minute, for all peers together.
const MAX_LINES: u32 = 60;

/// The kind of failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// A request with an unknown key.
    WrongKey,
    /// A sign-in at the inspector with an unknown key.
    SignIn,
    /// A sign-in link that is wrong, used or expired.
    SignInLink,
    /// A callback address that we did not make.
    ForgedCallback,
    /// An inbox address with another secret.
    WrongInboxSecret,
}

impl Failure {
    /// The label in the metrics.
    fn reason(self) -> &'static str {
        match self {
            Self::WrongKey => "wrong-key",
            Self::SignIn => "sign-in",
            Self::SignInLink => "sign-in-link",
            Self::ForgedCallback => "forged-callback",
            Self::WrongInboxSecret => "wrong-inbox-secret",
        }
    }

    /// The message in the log.
    fn sentence(self) -> &'static str {
        match self {
            Self::WrongKey => "a request came with a wrong API key",
            Self::SignIn => "somebody tried to sign in with a wrong API key",
            Self::SignInLink => "somebody tried a sign-in link that does not work",
            Self::ForgedCallback => "a callback came to an address that is not ours",
            Self::WrongInboxSecret => "a result came to the inbox with a wrong secret",
        }
    }
}

/// Kind, place and sender of a failed attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt<'a> {
    pub(super) failure: Failure,
    pub(super) peer: Peer,
    /// The route's pattern, never the path.
    pub(super) route: &'a str,
}

/// Cheap to clone; clones remember the same attempts.
#[derive(Clone)]
pub struct Failures(Arc<Shared>);

struct Shared {
    memory: Mutex<Memory>,
    delays: Semaphore,
}

#[derive(Default)]
struct Memory {
    keys: Peers<Keys>,
    forgers: Peers<Told>,
    lines: Lines,
}

impl Default for Failures {
    fn default() -> Self {
        let (memory, delays) = (Mutex::default(), Semaphore::new(MAX_DELAYED));
        Self(Arc::new(Shared { memory, delays }))
    }
}

impl Failures {
    /// Records a wrong key. Returns the time until the next one counts if there were too many from
    /// this peer; by then the answer has been delayed, unless [`MAX_DELAYED`] others are.
    pub(super) async fn of_key(&self, attempt: Attempt<'_>, now: Timestamp) -> Option<Duration> {
        let wait = self.note_key(attempt, now)?;
        if let Ok(_place) = self.0.delays.try_acquire() {
            tokio::time::sleep(DELAY).await;
        }
        Some(wait)
    }

    /// Records a forged address.
    pub(super) fn of_address(&self, attempt: Attempt<'_>, now: Timestamp) {
        count(attempt.failure);
        let mut memory = self.memory();
        let Memory { forgers, lines, .. } = &mut *memory;
        let Some(unsaid) = forgers.row(attempt.peer, now).tell(now) else { return };
        lines.warn(attempt, unsaid, now);
    }

    fn note_key(&self, attempt: Attempt<'_>, now: Timestamp) -> Option<Duration> {
        count(attempt.failure);
        let mut memory = self.memory();
        let Memory { keys, lines, .. } = &mut *memory;
        let row = keys.row(attempt.peer, now);
        match row.note(now) {
            None => {
                lines.warn(attempt, 0, now);
                None
            }
            Some(wait) => {
                if let Some(unsaid) = row.excess.tell(now) {
                    lines.warn_of_excess(attempt, unsaid, now);
                }
                Some(wait)
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Each change leaves it consistent, so a panic elsewhere leaves no half-done state.
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(failure: Failure) {
    telemetry::ACCESS_FAILURES.of([failure.reason().into()]).increment(1);
}

/// The wrong keys of one peer.
#[derive(Debug, Default)]
struct Keys {
    /// Times of the last few, oldest first.
    at: VecDeque<Timestamp>,
    excess: Told,
}

impl Keys {
    /// Records one. If it is one too many, it does not count, and the time until the next one
    /// counts is returned.
    fn note(&mut self, now: Timestamp) -> Option<Duration> {
        // After the clock was set back, times far in the future are dropped.
        self.at.retain(|at| age(*at, now).is_some_and(|age| age < MINUTE));
        if self.at.len() < ALLOWED {
            self.at.push_back(now);
            return None;
        }
        let oldest = self.at.front().and_then(|at| age(*at, now)).unwrap_or_default();
        Some(MINUTE.saturating_sub(oldest))
    }
}

impl Row for Keys {
    fn is_stale(&self, now: Timestamp) -> bool {
        self.at.iter().all(|at| age(*at, now).is_none_or(|age| age >= MINUTE))
    }
}

/// A message that is logged at most once a minute, and how often it was suppressed.
#[derive(Debug, Default)]
struct Told {
    at: Option<Timestamp>,
    unsaid: u64,
}

impl Told {
    /// If the message is due, returns how often it was suppressed since the last time.
    fn tell(&mut self, now: Timestamp) -> Option<u64> {
        if self.at.and_then(|at| age(at, now)).is_some_and(|age| age < MINUTE) {
            self.unsaid += 1;
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Row for Told {
    fn is_stale(&self, now: Timestamp) -> bool {
        self.at.and_then(|at| age(at, now)).is_none_or(|age| age >= MINUTE)
    }
}

/// Log lines of all peers: at most [`MAX_LINES`] a minute; the others are counted.
#[derive(Debug, Default)]
struct Lines {
    began_at: Option<Timestamp>,
    written: u32,
    held_back: u64,
}

impl Lines {
    fn warn(&mut self, attempt: Attempt<'_>, unsaid: u64, now: Timestamp) {
        if self.take(now) {
            let Attempt { failure, peer, route } = attempt;
            tracing::warn!(%peer, route, unsaid, "{}", failure.sentence());
        }
    }

    fn warn_of_excess(&mut self, attempt: Attempt<'_>, unsaid: u64, now: Timestamp) {
        if self.take(now) {
            let Attempt { peer, route, .. } = attempt;
            tracing::warn!(
                %peer, route, unsaid,
                "too many wrong API keys from one peer: they are answered late, with 429"
            );
        }
    }

    /// Returns whether a line may be written. A new minute first logs how many lines were
    /// suppressed.
    fn take(&mut self, now: Timestamp) -> bool {
        if self.began_at.and_then(|at| age(at, now)).is_none_or(|age| age >= MINUTE) {
            (self.began_at, self.written) = (Some(now), 0);
            let held_back = std::mem::take(&mut self.held_back);
            if held_back > 0 {
                tracing::warn!(held_back, "further failures to get in were not logged one by one");
            }
        }
        if self.written == MAX_LINES {
            self.held_back += 1;
            return false;
        }
        self.written += 1;
        true
    }
}

/// `None` if `at` is a minute or more ahead: the clock was set back. A little ahead counts as now:
/// concurrent requests read the clock before they are counted, and not in that order.
fn age(at: Timestamp, now: Timestamp) -> Option<Duration> {
    let ahead = Duration::try_from(at.duration_since(now)).unwrap_or_default();
    let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
    (ahead < MINUTE).then_some(age)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("in range")
    }

    fn attempt(last_byte: u8) -> Attempt<'static> {
        let peer = Peer::from(IpAddr::from([192, 0, 2, last_byte]));
        Attempt { failure: Failure::WrongKey, peer, route: "/v1/jobs" }
    }

    #[test]
    fn ten_a_minute_are_heard_and_the_next_is_told_when_to_come_again() {
        let failures = Failures::default();
        for second in 0..10 {
            assert_eq!(failures.note_key(attempt(1), at(second)), None, "{second}");
        }
        assert_eq!(failures.note_key(attempt(1), at(10)), Some(Duration::from_secs(50)));
        assert_eq!(failures.note_key(attempt(2), at(10)), None, "another peer");
        assert_eq!(failures.note_key(attempt(1), at(59)), Some(Duration::from_secs(1)));
        assert_eq!(failures.note_key(attempt(1), at(60)), None, "the first is a minute old");
        assert_eq!(failures.note_key(attempt(1), at(60)), Some(Duration::from_secs(1)));
        assert_eq!(failures.note_key(attempt(1), at(-3600)), None, "the clock was set back");
    }

    #[test]
    fn attempts_that_are_counted_out_of_order_all_count() {
        let failures = Failures::default();
        for second in (0..10).rev() {
            assert_eq!(failures.note_key(attempt(1), at(second)), None, "{second}");
        }
        assert!(failures.note_key(attempt(1), at(3)).is_some());
    }

    #[test]
    fn a_forger_is_told_of_once_a_minute() {
        let mut told = Told::default();
        assert_eq!(told.tell(at(0)), Some(0));
        assert!((1..60).all(|second| told.tell(at(second)).is_none()));
        assert_eq!(told.tell(at(60)), Some(59));
    }

    #[test]
    fn the_log_has_a_bound_however_many_peers_there_are() {
        let mut lines = Lines::default();
        let written = (0..100_000).filter(|_| lines.take(at(0))).count();
        assert_eq!(
            (written, lines.held_back),
            (MAX_LINES as usize, 100_000 - u64::from(MAX_LINES))
        );
        assert!(lines.take(at(60)));
        assert_eq!(lines.held_back, 0);
    }

    #[tokio::test]
    async fn answers_that_are_held_back_are_few_and_the_others_go_out_at_once() {
        let failures = Failures::default();
        for _ in 0..ALLOWED {
            failures.note_key(attempt(1), at(0));
        }
        let places = failures.0.delays.acquire_many(MAX_DELAYED as u32).await.expect("open");
        // The clock runs: a paused one would advance only through a timer.
        let asked = failures.of_key(attempt(1), at(0));
        assert!(tokio::time::timeout(Duration::ZERO, asked).await.is_ok_and(|wait| wait.is_some()));
        drop(places);
        let asked = failures.of_key(attempt(1), at(0));
        assert!(tokio::time::timeout(Duration::ZERO, asked).await.is_err(), "it is held back");
    }
}
