//! Tracks the state of a connection, and computes until when the peer must act.
//!
//! Updated by the socket and the bodies that hyper is given, read by `connection`. Invariant: a
//! peer that makes the service wait has a deadline; a peer that waits for the service has none.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::crowd::Crowd;
use crate::{clock::Stopwatch, config::ServiceConfig, domain::pace::Pace};

/// Largest head of a request in bytes, first line included. `observe` measures complete heads; here
/// an unfinished one is cut off.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// A sender that is still sending when its answer is ready must be allowed to finish, or the system
/// resets the connection and the answer is lost. It may be silent for this long.
const LINGER: Duration = Duration::from_secs(5);

/// Limits of this wait as a whole, in time and in bytes: a sender beyond them is not just
/// finishing.
const LONGEST_LINGER: Duration = Duration::from_secs(15);
const MOST_LINGERING_BYTES: usize = 1024 * 1024;

/// While connections are running out, one with nothing in flight may be silent for this long: a
/// first byte needs less, even from the far side of the earth.
const CROWDED_PATIENCE: Duration = Duration::from_secs(1);

/// How long it may take to write a refusal in hyper's place.
pub(super) const REFUSAL_TIME: Duration = LINGER;

/// After the service begins to stop, how long a head may still take to arrive.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long each part may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    head: Duration,
    /// Between two requests.
    keep_alive: Duration,
    /// For a body that is still being sent after its answer, and for taking the next piece of an
    /// answer.
    body: Duration,
    /// The lowest rate at which a reader may take an answer.
    reader: Pace,
}

impl Timeouts {
    pub(super) fn new(config: &ServiceConfig) -> Self {
        let least = config.least_rate;
        Self {
            head: config.header_timeout,
            keep_alive: config.keep_alive,
            body: config.body_timeout,
            reader: Pace::new(least.bytes_per_second, least.patience),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waiting for the head of a request.
    Head,
    /// Between a request's head and the end of its answer.
    InFlight,
    /// Between an answer and the next head's first byte.
    Idle,
    /// The last answer is sent.
    Leaving,
}

/// Shared by the parts of one connection.
#[derive(Debug)]
pub(super) struct Progress {
    timeouts: Timeouts,
    crowd: Crowd,
    state: Mutex<State>,
}

/// When to check a connection again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// The peer has run out of time by then.
    End(Instant),
    /// The peer may have run out of time by then, if connections are running out.
    Look(Instant),
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Stopwatch,
    /// When the peer last sent bytes after its answer; `lingering_bytes` counts them.
    last_read: Stopwatch,
    lingering_bytes: usize,
    /// Bytes of the head being received.
    head_bytes: usize,
    is_head_too_large: bool,
    /// Every answer so far has been written.
    is_all_written: bool,
    /// hyper cannot parse the head; this is the status that it would answer.
    unreadable: Option<u16>,
    /// The request's body was dropped before its end.
    is_body_left: bool,
    /// The peer sends nothing more.
    is_sender_done: bool,
    /// Since when the peer has taken no bytes.
    stalled_since: Option<Stopwatch>,
    /// The rate at which the peer takes the current answer.
    reader: Pace,
    is_reader_too_slow: bool,
    stopping_since: Option<Stopwatch>,
}

impl Progress {
    pub(super) fn new(timeouts: Timeouts, crowd: Crowd) -> Self {
        let state = State {
            phase: Phase::Head,
            since: Stopwatch::start(),
            last_read: Stopwatch::start(),
            lingering_bytes: 0,
            head_bytes: 0,
            is_head_too_large: false,
            is_all_written: true,
            unreadable: None,
            is_body_left: false,
            is_sender_done: false,
            stalled_since: None,
            reader: timeouts.reader,
            is_reader_too_slow: false,
            stopping_since: None,
        };
        Self { timeouts, crowd, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment, so a panic elsewhere leaves no half-done state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the peer runs out of time; `None` while it waits for us.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        let state = self.state();
        let end = self.end(&state)?;
        let silent_since = match (state.phase, state.stalled_since) {
            (Phase::Head, None) if state.head_bytes == 0 => state.since,
            (Phase::Idle, None) => state.since,
            (Phase::Leaving, _) => state.last_read,
            _ => return Some(Deadline::End(end)),
        };
        let short = silent_since.when(CROWDED_PATIENCE);
        if self.crowd.is_there() {
            return Some(Deadline::End(end.min(short)));
        }
        // Nothing wakes the connection if connections run out later, so check again.
        let look = short.max(Stopwatch::start().when(CROWDED_PATIENCE));
        Some(if look < end { Deadline::Look(look) } else { Deadline::End(end) })
    }

    fn end(&self, state: &State) -> Option<Instant> {
        let stop = state.stopping_since.map(|since| since.when(LAST_CALL));
        if state.is_reader_too_slow {
            return Some(state.since.when(Duration::ZERO));
        }
        match (state.phase, state.stalled_since) {
            (Phase::Leaving, _) => {
                let longest = self.timeouts.body.min(LONGEST_LINGER);
                Some(state.last_read.when(LINGER).min(state.since.when(longest)))
            }
            (_, Some(since)) => Some(since.when(self.timeouts.body.min(state.reader.patience()))),
            (Phase::InFlight, None) => None,
            (Phase::Head, None) => {
                let own = state.since.when(self.timeouts.head);
                Some(stop.map_or(own, |stop| own.min(stop)))
            }
            (Phase::Idle, None) => Some(state.since.when(self.timeouts.keep_alive)),
        }
    }

    /// Records bytes read; none means that the sender is done.
    pub(super) fn read(&self, bytes: usize) {
        let mut state = self.state();
        if bytes == 0 {
            state.is_sender_done = true;
        } else if state.phase == Phase::Idle {
            state.phase = Phase::Head;
            state.since = Stopwatch::start();
            state.head_bytes = bytes;
        } else if state.phase == Phase::Head {
            state.head_bytes += bytes;
        } else if state.phase == Phase::Leaving {
            state.last_read = Stopwatch::start();
            state.lingering_bytes += bytes;
        }
    }

    /// Returns whether the sender has sent more after its answer than one that only finishes.
    pub(super) fn has_lingered(&self) -> bool {
        self.state().lingering_bytes >= MOST_LINGERING_BYTES
    }

    /// Returns whether the head exceeds its limit without being complete.
    pub(super) fn is_head_over(&self) -> bool {
        let mut state = self.state();
        state.is_head_too_large |= state.phase == Phase::Head && state.head_bytes > MAX_HEAD_BYTES;
        state.is_head_too_large
    }

    /// Records that the peer took this many bytes of an answer.
    pub(super) fn wrote(&self, bytes: usize) {
        let mut state = self.state();
        let waited = state.stalled_since.take().map_or(Duration::ZERO, Stopwatch::elapsed);
        state.is_reader_too_slow |= state.reader.note(waited, bytes as u64).is_err();
        if state.phase == Phase::Idle {
            state.since = Stopwatch::start();
        }
    }

    /// Records that hyper has nothing left to write.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        state.is_all_written |= state.phase != Phase::InFlight;
    }

    /// Returns whether these bytes are hyper's own answer to a head that it cannot parse: with no
    /// request in flight and every answer written, hyper writes nothing else. The connection then
    /// answers in its place.
    pub(super) fn is_about_head(&self, bytes: &[u8]) -> bool {
        let mut state = self.state();
        let is_between = matches!(state.phase, Phase::Head | Phase::Idle);
        if !is_between || !state.is_all_written {
            return false;
        }
        let status = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        state.unreadable = state.unreadable.or(status);
        state.unreadable.is_some()
    }

    /// The status that hyper would have answered to a head that it cannot parse.
    pub(super) fn unreadable(&self) -> Option<u16> {
        self.state().unreadable
    }

    /// Records that the connection answers in hyper's place from now on.
    pub(super) fn answers_itself(&self) {
        let mut state = self.state();
        state.phase = Phase::InFlight;
        state.is_body_left = true;
    }

    /// Returns whether the answer to an unreadable head is still to be written.
    pub(super) fn is_answer_due(&self) -> bool {
        let state = self.state();
        state.unreadable.is_some() && matches!(state.phase, Phase::Head | Phase::Idle)
    }

    /// Records that the peer takes no bytes for now.
    pub(super) fn stalled(&self) {
        self.state().stalled_since.get_or_insert_with(Stopwatch::start);
    }

    pub(super) fn request_began(&self) {
        let mut state = self.state();
        state.phase = Phase::InFlight;
        state.is_all_written = false;
        state.reader = self.timeouts.reader;
        state.head_bytes = 0;
        state.is_body_left = false;
    }

    /// Records that the request's body will not be read to its end.
    pub(super) fn body_left(&self) {
        self.state().is_body_left = true;
    }

    pub(super) fn is_body_left(&self) -> bool {
        self.state().is_body_left
    }

    /// Records that the answer's last piece has been handed over.
    pub(super) fn answered(&self) {
        let mut state = self.state();
        if state.phase == Phase::InFlight {
            state.phase = Phase::Idle;
            state.since = Stopwatch::start();
        }
    }

    /// Records that nothing more will be sent. Returns whether the sender must be allowed to
    /// finish.
    pub(super) fn leave(&self) -> bool {
        let mut state = self.state();
        if state.phase != Phase::Leaving {
            state.phase = Phase::Leaving;
            state.since = Stopwatch::start();
            state.last_read = state.since;
        }
        state.is_body_left && !state.is_sender_done
    }

    pub(super) fn stop(&self) {
        self.state().stopping_since.get_or_insert_with(Stopwatch::start);
    }

    /// Returns whether no byte has arrived yet: the first request may still come.
    pub(super) fn is_fresh(&self) -> bool {
        let state = self.state();
        state.phase == Phase::Head && state.head_bytes == 0
    }

    /// Returns whether a head has arrived in part.
    pub(super) fn is_mid_head(&self) -> bool {
        let state = self.state();
        state.phase == Phase::Head && state.head_bytes > 0
    }
}
