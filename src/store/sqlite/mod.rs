//! The SQLite store: one connection that writes, a few that read, one process.
//!
//! Opened by `app`; everyone else sees `dyn Store`. The invariant: the write connection commits with
//! `synchronous=FULL` on a write-ahead log, which is read back before the store is handed out.

mod adopted;
mod answer;
pub mod backup;
mod connections;
pub mod copies;
mod erase;
mod gather;
mod inputs;
pub mod inspect;
pub mod keys;
mod large;
mod mirror;
mod notes;
mod open;
mod pages;
mod pipeline;
#[cfg(test)]
mod plans;
mod read;
mod receive;
mod reconcile;
mod relay;
mod resubmit;
mod rows;
mod scrub;
mod sessions;
mod spooled;
mod submit;
mod writer;

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::open::{OpenError, schema_version};
use self::{
    answer::RecordAnswer,
    connections::Connections,
    gather::{DIGESTS, Gather, SMALL_RESULTS},
    large::Room,
    writer::{Database, Outside, Writer},
};
use super::{
    Arrival, Backlog, Begun, BegunAgain, CallbackAddresses, EngineAnswer, EraseTarget, ErasedBatch,
    Erasing, Lookup, Mirroring, NewSubmission, Querying, Receipt, Receiving, Reconciling, Relaying,
    ResultOrders, SpoolMark, Spooled, Statistics, Stats, Store, StoreError, StoredResult,
    Submissions, Timeline, Uploading,
};
use crate::domain::{
    callback_address::{AddressRecord, Standing},
    delivery::{Delivery, Outcome},
    event::{Event, NewEvent},
    ids::{DeliveryId, JobId},
    job::{Job, Marks},
    mirror::{AfterMirror, Doomed, DueMirror, FilePlace, FreePlaces, StoredCopy},
    page::{JobFilter, JobPage, Page, Position},
    reconcile::{DueJob, Next},
    relay::{AfterAttempt, Attempt, DueRelay, Relay, RelayFilter},
    signing_keys::SigningKeys,
};
use crate::wake::Wake;

/// See the module. Dropping it without [`Store::close`] loses nothing that was answered.
pub struct SqliteStore {
    writer: Writer,
    readers: Arc<Connections>,
    small_results: Gather<StoredResult>,
    digests: Gather<[u8; 32]>,
    large: Room,
    checkpointer: Connections,
    closing: CancellationToken,
    signing_keys: SigningKeys,
    wake: Wake,
    orders: ResultOrders,
}

impl SqliteStore {
    /// [`Self::open_with`] for those who only look and write: nobody is woken, nothing passed on.
    pub async fn open(path: &Path, now: Timestamp) -> Result<(Self, JoinHandle<()>), OpenError> {
        Self::open_with(path, now, Wake::default(), ResultOrders::default()).await
    }

    /// Opens the database file, making it if there is none, brings its schema up to date, and
    /// marks submissions that a crash interrupted as `unconfirmed`. The task answered is the
    /// writer's: when it ends, the store is closed. `wake` is told of every commit;
    /// `orders` says what follows from every result.
    pub async fn open_with(
        path: &Path,
        now: Timestamp,
        wake: Wake,
        orders: ResultOrders,
    ) -> Result<(Self, JoinHandle<()>), OpenError> {
        let unusable =
            |error: &dyn std::fmt::Display| OpenError::Unusable(path.to_owned(), error.to_string());
        let lock = open::lock(path)?;
        open::tighten(path);
        let options = open::options(path);
        let writing = open::writing(&options);
        let mut connection = open::connect(&writing).await.map_err(|error| unusable(&error))?;
        open::migrate(&mut connection, path).await?;
        let signing_keys =
            keys::load(&mut connection, now).await.map_err(|error| unusable(&error))?;
        let interrupted =
            open::settle(&mut connection, now).await.map_err(|error| unusable(&error))?;
        if interrupted > 0 {
            tracing::warn!(
                jobs = interrupted,
                "jobs were being submitted when the process ended; they are unconfirmed now"
            );
        }
        let readers = Arc::new(Connections::that_read(&options));
        let small_results = Gather::start(&SMALL_RESULTS, &readers);
        let digests = Gather::start(&DIGESTS, &readers);
        let checkpointer = Connections::that_checkpoint(options);
        let closing = CancellationToken::new();
        let database = Database { options: writing, connection: Some(connection) };
        let outside = Outside { wake: wake.clone(), orders: orders.clone(), lock };
        let (writer, task) = Writer::start(database, outside, closing.clone());
        let store = Self {
            writer,
            readers,
            small_results,
            digests,
            large: Room::new(),
            checkpointer,
            closing,
            signing_keys,
            wake,
            orders,
        };
        Ok((store, task))
    }
}

/// Runs a question on a reader's connection.
macro_rules! ask {
    ($self:ident, $question:path $(, $argument:expr)*) => {{
        let mut reader = $self.readers.lend().await?;
        let answer = $question(&mut reader $(, $argument)*).await;
        reader.settle(answer)
    }};
}

fn unavailable(error: sqlx::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

fn closed() -> StoreError {
    StoreError::Unavailable("it has been closed".into())
}

#[async_trait]
impl Submissions for SqliteStore {
    async fn begin_submission(&self, submission: NewSubmission) -> Result<Begun, StoreError> {
        self.writer.submit(submission).await
    }

    async fn record_answer(
        &self,
        id: JobId,
        answer: EngineAnswer,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError> {
        self.writer.answer(RecordAnswer { id, answer, now }).await
    }

    async fn begin_resubmission(
        &self,
        id: JobId,
        is_confirmed: bool,
        callback_base: &str,
    ) -> Result<Lookup<BegunAgain>, StoreError> {
        let callback_base = callback_base.to_owned();
        self.writer.commit(resubmit::Resubmit { id, is_confirmed, callback_base }).await
    }
}

#[async_trait]
impl Uploading for SqliteStore {
    async fn record_upload(
        &self,
        id: JobId,
        input: &str,
        bytes: Option<u64>,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError> {
        let input = input.to_owned();
        self.writer.commit(inputs::RecordUpload { id, input, bytes, now }).await
    }

    async fn record_notified(
        &self,
        id: JobId,
        inputs: Vec<String>,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError> {
        self.writer.commit(inputs::RecordNotified { id, inputs, now }).await
    }
}

#[async_trait]
impl CallbackAddresses for SqliteStore {
    fn signing_keys(&self) -> &SigningKeys {
        &self.signing_keys
    }

    async fn callback_address(&self, id: JobId) -> Result<Lookup<AddressRecord>, StoreError> {
        ask!(self, keys::address, id)
    }
}

#[async_trait]
impl Receiving for SqliteStore {
    async fn receive(&self, arrival: Arrival) -> Result<Receipt, StoreError> {
        self.writer.receive(arrival).await
    }

    async fn spool_mark(&self) -> Result<Option<SpoolMark>, StoreError> {
        ask!(self, spooled::mark)
    }

    async fn receive_spooled(&self, spooled: Spooled) -> Result<Option<Receipt>, StoreError> {
        let orders = self.orders.clone();
        let receipt = self.writer.commit(spooled::TakeIn { spooled, orders }).await?;
        if let Some(Receipt::Kept { job_id, outcome: Outcome::Stored }) = receipt {
            self.wake.finished(job_id.0);
        }
        Ok(receipt)
    }

    async fn record_oversize(
        &self,
        id: JobId,
        limit_bytes: usize,
        now: Timestamp,
    ) -> Result<Lookup<Standing>, StoreError> {
        self.writer.commit(notes::RecordOversize { id, limit_bytes, now }).await
    }
}

#[async_trait]
impl Querying for SqliteStore {
    async fn job(&self, id: JobId) -> Result<Lookup<Job>, StoreError> {
        ask!(self, read::job, id)
    }

    async fn jobs(
        &self,
        filter: &JobFilter,
        after: Option<Position>,
        limit: u32,
    ) -> Result<JobPage, StoreError> {
        let keys = ask!(self, pages::job_keys, filter, after, limit)?;
        let _room = self.large.of(keys.bytes).await?;
        ask!(self, pages::jobs, keys)
    }

    async fn marks(
        &self,
        ids: &[JobId],
        public_url: Option<&str>,
    ) -> Result<HashMap<JobId, Marks>, StoreError> {
        ask!(self, read::marks, ids, public_url)
    }

    async fn job_of_engine(&self, engine_job_id: &str) -> Result<Option<JobId>, StoreError> {
        ask!(self, read::job_of_engine, engine_job_id)
    }

    async fn result(&self, id: JobId) -> Result<Lookup<Option<StoredResult>>, StoreError> {
        match self.small_results.ask(id).await? {
            Some(small) => Ok(Lookup::Found(Some(small))),
            None => {
                let bytes = ask!(self, read::result_bytes, id)?.unwrap_or_default();
                let _room = self.large.of(bytes.unsigned_abs()).await?;
                ask!(self, read::result, id)
            }
        }
    }

    async fn result_digest(&self, id: JobId) -> Result<Option<[u8; 32]>, StoreError> {
        self.digests.ask(id).await
    }

    async fn deliveries(
        &self,
        job_id: JobId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Lookup<Page<Delivery>>, StoreError> {
        ask!(self, pages::deliveries, job_id, after, limit)
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        ask!(self, read::delivery, id)
    }

    async fn delivery_body(&self, id: DeliveryId) -> Result<Option<Bytes>, StoreError> {
        let bytes = ask!(self, read::delivery_bytes, id)?.unwrap_or_default();
        let _room = self.large.of(bytes.unsigned_abs()).await?;
        ask!(self, read::delivery_body, id)
    }
}

#[async_trait]
impl Timeline for SqliteStore {
    async fn note(&self, event: NewEvent) -> Result<Lookup<()>, StoreError> {
        self.writer.commit(notes::Note(event)).await
    }

    async fn events(
        &self,
        job_id: JobId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Lookup<Page<Event>>, StoreError> {
        ask!(self, pages::events, job_id, after, limit)
    }

    async fn events_after(
        &self,
        seq: i64,
        job_id: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        ask!(self, pages::events_after, seq, job_id, limit)
    }

    async fn last_event(&self) -> Result<i64, StoreError> {
        ask!(self, read::last_event)
    }
}

#[async_trait]
impl Statistics for SqliteStore {
    async fn stats(&self, now: Timestamp) -> Result<Stats, StoreError> {
        ask!(self, read::stats, now)
    }

    async fn turnarounds(&self) -> Result<Vec<u64>, StoreError> {
        ask!(self, read::turnarounds)
    }
}

#[async_trait]
impl Reconciling for SqliteStore {
    async fn schedule_looks(&self, after: Duration) -> Result<(), StoreError> {
        self.writer.commit(reconcile::Schedule { after }).await
    }

    async fn expedite_stale(
        &self,
        public_url: &str,
        now: Timestamp,
    ) -> Result<Vec<JobId>, StoreError> {
        let public_url = public_url.to_owned();
        if !ask!(self, reconcile::is_any_stale, &public_url)? {
            return Ok(Vec::new());
        }
        self.writer.commit(reconcile::Expedite { public_url, now }).await
    }

    async fn claim_due(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        horizon: Duration,
        limit: u32,
    ) -> Result<Vec<DueJob>, StoreError> {
        let claim = reconcile::Claim::new(now, lease_until, horizon, limit);
        if !ask!(self, reconcile::is_any_due, &claim)? {
            return Ok(Vec::new());
        }
        self.writer.commit(claim).await
    }

    async fn postpone(&self, id: JobId, next: Next, now: Timestamp) -> Result<(), StoreError> {
        self.writer.commit(reconcile::Postpone { id, next, now }).await
    }
}

#[async_trait]
impl Relaying for SqliteStore {
    async fn claim_relays(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        under_way: Vec<(String, u32)>,
        concurrency: u32,
    ) -> Result<Vec<DueRelay>, StoreError> {
        let claim = relay::Claim { now, lease_until, under_way, concurrency };
        if ask!(self, relay::open_targets, &claim)?.is_empty() {
            return Ok(Vec::new());
        }
        self.writer.commit(claim).await
    }

    async fn record_attempt(
        &self,
        id: Uuid,
        attempt: Attempt,
        after: AfterAttempt,
    ) -> Result<(), StoreError> {
        self.writer.commit(relay::RecordAttempt { id, attempt, after }).await
    }

    async fn resend_relay(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
        let filter = RelayFilter::default();
        let order = relay::Resend { filter, id: Some(id), now, is_dry_run: false };
        Ok(self.writer.commit(order).await? > 0)
    }

    async fn resend_relays(
        &self,
        filter: RelayFilter,
        now: Timestamp,
        is_dry_run: bool,
    ) -> Result<u64, StoreError> {
        self.writer.commit(relay::Resend { filter, id: None, now, is_dry_run }).await
    }

    async fn relays(
        &self,
        filter: &RelayFilter,
        before: Option<i64>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Relay>, StoreError> {
        ask!(self, relay::list, filter, before, limit, now)
    }

    async fn relay(
        &self,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<(Relay, Vec<Attempt>)>, StoreError> {
        ask!(self, relay::show, id, now)
    }

    async fn backlog(&self, now: Timestamp) -> Result<Vec<Backlog>, StoreError> {
        ask!(self, relay::backlog, now)
    }
}

#[async_trait]
impl Mirroring for SqliteStore {
    async fn claim_mirrors(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        places: FreePlaces,
    ) -> Result<Vec<DueMirror>, StoreError> {
        if !ask!(self, mirror::is_any_due, now)? {
            return Ok(Vec::new());
        }
        let chosen = ask!(self, mirror::choose, now, places)?;
        self.writer.commit(mirror::Claim { now, lease_until, chosen }).await
    }

    async fn record_mirror(
        &self,
        place: FilePlace,
        after: AfterMirror,
        now: Timestamp,
    ) -> Result<Lookup<()>, StoreError> {
        self.writer.commit(mirror::Record { place, after, now }).await
    }

    async fn stored_copies(
        &self,
        after: Option<FilePlace>,
        limit: u32,
    ) -> Result<Vec<StoredCopy>, StoreError> {
        ask!(self, mirror::copies, after, limit)
    }

    async fn doomed_files(&self, limit: u32) -> Result<Vec<Doomed>, StoreError> {
        ask!(self, mirror::doomed, limit)
    }

    async fn forget_doomed(&self, job_id: JobId) -> Result<(), StoreError> {
        self.writer.commit(mirror::Forget { job_id }).await
    }
}

#[async_trait]
impl Erasing for SqliteStore {
    async fn erase_batch(
        &self,
        target: &EraseTarget,
        now: Timestamp,
    ) -> Result<Lookup<ErasedBatch>, StoreError> {
        self.writer.commit(erase::Erase { target: target.clone(), now }).await
    }

    async fn finish_erasure(&self) -> Result<(), StoreError> {
        let Some(batch) = ask!(self, erase::unfinished)? else { return Ok(()) };
        scrub::scrub(&self.readers, &self.writer).await?;
        erase::empty_log(&self.checkpointer).await?;
        self.writer.commit(erase::Finish { batch }).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn probe(&self, now: Timestamp) -> Result<(), StoreError> {
        self.writer.commit(notes::Probe { now }).await
    }

    async fn close(&self) {
        self.readers.close().await;
        self.checkpointer.close().await;
        self.closing.cancel();
    }
}
