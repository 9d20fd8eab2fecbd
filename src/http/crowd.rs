//! Whether a door's connections run out.
//!
//! Told by the accept loop, asked by each connection about its own deadline.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Once fewer than this part of the connections is free, they run out.
const LAST_PART: usize = 8;

/// The connections of one door. Cheap to clone; clones count the same ones.
#[derive(Clone, Debug)]
pub(super) struct Crowd {
    free: Arc<Semaphore>,
    most: usize,
    /// The system had nothing left for the connection that was to be accepted last.
    is_system_out: Arc<AtomicBool>,
}

impl Crowd {
    pub(super) fn new(most: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(most)), most, is_system_out: Arc::default() }
    }

    /// Waits for a free connection; `None` never comes, since the semaphore is not closed.
    pub(super) async fn join(&self) -> Option<OwnedSemaphorePermit> {
        self.free.clone().acquire_owned().await.ok()
    }

    /// The same without waiting; `None` if all are taken.
    pub(super) fn try_join(&self) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_owned().ok()
    }

    /// Notes whether the system had an open file for the last connection.
    pub(super) fn note_system(&self, is_out: bool) {
        self.is_system_out.store(is_out, Ordering::Relaxed);
    }

    /// Whether so many are connected that the silent ones must hurry.
    pub(super) fn is_there(&self) -> bool {
        let free = self.free.available_permits();
        free == 0 || free < self.most / LAST_PART || self.is_system_out.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
