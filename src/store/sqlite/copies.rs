//! Reads which copies are on record, with or without a running service.
//!
//! Called by `finishline verify-files`. Invariant: nothing is written, and no transaction is held
//! open while files are read.

use std::path::{Path, PathBuf};

use sqlx::{Connection, SqliteConnection, sqlite::SqliteSynchronous};

use super::{
    inspect, mirror_orders,
    open::{self, OpenError, schema_version},
};
use crate::domain::mirror::{FilePlace, StoredCopy};

/// Copies per page.
const PAGE: u32 = 256;

/// A database, read page by page.
pub struct Copies {
    path: PathBuf,
    connection: SqliteConnection,
    after: Option<FilePlace>,
}

impl Copies {
    /// Opens the database; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or does not have this program's schema; the error says why.
    pub async fn open(path: &Path) -> Result<Option<Self>, OpenError> {
        if !path.exists() {
            return Ok(None);
        }
        let unusable = |error: sqlx::Error| OpenError::Unusable(path.to_owned(), error.to_string());
        // Not opened read-only: without a running service the log has no index yet, and reading
        // creates it.
        let options = open::any()
            .filename(path)
            .create_if_missing(false)
            .synchronous(SqliteSynchronous::Full)
            .pragma("query_only", "on");
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(unusable)?;
        match inspect::schema(&mut connection).await.map_err(unusable)? {
            Some(schema) if schema == schema_version() => {}
            Some(newer) if newer > schema_version() => {
                return Err(OpenError::Newer(path.to_owned(), newer));
            }
            _ => {
                let reason = "no service of this version has been started on it yet";
                return Err(OpenError::Unusable(path.to_owned(), reason.to_owned()));
            }
        }
        Ok(Some(Self { path: path.to_owned(), connection, after: None }))
    }

    /// The next copies in a stable order; empty at the end.
    ///
    /// # Errors
    /// The database cannot be read: try again.
    pub async fn next_page(&mut self) -> Result<Vec<StoredCopy>, OpenError> {
        let page = mirror_orders::copies(&mut self.connection, self.after, PAGE).await;
        let page = page.map_err(|error| self.unusable(&error))?;
        self.after = page.last().map(|copy| copy.place).or(self.after);
        Ok(page)
    }

    /// Whether this copy is still on record: a service may have erased it, or be making it again.
    ///
    /// # Errors
    /// The database cannot be read: try again.
    pub async fn holds(&mut self, copy: &StoredCopy) -> Result<bool, OpenError> {
        let sha256 = copy.output.file.as_ref().map(|file| file.sha256.to_vec());
        sqlx::query_scalar(
            "select exists (select 1 from mirrors join jobs on jobs.seq = job_seq
                 where jobs.id = ? and position = ? and state = 'stored' and sha256 = ?)",
        )
        .bind(copy.place.job_id.0)
        .bind(copy.place.position)
        .bind(sha256)
        .fetch_one(&mut self.connection)
        .await
        .map_err(|error| self.unusable(&error))
    }

    fn unusable(&self, error: &sqlx::Error) -> OpenError {
        OpenError::Unusable(self.path.clone(), error.to_string())
    }
}
