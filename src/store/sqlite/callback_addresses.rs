//! What is on record about callback addresses.

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{SqliteStore, read};
use crate::{
    domain::{
        callback_address::AddressRecord,
        ids::JobId,
        signing_keys::{KeyNumber, SigningKeys},
        time::from_millis,
    },
    store::{CallbackAddresses, Lookup, StoreError},
};

#[async_trait]
impl CallbackAddresses for SqliteStore {
    fn signing_keys(&self) -> &SigningKeys {
        &self.signing_keys
    }

    async fn callback_address(&self, id: JobId) -> Result<Lookup<AddressRecord>, StoreError> {
        self.read(async |connection| address(connection, id).await).await
    }
}

/// What is on record of a job's callback address.
pub(super) async fn address(
    connection: &mut SqliteConnection,
    id: JobId,
) -> sqlx::Result<Lookup<AddressRecord>> {
    let row = sqlx::query("select finished_at, key_number, earlier_keys from jobs where id = ?")
        .bind(id.0)
        .fetch_optional(&mut *connection)
        .await?;
    match row {
        Some(row) => record(&row).map(Lookup::Found),
        None => read::missing(connection, id).await,
    }
}

/// The columns `finished_at`, `key_number` and `earlier_keys` of a job.
pub(super) fn record(row: &SqliteRow) -> sqlx::Result<AddressRecord> {
    let earlier: &str = row.try_get("earlier_keys")?;
    let earlier_keys = serde_json::from_str(earlier).map_err(|error| {
        sqlx::Error::ColumnDecode { index: "earlier_keys".into(), source: Box::new(error) }
    })?;
    Ok(AddressRecord {
        finished_at: row.try_get::<Option<i64>, _>("finished_at")?.map(from_millis),
        key: KeyNumber(row.try_get("key_number")?),
        earlier_keys,
    })
}
