//! Limits on memory and concurrent work, over all requests.
//!
//! Created by `app`, used by the handlers. Invariant: memory does not grow with the number of
//! senders or readers; a request that finds no room is refused, and may be retried.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    address_places::{AddressPlace, AddressPlaces},
    error::Problem,
    places::{self, Places},
};
use crate::{
    config::Config,
    domain::{ids::JobId, pace::Pace},
};

/// Submissions in progress: each holds its body and a connection to the Engine.
const MAX_SUBMISSIONS: usize = 512;

/// Copies of its body that a submission in progress holds: for the record, for the Engine, and for
/// its caller.
const SUBMISSION_COPIES: usize = 3;

/// Room for a job that is sent again; its size is known only after it is read.
const RESUBMISSION_BYTES: usize = 8 * 1024 * 1024;

/// Pages of one job that are rendered at once: each holds the job and bodies of it.
const MAX_PAGES: usize = 4;

/// Upper bound on large bodies that are unpacked and parsed at once: each takes a thread and
/// several times its size. Half of the processors are left for everything else.
const MAX_READINGS: usize = 4;

/// This much of every body needs no room, since the cap on connections bounds it. A usual callback
/// therefore finds room even while many large ones are being received.
const FREE_BYTES: usize = 16 * 1024;

/// A body takes room in steps: each step doubles its room, but adds at least the first and at most
/// the second of these.
const SMALLEST_STEP: usize = 4 * 1024;
const LARGEST_STEP: usize = 1024 * 1024;

/// A body's buffer grows by this factor. The system provides memory only once it is written to, so
/// the unfilled part costs nothing.
const GROWTH: usize = 4;

/// There is no room; the sender may retry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overloaded;

impl From<Overloaded> for Problem {
    fn from(_: Overloaded) -> Self {
        Self::Overloaded
    }
}

/// Cheap to clone; clones share what they limit.
#[derive(Clone)]
pub struct Limits {
    /// For bodies that are being received.
    pub(super) bodies: Budget,
    /// For results that are being read: separate, so that no reader keeps a callback out.
    pub(super) answers: Budget,
    /// Longest silence between two pieces of a body.
    pub(super) idle_timeout: Duration,
    /// Longest time for a body as a whole.
    pub(super) body_timeout: Duration,
    /// For submissions in progress.
    submitted: Budget,
    /// For long-running requests.
    pub(super) places: Places,
    /// Lowest rate allowed to the sender of a large body.
    pub(super) pace: Pace,
    submissions: Arc<Semaphore>,
    pages: Arc<Semaphore>,
    readings: Arc<Semaphore>,
    /// Bytes of large bodies that are being recorded.
    recordings: Budget,
    addresses: AddressPlaces,
}

/// Permission to do something; given back when it is dropped.
pub(super) type Permit = OwnedSemaphorePermit;

impl Limits {
    pub fn new(config: &Config) -> Self {
        let least_rate = config.service.least_rate;
        Self {
            bodies: Budget::new(config.callbacks.memory),
            answers: Budget::new(config.callbacks.memory),
            idle_timeout: config.service.idle_timeout,
            body_timeout: config.service.body_timeout,
            submitted: Budget::new((config.callbacks.memory / 2).max(RESUBMISSION_BYTES)),
            places: Places::new(places::MOST, places::MOST_PER_KEY),
            pace: Pace::new(least_rate.bytes_per_second, least_rate.patience),
            submissions: Arc::new(Semaphore::new(MAX_SUBMISSIONS)),
            pages: Arc::new(Semaphore::new(MAX_PAGES)),
            readings: Arc::new(Semaphore::new(readings())),
            recordings: Budget::new(config.callbacks.max_body),
            addresses: AddressPlaces::default(),
        }
    }

    /// The same limits for bodies of callers with a key. These are small: one that stays below the
    /// least rate is given up after a minute, even if a callback may take longer.
    pub(super) fn of_callers(&self) -> Self {
        let body_timeout = self.body_timeout.min(self.pace.patience());
        Self { body_timeout, ..self.clone() }
    }

    /// Permission for a submission whose request holds this many bytes. Keep it until the Engine's
    /// answer is recorded.
    pub(super) fn submission(&self, bytes: usize) -> Result<(Permit, Permit), Overloaded> {
        let bytes = bytes.saturating_mul(SUBMISSION_COPIES).min(self.submitted.most);
        let room = self.submitted.take(bytes)?;
        let permit = self.submissions.clone().try_acquire_owned().map_err(|_| Overloaded)?;
        Ok((permit, room))
    }

    /// The same for a job that is sent again.
    pub(super) fn resubmission(&self) -> Result<(Permit, Permit), Overloaded> {
        self.submission(RESUBMISSION_BYTES / SUBMISSION_COPIES)
    }

    /// Waits for permission to render a page of one job; others give theirs back soon.
    pub(super) async fn page(&self) -> Option<Permit> {
        self.pages.clone().acquire_owned().await.ok()
    }

    /// Waits for a place at the callback address of a job, at most as long as a body may take. Keep
    /// it until the callback is recorded.
    pub(super) async fn address(&self, id: JobId) -> Result<AddressPlace, Overloaded> {
        self.addresses.wait_for(id, self.body_timeout).await
    }

    /// Waits for permission to parse a large body; others give theirs back soon.
    pub(super) async fn reading(&self) -> Option<Permit> {
        self.readings.clone().acquire_owned().await.ok()
    }

    /// Waits for permission to record a large body. The database writes one change after the other,
    /// so large bodies together wait there with at most the bytes of one of the largest size; small
    /// ones are written soon.
    pub(super) async fn recording(&self, bytes: usize) -> Option<Permit> {
        self.recordings.wait_for_room(bytes).await
    }
}

/// How many large bodies are parsed at once on this machine.
fn readings() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, MAX_READINGS)
}

/// A number of bytes that may be held. Cheap to clone; clones share it.
#[derive(Clone)]
pub(super) struct Budget {
    bytes: Arc<Semaphore>,
    most: usize,
}

/// Room for some bytes, until it is dropped.
pub(super) type Room = OwnedSemaphorePermit;

/// Bytes with their room.
struct Lent {
    bytes: Bytes,
    _room: Option<Room>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        let most = bytes.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Self { bytes: Arc::new(Semaphore::new(most)), most }
    }

    /// An empty body of at most `most` bytes.
    pub(super) fn body(&self, most: usize) -> BufferedBody {
        BufferedBody { bytes: Vec::new(), most, budget: self.clone(), allowed: 0, room: None }
    }

    /// Takes room for the bytes beyond the free ones; `None` if all are free.
    pub(super) fn room(&self, bytes: usize) -> Result<Option<Room>, Overloaded> {
        match bytes.saturating_sub(FREE_BYTES) {
            0 => Ok(None),
            bytes => self.take(bytes).map(Some),
        }
    }

    /// The same, but waits. A request for more than the whole budget waits for all of it.
    pub(super) async fn wait_for_room(&self, bytes: usize) -> Option<Room> {
        let bytes = bytes.saturating_sub(FREE_BYTES).min(self.most);
        let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes > 0)?;
        self.bytes.clone().acquire_many_owned(bytes).await.ok()
    }

    /// Takes room for existing bytes until their last owner drops them.
    pub(super) fn hold(&self, bytes: Bytes) -> Result<Bytes, Overloaded> {
        let _room = self.room(bytes.len())?;
        Ok(Bytes::from_owner(Lent { bytes, _room }))
    }

    /// The same, but waits for room.
    pub(super) async fn wait_to_hold(&self, bytes: Bytes) -> Bytes {
        let _room = self.wait_for_room(bytes.len()).await;
        Bytes::from_owner(Lent { bytes, _room })
    }

    fn take(&self, bytes: usize) -> Result<Room, Overloaded> {
        let bytes = u32::try_from(bytes).map_err(|_| Overloaded)?;
        self.bytes.clone().try_acquire_many_owned(bytes).map_err(|_| Overloaded)
    }
}

/// A body that grows as its pieces arrive, within a budget.
pub(super) struct BufferedBody {
    bytes: Vec<u8>,
    most: usize,
    budget: Budget,
    /// How many bytes its present room allows.
    allowed: usize,
    /// Room taken for the bytes beyond the free ones.
    room: Option<Room>,
}

impl BufferedBody {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a piece, if there is room.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Overloaded> {
        let needed = self.bytes.len() + piece.len();
        if needed > self.allowed {
            let step = self.allowed.clamp(SMALLEST_STEP, LARGEST_STEP);
            self.allow(needed.max((self.allowed + step).min(self.most)))?;
        }
        let capacity = self.bytes.capacity();
        if needed > capacity {
            let wanted = needed.max((capacity * GROWTH).max(SMALLEST_STEP).min(self.most));
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn allow(&mut self, bytes: usize) -> Result<(), Overloaded> {
        let has = self.room.as_ref().map_or(0, Room::num_permits);
        let more = bytes.saturating_sub(FREE_BYTES).saturating_sub(has);
        if more > 0 {
            let room = self.budget.take(more)?;
            match &mut self.room {
                Some(taken) => taken.merge(room),
                None => self.room = Some(room),
            }
        }
        self.allowed = bytes;
        Ok(())
    }

    /// The body; its room is given back when the last of its owners drops it.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for BufferedBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn a_body_takes_room_as_it_grows_and_gives_it_back_with_its_last_owner() {
        let budget = Budget::new(2 * MIB);
        let mut body = budget.body(4 * MIB);
        let piece = vec![7; 64 * 1024];
        let mut pushed = 0;
        while body.push(&piece).is_ok() {
            pushed += piece.len();
        }
        assert!((MIB..=2 * MIB + FREE_BYTES).contains(&pushed), "{pushed}");
        let bytes = body.into_bytes();
        let slice = bytes.slice(1..2);
        drop(bytes);
        assert_eq!(budget.take(2 * MIB).err(), Some(Overloaded));
        drop(slice);
        assert!(budget.take(2 * MIB).is_ok());
    }

    #[test]
    fn a_body_of_the_whole_budget_fits_and_a_small_one_always_does() {
        let budget = Budget::new(2 * MIB);
        let mut large = budget.body(2 * MIB);
        for piece in vec![1; 2 * MIB].chunks(10_000) {
            large.push(piece).expect("room");
        }
        let mut small = budget.body(2 * MIB);
        small.push(&vec![2; FREE_BYTES / 2]).expect("free");
        assert_eq!(small.push(&vec![2; MIB]), Err(Overloaded));
        assert_eq!(budget.hold(vec![0; MIB].into()), Err(Overloaded));
        assert!(budget.hold(vec![0; FREE_BYTES].into()).is_ok());
    }
}
