//! Figures over all jobs.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::{SqliteStore, rows};
use crate::{
    domain::job::JobStatus,
    store::{Statistics, Stats, StoreError},
};

/// Days that the figures by day reach back.
const STATS_DAYS: i64 = 30;

/// Finished jobs that the turnaround is computed from: enough for a steady 99th percentile.
const STATS_TURNAROUNDS: i64 = 1_000;

#[async_trait]
impl Statistics for SqliteStore {
    async fn stats(&self, now: Timestamp) -> Result<Stats, StoreError> {
        self.read(async |connection| stats(connection, now).await).await
    }

    async fn turnarounds(&self) -> Result<Vec<u64>, StoreError> {
        self.read(async |connection| turnarounds(connection).await).await
    }
}

async fn stats(connection: &mut SqliteConnection, now: Timestamp) -> sqlx::Result<Stats> {
    let mut stats = Stats {
        by_status: JobStatus::ALL.into_iter().map(|status| (status, 0)).collect(),
        ..Stats::default()
    };
    let counts = sqlx::query("select status, count(*) as jobs from jobs group by status")
        .fetch_all(&mut *connection)
        .await?;
    for row in &counts {
        let status: JobStatus = rows::parsed(row, "status", str::parse)?;
        if let Some(entry) = stats.by_status.iter_mut().find(|(known, _)| *known == status) {
            entry.1 = row.try_get("jobs")?;
        }
    }
    let since = now - SignedDuration::from_hours(24 * STATS_DAYS);
    // Every status is listed, so that an index alone answers, in a third of the time.
    let mut query = QueryBuilder::<Sqlite>::new(
        "select date(created_at / 1000, 'unixepoch') as day, status, count(*) as jobs
         from jobs where status in (",
    );
    let mut statuses = query.separated(", ");
    for status in JobStatus::ALL {
        statuses.push_bind(status.as_str());
    }
    query.push(") and created_at >= ").push_bind(since.as_millisecond());
    query.push(" group by day, status order by day desc, status");
    let counts = query.build().fetch_all(&mut *connection).await?;
    for row in &counts {
        let day: String = row.try_get("day")?;
        let count = (rows::parsed(row, "status", str::parse)?, row.try_get("jobs")?);
        match stats.days.last_mut() {
            Some((last, statuses)) if *last == day => statuses.push(count),
            _ => stats.days.push((day, vec![count])),
        }
    }
    stats.turnaround_millis = turnarounds(connection).await?;
    stats.overdue = overdue(connection).await?;
    Ok(stats)
}

async fn overdue(connection: &mut SqliteConnection) -> sqlx::Result<u64> {
    let count: i64 = sqlx::query_scalar("select count(*) from jobs where overdue = 1")
        .fetch_one(connection)
        .await?;
    Ok(count.unsigned_abs())
}

/// Milliseconds, ascending, of the jobs that finished last.
async fn turnarounds(connection: &mut SqliteConnection) -> sqlx::Result<Vec<u64>> {
    let turnarounds: Vec<i64> = sqlx::query_scalar(
        "select finished_at - coalesce(submitted_at, created_at) from jobs
         where finished_at is not null and origin = 'submitted'
         order by finished_at desc limit ?",
    )
    .bind(STATS_TURNAROUNDS)
    .fetch_all(connection)
    .await?;
    let mut millis: Vec<u64> =
        turnarounds.into_iter().map(|millis| u64::try_from(millis).unwrap_or(0)).collect();
    millis.sort_unstable();
    Ok(millis)
}
