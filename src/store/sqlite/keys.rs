//! The instance's signing keys: created, replaced, and dropped when no job needs them any more.
//!
//! Read when the store is opened; replaced by `finishline rotate-key` while no service runs.
//! Invariant: a replaced key stays on record as long as a callback signed with it may come.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    connections::connect,
    open::{self, OpenError},
    rows,
};
use crate::domain::{
    callback_address::last_end,
    signing_keys::{KeyNumber, MAX_RETIRED_KEYS, SigningKey, SigningKeys},
};

/// Why no key was made; each is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("there is no database {0}: the first start of the service makes it, with a key")]
    Missing(PathBuf),
    #[error("stop the service first: {0}")]
    Running(OpenError),
    #[error(
        "{MAX_RETIRED_KEYS} earlier keys are honoured already, which is the most: the oldest one, \
         number {0}, is that of jobs whose callbacks may still come; erase those that will never \
         finish, or wait until 7 days after the others have"
    )]
    TooMany(i64),
    #[error(transparent)]
    Open(OpenError),
}

/// What a rotation made.
#[derive(Debug)]
pub struct Rotated {
    /// Number of the new key.
    pub number: KeyNumber,
    /// Keys that are honoured for the jobs that were submitted under them.
    pub retired: Vec<KeyNumber>,
}

/// Loads the keys on record, creating the first one if there is none. Deletes keys that no job
/// needs any more.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    now: Timestamp,
) -> sqlx::Result<SigningKeys> {
    let fresh: [u8; 32] = rand::random();
    sqlx::query(
        "insert into instance (id, signing_key, created_at, probed_at) values (1, ?1, ?2, ?2)
         on conflict (id) do nothing",
    )
    .bind(&fresh[..])
    .bind(now.as_millisecond())
    .execute(&mut *connection)
    .await?;
    drop_unneeded(connection, now).await?;
    let row = sqlx::query("select signing_key, key_number as number from instance")
        .fetch_one(&mut *connection)
        .await?;
    let current = key(&row)?;
    let retired = sqlx::query("select signing_key, number from retired_keys order by number")
        .fetch_all(connection)
        .await?;
    Ok(SigningKeys { current, retired: retired.iter().map(key).collect::<sqlx::Result<_>>()? })
}

fn key(row: &SqliteRow) -> sqlx::Result<SigningKey> {
    let number = KeyNumber(row.try_get("number")?);
    Ok(SigningKey { number, bytes: rows::digest(row, "signing_key")? })
}

/// Deletes retired keys, except those of jobs that may be running or whose callback address has not
/// ended.
async fn drop_unneeded(connection: &mut SqliteConnection, now: Timestamp) -> sqlx::Result<()> {
    sqlx::query(
        "delete from retired_keys where
             not exists (select 1 from jobs
                 where status in ('submitting', 'submitted', 'unconfirmed')
                     and key_number = retired_keys.number)
             and not exists (select 1 from jobs
                 where finished_at >= ?1 and key_number = retired_keys.number)
             and not exists (select 1 from jobs, json_each(jobs.earlier_keys) as earlier
                 where earlier_keys <> '[]' and earlier.value = retired_keys.number
                     and (finished_at is null or finished_at >= ?1))",
    )
    .bind(last_end(now).as_millisecond())
    .execute(connection)
    .await?;
    Ok(())
}

/// Creates a new key, which signs from the next start on. The previous one is honoured for the jobs
/// that were submitted under it.
///
/// # Errors
/// No key is replaced: a service runs, there is no usable database, or too many keys are honoured
/// already. The error says what the operator can do.
pub async fn rotate(path: &Path, now: Timestamp) -> Result<Rotated, RotateError> {
    if !path.exists() {
        return Err(RotateError::Missing(path.to_owned()));
    }
    let lock = open::lock(path).map_err(|error| match error {
        OpenError::InUse(_) => RotateError::Running(error),
        error => RotateError::Open(error),
    })?;
    let unusable = |error: sqlx::Error| {
        RotateError::Open(OpenError::Unusable(path.to_owned(), error.to_string()))
    };
    let options = open::writing(&open::options(path));
    let mut connection = connect(&options).await.map_err(unusable)?;
    open::migrate(&mut connection, path).await.map_err(RotateError::Open)?;
    let rotated = replace(&mut connection, now).await.map_err(unusable)?;
    connection.close().await.map_err(unusable)?;
    drop(lock);
    rotated
}

async fn replace(
    connection: &mut SqliteConnection,
    now: Timestamp,
) -> sqlx::Result<Result<Rotated, RotateError>> {
    let fresh: [u8; 32] = rand::random();
    let mut transaction = connection.begin_with("begin immediate").await?;
    let replaced = load(&mut transaction, now).await?.current;
    sqlx::query("insert into retired_keys (number, signing_key, retired_at) values (?, ?, ?)")
        .bind(replaced.number.0)
        .bind(&replaced.bytes[..])
        .bind(now.as_millisecond())
        .execute(&mut *transaction)
        .await?;
    sqlx::query("update instance set signing_key = ?, key_number = key_number + 1")
        .bind(&fresh[..])
        .execute(&mut *transaction)
        .await?;
    let keys = load(&mut transaction, now).await?;
    if let Some(oldest) = keys.retired.first().filter(|_| keys.retired.len() > MAX_RETIRED_KEYS) {
        let refusal = RotateError::TooMany(oldest.number.0);
        transaction.rollback().await?;
        return Ok(Err(refusal));
    }
    transaction.commit().await?;
    let retired = keys.retired.iter().map(|key| key.number).collect();
    Ok(Ok(Rotated { number: keys.current.number, retired }))
}
