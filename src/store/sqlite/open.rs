//! Opens the database: one process, the right schema, durable commits, nothing left half done.
//!
//! Called by the store when it is opened, and by the writer when it reopens its connection.
//! Invariant: a connection that is handed out for writing commits durably.

use std::{
    fs::File,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use sqlx::{
    Connection, SqliteConnection,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{mirror_orders, relay_orders, submit};
use crate::private_files;

/// Suffixes of the database file and of the files next to it. SQLite creates its own files with the
/// database's mode.
const BESIDE: [&str; 5] = ["", "-wal", "-shm", "-journal", "-lock"];

/// Embedded, so that the binary contains its schema.
static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a statement waits for another process (a backup, an administrator) to release the
/// database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Rows that a connection's thread reads ahead: if it waited for its reader, each row would cost a
/// switch between threads.
const ROW_BUFFER: usize = 1_000;

/// Prepared statements kept by the writer: each batch size has its own text.
const WRITER_STATEMENTS: usize = 512;

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

/// Creates the file readable only by its owner, and locks it for this process.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let unusable = |error: std::io::Error| OpenError::Unusable(path.to_owned(), error.to_string());
    let mut private = private_files::options();
    private.create(true).truncate(false).write(true);
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

/// Removes other users' access to files that an older release, or a copy by hand, left readable.
pub(super) fn tighten(path: &Path) {
    for end in BESIDE {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        private_files::tighten(Path::new(&name));
    }
}

/// The options that every connection starts with.
///
/// SQLite keeps its temporary files in memory: a container may have no folder for them, and they
/// would hold patients' data. The memory of a statement or a sort is bounded by its batch.
pub(super) fn any() -> SqliteConnectOptions {
    SqliteConnectOptions::new().pragma("temp_store", "memory").busy_timeout(BUSY_TIMEOUT)
}

/// A UTF-8 name of an open file or folder, which the driver requires: the path, or its name in
/// `/proc/self/fd` if the path is not UTF-8.
pub(super) fn utf8_name(path: &Path, open: &File) -> PathBuf {
    match path.to_str() {
        Some(_) => path.to_owned(),
        None => format!("/proc/self/fd/{}", open.as_raw_fd()).into(),
    }
}

/// The options with which the service opens the database.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    any()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .row_buffer_size(ROW_BUFFER)
}

/// The same for the write connection. Deleted and overwritten bytes are zeroed, so that erased data
/// is gone.
pub(super) fn writing(options: &SqliteConnectOptions) -> SqliteConnectOptions {
    let options = options.clone().pragma("secure_delete", "on");
    options.statement_cache_capacity(WRITER_STATEMENTS)
}

/// The schema that this program writes: the number of its newest migration.
pub fn schema_version() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

pub(super) async fn migrate(
    connection: &mut SqliteConnection,
    path: &Path,
) -> Result<(), OpenError> {
    MIGRATIONS.run(connection).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            OpenError::Newer(path.to_owned(), version)
        }
        other => OpenError::Unusable(path.to_owned(), other.to_string()),
    })
}

/// Cleans up after a process that was killed: its interrupted submissions become `unconfirmed`, its
/// leases are released. Returns the number of those submissions.
pub(super) async fn recover(
    connection: &mut SqliteConnection,
    now: Timestamp,
) -> sqlx::Result<usize> {
    let mut transaction = connection.begin_with("begin immediate").await?;
    let interrupted = submit::mark_interrupted(&mut transaction, now).await?;
    relay_orders::give_back(&mut transaction).await?;
    mirror_orders::give_back(&mut transaction).await?;
    transaction.commit().await?;
    Ok(interrupted)
}
