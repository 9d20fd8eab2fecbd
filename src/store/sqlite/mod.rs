//! The SQLite store: one connection that writes, a pool that reads, one process.
//!
//! Opened by `app`; everyone else sees `dyn Store`. The invariant: the write connection commits with
//! `synchronous=FULL` on a write-ahead log, which is read back before the store is handed out.

pub mod backup;
mod erase;
pub mod inspect;
mod open;
mod read;
mod receive;
mod reconcile;
mod relay;
mod resubmit;
mod rows;
mod spooled;
mod submit;
mod writer;

use std::{collections::HashMap, path::Path, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{TryStreamExt, stream, stream::BoxStream};
use jiff::Timestamp;
use serde_json::json;
use sqlx::{
    SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::open::{OpenError, schema_version};
use self::writer::{Database, Outside, UseCase, Writer};
use super::{
    Arrival, Backlog, Begun, BegunAgain, EngineAnswer, EraseTarget, Lookup, NewSubmission, Receipt,
    SpoolMark, Spooled, Stats, Store, StoreError, StoredResult,
};
use crate::domain::{
    delivery::{Delivery, Outcome},
    event::{Event, EventType, NewEvent},
    ids::{DeliveryId, JobId},
    job::{Job, Marks},
    page::{JobFilter, JobPage, MAX_LIMIT, Position},
    reconcile::{DueJob, Next},
    relay::{AfterAttempt, Attempt, DueRelay, Relay, RelayFilter},
};
use crate::wake::Wake;

/// Readers beside the writer: more than cores, since each waits for its thread in between.
const READERS: u32 = 4;

/// How long a statement waits for another process (a backup, an administrator) to let go.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long emptying the log waits at a time: writers wait with it.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(20);

/// Prepared statements kept by the writer: each batch size has its own text.
const WRITER_STATEMENTS: usize = 1_024;

/// See the module. Dropping it without [`Store::close`] loses nothing that was answered.
pub struct SqliteStore {
    writer: Writer,
    readers: SqlitePool,
    checkpointer: SqlitePool,
    closing: CancellationToken,
    signing_key: [u8; 32],
    spool_mark: Option<SpoolMark>,
    wake: Wake,
    relay_targets: Vec<String>,
}

impl SqliteStore {
    /// [`Self::open_with`] for those who only look and write: nobody is woken, nothing passed on.
    pub async fn open(path: &Path, now: Timestamp) -> Result<(Self, JoinHandle<()>), OpenError> {
        Self::open_with(path, now, Wake::default(), Vec::new()).await
    }

    /// Opens the database file, making it if there is none, brings its schema up to date, and
    /// marks submissions that a crash interrupted as `unconfirmed`. The task answered is the
    /// writer's: when it ends, the store is closed. `wake` is told of every commit;
    /// every result is ordered to be passed on to `relay_targets`, by name.
    pub async fn open_with(
        path: &Path,
        now: Timestamp,
        wake: Wake,
        relay_targets: Vec<String>,
    ) -> Result<(Self, JoinHandle<()>), OpenError> {
        let unusable =
            |error: &dyn std::fmt::Display| OpenError::Unusable(path.to_owned(), error.to_string());
        let lock = open::lock(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writing = options
            .clone()
            // What is deleted or overwritten is zeroed: erased means erased.
            .pragma("secure_delete", "on")
            .statement_cache_capacity(WRITER_STATEMENTS);
        let mut connection = open::connect(&writing).await.map_err(|error| unusable(&error))?;
        open::migrate(&mut connection, path).await?;
        let signing_key =
            open::signing_key(&mut connection, now).await.map_err(|error| unusable(&error))?;
        let spool_mark = spooled::mark(&mut connection).await.map_err(|error| unusable(&error))?;
        let interrupted =
            open::settle(&mut connection, now).await.map_err(|error| unusable(&error))?;
        if interrupted > 0 {
            tracing::warn!(
                jobs = interrupted,
                "jobs were being submitted when the process ended; they are unconfirmed now"
            );
        }
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_lazy_with(options.clone().read_only(true));
        let checkpointer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_lazy_with(options.busy_timeout(CHECKPOINT_TIMEOUT));
        let closing = CancellationToken::new();
        let database = Database { options: writing, connection: Some(connection) };
        let outside = Outside { wake: wake.clone(), relay_targets: relay_targets.clone(), lock };
        let (writer, task) = Writer::start(database, outside, closing.clone());
        let store = Self {
            writer,
            readers,
            checkpointer,
            closing,
            signing_key,
            spool_mark,
            wake,
            relay_targets,
        };
        Ok((store, task))
    }
}

struct RecordOversize {
    id: JobId,
    limit_bytes: usize,
    now: Timestamp,
}

#[async_trait]
impl UseCase for RecordOversize {
    type Output = Lookup<()>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Lookup<()>> {
        if let Lookup::Erased = read::missing::<()>(connection, self.id).await? {
            return Ok(Lookup::Erased);
        }
        let event = NewEvent::new(self.id, EventType::DeliveryOversize, self.now)
            .with(json!({ "limitBytes": self.limit_bytes }));
        rows::insert_events(connection, &[event]).await?;
        Ok(Lookup::Found(()))
    }
}

struct Probe {
    now: Timestamp,
}

#[async_trait]
impl UseCase for Probe {
    type Output = ();

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        sqlx::query("update instance set probed_at = ?")
            .bind(self.now.as_millisecond())
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// Runs a question on a reader's connection.
macro_rules! ask {
    ($self:ident, $question:path $(, $argument:expr)*) => {{
        let mut connection = $self.readers.acquire().await.map_err(unavailable)?;
        $question(&mut connection $(, $argument)*).await.map_err(unavailable)
    }};
}

fn unavailable(error: sqlx::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

#[async_trait]
impl Store for SqliteStore {
    fn signing_key(&self) -> [u8; 32] {
        self.signing_key
    }

    async fn begin_submission(&self, submission: NewSubmission) -> Result<Begun, StoreError> {
        self.writer.commit(submission).await
    }

    async fn record_answer(
        &self,
        id: JobId,
        answer: EngineAnswer,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError> {
        self.writer.commit(submit::RecordAnswer { id, answer, now }).await
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

    async fn receive(&self, arrival: Arrival) -> Result<Receipt, StoreError> {
        self.writer.receive(arrival).await
    }

    fn spool_mark(&self) -> Option<SpoolMark> {
        self.spool_mark
    }

    async fn receive_spooled(&self, spooled: Spooled) -> Result<Option<Receipt>, StoreError> {
        let relay_targets = self.relay_targets.clone();
        let receipt = self.writer.commit(spooled::TakeIn { spooled, relay_targets }).await?;
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
    ) -> Result<Lookup<()>, StoreError> {
        self.writer.commit(RecordOversize { id, limit_bytes, now }).await
    }

    async fn erase(&self, target: EraseTarget, now: Timestamp) -> Result<Lookup<u64>, StoreError> {
        let mut erased = 0;
        loop {
            let batch = erase::Erase { target: target.clone(), now };
            match self.writer.commit(batch).await? {
                Lookup::Found(count) => {
                    erased += count;
                    if count < u64::from(erase::BATCH) {
                        break;
                    }
                }
                gone => {
                    // An earlier call may have been refused while readers held the log.
                    erase::empty_log(&self.checkpointer).await?;
                    return Ok(gone);
                }
            }
        }
        erase::empty_log(&self.checkpointer).await?;
        Ok(Lookup::Found(erased))
    }

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

    async fn turnarounds(&self) -> Result<Vec<u64>, StoreError> {
        ask!(self, read::turnarounds)
    }

    async fn claim_relays(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        under_way: Vec<(String, u32)>,
        concurrency: u32,
    ) -> Result<Vec<DueRelay>, StoreError> {
        if ask!(self, relay::due_targets, now)?.is_empty() {
            return Ok(Vec::new());
        }
        self.writer.commit(relay::Claim { now, lease_until, under_way, concurrency }).await
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

    async fn probe(&self, now: Timestamp) -> Result<(), StoreError> {
        self.writer.commit(Probe { now }).await
    }

    async fn job(&self, id: JobId) -> Result<Lookup<Job>, StoreError> {
        ask!(self, read::job, id)
    }

    async fn jobs(
        &self,
        filter: &JobFilter,
        after: Option<Position>,
        limit: u32,
    ) -> Result<JobPage, StoreError> {
        ask!(self, read::jobs, filter, after, limit)
    }

    async fn marks(
        &self,
        ids: &[JobId],
        public_url: Option<&str>,
    ) -> Result<HashMap<JobId, Marks>, StoreError> {
        ask!(self, read::marks, ids, public_url)
    }

    fn all_jobs(&self, filter: JobFilter) -> BoxStream<'static, Result<Job, StoreError>> {
        let readers = self.readers.clone();
        let pages = stream::try_unfold((filter, None, false), move |(filter, after, is_done)| {
            let readers = readers.clone();
            async move {
                if is_done {
                    return Ok(None);
                }
                let mut connection = readers.acquire().await.map_err(unavailable)?;
                let page = read::jobs(&mut connection, &filter, after, MAX_LIMIT)
                    .await
                    .map_err(unavailable)?;
                let jobs = stream::iter(page.jobs.into_iter().map(Ok));
                Ok(Some((jobs, (filter, page.next, page.next.is_none()))))
            }
        });
        Box::pin(pages.try_flatten())
    }

    async fn result(&self, id: JobId) -> Result<Lookup<Option<StoredResult>>, StoreError> {
        ask!(self, read::result, id)
    }

    async fn deliveries(&self, job_id: JobId) -> Result<Lookup<Vec<Delivery>>, StoreError> {
        ask!(self, read::deliveries, job_id)
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        ask!(self, read::delivery, id)
    }

    async fn delivery_body(&self, id: DeliveryId) -> Result<Option<Bytes>, StoreError> {
        ask!(self, read::delivery_body, id)
    }

    async fn events(&self, job_id: JobId) -> Result<Lookup<Vec<Event>>, StoreError> {
        ask!(self, read::events, job_id)
    }

    async fn events_after(
        &self,
        seq: i64,
        job_id: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        ask!(self, read::events_after, seq, job_id, limit)
    }

    async fn last_event(&self) -> Result<i64, StoreError> {
        ask!(self, read::last_event)
    }

    async fn stats(&self, now: Timestamp) -> Result<Stats, StoreError> {
        ask!(self, read::stats, now)
    }

    async fn close(&self) {
        self.readers.close().await;
        self.checkpointer.close().await;
        self.closing.cancel();
    }
}
