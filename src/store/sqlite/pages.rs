//! Pages: jobs of a filter, deliveries of a job, and where a page ends.
//!
//! Called through the read connections. Invariants: every page costs the same, because it starts at
//! a key and never at an offset; its bytes are bounded, and known before its rows are read; it
//! contains at least one row if there is one, so that paging makes progress.

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{read, statements};
use crate::{
    domain::{
        bounds,
        delivery::Delivery,
        ids::JobId,
        job::{Job, JobStatus},
        page::{JobFilter, JobPage, Page, Position},
    },
    store::Lookup,
};

/// The keys of a page of jobs, and the bytes that reading it takes.
pub(super) struct Keys {
    seqs: Vec<i64>,
    next: Option<Position>,
    pub bytes: u64,
}

/// At most `limit` keys older than `after`, newest first.
pub(super) async fn job_keys(
    connection: &mut SqliteConnection,
    filter: &JobFilter,
    after: Option<Position>,
    limit: u32,
) -> sqlx::Result<Keys> {
    let mut query = QueryBuilder::new("select jobs.seq, created_at, ");
    for (_, _, bytes) in [read::PARTS_OF_INPUTS, read::PARTS_OF_OUTPUTS] {
        query.push(format!("min({bytes}, {}) + ", bounds::MAX_ROWS_BYTES));
    }
    query.push(
        "coalesce(octet_length(request), 0) + coalesce(octet_length(engine_response), 0)
             + octet_length(warnings) + coalesce(octet_length(reference), 0)
             + coalesce(octet_length(end_user_id), 0) + coalesce(octet_length(cloud_package), 0)
             + coalesce(octet_length(engine_job_id), 0)
             + coalesce(octet_length(external_job_id), 0) + 1024 as bytes
         from jobs left join job_bodies on job_bodies.job_seq = jobs.seq
         where jobs.seq in (select seq from (",
    );
    push_keys(&mut query, filter, after, limit + 1);
    query.push(") order by created_at desc, seq desc limit ").push_bind(limit + 1);
    query.push(") order by created_at desc, jobs.seq desc");
    let rows = query.build().fetch_all(connection).await?;
    let sizes = rows.iter().map(bytes_of).collect::<sqlx::Result<Vec<u64>>>()?;
    let count = bounds::fitting(sizes.iter().copied().take(limit as usize));
    let on_page = &rows[..count];
    let next = match on_page.last() {
        Some(last) if rows.len() > count => Some(Position {
            created_at_millis: last.try_get("created_at")?,
            seq: last.try_get("seq")?,
        }),
        _ => None,
    };
    let seqs = on_page.iter().map(|row| row.try_get("seq")).collect::<sqlx::Result<Vec<i64>>>()?;
    Ok(Keys { seqs, next, bytes: sizes[..count].iter().sum() })
}

/// The jobs of these keys that are still on record.
pub(super) async fn jobs(connection: &mut SqliteConnection, keys: Keys) -> sqlx::Result<JobPage> {
    let mut jobs = Vec::new();
    if !keys.seqs.is_empty() {
        let mut query = QueryBuilder::new("");
        read::push_jobs(&mut query, "seq", |query| {
            let mut list = query.separated(", ");
            for seq in &keys.seqs {
                list.push_bind(*seq);
            }
        });
        let [found, inputs, outputs] = statements::fetch_each(connection, query).await?;
        jobs = read::joined(&found, &inputs, &outputs)?;
    }
    let jobs: Vec<Job> = jobs.into_iter().map(|(_, job)| job).collect();
    Ok(JobPage { jobs, next: keys.next })
}

/// The keys of a page. Statuses are queried one by one, because an index is sorted by age only
/// within one status.
fn push_keys(
    query: &mut QueryBuilder<Sqlite>,
    filter: &JobFilter,
    after: Option<Position>,
    limit: u32,
) {
    let statuses: Vec<Option<JobStatus>> = match filter.statuses.is_empty() {
        true => vec![None],
        false => filter.statuses.iter().copied().map(Some).collect(),
    };
    for (position, status) in statuses.into_iter().enumerate() {
        if position > 0 {
            query.push(" union ");
        }
        query.push("select * from (select created_at, seq from jobs where true");
        if let Some(status) = status {
            // Overdue jobs are few and have an index; one status may cover nearly all jobs.
            let column = if filter.overdue == Some(true) { "+status" } else { "status" };
            query.push(" and ").push(column).push(" = ").push_bind(status.as_str());
        }
        push_conditions(query, filter);
        if let Some(after) = after {
            query.push(" and (created_at, seq) < (").push_bind(after.created_at_millis);
            query.push(", ").push_bind(after.seq).push(")");
        }
        query.push(" order by created_at desc, seq desc limit ").push_bind(limit).push(")");
    }
}

fn push_conditions(query: &mut QueryBuilder<Sqlite>, filter: &JobFilter) {
    let texts = [
        ("end_user_id", &filter.end_user_id),
        ("cloud_package", &filter.cloud_package),
        ("reference", &filter.reference),
        ("engine_job_id", &filter.engine_job_id),
        ("external_job_id", &filter.external_job_id),
    ];
    for (column, wanted) in texts {
        if let Some(wanted) = wanted {
            query.push(" and ").push(column).push(" = ").push_bind(wanted.clone());
        }
    }
    match filter.overdue {
        Some(true) => _ = query.push(" and overdue = 1"),
        Some(false) => _ = query.push(" and overdue = 0"),
        None => {}
    }
    if let Some(is_stale) = filter.stale_callback {
        query.push(if is_stale { " and (" } else { " and not (" });
        query.push("status in ('submitting', 'submitted', 'unconfirmed') and callback_base <> ");
        query.push_bind(filter.public_url.clone());
        query.push(" and callback_base is not null)");
    }
    if let Some(from) = filter.created_after {
        query.push(" and created_at >= ").push_bind(from.as_millisecond());
    }
    if let Some(to) = filter.created_before {
        query.push(" and created_at < ").push_bind(to.as_millisecond());
    }
}

/// At most `limit` deliveries of a job after the one numbered `after`, in the order they came.
pub(super) async fn deliveries(
    connection: &mut SqliteConnection,
    job_id: JobId,
    after: Option<i64>,
    limit: u32,
) -> sqlx::Result<Lookup<Page<Delivery>>> {
    let mut sizes = QueryBuilder::new(
        "select seq, octet_length(headers) + octet_length(source) + 512 as bytes from deliveries
         where job_seq = (select seq from jobs where id = ",
    );
    sizes.push_bind(job_id.0).push(") and seq > ").push_bind(after.unwrap_or_default());
    let (last, next) = cut(connection, sizes, limit).await?;
    let mut query = QueryBuilder::<Sqlite>::new(read::SELECT_DELIVERIES);
    query.push(" where jobs.id = ").push_bind(job_id.0);
    query.push(" and deliveries.seq > ").push_bind(after.unwrap_or_default());
    query.push(" and deliveries.seq <= ").push_bind(last).push(" order by deliveries.seq");
    let found = query.build().fetch_all(&mut *connection).await?;
    let rows = found.iter().map(read::delivery_of).collect::<sqlx::Result<Vec<_>>>()?;
    page(connection, job_id, Page { rows, next }).await
}

/// Where a page ends: the number of its last row, and the same number again if more rows follow.
/// `sizes` selects `seq` and `bytes` without an order.
pub(super) async fn cut(
    connection: &mut SqliteConnection,
    mut sizes: QueryBuilder<Sqlite>,
    limit: u32,
) -> sqlx::Result<(i64, Option<i64>)> {
    sizes.push(" order by seq limit ").push_bind(limit + 1);
    let rows = sizes.build().fetch_all(connection).await?;
    let bytes = rows.iter().map(bytes_of).collect::<sqlx::Result<Vec<u64>>>()?;
    let count = bounds::fitting(bytes.into_iter().take(limit as usize));
    let Some(last) = rows[..count].last() else { return Ok((0, None)) };
    let last: i64 = last.try_get("seq")?;
    Ok((last, (rows.len() > count).then_some(last)))
}

/// The page if its job is on record, else why it is not.
pub(super) async fn page<T>(
    connection: &mut SqliteConnection,
    job_id: JobId,
    page: Page<T>,
) -> sqlx::Result<Lookup<Page<T>>> {
    read::on_record(connection, job_id, page).await
}

fn bytes_of(row: &SqliteRow) -> sqlx::Result<u64> {
    Ok(row.try_get::<i64, _>("bytes")?.unsigned_abs())
}
