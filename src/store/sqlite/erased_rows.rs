//! Deletes all rows of a job and leaves one with its id.
//!
//! Called within a transaction of the writer.

use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::mirror_orders;
use crate::{domain::ids::JobId, store::inbox_key};

/// A job to be erased.
pub(super) struct Found {
    pub seq: i64,
    pub id: JobId,
    pub engine_job_id: Option<String>,
    /// Bytes received and sent for it.
    pub bytes: u64,
}

/// Deletes all rows of these jobs; a row with its id replaces each of them.
pub(super) async fn erase(connection: &mut SqliteConnection, jobs: &[Found]) -> sqlx::Result<()> {
    for statement in [
        "delete from delivery_bodies where delivery_seq in
             (select seq from deliveries where job_seq in ",
        "delete from deliveries where (job_seq in ",
        "delete from relay_attempts where relay_seq in
             (select seq from relays where job_seq in ",
        // The address of a job's own target; failures of other jobs' orders to it are then counted
        // from zero.
        "delete from relay_targets where target in
             (select target from relays where url is not null and job_seq in ",
        "delete from relays where (job_seq in ",
        mirror_orders::NOTE_FILE_DELETIONS,
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
        for job in jobs {
            list.push_bind(job.seq);
        }
        query.push("))");
        query.build().execute(&mut *connection).await?;
    }
    // A late result that comes to the inbox is refused too, unless that key is another job's.
    for job in jobs {
        let Some(engine_job_id) = &job.engine_job_id else { continue };
        sqlx::query(
            "update erased_jobs set inbox_key = ?1 where job_id = ?2 and inbox_key is null
                 and not exists (select 1 from erased_jobs where inbox_key = ?1)",
        )
        .bind(inbox_key(engine_job_id).to_vec())
        .bind(job.id.0)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Deletes the rows of a job whose deliveries move to another one. Its id counts as erased; its key
/// is free.
pub(super) async fn forget(
    connection: &mut SqliteConnection,
    seq: i64,
    id: JobId,
    now: Timestamp,
) -> sqlx::Result<()> {
    erase(connection, &[Found { seq, id, engine_job_id: None, bytes: 0 }]).await?;
    sqlx::query("update erased_jobs set inbox_key = null, erased_at = ? where job_id = ?")
        .bind(now.as_millisecond())
        .bind(id.0)
        .execute(connection)
        .await?;
    Ok(())
}
