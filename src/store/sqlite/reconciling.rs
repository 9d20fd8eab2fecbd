//! Jobs in flight and when they are looked up.
//!
//! Called by the writer within its transaction; read queries come first, so that the writer is not
//! used when there is nothing to do. Invariant: a job is claimed for a limited time, so that it is
//! due again after a crash.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use sqlx::{Row, SqliteConnection};

use super::{SqliteStore, rows, use_case::UseCase};
use crate::{
    clock,
    domain::{
        event::{EventType, NewEvent},
        ids::JobId,
        reconcile::{DueJob, Next},
        time::from_millis,
    },
    store::{Reconciling, StoreError},
};

#[async_trait]
impl Reconciling for SqliteStore {
    async fn schedule_looks(&self, after: Duration) -> Result<(), StoreError> {
        self.write(Schedule { after }).await
    }

    async fn expedite_stale(
        &self,
        public_url: &str,
        now: Timestamp,
    ) -> Result<Vec<JobId>, StoreError> {
        let public_url = public_url.to_owned();
        if !self.read(async |connection| is_any_stale(connection, &public_url).await).await? {
            return Ok(Vec::new());
        }
        self.write(Expedite { public_url, now }).await
    }

    async fn claim_due(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        horizon: Duration,
        limit: u32,
    ) -> Result<Vec<DueJob>, StoreError> {
        let claim = Claim::new(now, lease_until, horizon, limit);
        if !self.read(async |connection| is_any_due(connection, &claim).await).await? {
            return Ok(Vec::new());
        }
        self.write(claim).await
    }

    async fn postpone(&self, id: JobId, next: Next, now: Timestamp) -> Result<(), StoreError> {
        self.write(Postpone { id, next, now }).await
    }
}

pub(super) struct Schedule {
    pub after: Duration,
}

#[async_trait]
impl UseCase for Schedule {
    type Output = ();

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        sqlx::query(
            "update jobs set due_at = coalesce(submitted_at, created_at) + ?
             where due_at is null and given_up_at is null and status in ('submitted', 'unconfirmed')",
        )
        .bind(millis(self.after))
        .execute(connection)
        .await?;
        Ok(())
    }
}

pub(super) struct Expedite {
    pub public_url: String,
    pub now: Timestamp,
}

const IS_STALE: &str = "status in ('submitting', 'submitted', 'unconfirmed')
     and callback_base <> ?1 and callback_base is not null
     and coalesce(expedited_for, '') <> ?1";

pub(super) async fn is_any_stale(
    connection: &mut SqliteConnection,
    public_url: &String,
) -> sqlx::Result<bool> {
    let sql = format!("select exists (select 1 from jobs where {IS_STALE})");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(public_url).fetch_one(connection).await
}

#[async_trait]
impl UseCase for Expedite {
    type Output = Vec<JobId>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Vec<JobId>> {
        let sql = format!(
            "update jobs set expedited_for = ?1, due_at = case when given_up_at is null then ?2 end
             where {IS_STALE} returning id"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(&self.public_url)
            .bind(self.now.as_millisecond())
            .fetch_all(connection)
            .await?;
        rows.iter().map(|row| Ok(JobId(row.try_get("id")?))).collect()
    }
}

pub(super) struct Claim {
    now: i64,
    lease_until: i64,
    /// Times beyond this were set while the clock was wrong.
    nonsense_from: i64,
    limit: u32,
}

impl Claim {
    pub(super) fn new(
        now: Timestamp,
        lease_until: Timestamp,
        horizon: Duration,
        limit: u32,
    ) -> Self {
        let nonsense_from = clock::add(lease_until, horizon).as_millisecond();
        let (now, lease_until) = (now.as_millisecond(), lease_until.as_millisecond());
        Self { now, lease_until, nonsense_from, limit }
    }
}

pub(super) async fn is_any_due(
    connection: &mut SqliteConnection,
    claim: &Claim,
) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "select exists (select 1 from jobs where due_at <= ?)
             or exists (select 1 from jobs where due_at > ?)",
    )
    .bind(claim.now)
    .bind(claim.nonsense_from)
    .fetch_one(connection)
    .await
}

#[async_trait]
impl UseCase for Claim {
    type Output = Vec<DueJob>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Vec<DueJob>> {
        // Jobs with a stale callback address come first.
        let rows = sqlx::query(
            "select seq, id, engine_job_id, coalesce(submitted_at, created_at) as asked_at, due_at,
                 lookups
             from jobs where due_at <= ? or due_at > ?
             order by expedited_for is null, due_at limit ?",
        )
        .bind(self.now)
        .bind(self.nonsense_from)
        .bind(self.limit)
        .fetch_all(&mut *connection)
        .await?;
        let mut claimed = Vec::with_capacity(rows.len());
        for row in &rows {
            sqlx::query("update jobs set due_at = ? where seq = ?")
                .bind(self.lease_until)
                .bind(row.try_get::<i64, _>("seq")?)
                .execute(&mut *connection)
                .await?;
            claimed.push(DueJob {
                id: JobId(row.try_get("id")?),
                engine_job_id: row.try_get("engine_job_id")?,
                asked_at: from_millis(row.try_get("asked_at")?),
                planned_at: from_millis(row.try_get("due_at")?),
                lookups: row.try_get("lookups")?,
            });
        }
        Ok(claimed)
    }
}

pub(super) struct Postpone {
    pub id: JobId,
    pub next: Next,
    pub now: Timestamp,
}

#[async_trait]
impl UseCase for Postpone {
    type Output = ();

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        let was_overdue: Option<bool> = sqlx::query_scalar(
            "select overdue from jobs where id = ? and status in ('submitted', 'unconfirmed')",
        )
        .bind(self.id.0)
        .fetch_optional(&mut *connection)
        .await?;
        // The job was finished or erased meanwhile.
        let Some(was_overdue) = was_overdue else { return Ok(()) };
        let (due_at, given_up_at, is_overdue) = match self.next {
            Next::Look { at, is_overdue } => (Some(at.as_millisecond()), None, is_overdue),
            Next::GiveUp => (None, Some(self.now.as_millisecond()), true),
        };
        sqlx::query(
            "update jobs set due_at = ?, given_up_at = ?, overdue = ?, lookups = lookups + 1
             where id = ?",
        )
        .bind(due_at)
        .bind(given_up_at)
        .bind(is_overdue || was_overdue)
        .bind(self.id.0)
        .execute(&mut *connection)
        .await?;
        let mut events = Vec::new();
        if is_overdue && !was_overdue {
            events.push(NewEvent::new(self.id, EventType::JobOverdue, self.now));
        }
        if given_up_at.is_some() {
            let event = NewEvent::new(self.id, EventType::JobGivenUp, self.now);
            events.push(event.with(json!({ "reason": "reconcile.give_up" })));
        }
        rows::insert_events(connection, &events).await
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
