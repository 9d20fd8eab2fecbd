//! Orders to copy outputs, the copies, and those that are to be deleted again.
//!
//! Called by the writer within its transaction, and through the readers. The invariants: an order
//! is leased while it is carried out; a job is secured exactly when none of its orders is open.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use serde_json::json;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{read, rows, writer::UseCase};
use crate::{
    domain::{
        digest::hex,
        event::{EventType, NewEvent},
        ids::JobId,
        job::Output,
        link,
        mirror::{
            self, AfterMirror, Doomed, DueMirror, FilePlace, FreePlaces, MirroredFile, StoredCopy,
        },
        time::from_millis,
    },
    store::Lookup,
};

/// Orders what follows from a result: one copy for each output that has a link.
pub(super) async fn order(
    connection: &mut SqliteConnection,
    results: &[(i64, &[Output], Timestamp)],
) -> sqlx::Result<()> {
    let mut orders = Vec::new();
    let mut open = Vec::new();
    let mut complete = Vec::new();
    for (job_seq, outputs, at) in results {
        let before = orders.len();
        orders.extend(linked(outputs).map(|(position, link)| (*job_seq, position, link, *at)));
        if orders.len() > before { open.push(*job_seq) } else { complete.push(*job_seq) }
    }
    for chunk in orders.chunks(rows::ROWS_PER_STATEMENT) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "insert into mirrors (job_seq, position, state, expires_at, next_attempt_at) ",
        );
        query.push_values(chunk, |mut row, (job_seq, position, link, at)| {
            row.push_bind(job_seq)
                .push_bind(position)
                .push_bind("pending")
                .push_bind(link::expiry(link).map(|end| end.as_millisecond()))
                .push_bind(at.as_millisecond());
        });
        // As many rows as the Engine likes: it would hardly come again.
        query.build().persistent(false).execute(&mut *connection).await?;
    }
    set_secured(connection, &open, 0).await?;
    set_secured(connection, &complete, 1).await
}

/// Fresh links: open orders are due at once, those given up are taken up again.
pub(super) async fn renew(
    connection: &mut SqliteConnection,
    renewed: &[(i64, &[Output], Timestamp)],
) -> sqlx::Result<()> {
    for (job_seq, outputs, at) in renewed {
        for (position, link) in linked(outputs) {
            sqlx::query(
                "update mirrors set expires_at = ?, next_attempt_at = ?,
                     attempts = case state when 'failed' then 0 else attempts end, state = 'pending'
                 where job_seq = ? and position = ? and state <> 'stored'",
            )
            .bind(link::expiry(link).map(|end| end.as_millisecond()))
            .bind(at.as_millisecond())
            .bind(job_seq)
            .bind(position)
            .execute(&mut *connection)
            .await?;
        }
    }
    Ok(())
}

fn linked(outputs: &[Output]) -> impl Iterator<Item = (i64, &str)> {
    (0..).zip(outputs).filter_map(|(position, output)| {
        let link = output.url.as_deref().filter(|_| mirror::is_to_be_copied(output))?;
        Some((position, link))
    })
}

async fn set_secured(
    connection: &mut SqliteConnection,
    job_seqs: &[i64],
    secured: i64,
) -> sqlx::Result<()> {
    if job_seqs.is_empty() {
        return Ok(());
    }
    let mut query = QueryBuilder::<Sqlite>::new("update jobs set secured = ");
    query.push_bind(secured).push(" where seq in (");
    let mut list = query.separated(", ");
    for job_seq in job_seqs {
        list.push_bind(*job_seq);
    }
    query.push(")");
    query.build().execute(connection).await?;
    Ok(())
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

/// The orders, by job and position, that may be carried out now and find a place. Those whose links
/// die soonest come first; those of a host without a place are passed over.
pub(super) async fn choose(
    connection: &mut SqliteConnection,
    now: Timestamp,
    mut places: FreePlaces,
) -> sqlx::Result<Vec<(i64, i64)>> {
    // In the order of the index, and no further than needed.
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

/// Orders that were chosen, unless something happened to them meanwhile.
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

/// What an attempt came to.
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
        // Found twice, by two who read it at a time: it is being made anew already.
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

/// At most `limit` copies behind `after`, in the order of job and output.
pub(super) async fn copies(
    connection: &mut SqliteConnection,
    after: Option<FilePlace>,
    limit: u32,
) -> sqlx::Result<Vec<StoredCopy>> {
    let mut query = QueryBuilder::<Sqlite>::new(
        "select jobs.id, position, name, kind, kind_index, extension, structures,
             job_outputs.status, url, size_bytes, sha256, content_type
         from mirrors
         join job_outputs using (job_seq, position)
         join jobs on jobs.seq = job_seq
         where state = 'stored'",
    );
    if let Some(after) = after {
        query.push(" and (job_seq, position) > ((select seq from jobs where id = ");
        query.push_bind(after.job_id.0).push("), ").push_bind(after.position).push(")");
    }
    query.push(" order by job_seq, position limit ").push_bind(limit);
    let rows = query.build().fetch_all(connection).await?;
    let copy = |row: &SqliteRow| {
        let place =
            FilePlace { job_id: JobId(row.try_get("id")?), position: row.try_get("position")? };
        Ok(StoredCopy { place, output: rows::output_with_file(row)? })
    };
    rows.iter().map(copy).collect()
}

/// Within an erasure, before its rows go: notes the jobs whose copies are to be deleted.
pub(super) const DOOM: &str = "insert or replace into doomed_files (job_id, until)
     select jobs.id, coalesce(max(mirrors.leased_until), 0)
     from mirrors join jobs on jobs.seq = mirrors.job_seq
     group by jobs.id having (jobs.seq in ";

pub(super) async fn doomed(
    connection: &mut SqliteConnection,
    limit: u32,
) -> sqlx::Result<Vec<Doomed>> {
    let rows = sqlx::query("select job_id, until from doomed_files order by until limit ?")
        .bind(limit)
        .fetch_all(connection)
        .await?;
    let doomed = |row: &SqliteRow| {
        let until = from_millis(row.try_get("until")?);
        Ok(Doomed { job_id: JobId(row.try_get("job_id")?), until })
    };
    rows.iter().map(doomed).collect()
}

/// Copies of an erased job that are deleted for good.
pub(super) struct Forget {
    pub job_id: JobId,
}

#[async_trait]
impl UseCase for Forget {
    type Output = ();

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        sqlx::query("delete from doomed_files where job_id = ?")
            .bind(self.job_id.0)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// A process that ended copies nothing: what it had leased is due again.
pub(super) async fn give_back(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    for statement in [
        "update mirrors set leased_until = null where leased_until is not null",
        "update doomed_files set until = 0 where until > 0",
    ] {
        sqlx::query(statement).execute(&mut *connection).await?;
    }
    Ok(())
}
