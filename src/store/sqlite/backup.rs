//! An online copy of the database.
//!
//! Called by `finishline backup`, with or without a running service. Invariant: under the requested
//! name there is either nothing or a complete copy that is on disk, with everything that was
//! committed before the copy began.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use sqlx::{Connection, SqliteConnection};
use tempfile::NamedTempFile;

use super::open;

/// A copy that was made.
#[derive(Clone, Copy, Debug)]
pub struct Copied {
    pub bytes: u64,
    pub jobs: u64,
}

/// Why there is no copy; each is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{0} exists already and is left as it is: name another file")]
    Exists(PathBuf),
    #[error("there is no database at {0}: look at database.url in the settings")]
    NoDatabase(PathBuf),
    #[error("{0} cannot be written: {1}")]
    Unwritable(PathBuf, String),
    #[error("database {0} cannot be copied: {1}")]
    Unreadable(PathBuf, String),
}

/// Copies the database to a new file that only its owner can read. It reads one snapshot: writers
/// continue, and the write-ahead log grows until the copy is done.
///
/// # Errors
/// There is no copy; the error says why, for the operator.
pub async fn copy(database: &Path, target: &Path) -> Result<Copied, BackupError> {
    let unwritable =
        |error: io::Error| BackupError::Unwritable(target.to_owned(), error.to_string());
    let unreadable =
        |error: sqlx::Error| BackupError::Unreadable(database.to_owned(), error.to_string());
    if !database.exists() {
        return Err(BackupError::NoDatabase(database.to_owned()));
    }
    // Anything under that name is left alone, even a dangling link.
    if target.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(target.to_owned()));
    }
    let target = std::path::absolute(target).map_err(unwritable)?;
    let folder = target.parent().unwrap_or(Path::new("/")).to_owned();
    // In the same folder, so that it can be renamed. Made with mode 0600.
    let copy = tempfile::Builder::new().prefix(".finishline-backup-").tempfile_in(&folder);
    let copy = copy.map_err(unwritable)?;
    let opened = File::open(&folder).map_err(unwritable)?;
    let within = copy.path().file_name().unwrap_or_default();
    let reached = open::utf8_name(&folder, &opened).join(within);
    let name = reached.to_string_lossy();

    let source = open::any().filename(database).read_only(true);
    let mut connection = SqliteConnection::connect_with(&source).await.map_err(unreadable)?;
    let copied = sqlx::query("vacuum into ?").bind(name.as_ref()).execute(&mut connection).await;
    copied.map_err(unreadable)?;
    connection.close().await.map_err(unreadable)?;

    let jobs = count_jobs(&reached).await.map_err(unreadable)?;
    let kept = tokio::task::spawn_blocking(move || keep(copy, &target, &folder));
    let bytes = kept.await.map_err(io::Error::other).map_err(unwritable)??;
    Ok(Copied { bytes, jobs })
}

/// Counts the jobs in the copy itself, which proves that it can be read.
async fn count_jobs(copy: &Path) -> sqlx::Result<u64> {
    let options = open::any().filename(copy).read_only(true).immutable(true);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let jobs: i64 =
        sqlx::query_scalar("select count(*) from jobs").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(jobs.unsigned_abs())
}

/// Syncs the copy to disk and gives it its name; fails if that name was taken meanwhile.
fn keep(copy: NamedTempFile, target: &Path, folder: &Path) -> Result<u64, BackupError> {
    let unwritable =
        |error: io::Error| BackupError::Unwritable(target.to_owned(), error.to_string());
    let file = copy.as_file();
    file.sync_all().map_err(unwritable)?;
    let bytes = file.metadata().map_err(unwritable)?.len();
    copy.persist_noclobber(target).map_err(|failed| match failed.error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(target.to_owned()),
        _ => unwritable(failed.error),
    })?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(unwritable)?;
    Ok(bytes)
}
