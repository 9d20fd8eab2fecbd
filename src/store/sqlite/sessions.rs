//! Sessions that were signed out.
//!
//! Read when the database is opened, written by the writer. The table stays small: each sign-out
//! deletes those of sessions that have expired.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{Row, SqliteConnection};

use super::{SqliteStore, use_case::UseCase};
use crate::store::{SignOuts, SignedOut, StoreError};

#[async_trait]
impl SignOuts for SqliteStore {
    async fn signed_out(&self) -> Result<Vec<SignedOut>, StoreError> {
        self.read(signed_out).await
    }

    async fn sign_out(&self, session: SignedOut, now: Timestamp) -> Result<(), StoreError> {
        self.write(SignOut { session, now }).await
    }
}

struct SignOut {
    session: SignedOut,
    now: Timestamp,
}

#[async_trait]
impl UseCase for SignOut {
    type Output = ();

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        sqlx::query("delete from sign_outs where ends_at <= ?")
            .bind(self.now.as_millisecond())
            .execute(&mut *connection)
            .await?;
        sqlx::query(
            "insert into sign_outs (session, ends_at) values (?, ?)
             on conflict (session) do nothing",
        )
        .bind(&self.session.session[..])
        .bind(self.session.ends_at.as_millisecond())
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// The sign-outs on record; expired ones are deleted with the next sign-out.
async fn signed_out(connection: &mut SqliteConnection) -> sqlx::Result<Vec<SignedOut>> {
    let rows = sqlx::query("select session, ends_at from sign_outs").fetch_all(connection).await?;
    let read = |row: &sqlx::sqlite::SqliteRow| {
        let session: Vec<u8> = row.try_get("session")?;
        let session = session.try_into().map_err(|_| sqlx::Error::RowNotFound)?;
        let ends_at = Timestamp::from_millisecond(row.try_get("ends_at")?);
        let ends_at = ends_at.map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(SignedOut { session, ends_at })
    };
    rows.iter().map(read).collect()
}
