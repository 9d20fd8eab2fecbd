//! The only place that reads the time: the system's clock, or one that tests move by hand.
//!
//! Passed to everything that records a time, waits or expires. With a manual clock, time moves only
//! through [`Clock::advance`]; a sleeper wakes once the clock reaches its deadline.

#![allow(clippy::disallowed_methods, reason = "this is where the time is read")]

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// Cheap to clone; clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(watch::Sender<Timestamp>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `start` until it is advanced.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(watch::Sender::new(start)))
    }

    /// The current time, in whole milliseconds.
    pub fn now(&self) -> Timestamp {
        let now = match &self.0 {
            Source::System => Timestamp::now(),
            Source::Manual(now) => *now.borrow(),
        };
        Timestamp::from_millisecond(now.as_millisecond())
            .expect("an instant cut to milliseconds is still an instant")
    }

    /// Returns when `duration` has passed on this clock.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Source::System => tokio::time::sleep(duration).await,
            Source::Manual(now) => {
                let hour = add(*now.borrow(), duration);
                // The sender lives in this clock, so the channel cannot close meanwhile.
                let _ = now.subscribe().wait_for(|now| *now >= hour).await;
            }
        }
    }

    /// Returns when this clock shows `at` or later.
    pub async fn sleep_until(&self, at: Timestamp) {
        match &self.0 {
            Source::System => {
                let left = Duration::try_from(at.duration_since(self.now()));
                tokio::time::sleep(left.unwrap_or_default()).await;
            }
            Source::Manual(now) => {
                let _ = now.subscribe().wait_for(|now| *now >= at).await;
            }
        }
    }

    /// Moves a manual clock forward; has no effect on the system's clock.
    pub fn advance(&self, duration: Duration) {
        if let Source::Manual(now) = &self.0 {
            now.send_modify(|now| *now = add(*now, duration));
        }
    }
}

/// `at` plus `duration`, capped at `Timestamp::MAX`.
pub fn add(at: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| at.checked_add(duration).ok())
        .unwrap_or(Timestamp::MAX)
}

/// Parses `Retry-After` in either of its forms (RFC 9110, section 10.2.3), counted from `now`.
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// Measures how long something takes, on the machine's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts to measure.
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// The time since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// The instant at which it will have run for `duration`, in the type that tokio's timers take.
    pub fn when(self, duration: Duration) -> tokio::time::Instant {
        (self.0 + duration).into()
    }
}
