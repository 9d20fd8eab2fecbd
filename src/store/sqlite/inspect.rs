//! Checks a database from outside: a backup that is to be trusted, or the service's own file.
//!
//! Called by `finishline restore-check` and `check`. Invariants: an inspected file is not changed,
//! and nothing is left next to it; no schema is migrated here.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use futures_util::TryStreamExt;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteSynchronous};

use super::{
    open::{self, OpenError, lock, schema_version},
    rows,
};
use crate::domain::ids::DeliveryId;

/// How many findings of each kind of damage are named, and requested from `integrity_check`.
const MAX_NAMED: usize = 10;

/// The contents of a file that can be read as a finishline's database.
#[derive(Debug)]
pub struct Inspection {
    pub bytes: u64,
    /// At most [`schema_version`]; a lower one is migrated when the service opens it.
    pub schema: i64,
    pub has_signing_key: bool,
    /// Jobs by status.
    pub jobs: Vec<(String, u64)>,
    pub deliveries: u64,
    pub body_bytes: u64,
    /// Deliveries whose body is missing or is not what its digest says.
    pub wrong_bodies: u64,
    /// The first of them.
    pub first_wrong_bodies: Vec<DeliveryId>,
}

/// Why a file is no database that could be restored; each is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("there is no file {0}")]
    Missing(PathBuf),
    #[error(
        "{0} holds changes that are not in the database yet: this is a service's own database, not \
         a backup; make one of it with `finishline backup` and check that"
    )]
    Unfinished(PathBuf),
    #[error("{0} is not a SQLite database, or only a part of one: {1}")]
    NotADatabase(PathBuf, String),
    #[error("{0} is a SQLite database, but not a finishline's")]
    NotOurs(PathBuf),
    #[error(
        "{0} was written by a newer finishline (schema {1}): check and restore it with that one"
    )]
    Newer(PathBuf, i64),
    #[error("{0} is damaged, use another backup: {1}")]
    Damaged(PathBuf, String),
}

/// Reads a database file that no service has open, down to the last byte of every delivery.
///
/// # Errors
/// The file cannot be restored; the error says why, for the operator.
pub async fn inspect(file: &Path) -> Result<Inspection, InspectError> {
    let not_a_database =
        |error: sqlx::Error| InspectError::NotADatabase(file.to_owned(), error.to_string());
    let damaged = |error: sqlx::Error| InspectError::Damaged(file.to_owned(), error.to_string());
    let metadata = file.metadata().ok().filter(|metadata| metadata.is_file());
    let bytes = metadata.ok_or_else(|| InspectError::Missing(file.to_owned()))?.len();
    for suffix in ["-wal", "-journal"] {
        let log = beside(file, suffix);
        if log.metadata().is_ok_and(|metadata| metadata.len() > 0) {
            return Err(InspectError::Unfinished(log));
        }
    }
    let opened = File::open(file)
        .map_err(|error| InspectError::NotADatabase(file.to_owned(), error.to_string()))?;
    // Immutable: neither locks nor shared memory nor a log are created.
    let options = open::any()
        .filename(open::utf8_name(file, &opened))
        .read_only(true)
        .immutable(true)
        // A body may be large: hold one in memory at a time, not fifty.
        .row_buffer_size(1);
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(not_a_database)?;
    let schema = schema(&mut connection).await.map_err(not_a_database)?;
    match schema {
        None => return Err(InspectError::NotOurs(file.to_owned())),
        Some(newer) if newer > schema_version() => {
            return Err(InspectError::Newer(file.to_owned(), newer));
        }
        Some(_) => {}
    }
    let found = damage(&mut connection).await.map_err(damaged)?;
    if !found.is_empty() {
        return Err(InspectError::Damaged(file.to_owned(), found.join("; ")));
    }
    let mut inspection = count(&mut connection).await.map_err(damaged)?;
    inspection.bytes = bytes;
    inspection.schema = schema.unwrap_or_default();
    compare_bodies(&mut connection, &mut inspection).await.map_err(damaged)?;
    connection.close().await.map_err(damaged)?;
    Ok(inspection)
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The newest migration on record; `None` if this is no database of ours.
pub(super) async fn schema(connection: &mut SqliteConnection) -> sqlx::Result<Option<i64>> {
    let tables: i64 = sqlx::query_scalar(
        "select count(*) from sqlite_master
         where type = 'table' and name in ('_sqlx_migrations', 'instance', 'jobs')",
    )
    .fetch_one(&mut *connection)
    .await?;
    const ALL: i64 = 3;
    if tables != ALL {
        return Ok(None);
    }
    sqlx::query_scalar("select max(version) from _sqlx_migrations").fetch_one(connection).await
}

/// Whether there are tables besides the list of migrations, which is created first.
async fn has_tables(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "select exists (select 1 from sqlite_master
         where type = 'table' and name not in ('_sqlx_migrations', 'sqlite_sequence'))",
    )
    .fetch_one(connection)
    .await
}

async fn damage(connection: &mut SqliteConnection) -> sqlx::Result<Vec<String>> {
    let mut found: Vec<String> =
        sqlx::query_scalar("pragma integrity_check(10)").fetch_all(&mut *connection).await?;
    found.retain(|line| line != "ok");
    let orphans = sqlx::query("pragma foreign_key_check").fetch_all(connection).await?;
    for row in orphans.iter().take(MAX_NAMED) {
        let (table, parent): (String, String) = (row.try_get("table")?, row.try_get("parent")?);
        found.push(format!("a row of {table} refers to none of {parent}"));
    }
    Ok(found)
}

async fn count(connection: &mut SqliteConnection) -> sqlx::Result<Inspection> {
    let statuses = "select status, count(*) as jobs from jobs group by status order by status";
    let mut jobs = Vec::new();
    for row in sqlx::query(statuses).fetch_all(&mut *connection).await? {
        jobs.push((row.try_get("status")?, row.try_get::<i64, _>("jobs")?.unsigned_abs()));
    }
    let (deliveries, body_bytes): (i64, i64) =
        sqlx::query_as("select count(*), coalesce(sum(size_bytes), 0) from deliveries")
            .fetch_one(&mut *connection)
            .await?;
    Ok(Inspection {
        bytes: 0,
        schema: 0,
        has_signing_key: signing_key(connection).await?.is_some(),
        jobs,
        deliveries: deliveries.unsigned_abs(),
        body_bytes: body_bytes.unsigned_abs(),
        wrong_bodies: 0,
        first_wrong_bodies: Vec::new(),
    })
}

async fn signing_key(connection: &mut SqliteConnection) -> sqlx::Result<Option<[u8; 32]>> {
    let row = sqlx::query("select signing_key from instance").fetch_optional(connection).await?;
    row.map(|row| rows::digest(&row, "signing_key")).transpose()
}

async fn compare_bodies(
    connection: &mut SqliteConnection,
    inspection: &mut Inspection,
) -> sqlx::Result<()> {
    let mut deliveries = sqlx::query(
        "select deliveries.id, deliveries.sha256, deliveries.size_bytes, delivery_bodies.body
         from deliveries
         left join delivery_bodies on delivery_bodies.delivery_seq = deliveries.seq
         order by deliveries.seq",
    )
    .fetch(connection);
    while let Some(row) = deliveries.try_next().await? {
        let size: i64 = row.try_get("size_bytes")?;
        let digest = rows::digest(&row, "sha256")?;
        let body: Option<&[u8]> = row.try_get("body")?;
        let is_right = body.is_some_and(|body| {
            body.len() as u64 == size.unsigned_abs() && Sha256::digest(body)[..] == digest
        });
        if !is_right {
            inspection.wrong_bodies += 1;
            if inspection.first_wrong_bodies.len() < MAX_NAMED {
                inspection.first_wrong_bodies.push(DeliveryId(row.try_get("id")?));
            }
        }
    }
    Ok(())
}

/// What `check` needs to know of the service's own database.
#[derive(Debug)]
pub struct Checkup {
    /// Whether a service has it open; then it was only read.
    pub is_in_use: bool,
    pub schema: i64,
    /// `None` if the first start did not get that far.
    pub signing_key: Option<[u8; 32]>,
}

/// Checks the service's own database: only reads it while a service has it open, otherwise makes a
/// real write too. The schema is left as it is. `None` if there is no database.
///
/// # Errors
/// The database cannot be used by this program; the error says why, for the operator.
pub async fn check_up(path: &Path, now: Timestamp) -> Result<Option<Checkup>, OpenError> {
    if !path.exists() {
        return Ok(None);
    }
    let lock = match lock(path) {
        Ok(lock) => Some(lock),
        Err(OpenError::InUse(_)) => None,
        Err(error) => return Err(error),
    };
    let unusable = |error: sqlx::Error| OpenError::Unusable(path.to_owned(), error.to_string());
    let options =
        open::any().filename(path).read_only(lock.is_none()).synchronous(SqliteSynchronous::Full);
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(unusable)?;
    let found = schema(&mut connection).await.map_err(unusable)?;
    let checkup = match found {
        None if has_tables(&mut connection).await.map_err(unusable)? => {
            let reason = "it holds tables of something else: name another file in database.url";
            return Err(OpenError::Unusable(path.to_owned(), reason.to_owned()));
        }
        // A first start that broke off leaves an empty file; the next one continues from there.
        None => Checkup { is_in_use: lock.is_none(), schema: 0, signing_key: None },
        Some(newer) if newer > schema_version() => {
            return Err(OpenError::Newer(path.to_owned(), newer));
        }
        Some(schema) => {
            if lock.is_some() {
                sqlx::query("update instance set probed_at = ?")
                    .bind(now.as_millisecond())
                    .execute(&mut connection)
                    .await
                    .map_err(unusable)?;
            }
            let signing_key = signing_key(&mut connection).await.map_err(unusable)?;
            Checkup { is_in_use: lock.is_none(), schema, signing_key }
        }
    };
    connection.close().await.map_err(unusable)?;
    Ok(Some(checkup))
}
