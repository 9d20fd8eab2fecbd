//! Limits concurrent callbacks per address: two bodies at a time, the others wait.
//!
//! Called by the callbacks after an address has been verified, so that a forged one holds nothing.
//! Invariant: an address without senders takes no memory, and a flood at one address takes nothing
//! from the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::limits::Overloaded;
use crate::domain::ids::JobId;

/// Bodies received and recorded at once for one address.
const PLACES: usize = 2;

/// Senders that may wait for a place. Each holds one of `service.max_connections` (4,096 unless
/// set), and an honest Engine has a few.
const MAX_WAITING: usize = 256;

/// Cheap to clone; clones share the places.
#[derive(Clone, Default)]
pub(super) struct AddressPlaces(Arc<Mutex<HashMap<JobId, Line>>>);

/// The senders at one address.
struct Line {
    places: Arc<Semaphore>,
    /// How many have a place or wait for one.
    senders: usize,
}

/// A place at an address, or the wait for one; given back when it is dropped.
pub(super) struct AddressPlace {
    id: JobId,
    all: AddressPlaces,
    /// `None` while waiting.
    permit: Option<OwnedSemaphorePermit>,
}

impl AddressPlaces {
    /// Waits for a place at the address of this job, for at most `patience`.
    pub(super) async fn wait_for(
        &self,
        id: JobId,
        patience: Duration,
    ) -> Result<AddressPlace, Overloaded> {
        let places = self.line_up(id)?;
        let mut place = AddressPlace { id, all: self.clone(), permit: None };
        let permit = timeout(patience, places.acquire_owned()).await.map_err(|_| Overloaded)?;
        place.permit = Some(permit.map_err(|_| Overloaded)?);
        Ok(place)
    }

    fn line_up(&self, id: JobId) -> Result<Arc<Semaphore>, Overloaded> {
        let mut lines = locked(&self.0);
        let line = lines
            .entry(id)
            .or_insert_with(|| Line { places: Arc::new(Semaphore::new(PLACES)), senders: 0 });
        if line.senders >= PLACES + MAX_WAITING {
            return Err(Overloaded);
        }
        line.senders += 1;
        Ok(line.places.clone())
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut lines = locked(&self.all.0);
        let Some(line) = lines.get_mut(&self.id) else { return };
        line.senders -= 1;
        if line.senders == 0 {
            lines.remove(&self.id);
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

    const LONG: Duration = Duration::from_secs(3600);

    fn id() -> JobId {
        JobId::new(Timestamp::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn a_third_waits_until_one_of_two_is_done() {
        let (places, one, other) = (AddressPlaces::default(), id(), id());
        let first = places.wait_for(one, LONG).await.ok();
        let second = places.wait_for(one, LONG).await.ok();
        assert!(first.is_some() && second.is_some());
        assert!(places.wait_for(one, Duration::ZERO).await.is_err(), "its time is up");
        assert!(places.wait_for(other, Duration::ZERO).await.is_ok(), "another address is free");
        let (places_too, patience) = (places.clone(), LONG);
        let third = tokio::spawn(async move { places_too.wait_for(one, patience).await.is_ok() });
        drop(first);
        assert!(third.await.expect("it does not panic"));
        drop(second);
        assert!(locked(&places.0).is_empty(), "nothing is kept of addresses that nobody is at");
    }

    #[tokio::test]
    async fn those_who_wait_are_bounded_and_leave_nothing_when_they_go() {
        let (places, one) = (AddressPlaces::default(), id());
        let held = [places.wait_for(one, LONG).await, places.wait_for(one, LONG).await];
        assert!(held.iter().all(Result::is_ok));
        let mut waiting = Vec::new();
        for _ in 0..MAX_WAITING {
            let mut wait = Box::pin(places.wait_for(one, LONG));
            assert!(futures_util::poll!(&mut wait).is_pending());
            waiting.push(wait);
        }
        assert!(places.wait_for(one, LONG).await.is_err(), "one more is refused at once");
        waiting.pop();
        let mut next = Box::pin(places.wait_for(one, LONG));
        assert!(futures_util::poll!(&mut next).is_pending(), "who went away made room");
        drop((held, waiting, next));
        assert!(locked(&places.0).is_empty());
    }
}
