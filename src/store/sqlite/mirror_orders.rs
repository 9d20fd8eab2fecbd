//! Orders to copy outputs: created with a result, made due by fresh links, and what erasing a job
//! does to them.
//!
//! Called within a transaction of the writer, and through the readers.

use jiff::Timestamp;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::rows;
use crate::domain::{
    ids::JobId,
    job::Output,
    link,
    mirror::{self, FilePlace, StoredCopy},
};

/// Creates the orders of results: one copy for each output that has a link.
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
        // Not cached: the number of rows depends on the Engine, so the same text would hardly
        // recur.
        query.build().persistent(false).execute(&mut *connection).await?;
    }
    set_secured(connection, &open, 0).await?;
    set_secured(connection, &complete, 1).await
}

/// Applies fresh links: open orders are due at once, failed ones are tried again.
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

pub(super) async fn set_secured(
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

/// At most `limit` copies after `after`, in the order of job and output.
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

/// Part of an erasure, before the rows are deleted: records the jobs whose copies are to be
/// deleted.
pub(super) const NOTE_FILE_DELETIONS: &str = "insert or replace into doomed_files (job_id, until)
     select jobs.id, coalesce(max(mirrors.leased_until), 0)
     from mirrors join jobs on jobs.seq = mirrors.job_seq
     group by jobs.id having (jobs.seq in ";

/// Releases all leases at start: the process that held them has ended.
pub(super) async fn give_back(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    for statement in [
        "update mirrors set leased_until = null where leased_until is not null",
        "update doomed_files set until = 0 where until > 0",
    ] {
        sqlx::query(statement).execute(&mut *connection).await?;
    }
    Ok(())
}
