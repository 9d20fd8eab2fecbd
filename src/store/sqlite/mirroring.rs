//! Copying outputs: which orders are due, their attempts, and the copies that are to be deleted.
//!
//! Invariants: an order is leased while it is carried out; a job is secured exactly when none of
//! its orders is open.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use serde_json::json;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{
    SqliteStore,
    mirror_orders::{self, set_secured},
    read, rows,
    use_case::UseCase,
};
use crate::{
    domain::{
        digest::hex,
        event::{EventType, NewEvent},
        ids::JobId,
        mirror::{
            AfterMirror, DueMirror, FilePlace, FreePlaces, MirroredFile, PendingFileDeletion,
            StoredCopy,
        },
        time::from_millis,
    },
    store::{Lookup, Mirroring, StoreError},
};

#[async_trait]
impl Mirroring for SqliteStore {
    async fn claim_mirrors(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        places: FreePlaces,
    ) -> Result<Vec<DueMirror>, StoreError> {
        if !self.read(async |connection| is_any_due(connection, now).await).await? {
            return Ok(Vec::new());
        }
        let chosen = self.read(async |connection| choose(connection, now, places).await).await?;
        self.write(Claim { now, lease_until, chosen }).await
    }

    async fn record_mirror(
        &self,
        place: FilePlace,
        after: AfterMirror,
        now: Timestamp,
    ) -> Result<Lookup<()>, StoreError> {
        self.write(Record { place, after, now }).await
    }

    async fn stored_copies(
        &self,
        after: Option<FilePlace>,
        limit: u32,
    ) -> Result<Vec<StoredCopy>, StoreError> {
        self.read(async |connection| mirror_orders::copies(connection, after, limit).await).await
    }

    async fn pending_file_deletions(
        &self,
        limit: u32,
    ) -> Result<Vec<PendingFileDeletion>, StoreError> {
        self.read(async |connection| pending_file_deletions(connection, limit).await).await
    }

    async fn finish_file_deletion(&self, job_id: JobId) -> Result<(), StoreError> {
        self.write(FinishFileDeletion { job_id }).await
    }
}

const IS_DUE: &str =
    "state = 'pending' and next_attempt_at <= ?1 and coalesce(leased_until, 0) <= ?1";

pub(super) async fn is_any_due(
    connection: &mut SqliteConnection,
    now: Timestamp,
) -> sqlx::Result<bool> {
    let sql = format!("select exists (select 1 from mirrors where {IS_DUE})");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(now.as_millisecond())
        .fetch_one(connection)
        .await
}

/// Chooses the orders, by job and position, that are due and find a free place. Those whose links
/// expire soonest come first; those of a host without a free place are skipped.
pub(super) async fn choose(
    connection: &mut SqliteConnection,
    now: Timestamp,
    mut places: FreePlaces,
) -> sqlx::Result<Vec<(i64, i64)>> {
    // Rows come in the order of the index, and are read only until all places are taken.
    let sql = format!(
        "select job_seq, position, url
         from mirrors indexed by mirrors_by_end cross join job_outputs using (job_seq, position)
         where {IS_DUE}
         order by coalesce(expires_at, next_attempt_at + 3600000), job_seq, position"
    );
    let mut chosen = Vec::new();
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(now.as_millisecond());
    let mut due = query.fetch(connection);
    while places.all > 0
        && let Some(row) = due.try_next().await?
    {
        let url: Option<String> = row.try_get("url")?;
        if places.take(url.as_deref().unwrap_or_default()) {
            chosen.push((row.try_get("job_seq")?, row.try_get("position")?));
        }
    }
    Ok(chosen)
}

/// Leases the chosen orders, except those that changed meanwhile.
pub(super) struct Claim {
    pub now: Timestamp,
    pub lease_until: Timestamp,
    /// By job and position.
    pub chosen: Vec<(i64, i64)>,
}

#[async_trait]
impl UseCase for Claim {
    type Output = Vec<DueMirror>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Vec<DueMirror>> {
        let sql = format!(
            "update mirrors set leased_until = ?2
             where job_seq = ?3 and position = ?4 and {IS_DUE}
             returning attempts"
        );
        let mut due = Vec::with_capacity(self.chosen.len());
        for (job_seq, position) in &self.chosen {
            let claimed = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.clone()))
                .bind(self.now.as_millisecond())
                .bind(self.lease_until.as_millisecond())
                .bind(job_seq)
                .bind(position)
                .fetch_optional(&mut *connection)
                .await?;
            let Some(attempts) = claimed else { continue };
            let found = sqlx::query(
                "select id, engine_job_id, name, kind, kind_index, extension, structures,
                     job_outputs.status, url, position
                 from job_outputs join jobs on jobs.seq = job_seq
                 where job_seq = ? and position = ?",
            )
            .bind(job_seq)
            .bind(position)
            .fetch_one(&mut *connection)
            .await?;
            due.push(DueMirror {
                place: FilePlace {
                    job_id: JobId(found.try_get("id")?),
                    position: found.try_get("position")?,
                },
                output: rows::output(&found)?,
                engine_job_id: found.try_get("engine_job_id")?,
                attempts,
            });
        }
        Ok(due)
    }
}

/// Records the outcome of an attempt.
pub(super) struct Record {
    pub place: FilePlace,
    pub after: AfterMirror,
    pub now: Timestamp,
}

#[async_trait]
impl UseCase for Record {
    type Output = Lookup<()>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Lookup<()>> {
        let row = sqlx::query(
            "select mirrors.job_seq, state, name from mirrors
             join jobs on jobs.seq = mirrors.job_seq
             join job_outputs on job_outputs.job_seq = mirrors.job_seq
                 and job_outputs.position = mirrors.position
             where jobs.id = ? and mirrors.position = ?",
        )
        .bind(self.place.job_id.0)
        .bind(self.place.position)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = row else { return read::missing(connection, self.place.job_id).await };
        let job_seq: i64 = row.try_get("job_seq")?;
        let name: String = row.try_get("name")?;
        // Two concurrent readers found the same damage: the copy is being made again already.
        let is_stored = row.try_get::<String, _>("state")? == "stored";
        if self.after == AfterMirror::Damaged && !is_stored {
            return Ok(Lookup::Found(()));
        }
        self.update(connection, job_seq).await?;
        let mut events = vec![self.event(&name)];
        let was_secured: Option<bool> =
            sqlx::query_scalar("select secured from jobs where seq = ?")
                .bind(job_seq)
                .fetch_one(&mut *connection)
                .await?;
        let is_secured: bool = sqlx::query_scalar(
            "select not exists (select 1 from mirrors where job_seq = ? and state <> 'stored')",
        )
        .bind(job_seq)
        .fetch_one(&mut *connection)
        .await?;
        if was_secured != Some(is_secured) {
            set_secured(connection, &[job_seq], i64::from(is_secured)).await?;
            if is_secured {
                events.push(NewEvent::new(self.place.job_id, EventType::JobSecured, self.now));
            }
        }
        rows::insert_events(connection, &events).await?;
        Ok(Lookup::Found(()))
    }
}

impl Record {
    async fn update(&self, connection: &mut SqliteConnection, job_seq: i64) -> sqlx::Result<()> {
        let mut query =
            QueryBuilder::<Sqlite>::new("update mirrors set leased_until = null, attempts = ");
        match &self.after {
            AfterMirror::Damaged => query.push("0"),
            _ => query.push("attempts + 1"),
        };
        let (state, next, reason, file) = match &self.after {
            AfterMirror::Stored(file) => ("stored", None, None, Some(file)),
            AfterMirror::Retry { at, reason } => ("pending", Some(*at), Some(&**reason), None),
            AfterMirror::Failed { reason } => ("failed", None, Some(&**reason), None),
            AfterMirror::Damaged => ("pending", Some(self.now), Some(DAMAGED), None),
        };
        query.push(", state = ").push_bind(state);
        query.push(", next_attempt_at = ").push_bind(next.map(|at| at.as_millisecond()));
        query.push(", reason = ").push_bind(reason);
        query.push(", size_bytes = ").push_bind(file.map(|file| file.bytes as i64));
        query.push(", sha256 = ").push_bind(file.map(|file| file.sha256.to_vec()));
        query.push(", content_type = ").push_bind(file.map(|file| file.content_type.clone()));
        query.push(" where job_seq = ").push_bind(job_seq);
        query.push(" and position = ").push_bind(self.place.position);
        query.build().execute(connection).await?;
        Ok(())
    }

    fn event(&self, output: &str) -> NewEvent {
        let (kind, data) = match &self.after {
            AfterMirror::Stored(MirroredFile { bytes, sha256, .. }) => (
                EventType::OutputMirrored,
                json!({ "output": output, "bytes": bytes, "sha256": hex(sha256) }),
            ),
            AfterMirror::Retry { reason, .. } => (
                EventType::OutputMirrorFailed,
                json!({ "output": output, "reason": reason, "final": false }),
            ),
            AfterMirror::Failed { reason } => (
                EventType::OutputMirrorFailed,
                json!({ "output": output, "reason": reason, "final": true }),
            ),
            AfterMirror::Damaged => (
                EventType::OutputMirrorFailed,
                json!({ "output": output, "reason": DAMAGED, "final": false }),
            ),
        };
        NewEvent::new(self.place.job_id, kind, self.now).with(data)
    }
}

const DAMAGED: &str = "the copy is not what was stored";

pub(super) async fn pending_file_deletions(
    connection: &mut SqliteConnection,
    limit: u32,
) -> sqlx::Result<Vec<PendingFileDeletion>> {
    let rows = sqlx::query("select job_id, until from doomed_files order by until limit ?")
        .bind(limit)
        .fetch_all(connection)
        .await?;
    let deletion = |row: &SqliteRow| {
        let until = from_millis(row.try_get("until")?);
        Ok(PendingFileDeletion { job_id: JobId(row.try_get("job_id")?), until })
    };
    rows.iter().map(deletion).collect()
}

/// Records that the copies of an erased job are deleted for good.
pub(super) struct FinishFileDeletion {
    pub job_id: JobId,
}

#[async_trait]
impl UseCase for FinishFileDeletion {
    type Output = ();

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        sqlx::query("delete from doomed_files where job_id = ?")
            .bind(self.job_id.0)
            .execute(connection)
            .await?;
        Ok(())
    }
}
