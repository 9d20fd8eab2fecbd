//! Erases jobs, and all that belongs to them, from the database and its write-ahead log.
//!
//! Executed by the writer in small batches; the log is emptied on a connection of its own, so that
//! receiving never waits for a reader. Invariant: what remains of an erased job is its id, the
//! time, and a digest that refuses its late callbacks.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{
    SqliteStore,
    connections::Connections,
    erased_rows::{Found, erase},
    read, rows, scrub,
    use_case::UseCase,
};
use crate::{
    domain::{
        event::{EventType, NewEvent},
        ids::JobId,
    },
    store::{EraseTarget, ErasedBatch, Erasing, Lookup, StoreError},
};

/// Jobs per batch: a few milliseconds of the writer's time.
const BATCH: u32 = 64;

/// Bytes per batch, unless one delivery alone is larger: each byte is overwritten with zeros, and
/// receiving waits meanwhile.
const BATCH_BYTES: u64 = 8 * 1024 * 1024;

/// Attempts to empty the log while readers hold it, with a pause between them.
const CHECKPOINT_ATTEMPTS: u32 = 200;
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(50);

#[async_trait]
impl Erasing for SqliteStore {
    async fn erase_batch(
        &self,
        target: &EraseTarget,
        now: Timestamp,
    ) -> Result<Lookup<ErasedBatch>, StoreError> {
        self.write(Erase { target: target.clone(), now }).await
    }

    async fn finish_erasure(&self) -> Result<(), StoreError> {
        let Some(batch) = self.read(async |connection| unfinished(connection).await).await? else {
            return Ok(());
        };
        scrub::scrub(&self.readers, &self.writer).await?;
        empty_log(&self.checkpointer).await?;
        self.write(Finish { batch }).await
    }
}

/// The number of the last erased batch, if bytes of it or of an earlier one may be left.
pub(super) async fn unfinished(connection: &mut SqliteConnection) -> sqlx::Result<Option<i64>> {
    let (begun, finished): (i64, i64) =
        sqlx::query_as("select erasures, erasures_finished from instance")
            .fetch_one(connection)
            .await?;
    Ok((finished < begun).then_some(begun))
}

/// Records that nothing is left of the batches up to this one.
pub(super) struct Finish {
    pub batch: i64,
}

#[async_trait]
impl UseCase for Finish {
    type Output = ();

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        sqlx::query("update instance set erasures_finished = max(erasures_finished, ?)")
            .bind(self.batch)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// Erases one batch of a target.
pub(super) struct Erase {
    pub target: EraseTarget,
    pub now: Timestamp,
}

#[async_trait]
impl UseCase for Erase {
    type Output = Lookup<ErasedBatch>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Lookup<ErasedBatch>> {
        let found = self.find(connection).await?;
        let Some(first) = found.first() else {
            return match self.target {
                EraseTarget::Job(id) => read::missing(connection, id).await,
                _ => Ok(Lookup::Found(ErasedBatch { jobs: 0, is_last: true })),
            };
        };
        sqlx::query("update instance set erasures = erasures + 1")
            .execute(&mut *connection)
            .await?;
        if first.bytes > BATCH_BYTES && erase_evidence(connection, first.seq).await? > 0 {
            return Ok(Lookup::Found(ErasedBatch { jobs: 0, is_last: false }));
        }
        let mut bytes = 0;
        let fits = |job: &&Found| {
            bytes += job.bytes;
            bytes <= BATCH_BYTES
        };
        let batch = &found[..found.iter().take_while(fits).count().max(1)];
        erase(connection, batch).await?;
        sqlx::query("update erased_jobs set erased_at = ? where erased_at = 0")
            .bind(self.now.as_millisecond())
            .execute(&mut *connection)
            .await?;
        let tombstone = |job: &Found| NewEvent::new(job.id, EventType::JobErased, self.now);
        let tombstones: Vec<_> = batch.iter().map(tombstone).collect();
        rows::insert_events(connection, &tombstones).await?;
        let is_last = batch.len() == found.len() && found.len() < BATCH as usize;
        Ok(Lookup::Found(ErasedBatch { jobs: batch.len() as u64, is_last }))
    }
}

impl Erase {
    async fn find(&self, connection: &mut SqliteConnection) -> sqlx::Result<Vec<Found>> {
        let mut query = QueryBuilder::<Sqlite>::new(
            "select seq, id, engine_job_id,
                 (select coalesce(sum(size_bytes), 0) from deliveries where job_seq = jobs.seq)
                 + coalesce((select coalesce(octet_length(request), 0)
                         + coalesce(octet_length(engine_response), 0)
                     from job_bodies where job_seq = jobs.seq), 0) as bytes
             from jobs where ",
        );
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
        let found = |row: &SqliteRow| {
            let bytes: i64 = row.try_get("bytes")?;
            let (seq, id) = (row.try_get("seq")?, JobId(row.try_get("id")?));
            let engine_job_id = row.try_get("engine_job_id")?;
            Ok(Found { seq, id, engine_job_id, bytes: bytes.unsigned_abs() })
        };
        rows.iter().map(found).collect()
    }
}

/// Deletes deliveries of a large job, except its result, up to one batch of bytes; returns how
/// many. The job itself stays until the rest fits into one batch.
async fn erase_evidence(connection: &mut SqliteConnection, job_seq: i64) -> sqlx::Result<u64> {
    let rows = sqlx::query(
        "select seq, size_bytes from deliveries where job_seq = ?1
             and seq is not (select result_delivery from jobs where seq = ?1)
         order by seq limit ?2",
    )
    .bind(job_seq)
    .bind(BATCH)
    .fetch_all(&mut *connection)
    .await?;
    let (mut count, mut bytes) = (0, 0);
    for row in &rows {
        bytes += row.try_get::<i64, _>("size_bytes")?.unsigned_abs();
        if count > 0 && bytes > BATCH_BYTES {
            break;
        }
        count += 1;
        for statement in [
            "delete from delivery_bodies where delivery_seq = ?",
            "delete from deliveries where seq = ?",
        ] {
            let seq: i64 = row.try_get("seq")?;
            sqlx::query(statement).bind(seq).execute(&mut *connection).await?;
        }
    }
    sqlx::query("update jobs set delivery_count = delivery_count - ? where seq = ?")
        .bind(count as i64)
        .bind(job_seq)
        .execute(connection)
        .await?;
    Ok(count)
}

/// Moves the write-ahead log into the database and truncates it to zero bytes. It waits for readers
/// that hold the log between attempts, not within one.
pub(super) async fn empty_log(checkpointer: &Connections) -> Result<(), StoreError> {
    // Move most of it while others can write: truncating it blocks all writers.
    checkpoint(checkpointer, "pragma wal_checkpoint(passive)").await?;
    for _ in 0..CHECKPOINT_ATTEMPTS {
        let is_blocked = checkpoint(checkpointer, "pragma wal_checkpoint(truncate)").await?;
        if !is_blocked {
            return Ok(());
        }
        tokio::time::sleep(CHECKPOINT_PAUSE).await;
    }
    Err(StoreError::Unavailable("readers hold the write-ahead log".into()))
}

/// Runs a checkpoint; returns whether other connections blocked it.
async fn checkpoint(
    checkpointer: &Connections,
    statement: &'static str,
) -> Result<bool, StoreError> {
    let mut connection = checkpointer.lend().await?;
    let row = sqlx::query(statement).fetch_one(&mut *connection).await;
    connection.hand_back(row.and_then(|row| row.try_get(0)))
}
