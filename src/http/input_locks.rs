//! Locks on a job's inputs: one upload of an input, and one decision to notify the Engine, at a
//! time.
//!
//! Used by `upload`. Invariants: of two uploads of one input the later one continues, since its
//! caller has given up the earlier one; only one task of a job at a time decides whether to notify
//! the Engine.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use crate::domain::ids::JobId;

/// Cheap to clone; clones share the locks.
#[derive(Clone, Default)]
pub struct InputLocks(Arc<Mutex<HashMap<Key, Arc<Queue>>>>);

/// An input of a job; without a name, the job itself.
type Key = (JobId, Option<String>);

#[derive(Default)]
struct Queue {
    one_at_a_time: Arc<tokio::sync::Mutex<()>>,
    /// Cancels the latest to queue up, when another one does.
    latest: Mutex<CancellationToken>,
}

/// Held while the work is in progress.
pub(super) struct InputLock {
    /// Cancelled when another upload takes over the input.
    pub(super) is_over: CancellationToken,
    key: Key,
    queue: Arc<Queue>,
    locks: InputLocks,
    /// `None` while waiting.
    held: Option<OwnedMutexGuard<()>>,
}

impl InputLocks {
    /// Takes over the lock of an input: cancels the current holder and waits until it stops.
    pub(super) async fn take_over(&self, id: JobId, input: &str) -> InputLock {
        let mut lock = self.queue_up((id, Some(input.to_owned())));
        let earlier = mem::replace(&mut *locked(&lock.queue.latest), lock.is_over.clone());
        earlier.cancel();
        lock.held = Some(lock.queue.one_at_a_time.clone().lock_owned().await);
        lock
    }

    /// Waits for the lock to decide for the whole job.
    pub(super) async fn wait_for(&self, id: JobId) -> InputLock {
        let mut lock = self.queue_up((id, None));
        lock.held = Some(lock.queue.one_at_a_time.clone().lock_owned().await);
        lock
    }

    fn queue_up(&self, key: Key) -> InputLock {
        let queue = locked(&self.0).entry(key.clone()).or_default().clone();
        let is_over = CancellationToken::new();
        InputLock { is_over, key, queue, locks: self.clone(), held: None }
    }
}

impl Drop for InputLock {
    fn drop(&mut self) {
        let mut queues = locked(&self.locks.0);
        // At most two: only the table and this value hold the queue, and others cannot find it
        // while the table is locked.
        if Arc::strong_count(&self.queue) <= 2 {
            queues.remove(&self.key);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one step, so a panic elsewhere leaves no half-done state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[tokio::test]
    async fn the_later_upload_goes_on_and_the_earlier_one_is_told() {
        let (locks, id) = (InputLocks::default(), JobId::new(Timestamp::UNIX_EPOCH));
        let first = locks.take_over(id, "cbct").await;
        let other = locks.take_over(id, "ios_upper").await;
        let (locks_too, is_over) = (locks.clone(), first.is_over.clone());
        let second = tokio::spawn(async move { locks_too.take_over(id, "cbct").await });
        is_over.cancelled().await;
        assert!(!second.is_finished() && !other.is_over.is_cancelled());
        drop(first);
        let second = second.await.expect("its lock");
        assert!(!second.is_over.is_cancelled());
        drop((second, other));
        assert!(locked(&locks.0).is_empty(), "nothing is kept of locks that are over");
    }
}
