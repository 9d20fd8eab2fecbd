//! Turns at a job's inputs: one upload of an input, and one decision to notify the Engine, at a
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

/// Cheap to clone; clones share the turns.
#[derive(Clone, Default)]
pub struct Turns(Arc<Mutex<HashMap<Place, Arc<Queue>>>>);

/// An input of a job; without a name, the job itself.
type Place = (JobId, Option<String>);

#[derive(Default)]
struct Queue {
    one_at_a_time: Arc<tokio::sync::Mutex<()>>,
    /// Cancels the turn of the latest to queue up, when another one does.
    latest: Mutex<CancellationToken>,
}

/// Held while the work is in progress.
pub(super) struct Turn {
    /// Cancelled when another upload takes over the place.
    pub(super) is_over: CancellationToken,
    place: Place,
    queue: Arc<Queue>,
    turns: Turns,
    /// `None` while waiting.
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Takes over the turn at an input: cancels the current holder and waits until it stops.
    pub(super) async fn take_over(&self, id: JobId, input: &str) -> Turn {
        let mut turn = self.queue_up((id, Some(input.to_owned())));
        let earlier = mem::replace(&mut *locked(&turn.queue.latest), turn.is_over.clone());
        earlier.cancel();
        turn.held = Some(turn.queue.one_at_a_time.clone().lock_owned().await);
        turn
    }

    /// Waits for the turn to decide for the whole job.
    pub(super) async fn wait_for(&self, id: JobId) -> Turn {
        let mut turn = self.queue_up((id, None));
        turn.held = Some(turn.queue.one_at_a_time.clone().lock_owned().await);
        turn
    }

    fn queue_up(&self, place: Place) -> Turn {
        let queue = locked(&self.0).entry(place.clone()).or_default().clone();
        let is_over = CancellationToken::new();
        Turn { is_over, place, queue, turns: self.clone(), held: None }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queues = locked(&self.turns.0);
        // At most two: only the table and this turn hold the queue, and the lock keeps others from
        // finding it.
        if Arc::strong_count(&self.queue) <= 2 {
            queues.remove(&self.place);
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
        let (turns, id) = (Turns::default(), JobId::new(Timestamp::UNIX_EPOCH));
        let first = turns.take_over(id, "cbct").await;
        let other = turns.take_over(id, "ios_upper").await;
        let (turns_too, is_over) = (turns.clone(), first.is_over.clone());
        let second = tokio::spawn(async move { turns_too.take_over(id, "cbct").await });
        is_over.cancelled().await;
        assert!(!second.is_finished() && !other.is_over.is_cancelled());
        drop(first);
        let second = second.await.expect("its turn");
        assert!(!second.is_over.is_cancelled());
        drop((second, other));
        assert!(locked(&turns.0).is_empty(), "nothing is kept of turns that are over");
    }
}
