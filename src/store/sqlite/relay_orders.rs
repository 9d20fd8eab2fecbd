//! Orders to pass results on: created with a result, made due again, listed.
//!
//! Called within a transaction of the writer, and through the readers.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{pipeline::Pipeline, rows, use_case::UseCase};
use crate::{
    domain::{
        bounds::MAX_ATTEMPTS,
        ids::JobId,
        relay::{Attempt, Relay, RelayFilter, RelayState},
        time::from_millis,
    },
    store::Backlog,
};

/// An order that follows from a result: job's seq, target, the job's own address, time.
pub(super) type Order = (i64, String, Option<String>, Timestamp);

pub(super) async fn insert(pipeline: &mut Pipeline<'_>, orders: &[Order]) -> sqlx::Result<()> {
    if orders.is_empty() {
        return Ok(());
    }
    let query = pipeline.next().await?;
    query
        .push("insert into relays (id, job_seq, target, url, state, next_attempt_at, created_at) ");
    query.push_values(orders, |mut row, (job_seq, target, url, at)| {
        row.push_bind(crate::domain::ids::DeliveryId::new(*at).0)
            .push_bind(job_seq)
            .push_bind(target)
            .push_bind(url)
            .push_bind(RelayState::Pending.as_str())
            .push_bind(at.as_millisecond())
            .push_bind(at.as_millisecond());
    });
    query.push(";");
    Ok(())
}

/// Makes the matching orders due again; returns how many. A dry run only counts.
pub(super) struct Resend {
    pub filter: RelayFilter,
    pub id: Option<Uuid>,
    pub now: Timestamp,
    pub is_dry_run: bool,
}

#[async_trait]
impl UseCase for Resend {
    type Output = u64;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<u64> {
        if self.is_dry_run {
            let mut query = QueryBuilder::new("select count(*) from relays where true");
            self.push_meant(&mut query);
            let count: i64 = query.build_query_scalar().fetch_one(connection).await?;
            return Ok(count.unsigned_abs());
        }
        let now = self.now.as_millisecond();
        let mut query = QueryBuilder::new("select min(seq) from relays where true");
        self.push_meant(&mut query);
        query.push(" group by target");
        let first: Vec<i64> = query.build_query_scalar().fetch_all(&mut *connection).await?;
        let mut query = QueryBuilder::new("update relays set state = 'pending', tries = 0, ");
        query.push("next_attempt_at = ").push_bind(now).push(" where true");
        self.push_meant(&mut query);
        let count = query.build().execute(&mut *connection).await?.rows_affected();
        // One order for each target is sent at once, even if the target is paused. Sending all
        // would only cause as many failures at a target that is down.
        sqlx::query(
            "update relays set ordered_at = ? where seq in (select value from json_each(?))",
        )
        .bind(now)
        .bind(serde_json::to_string(&first).expect("numbers are JSON"))
        .execute(connection)
        .await?;
        Ok(count)
    }
}

impl Resend {
    fn push_meant(&self, query: &mut QueryBuilder<Sqlite>) {
        if let Some(id) = self.id {
            query.push(" and id = ").push_bind(id);
        }
        push_conditions(query, &self.filter, self.now);
    }
}

fn push_conditions(query: &mut QueryBuilder<Sqlite>, filter: &RelayFilter, now: Timestamp) {
    if let Some(job_id) = filter.job_id {
        query
            .push(" and job_seq = (select seq from jobs where id = ")
            .push_bind(job_id.0)
            .push(")");
    }
    if let Some(target) = &filter.target {
        query.push(" and target = ").push_bind(target.clone());
    }
    match filter.state {
        Some(RelayState::Paused) => {
            query.push(" and state = 'pending' and ");
            push_is_paused(query, now);
        }
        Some(RelayState::Pending) => {
            query.push(" and state = 'pending' and not ");
            push_is_paused(query, now);
        }
        Some(state) => _ = query.push(" and state = ").push_bind(state.as_str()),
        None => {}
    }
}

/// Whether an order waits for the end of its target's pause; one that a person made due again does
/// not.
fn push_is_paused(query: &mut QueryBuilder<Sqlite>, now: Timestamp) {
    query.push("(ordered_at is null and target in ");
    query.push("(select target from relay_targets where paused_until > ");
    query.push_bind(now.as_millisecond()).push("))");
}

fn select(now: Timestamp) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(
        "select relays.seq, relays.id, (select jobs.id from jobs where jobs.seq = job_seq) as job_id,
             target, state, attempts, next_attempt_at, last_status, created_at, ",
    );
    push_is_paused(&mut query, now);
    query.push(" as is_paused from relays where true");
    query
}

fn relay_of(row: &SqliteRow) -> sqlx::Result<Relay> {
    let state = rows::parsed(row, "state", str::parse)?;
    let is_paused = state == RelayState::Pending && row.try_get("is_paused")?;
    Ok(Relay {
        id: row.try_get("id")?,
        job_id: JobId(row.try_get("job_id")?),
        target: row.try_get("target")?,
        state: if is_paused { RelayState::Paused } else { state },
        attempts: row.try_get("attempts")?,
        next_attempt_at: row.try_get::<Option<i64>, _>("next_attempt_at")?.map(from_millis),
        last_status: row.try_get("last_status")?,
        created_at: from_millis(row.try_get("created_at")?),
        seq: row.try_get("seq")?,
    })
}

/// At most `limit` orders older than `before`, newest first.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    filter: &RelayFilter,
    before: Option<i64>,
    limit: u32,
    now: Timestamp,
) -> sqlx::Result<Vec<Relay>> {
    let mut query = select(now);
    push_conditions(&mut query, filter, now);
    if let Some(before) = before {
        query.push(" and relays.seq < ").push_bind(before);
    }
    query.push(" order by relays.seq desc limit ").push_bind(limit);
    query.build().fetch_all(connection).await?.iter().map(relay_of).collect()
}

/// An order with its last attempts, in their order.
pub(super) async fn show(
    connection: &mut SqliteConnection,
    id: Uuid,
    now: Timestamp,
) -> sqlx::Result<Option<(Relay, Vec<Attempt>)>> {
    let mut query = select(now);
    query.push(" and relays.id = ").push_bind(id);
    let Some(row) = query.build().fetch_optional(&mut *connection).await? else { return Ok(None) };
    let relay = relay_of(&row)?;
    let rows = sqlx::query(
        "select number, at, millis, status, error, answer from relay_attempts
         where relay_seq = ? order by number desc limit ?",
    )
    .bind(relay.seq)
    .bind(MAX_ATTEMPTS)
    .fetch_all(connection)
    .await?;
    let attempts = rows.iter().rev().map(|row| {
        Ok(Attempt {
            number: row.try_get("number")?,
            at: from_millis(row.try_get("at")?),
            millis: row.try_get::<i64, _>("millis")?.unsigned_abs(),
            status: row.try_get("status")?,
            error: row.try_get("error")?,
            answer: row.try_get::<Option<Vec<u8>>, _>("answer")?.unwrap_or_default(),
        })
    });
    let attempts = attempts.collect::<sqlx::Result<Vec<_>>>()?;
    Ok(Some((relay, attempts)))
}

/// The targets with orders that are not delivered.
pub(super) async fn backlog(
    connection: &mut SqliteConnection,
    now: Timestamp,
) -> sqlx::Result<Vec<Backlog>> {
    // Two halves, because each has an index of its own: a million delivered orders are not scanned.
    let rows = sqlx::query(
        "select target, sum(pending) as pending, sum(dead) as dead,
             target in (select target from relay_targets where paused_until > ?) as is_paused
         from (select target, count(*) as pending, 0 as dead from relays
                   where state = 'pending' group by target
               union all
               select target, 0, count(*) from relays
                   where state = 'dead' group by target)
         group by target order by target",
    )
    .bind(now.as_millisecond())
    .fetch_all(connection)
    .await?;
    rows.iter().map(backlog_of).collect()
}

fn backlog_of(row: &SqliteRow) -> sqlx::Result<Backlog> {
    Ok(Backlog {
        target: row.try_get("target")?,
        pending: row.try_get::<i64, _>("pending")?.unsigned_abs(),
        dead: row.try_get::<i64, _>("dead")?.unsigned_abs(),
        is_paused: row.try_get("is_paused")?,
    })
}

/// Releases all leases at start: the process that held them has ended.
pub(super) async fn give_back(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    sqlx::query("update relays set leased_until = null where leased_until is not null")
        .execute(connection)
        .await?;
    Ok(())
}
