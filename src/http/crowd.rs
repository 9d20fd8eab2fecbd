//! Tracks whether a door is running out of connections.
//!
//! Updated by the accept loop, read by each connection for its own deadline. When all connections
//! are taken, the one that has been silent longest since it was accepted is closed to make room for
//! the next.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Connections are running out once fewer than one in this many are free.
const LAST_PART: usize = 8;

/// Permission to keep a connection, given back when it is dropped.
pub(super) type Place = OwnedSemaphorePermit;

/// The connections of one door. Cheap to clone; clones count the same ones.
#[derive(Clone, Debug)]
pub(super) struct Crowd {
    free: Arc<Semaphore>,
    most: usize,
    /// The system had no file descriptor left for the last connection to accept.
    is_system_out: Arc<AtomicBool>,
    silent: Arc<Mutex<SilentConnections>>,
}

/// Connections that have not sent a byte, in the order in which they were accepted.
#[derive(Debug, Default)]
struct SilentConnections {
    last_number: u64,
    by_number: BTreeMap<u64, SilentConnection>,
}

#[derive(Debug)]
struct SilentConnection {
    place: Place,
    must_end: Arc<Notify>,
}

/// A connection that has not sent a byte yet, until it is dropped.
pub(super) struct Silent {
    number: u64,
    must_end: Arc<Notify>,
    crowd: Crowd,
}

impl Silent {
    /// Waits until its place is given to another connection.
    pub(super) async fn must_end(&self) {
        self.must_end.notified().await;
    }

    /// Its place, now that it has sent a byte; `None` if that was given to another connection.
    pub(super) fn into_place(self) -> Option<Place> {
        self.crowd.silent().by_number.remove(&self.number).map(|connection| connection.place)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.crowd.silent().by_number.remove(&self.number);
    }
}

impl Crowd {
    pub(super) fn new(most: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most)),
            most,
            is_system_out: Arc::default(),
            silent: Arc::default(),
        }
    }

    fn silent(&self) -> MutexGuard<'_, SilentConnections> {
        // Each change is one call, so a panic elsewhere leaves no half-done state.
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a connection that has not sent a byte yet and keeps its place.
    pub(super) fn note_silent(&self, place: Place) -> Silent {
        let must_end = Arc::new(Notify::new());
        let mut silent = self.silent();
        silent.last_number += 1;
        let number = silent.last_number;
        silent.by_number.insert(number, SilentConnection { place, must_end: must_end.clone() });
        Silent { number, must_end, crowd: self.clone() }
    }

    /// A place without waiting: a free one, or that of the connection which has been silent
    /// longest.
    pub(super) fn place_at_once(&self) -> Option<Place> {
        self.try_join().or_else(|| {
            let (_, SilentConnection { place, must_end }) = self.silent().by_number.pop_first()?;
            must_end.notify_one();
            Some(place)
        })
    }

    /// Waits for a free place; never `None`, since the semaphore is never closed.
    pub(super) async fn join(&self) -> Option<Place> {
        self.free.clone().acquire_owned().await.ok()
    }

    /// The same without waiting; `None` if all are taken.
    pub(super) fn try_join(&self) -> Option<Place> {
        self.free.clone().try_acquire_owned().ok()
    }

    /// Records whether the system ran out of file descriptors at the last accept.
    pub(super) fn note_system(&self, is_out: bool) {
        self.is_system_out.store(is_out, Ordering::Relaxed);
    }

    /// Returns whether connections are running out, so that silent ones get shorter deadlines.
    pub(super) fn is_there(&self) -> bool {
        let free = self.free.available_permits();
        free == 0 || free < self.most / LAST_PART || self.is_system_out.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_connection_that_was_silent_longest_gives_its_place_to_the_next() {
        let crowd = Crowd::new(3);
        let accept = || crowd.place_at_once().map(|place| crowd.note_silent(place));
        let [first, second, third] = std::array::from_fn(|_| accept().expect("a free place"));
        let second = second.into_place();
        let fourth = accept().expect("the first one's place");
        first.must_end().await;
        assert!(first.into_place().is_none());
        let fifth = accept().expect("the third one's place");
        third.must_end().await;
        let spoken = [second, fourth.into_place(), fifth.into_place()];
        assert!(spoken.iter().all(Option::is_some));
        assert!(crowd.place_at_once().is_none(), "nobody is silent");
    }

    #[test]
    fn connections_run_out_before_the_last_is_taken() {
        for (most, free) in [(4096, 512), (100, 12), (8, 1), (1, 1)] {
            let crowd = Crowd::new(most);
            let held: Vec<_> = (free..most).map(|_| crowd.try_join()).collect();
            assert!(!crowd.is_there(), "{free} of {most} are free");
            let last = crowd.try_join();
            assert!(crowd.is_there(), "{} of {most} are free", free - 1);
            drop((held, last));
            assert!(!crowd.is_there());
            crowd.note_system(true);
            assert!(crowd.is_there(), "the system has no file left");
        }
    }
}
