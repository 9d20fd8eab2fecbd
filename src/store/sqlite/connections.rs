//! Connections that are lent for one query at a time: opened when needed, kept for the next.
//!
//! Used by the store to read and to empty the write-ahead log. sqlx's own pool tests each
//! connection that comes back, which costs as much as a query. Invariant: a connection is kept only
//! after its query succeeded; one whose query failed or was abandoned is closed.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::store::StoreError;

/// Readers besides the writer: more than cores, because each waits for its thread in between.
pub(super) const READERS: u32 = 4;

/// Page cache of a reader in KiB (negative, as SQLite expects it): the inner pages of the indexes
/// of a million jobs take 2 MiB, which is all of SQLite's default.
const READER_CACHE: &str = "-4096";

/// How long one attempt to empty the log may wait; writers wait with it.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(20);

/// See the module.
pub(super) struct Connections {
    options: SqliteConnectOptions,
    most: u32,
    places: Semaphore,
    /// The one used last is on top: its cache is warm.
    idle: Mutex<Vec<SqliteConnection>>,
}

/// A lent connection, until its query is answered.
pub(super) struct Lent<'a> {
    connection: SqliteConnection,
    idle: &'a Mutex<Vec<SqliteConnection>>,
    _place: SemaphorePermit<'a>,
}

impl Connections {
    /// Read-only connections, [`READERS`] at a time.
    pub(super) fn that_read(options: &SqliteConnectOptions) -> Self {
        let options = options.clone().read_only(true).pragma("cache_size", READER_CACHE);
        Self::new(options, READERS)
    }

    /// The single connection that empties the log.
    pub(super) fn that_checkpoint(options: SqliteConnectOptions) -> Self {
        Self::new(options.busy_timeout(CHECKPOINT_TIMEOUT), 1)
    }

    /// Opens no connection yet.
    fn new(options: SqliteConnectOptions, most: u32) -> Self {
        let places = Semaphore::new(most as usize);
        Self { options, most, places, idle: Mutex::default() }
    }

    /// Lends a connection; waits while all are lent.
    pub(super) async fn lend(&self) -> Result<Lent<'_>, StoreError> {
        let place = self.places.acquire().await.map_err(|_| closed())?;
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match kept {
            Some(connection) => connection,
            None => SqliteConnection::connect_with(&self.options).await.map_err(unavailable)?,
        };
        Ok(Lent { connection, idle: &self.idle, _place: place })
    }

    /// Waits until all lent connections are back and closes them; none is lent afterwards.
    pub(super) async fn close(&self) {
        let Ok(_places) = self.places.acquire_many(self.most).await else { return };
        self.places.close();
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for connection in idle {
            if let Err(error) = connection.close().await {
                tracing::warn!(%error, "a connection that reads was not closed cleanly");
            }
        }
    }
}

impl Lent<'_> {
    /// Takes the connection back after its query; closes it if the query failed.
    pub(super) fn hand_back<T>(self, answer: sqlx::Result<T>) -> Result<T, StoreError> {
        let answer = answer.map_err(unavailable)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.connection);
        Ok(answer)
    }
}

impl Deref for Lent<'_> {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

/// A connection for the writer.
pub(super) async fn connect(options: &SqliteConnectOptions) -> sqlx::Result<SqliteConnection> {
    let mut connection = SqliteConnection::connect_with(options).await?;
    prove_durable(&mut connection).await?;
    prove_no_files(&mut connection).await?;
    Ok(connection)
}

/// That a pragma took no effect shows only when it is read back.
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

/// A SQLite built to keep temporary files on disk would write them at its first large change, or
/// fail to.
async fn prove_no_files(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    let place: i64 = sqlx::query_scalar("pragma temp_store").fetch_one(connection).await?;
    const MEMORY: i64 = 2;
    if place != MEMORY {
        return Err(sqlx::Error::Configuration(
            format!("it keeps temporary files on disk (temp_store={place} instead of {MEMORY})")
                .into(),
        ));
    }
    Ok(())
}

pub(super) fn unavailable(error: sqlx::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

pub(super) fn closed() -> StoreError {
    StoreError::Unavailable("it has been closed".into())
}
