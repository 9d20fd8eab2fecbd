//! The SQLite store: one connection that writes, a few that read, one process.
//!
//! Opened by `app`; all other code uses `dyn Store`. Invariant: the write connection commits with
//! `synchronous=FULL` on a write-ahead log; both settings are read back before the store is
//! returned.

mod adopted;
mod answer;
pub mod backup;
mod batch_loader;
mod callback_addresses;
mod connections;
pub mod copies;
mod erased_rows;
mod erasing;
pub mod inspect;
pub mod keys;
mod large;
mod mirror_orders;
mod mirroring;
mod open;
mod pages;
mod pipeline;
#[cfg(test)]
mod plans;
mod querying;
mod read;
mod receive;
mod receiving;
mod reconciling;
mod relay_orders;
mod relaying;
mod rows;
mod scrub;
mod sessions;
mod statements;
mod statistics;
mod submissions;
mod submit;
mod timeline;
mod uploading;
mod use_case;
mod writer;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::SqliteConnection;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::open::{OpenError, schema_version};
use self::{
    batch_loader::{BatchLoader, DIGESTS, SMALL_RESULTS},
    connections::{Connections, connect},
    large::Room,
    use_case::UseCase,
    writer::{CommitHooks, Database, Writer},
};
use super::{ResultOrders, Store, StoreError, StoredResult};
use crate::{domain::signing_keys::SigningKeys, wake::Wake};

/// See the module. Dropping it without [`Store::close`] loses nothing that was answered.
pub struct SqliteStore {
    writer: Writer,
    readers: Arc<Connections>,
    small_results: BatchLoader<StoredResult>,
    digests: BatchLoader<[u8; 32]>,
    large: Room,
    checkpointer: Connections,
    closing: CancellationToken,
    signing_keys: SigningKeys,
    wake: Wake,
    orders: ResultOrders,
}

impl SqliteStore {
    /// [`Self::open_with`] without wake-up signals and without orders for results.
    ///
    /// # Errors
    /// As [`Self::open_with`].
    pub async fn open(path: &Path, now: Timestamp) -> Result<(Self, JoinHandle<()>), OpenError> {
        Self::open_with(path, now, Wake::default(), ResultOrders::default()).await
    }

    /// Opens the database file, creating it if there is none, migrates its schema, and marks
    /// submissions that a crash interrupted as `unconfirmed`. The returned task is the writer's:
    /// when it ends, the store is closed. `wake` is signalled at every commit; `orders` says what
    /// every result orders.
    ///
    /// # Errors
    /// The service cannot start on this database; the error says why, for the operator.
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
        let mut connection = connect(&writing).await.map_err(|error| unusable(&error))?;
        open::migrate(&mut connection, path).await?;
        let signing_keys =
            keys::load(&mut connection, now).await.map_err(|error| unusable(&error))?;
        let interrupted =
            open::recover(&mut connection, now).await.map_err(|error| unusable(&error))?;
        if interrupted > 0 {
            tracing::warn!(
                jobs = interrupted,
                "jobs were being submitted when the process ended; they are unconfirmed now"
            );
        }
        let readers = Arc::new(Connections::that_read(&options));
        let small_results = BatchLoader::start(&SMALL_RESULTS, &readers);
        let digests = BatchLoader::start(&DIGESTS, &readers);
        let checkpointer = Connections::that_checkpoint(options);
        let closing = CancellationToken::new();
        let database = Database { options: writing, connection: Some(connection) };
        let hooks = CommitHooks { wake: wake.clone(), orders: orders.clone(), lock };
        let (writer, task) = Writer::start(database, hooks, closing.clone());
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

impl SqliteStore {
    /// Makes a change; `Ok` once it is on disk.
    async fn write<U: UseCase>(&self, change: U) -> Result<U::Output, StoreError> {
        self.writer.commit(change).await
    }

    /// Runs a query on a read connection.
    async fn read<T>(
        &self,
        question: impl AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<T>,
    ) -> Result<T, StoreError> {
        let mut reader = self.readers.lend().await?;
        let answer = question(&mut reader).await;
        reader.hand_back(answer)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn probe(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(Probe { now }).await
    }

    async fn close(&self) {
        self.readers.close().await;
        self.checkpointer.close().await;
        self.closing.cancel();
    }
}

/// Proves that the database accepts writes.
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
