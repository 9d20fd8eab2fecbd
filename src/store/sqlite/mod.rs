//! The SQLite store: one connection that writes, a pool that reads, one process.
//!
//! Opened by `app`; everyone else sees `dyn Store`. The invariant: the write connection commits with
//! `synchronous=FULL` on a write-ahead log, which is read back before the store is handed out.

mod erase;
mod read;
mod receive;
mod rows;
mod spooled;
mod submit;
mod writer;

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{TryStreamExt, stream, stream::BoxStream};
use jiff::Timestamp;
use serde_json::json;
use sqlx::{
    Connection, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::writer::{UseCase, Writer};
use super::{
    Arrival, Begun, EngineAnswer, EraseTarget, Lookup, NewSubmission, Receipt, SpoolMark, Spooled,
    Stats, Store, StoreError, StoredResult,
};
use crate::domain::{
    delivery::Delivery,
    event::{Event, EventType, NewEvent},
    ids::{DeliveryId, JobId},
    job::Job,
    page::{JobFilter, JobPage, MAX_LIMIT, Position},
};

/// Embedded, so that the binary brings its schema along.
static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Readers beside the writer: more than cores, since each waits for its thread in between.
const READERS: u32 = 4;

/// How long a statement waits for another process (a backup, an administrator) to let go.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long emptying the log waits at a time: writers wait with it.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(20);

/// Prepared statements kept by the writer: each batch size has its own text.
const WRITER_STATEMENTS: usize = 1_024;

/// Why a database cannot be opened; each is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("database {0} is in use by another finishline: one process at a time")]
    InUse(PathBuf),
    #[error("database {0} was written by a newer finishline (schema {1}): start that one")]
    Newer(PathBuf, i64),
    #[error("database {0} cannot be opened: {1}")]
    Unusable(PathBuf, String),
}

/// See the module. Dropping it without [`Store::close`] loses nothing that was answered.
pub struct SqliteStore {
    writer: Writer,
    readers: SqlitePool,
    checkpointer: SqlitePool,
    closing: CancellationToken,
    signing_key: [u8; 32],
    spool_mark: Option<SpoolMark>,
    /// Held while the store is open.
    _lock: File,
}

impl SqliteStore {
    /// Opens the database file, making it if there is none, brings its schema up to date, and
    /// marks submissions that a crash interrupted as `unconfirmed`. The task answered is the
    /// writer's: when it ends, the store is closed.
    pub async fn open(path: &Path, now: Timestamp) -> Result<(Self, JoinHandle<()>), OpenError> {
        let unusable =
            |error: &dyn std::fmt::Display| OpenError::Unusable(path.to_owned(), error.to_string());
        let lock = lock(path)?;
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
        let mut connection = connect(&writing).await.map_err(|error| unusable(&error))?;
        migrate(&mut connection, path).await?;
        let signing_key =
            signing_key(&mut connection, now).await.map_err(|error| unusable(&error))?;
        let spool_mark = spooled::mark(&mut connection).await.map_err(|error| unusable(&error))?;
        let interrupted = settle(&mut connection, now).await.map_err(|error| unusable(&error))?;
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
        let (writer, task) = Writer::start(connection, writing, closing.clone());
        let store =
            Self { writer, readers, checkpointer, closing, signing_key, spool_mark, _lock: lock };
        Ok((store, task))
    }
}

/// Creates the file readable by its owner alone, and takes it for this process.
fn lock(path: &Path) -> Result<File, OpenError> {
    let unusable = |error: std::io::Error| OpenError::Unusable(path.to_owned(), error.to_string());
    let mut private = OpenOptions::new();
    private.create(true).truncate(false).write(true).mode(0o600);
    private.open(path).map_err(unusable)?;
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push("-lock");
    let lock = private.open(lock_path).map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(unusable(error)),
    }
}

async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenError> {
    MIGRATIONS.run(connection).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            OpenError::Newer(path.to_owned(), version)
        }
        other => OpenError::Unusable(path.to_owned(), other.to_string()),
    })
}

/// A connection for the writer.
async fn connect(options: &SqliteConnectOptions) -> sqlx::Result<SqliteConnection> {
    let mut connection = SqliteConnection::connect_with(options).await?;
    prove_durable(&mut connection).await?;
    Ok(connection)
}

/// A pragma that did not take effect says so only when it is read back.
async fn prove_durable(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    let journal: String =
        sqlx::query_scalar("pragma journal_mode").fetch_one(&mut *connection).await?;
    let synchronous: i64 =
        sqlx::query_scalar("pragma synchronous").fetch_one(&mut *connection).await?;
    const FULL: i64 = 2;
    if journal != "wal" || synchronous != FULL {
        let found = format!("journal_mode={journal}, synchronous={synchronous}");
        return Err(sqlx::Error::Configuration(
            format!("it does not commit durably ({found} instead of wal, {FULL})").into(),
        ));
    }
    Ok(())
}

async fn signing_key(connection: &mut SqliteConnection, now: Timestamp) -> sqlx::Result<[u8; 32]> {
    let fresh: [u8; 32] = rand::random();
    sqlx::query(
        "insert into instance (id, signing_key, created_at, probed_at) values (1, ?1, ?2, ?2)
         on conflict (id) do nothing",
    )
    .bind(&fresh[..])
    .bind(now.as_millisecond())
    .execute(&mut *connection)
    .await?;
    let row = sqlx::query("select signing_key from instance").fetch_one(connection).await?;
    rows::digest(&row, "signing_key")
}

async fn settle(connection: &mut SqliteConnection, now: Timestamp) -> sqlx::Result<usize> {
    let mut transaction = connection.begin_with("begin immediate").await?;
    let interrupted = submit::settle_interrupted(&mut transaction, now).await?;
    transaction.commit().await?;
    Ok(interrupted)
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

    async fn receive(&self, arrival: Arrival) -> Result<Receipt, StoreError> {
        self.writer.receive(arrival).await
    }

    fn spool_mark(&self) -> Option<SpoolMark> {
        self.spool_mark
    }

    async fn receive_spooled(&self, spooled: Spooled) -> Result<Option<Receipt>, StoreError> {
        self.writer.commit(spooled).await
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
                gone => return Ok(gone),
            }
        }
        if erased > 0 {
            erase::empty_log(&self.checkpointer).await?;
        }
        Ok(Lookup::Found(erased))
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

    async fn stats(&self, now: Timestamp) -> Result<Stats, StoreError> {
        ask!(self, read::stats, now)
    }

    async fn close(&self) {
        self.readers.close().await;
        self.checkpointer.close().await;
        self.closing.cancel();
    }
}
