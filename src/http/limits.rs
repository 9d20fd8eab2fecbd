//! How much is held in memory and goes on at once, over all requests.
//!
//! Made by `app`, asked by the handlers. The invariant: memory does not grow with the number of
//! senders or readers; what finds no room is refused, and may come again.

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

/// Submissions on their way to the Engine: each holds its body and a connection there.
const MAX_SUBMISSIONS: usize = 512;

/// What a submission holds on its way, in copies of its body: for the record, for the Engine, and
/// for its caller.
const SUBMISSION_COPIES: usize = 3;

/// A job that is sent again; how large it is shows only when it is read.
const RESUBMISSION_BYTES: usize = 8 * 1024 * 1024;

/// Pages of one job that are put together at once: each holds the job and bodies of it.
const MAX_PAGES: usize = 4;

/// Large bodies that are unpacked and read at once, at most: it takes a thread and several times the
/// body. Half of the processors are left for everything else.
const MAX_READINGS: usize = 4;

/// Of every body this much is free, since the cap on connections bounds it: so a usual callback
/// finds room however many large ones are on their way.
const FREE_BYTES: usize = 16 * 1024;

/// Room for a body is taken in steps: as much again as it has, between the first and the second of
/// these.
const SMALLEST_STEP: usize = 4 * 1024;
const LARGEST_STEP: usize = 1024 * 1024;

/// A body's memory grows by this factor: it takes none before it is written to, so what is not filled
/// yet costs nothing.
const GROWTH: usize = 4;

/// There is no room; the sender may come again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl From<Full> for Problem {
    fn from(_: Full) -> Self {
        Self::Overloaded
    }
}

/// Cheap to clone; clones share what they limit.
#[derive(Clone)]
pub struct Limits {
    /// For bodies that are being received.
    pub(super) bodies: Budget,
    /// For results that are being read: apart, so that no reader keeps a callback out.
    pub(super) answers: Budget,
    /// Between two pieces of a body.
    pub(super) idle_timeout: Duration,
    /// For a body as a whole.
    pub(super) body_timeout: Duration,
    /// For submissions on their way.
    submitted: Budget,
    /// For requests that last.
    pub(super) places: Places,
    /// How slow the sender of a large body may be.
    pub(super) pace: Pace,
    submissions: Arc<Semaphore>,
    pages: Arc<Semaphore>,
    readings: Arc<Semaphore>,
    /// Bytes of large bodies that are being put on record.
    recordings: Budget,
    addresses: AddressPlaces,
}

/// Leave to do something; given back when it is dropped.
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

    /// The same for bodies of callers with a key, which are small: one that stays below the least
    /// rate is given up after a minute, however long a callback may take.
    pub(super) fn of_callers(&self) -> Self {
        let body_timeout = self.body_timeout.min(self.pace.patience());
        Self { body_timeout, ..self.clone() }
    }

    /// Leave for a submission whose request holds so many bytes, to be kept until the Engine's
    /// answer is on record.
    pub(super) fn submission(&self, bytes: usize) -> Result<(Permit, Permit), Full> {
        let bytes = bytes.saturating_mul(SUBMISSION_COPIES).min(self.submitted.most);
        let room = self.submitted.take(bytes)?;
        let permit = self.submissions.clone().try_acquire_owned().map_err(|_| Full)?;
        Ok((permit, room))
    }

    /// The same for a job that is sent again.
    pub(super) fn resubmission(&self) -> Result<(Permit, Permit), Full> {
        self.submission(RESUBMISSION_BYTES / SUBMISSION_COPIES)
    }

    /// Leave to put a page of one job together; it is soon given back, so it is waited for.
    pub(super) async fn page(&self) -> Option<Permit> {
        self.pages.clone().acquire_owned().await.ok()
    }

    /// A place at the callback address of a job, to be kept until what came is on record. It is
    /// waited for as long as a body may take.
    pub(super) async fn address(&self, id: JobId) -> Result<AddressPlace, Full> {
        self.addresses.wait_for(id, self.body_timeout).await
    }

    /// Leave to read a large body; whoever has it soon gives it back, so it is waited for.
    pub(super) async fn reading(&self) -> Option<Permit> {
        self.readings.clone().acquire_owned().await.ok()
    }

    /// Leave to put a large body on record. The database writes one change after the other: of large
    /// bodies no more wait there than one of the largest size, so that small ones are soon written.
    pub(super) async fn recording(&self, bytes: usize) -> Option<Permit> {
        self.recordings.wait_for_room(bytes).await
    }
}

/// How many large bodies are read at once on this machine.
fn readings() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, MAX_READINGS)
}

/// Bytes that may be held. Cheap to clone; clones share them.
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
    pub(super) fn body(&self, most: usize) -> Held {
        Held { bytes: Vec::new(), most, budget: self.clone(), allowed: 0, room: None }
    }

    /// Room for bytes beyond the free ones; `None` where there are none.
    pub(super) fn room(&self, bytes: usize) -> Result<Option<Room>, Full> {
        match bytes.saturating_sub(FREE_BYTES) {
            0 => Ok(None),
            bytes => self.take(bytes).map(Some),
        }
    }

    /// The same, waited for; what is more than there will ever be waits for all of it.
    pub(super) async fn wait_for_room(&self, bytes: usize) -> Option<Room> {
        let bytes = bytes.saturating_sub(FREE_BYTES).min(self.most);
        let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes > 0)?;
        self.bytes.clone().acquire_many_owned(bytes).await.ok()
    }

    /// Holds bytes that are there already, as long as anyone has them.
    pub(super) fn hold(&self, bytes: Bytes) -> Result<Bytes, Full> {
        let _room = self.room(bytes.len())?;
        Ok(Bytes::from_owner(Lent { bytes, _room }))
    }

    /// The same, as soon as there is room.
    pub(super) async fn wait_to_hold(&self, bytes: Bytes) -> Bytes {
        let _room = self.wait_for_room(bytes.len()).await;
        Bytes::from_owner(Lent { bytes, _room })
    }

    fn take(&self, bytes: usize) -> Result<Room, Full> {
        let bytes = u32::try_from(bytes).map_err(|_| Full)?;
        self.bytes.clone().try_acquire_many_owned(bytes).map_err(|_| Full)
    }
}

/// A body that grows as its pieces come, within a budget.
pub(super) struct Held {
    bytes: Vec<u8>,
    most: usize,
    budget: Budget,
    /// How many bytes it may have with the room that it has.
    allowed: usize,
    /// What was taken for the bytes beyond the free ones.
    room: Option<Room>,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a piece, if there is room.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Full> {
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

    fn allow(&mut self, bytes: usize) -> Result<(), Full> {
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

impl AsRef<[u8]> for Held {
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
        assert_eq!(budget.take(2 * MIB).err(), Some(Full));
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
        assert_eq!(small.push(&vec![2; MIB]), Err(Full));
        assert_eq!(budget.hold(vec![0; MIB].into()), Err(Full));
        assert!(budget.hold(vec![0; FREE_BYTES].into()).is_ok());
    }
}
