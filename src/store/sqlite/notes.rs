//! Small notes that change no job: a body too large to be kept, a write for its own sake.
//!
//! Carried out by the writer. The invariant: none is made for a job that has been erased.

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use sqlx::SqliteConnection;

use super::{keys, read, rows, writer::UseCase};
use crate::{
    domain::{
        callback_address::Standing,
        delivery::MAX_OVERSIZE_EVENTS,
        event::{EventType, NewEvent},
        ids::JobId,
    },
    store::Lookup,
};

/// That a body was too large to be kept.
pub(super) struct RecordOversize {
    pub id: JobId,
    pub limit_bytes: usize,
    pub now: Timestamp,
}

#[async_trait]
impl UseCase for RecordOversize {
    type Output = Lookup<Standing>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Lookup<Standing>> {
        match keys::address(connection, self.id).await? {
            Lookup::Erased => return Ok(Lookup::Erased),
            Lookup::Found(record) if record.standing_at(self.now) != Standing::Valid => {
                return Ok(Lookup::Found(Standing::Ended));
            }
            Lookup::Found(_) | Lookup::Missing => {}
        }
        if self.count(connection).await? <= i64::from(MAX_OVERSIZE_EVENTS) {
            let event = NewEvent::new(self.id, EventType::DeliveryOversize, self.now)
                .with(json!({ "limitBytes": self.limit_bytes }));
            rows::insert_events(connection, &[event]).await?;
        }
        Ok(Lookup::Found(Standing::Valid))
    }
}

impl RecordOversize {
    /// How many there were with this one. For a job that is not on record its events are counted:
    /// it has no others.
    async fn count(&self, connection: &mut SqliteConnection) -> sqlx::Result<i64> {
        let counted = sqlx::query_scalar(
            "update jobs set oversize_count = oversize_count + 1 where id = ?
             returning oversize_count",
        )
        .bind(self.id.0)
        .fetch_optional(&mut *connection)
        .await?;
        match counted {
            Some(count) => Ok(count),
            None => {
                sqlx::query_scalar(
                    "select count(*) + 1 from (select 1 from events where job_id = ? limit ?)",
                )
                .bind(self.id.0)
                .bind(MAX_OVERSIZE_EVENTS)
                .fetch_one(connection)
                .await
            }
        }
    }
}

/// An event that changes nothing else.
pub(super) struct Note(pub NewEvent);

#[async_trait]
impl UseCase for Note {
    type Output = Lookup<()>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Lookup<()>> {
        let known: bool = sqlx::query_scalar("select exists (select 1 from jobs where id = ?)")
            .bind(self.0.job_id.0)
            .fetch_one(&mut *connection)
            .await?;
        if !known {
            return read::missing(connection, self.0.job_id).await;
        }
        rows::insert_events(connection, std::slice::from_ref(&self.0)).await?;
        Ok(Lookup::Found(()))
    }
}

/// That the database takes writes.
pub(super) struct Probe {
    pub now: Timestamp,
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
