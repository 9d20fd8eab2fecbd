//! Mirroring: each output with a link is copied into the file store, before the link expires.
//!
//! Invariants: a copy starts only for an order that is on record and leased, so a crash repeats
//! copies but loses none; a copy recorded as stored is in the file store, with its length and
//! digest; a link is followed only through the outbound guard.

mod answer;
mod fetch;
mod hashing;
mod packed;
mod renewal;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Notify, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    fetch::{Fault, Fetcher},
    renewal::Renewal,
};
use super::{Step, Worker};
use crate::{
    blobs::FileKey,
    clock,
    config::MirrorConfig,
    domain::{
        link,
        mirror::{self, AfterMirror, DueMirror, FreePlaces, MirroredFile},
    },
    store::{Lookup, Store, StoreError},
    telemetry::{MIRROR_ATTEMPTS, MIRRORED_BYTES},
};

/// Time limit of one copy. The largest file takes about 5 hours over a line of 1 Mbit/s.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(6 * 60 * 60);

/// Added to that limit: after both, a lost lease expires. A restart releases all leases at once.
const LEASE_MARGIN: Duration = Duration::from_secs(60);

/// Pause between two tries to record an attempt while the database refuses.
const RECORD_PAUSE: Duration = Duration::from_secs(2);

/// Upper bound on a server's `Retry-After`: waiting longer would let links expire.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// See the module. Cheap to clone; clones share the copies in progress.
#[derive(Clone)]
pub struct Mirrorer {
    config: MirrorConfig,
    fetcher: Fetcher,
    renewal: Renewal,
    stopping: CancellationToken,
    /// Copies under way.
    pub attempts: TaskTracker,
    under_way: UnderWay,
    /// Notified when a copy ends: there is room again.
    ended: Arc<Notify>,
}

impl Mirrorer {
    /// A mirrorer with nothing under way. Copies are cancelled with `stopping`.
    pub fn new(
        config: MirrorConfig,
        fetcher: Fetcher,
        renewal: Renewal,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            under_way: UnderWay::default(),
            config,
            fetcher,
            renewal,
            stopping,
            attempts: TaskTracker::new(),
            ended: Arc::default(),
        }
    }
}

/// Number of copies in progress, by the host of their link. Cheap to clone; clones share the
/// counts.
#[derive(Clone, Default)]
struct UnderWay(Arc<Mutex<HashMap<String, usize>>>);

impl UnderWay {
    /// What is free of `places`. Only [`Mirrorer::step`] takes places, one step at a time.
    fn free_of(&self, places: usize) -> FreePlaces {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all = places.saturating_sub(taken.values().sum());
        FreePlaces { all, most_of_host: mirror::most_of_host(places), taken }
    }

    /// Counts a copy until the place is dropped.
    fn begin(&self, due: &DueMirror) -> Place {
        let host = mirror::host(due.output.url.as_deref().unwrap_or_default());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(host.clone()).or_default() +=
            1;
        Place { host, under_way: self.clone() }
    }
}

/// The place of one copy in progress; dropping it frees the place.
struct Place {
    host: String,
    under_way: UnderWay,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.under_way.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.host);
            }
        }
    }
}

#[async_trait]
impl Worker for Mirrorer {
    const NAME: &'static str = "mirror";
    const IDLE_PAUSE: Duration = Duration::from_secs(1);
    const BUSY_PAUSE: Duration = Duration::ZERO;

    /// Starts the copies that are due and have room; they run as tasks of their own.
    async fn step(&self) -> anyhow::Result<Step> {
        let places = self.under_way.free_of(self.config.concurrency);
        if places.all == 0 {
            return Ok(Step::Idle);
        }
        let now = self.fetcher.clock.now();
        let lease_until = clock::add(now, ATTEMPT_LIMIT + LEASE_MARGIN);
        let claimed = self.store().claim_mirrors(now, lease_until, places).await?;
        let step = if claimed.is_empty() { Step::Idle } else { Step::Busy };
        for due in claimed {
            let place = self.under_way.begin(&due);
            let mirrorer = self.clone();
            self.attempts.spawn(async move {
                let stopping = mirrorer.stopping.clone();
                // A cancelled copy leaves nothing behind, and its lease ends with the process.
                stopping.run_until_cancelled(mirrorer.attempt(due)).await;
                drop(place);
                mirrorer.ended.notify_one();
            });
        }
        Ok(step)
    }

    async fn woken(&self) {
        self.ended.notified().await;
    }
}

impl Mirrorer {
    fn store(&self) -> &dyn Store {
        &*self.renewal.store
    }

    async fn attempt(&self, due: DueMirror) {
        let key = FileKey::new(due.place, &due.output.name, due.output.extension.as_deref());
        let copied = timeout(ATTEMPT_LIMIT, self.copy(&due, &key)).await;
        let copied = copied.unwrap_or_else(|_| Err(Fault::other("it took too long")));
        let after = match copied {
            Ok(file) => AfterMirror::Stored(file),
            Err(fault) => self.after_fault(&due, fault),
        };
        let outcome = match &after {
            AfterMirror::Stored(file) => {
                MIRRORED_BYTES.of([]).increment(file.bytes);
                "stored"
            }
            AfterMirror::Failed { reason } => {
                tracing::error!(
                    job.id = %due.place.job_id, output = due.output.name, reason,
                    "an output could not be copied; POST /v1/jobs/{}/refresh takes it up again",
                    due.place.job_id
                );
                "failed"
            }
            _ => "retry",
        };
        let is_stored = matches!(after, AfterMirror::Stored(_));
        let is_known = self.record(&due, after).await;
        let outcome = if is_known { outcome } else { "erased" };
        MIRROR_ATTEMPTS.of([outcome.into()]).increment(1);
        if is_stored && !is_known {
            // The job was erased meanwhile: the copy belongs to nobody.
            if let Err(error) = self.fetcher.blobs.delete(&key).await {
                tracing::warn!(job.id = %due.place.job_id, %error, "a copy is yet to be deleted");
            }
        }
    }

    /// Fetches by the link on record, or by a fresh one if that link has expired.
    async fn copy(&self, due: &DueMirror, key: &FileKey) -> Result<MirroredFile, Fault> {
        let link = due.output.url.as_deref().ok_or(Fault::other("it has no link"))?;
        let fetch = |link| self.fetcher.fetch(link, key, self.config.max_file);
        let now = self.fetcher.clock.now();
        if link::expiry(link).is_some_and(|end| end <= now)
            && let Some(fresh) = self.renewal.fresh_link(due, link).await
        {
            return fetch(&fresh).await;
        }
        match fetch(link).await {
            Err(fault @ Fault::Expired(_)) => match self.renewal.fresh_link(due, link).await {
                Some(fresh) => fetch(&fresh).await,
                None => Err(fault),
            },
            fetched => fetched,
        }
    }

    fn after_fault(&self, due: &DueMirror, fault: Fault) -> AfterMirror {
        let (attempts, now) = (due.attempts + 1, self.fetcher.clock.now());
        tracing::debug!(job.id = %due.place.job_id, output = due.output.name, ?fault, "no copy");
        match fault {
            Fault::TooLarge => AfterMirror::Failed {
                reason: format!(
                    "it is larger than mirror.max_file ({} bytes)",
                    self.config.max_file
                ),
            },
            Fault::Store(error) => mirror::after_outage(attempts, error.to_string(), now),
            Fault::Expired(reason) => mirror::after_failure(attempts, reason, now),
            Fault::Other { reason, retry_after } => {
                let mut after = mirror::after_failure(attempts, reason, now);
                if let (AfterMirror::Retry { at, .. }, Some(wait)) = (&mut after, retry_after) {
                    *at = (*at).max(clock::add(now, wait.min(LONGEST_RETRY_AFTER)));
                }
                after
            }
        }
    }

    /// Records the attempt, retrying until the database accepts it: otherwise the lease would block
    /// the order for hours. False if the order no longer exists.
    async fn record(&self, due: &DueMirror, after: AfterMirror) -> bool {
        loop {
            let now = self.fetcher.clock.now();
            let refused = match self.store().record_mirror(due.place, after.clone(), now).await {
                Ok(found) => return matches!(found, Lookup::Found(())),
                Err(refused) => refused,
            };
            if let StoreError::Unavailable(error) = &refused {
                tracing::warn!(job.id = %due.place.job_id, error, "a copy is not on record yet");
            }
            self.fetcher.clock.sleep(RECORD_PAUSE).await;
        }
    }
}
