//! The intake: passes arrivals to the store, or to the emergency spool while the store refuses, and
//! drains the spool into the store when it is back.
//!
//! Called by the callbacks and by every erasure, and run as a loop by `app`. Invariant: an arrival
//! that was answered with a [`Taken`] is on disk and is recorded once, however often the process is
//! killed in between.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    Arrival, Receipt, Spooled, Store, StoreError,
    spool::{Spool, SpoolError, SpoolRecord, SpoolState},
};
use crate::clock::Clock;

/// Pause between two attempts to drain the spool.
const PAUSE: Duration = Duration::from_secs(1);

/// Bytes that a callback of usual size takes in the spool at most.
const USUAL_BYTES: u64 = 64 * 1024;

/// Where an arrival is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// On record.
    Stored(Receipt),
    /// In the spool: on disk, not judged yet.
    Spooled,
}

/// See the module.
pub struct Intake {
    store: Arc<dyn Store>,
    /// `None`: off.
    spool: Option<Spool>,
    /// How long to wait for a busy store.
    wait: Duration,
    /// For reading bodies again, see [`crate::domain::result::read`].
    id_pointers: Vec<String>,
    clock: Clock,
    /// The last attempt to write to the spool failed.
    is_spool_failing: AtomicBool,
    /// Held while the spool is drained.
    taking: Mutex<()>,
}

impl Intake {
    /// An intake without a spool.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self {
            store,
            spool: None,
            wait: Duration::ZERO,
            id_pointers: Vec::new(),
            clock,
            is_spool_failing: AtomicBool::new(false),
            taking: Mutex::new(()),
        }
    }

    /// The same with a spool, used when the store refuses or has not answered within `wait`.
    pub fn with_spool(self, spool: Spool, wait: Duration, id_pointers: Vec<String>) -> Self {
        Self { spool: Some(spool), wait, id_pointers, ..self }
    }

    /// How full the spool is; `None` if it is off.
    pub fn spool_state(&self) -> Option<SpoolState> {
        self.spool.as_ref().map(Spool::state)
    }

    /// Whether the spool would take a callback of a usual size.
    pub fn has_room_in_spool(&self) -> bool {
        let is_sound = !self.is_spool_failing.load(Ordering::Relaxed);
        is_sound && self.spool_state().is_some_and(|state| state.bytes_free >= USUAL_BYTES)
    }

    /// Records an arrival or, while the store refuses, writes it to the spool.
    ///
    /// # Errors
    /// It may be neither on record nor in the spool: do not acknowledge it, so that the sender
    /// repeats it.
    pub async fn receive(&self, arrival: Arrival) -> Result<Taken, StoreError> {
        let Some(spool) = &self.spool else {
            return self.store.receive(arrival).await.map(Taken::Stored);
        };
        // The store may still commit it after this stops waiting; draining the spool expects that.
        let stored = self.store.receive(arrival.clone());
        let refusal = match tokio::time::timeout(self.wait, stored).await {
            Ok(Ok(receipt)) => return Ok(Taken::Stored(receipt)),
            Ok(Err(error)) => error,
            Err(_) => StoreError::Unavailable("no answer within spool.wait".into()),
        };
        match spool.append(&arrival).await {
            Ok(()) => {
                self.is_spool_failing.store(false, Ordering::Relaxed);
                tracing::warn!(
                    delivery.id = %arrival.delivery_id,
                    reason = %refusal,
                    "the database refuses: a callback went to the spool"
                );
                Ok(Taken::Spooled)
            }
            Err(error) => {
                let is_failing = matches!(error, SpoolError::Failed(_));
                self.is_spool_failing.store(is_failing, Ordering::Relaxed);
                tracing::error!(%error, "a callback found no place in the spool either");
                Err(refusal)
            }
        }
    }

    /// Drains the waiting records into the store and wipes the spool; returns how many there were.
    /// A record that is refused on its own does not hold up the others, but is an error.
    ///
    /// # Errors
    /// Records may still wait in the spool: repeat the call, which records none of them twice.
    pub async fn drain(&self) -> Result<u64, StoreError> {
        let Some(spool) = &self.spool else { return Ok(0) };
        // The task that is draining may be waiting for a locked database; the caller does not wait
        // that long.
        let taking = tokio::time::timeout(self.wait, self.taking.lock()).await;
        let Ok(_taking) = taking else {
            return Err(StoreError::Unavailable("the spool is being taken in".into()));
        };
        let mut taken = 0;
        loop {
            taken += self.drain_waiting(spool).await?;
            if spool.state().is_wiped {
                return Ok(taken);
            }
            // Does nothing while a record waits; records that came meanwhile are drained first.
            spool.wipe().await.map_err(refused)?;
        }
    }

    async fn drain_waiting(&self, spool: &Spool) -> Result<u64, StoreError> {
        let (mut taken, mut last, mut refusal) = (0, 0, None);
        while let Some(record) = spool.next(last).await.map_err(refused)? {
            last = record.number;
            match self.drain_record(spool, record, refusal.is_none()).await {
                Ok(()) => taken += 1,
                Err(StoreError::Overloaded) => return Err(StoreError::Overloaded),
                Err(error) => {
                    // Is it this record, or the whole database?
                    self.store.probe(self.clock.now()).await?;
                    refusal.get_or_insert(error);
                }
            }
        }
        if taken > 0 {
            tracing::info!(records = taken, "callbacks were taken in from the spool");
        }
        refusal.map_or(Ok(taken), Err)
    }

    async fn drain_record(
        &self,
        spool: &Spool,
        record: SpoolRecord,
        is_oldest: bool,
    ) -> Result<(), StoreError> {
        let number = record.number;
        let id_pointers = self.id_pointers.clone();
        let read = tokio::task::spawn_blocking(move || record.arrival(&id_pointers)).await;
        let Ok(Some(arrival)) = read else {
            let reason = format!("record {number} of the spool is of another version");
            return Err(StoreError::Unavailable(reason));
        };
        let spooled = Spooled { arrival, spool: spool.id(), number, is_oldest };
        self.store.receive_spooled(spooled).await?;
        spool.mark_done(number).await.map_err(refused)
    }

    /// Drains the spool whenever a record waits, until `stop` is cancelled; never returns earlier.
    pub async fn run(&self, stop: CancellationToken) {
        let Some(spool) = &self.spool else { return stop.cancelled().await };
        let mut is_refused = false;
        let endless = async {
            loop {
                spool.filled().await;
                match self.drain().await {
                    Ok(_) => is_refused = false,
                    Err(error) => {
                        // Logged once per outage, not once a second.
                        if !is_refused {
                            let waiting = spool.state().records;
                            tracing::error!(%error, waiting, "the spool cannot be taken in yet");
                        }
                        is_refused = true;
                        self.clock.sleep(PAUSE).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(endless).await;
    }

    /// Tries once more to drain the spool, until `deadline`, then closes it.
    pub async fn close(&self, deadline: impl Future<Output = ()>) {
        let Some(spool) = &self.spool else { return };
        let attempt = tokio::select! {
            biased;
            attempt = self.drain() => Some(attempt),
            () = deadline => None,
        };
        let waiting = spool.state().records;
        if waiting > 0 {
            let error = attempt.and_then(Result::err).map(|error| error.to_string());
            tracing::warn!(waiting, error, "callbacks stay in the spool until the next start");
        }
        spool.close().await;
    }
}

fn refused(error: SpoolError) -> StoreError {
    StoreError::Unavailable(error.to_string())
}
