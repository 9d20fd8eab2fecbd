//! Erasure: a job and all that belongs to it, gone from the database and its write-ahead log.
//!
//! Carried out by the writer in small batches; the log is emptied on a connection of its own, so
//! that receiving never waits for a reader. The invariant: what remains of an erased job is its id,
//! the time, and a digest that refuses its late callbacks.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, SqlitePool};

use super::{mirror, read, rows, writer::UseCase};
use crate::{
    domain::{
        event::{EventType, NewEvent},
        ids::JobId,
    },
    store::{EraseTarget, Lookup, StoreError},
};

/// Jobs of one batch: a few milliseconds of the writer's time.
pub(super) const BATCH: u32 = 64;

/// Attempts to empty the log while readers hold it, with a pause between them.
const CHECKPOINT_ATTEMPTS: u32 = 200;
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(50);

/// Erases up to [`BATCH`] jobs of a target; answers how many.
pub(super) struct Erase {
    pub target: EraseTarget,
    pub now: Timestamp,
}

#[async_trait]
impl UseCase for Erase {
    type Output = Lookup<u64>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Lookup<u64>> {
        let jobs = self.jobs(connection).await?;
        if let (EraseTarget::Job(id), true) = (&self.target, jobs.is_empty()) {
            return read::missing(connection, *id).await;
        }
        if jobs.is_empty() {
            return Ok(Lookup::Found(0));
        }
        for statement in [
            "delete from delivery_bodies where delivery_seq in
                 (select seq from deliveries where job_seq in ",
            "delete from deliveries where (job_seq in ",
            "delete from relay_attempts where relay_seq in
                 (select seq from relays where job_seq in ",
            "delete from relays where (job_seq in ",
            mirror::DOOM,
            "delete from mirrors where (job_seq in ",
            "delete from job_inputs where (job_seq in ",
            "delete from job_outputs where (job_seq in ",
            "delete from job_bodies where (job_seq in ",
            "delete from events where job_id in (select id from jobs where seq in ",
            "insert into erased_jobs (job_id, inbox_key, erased_at)
                 select id, inbox_key, 0 from jobs where (seq in ",
            "delete from jobs where (seq in ",
        ] {
            let mut query = QueryBuilder::<Sqlite>::new(statement);
            query.push("(");
            let mut list = query.separated(", ");
            for (seq, _) in &jobs {
                list.push_bind(*seq);
            }
            query.push("))");
            query.build().execute(&mut *connection).await?;
        }
        sqlx::query("update erased_jobs set erased_at = ? where erased_at = 0")
            .bind(self.now.as_millisecond())
            .execute(&mut *connection)
            .await?;
        let tombstone = |id: &JobId| NewEvent::new(*id, EventType::JobErased, self.now);
        let tombstones: Vec<_> = jobs.iter().map(|(_, id)| tombstone(id)).collect();
        rows::insert_events(connection, &tombstones).await?;
        Ok(Lookup::Found(jobs.len() as u64))
    }
}

impl Erase {
    async fn jobs(&self, connection: &mut SqliteConnection) -> sqlx::Result<Vec<(i64, JobId)>> {
        let mut query = QueryBuilder::<Sqlite>::new("select seq, id from jobs where ");
        match &self.target {
            EraseTarget::Job(id) => query.push("id = ").push_bind(id.0),
            EraseTarget::EndUser(end_user_id) => {
                query.push("end_user_id = ").push_bind(end_user_id.clone())
            }
            EraseTarget::FinishedBefore(before) => {
                query.push("finished_at < ").push_bind(before.as_millisecond())
            }
        };
        query.push(" limit ").push_bind(BATCH);
        let rows = query.build().fetch_all(connection).await?;
        rows.iter().map(|row| Ok((row.try_get("seq")?, JobId(row.try_get("id")?)))).collect()
    }
}

/// Moves the write-ahead log into the database and cuts it to nothing. Readers that hold it are
/// waited for between attempts, never within one.
pub(super) async fn empty_log(pool: &SqlitePool) -> Result<(), StoreError> {
    let unavailable = |error: sqlx::Error| StoreError::Unavailable(error.to_string());
    for _ in 0..CHECKPOINT_ATTEMPTS {
        let is_blocked: bool = sqlx::query("pragma wal_checkpoint(truncate)")
            .fetch_one(pool)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(unavailable)?;
        if !is_blocked {
            return Ok(());
        }
        tokio::time::sleep(CHECKPOINT_PAUSE).await;
    }
    Err(StoreError::Unavailable("readers hold the write-ahead log".into()))
}
