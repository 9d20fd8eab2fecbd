//! Orders to pass results on, their attempts, and the health of their targets.
//!
//! Called by the writer within its transaction, and through the readers. The invariants: an order
//! is leased for a time while it is attempted; a target that is left alone gets one probe at a time.

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{pipeline::Pipeline, rows, writer::UseCase};
use crate::{
    clock,
    domain::{
        bounds::MAX_ATTEMPTS,
        event::{EventType, NewEvent},
        ids::JobId,
        relay::{
            AfterAttempt, Attempt, DueRelay, FAILURES_BEFORE_PAUSE, PAUSE, Relay, RelayFilter,
            RelayState,
        },
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

/// Orders that may be attempted now.
pub(super) struct Claim {
    pub now: Timestamp,
    pub lease_until: Timestamp,
    /// Targets with the attempts under way to them.
    pub under_way: Vec<(String, u32)>,
    /// Attempts at a time for one target.
    pub concurrency: u32,
}

const IS_DUE: &str =
    "state = 'pending' and next_attempt_at <= ? and coalesce(leased_until, 0) <= ?";

/// An order that a person gave again, and that is not being attempted.
const IS_ORDERED: &str =
    "state = 'pending' and ordered_at is not null and coalesce(leased_until, 0) <= ?";

/// A target that has an order to attempt and room for it.
pub(super) struct OpenTarget {
    name: String,
    /// Attempts that may be begun.
    room: u32,
    /// It is left alone for a while: only what a person ordered goes there.
    is_paused: bool,
}

/// The targets that have an order to attempt and room for it.
///
/// It goes from target to target in the index, so that it costs the same however many orders wait.
pub(super) async fn open_targets(
    connection: &mut SqliteConnection,
    claim: &Claim,
) -> sqlx::Result<Vec<OpenTarget>> {
    let sql = format!(
        "with recursive waiting (target) as (
             select min(target) from relays indexed by relays_due where state = 'pending'
             union all
             select (select min(relays.target) from relays indexed by relays_due
                     where state = 'pending' and relays.target > waiting.target)
             from waiting where target is not null
         )
         select waiting.target, paused_until from waiting
         left join relay_targets on relay_targets.target = waiting.target
         where (coalesce(paused_until, 0) <= ?
             and exists (select 1 from relays where relays.target = waiting.target and {IS_DUE}))
             or exists (select 1 from relays where relays.target = waiting.target and {IS_ORDERED})"
    );
    let now = claim.now.as_millisecond();
    let rows: Vec<(String, Option<i64>)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(now)
        .bind(now)
        .bind(now)
        .bind(now)
        .fetch_all(connection)
        .await?;
    let with_room = rows.into_iter().map(|(name, paused_until)| {
        let under_way = claim.under_way.iter().find(|(known, _)| *known == name);
        let under_way = under_way.map_or(0, |(_, count)| *count);
        // Half open: one order probes, the others wait for what it finds.
        let most = if paused_until.is_some() { 1 } else { claim.concurrency };
        let is_paused = paused_until.is_some_and(|until| until > now);
        OpenTarget { name, room: most.saturating_sub(under_way), is_paused }
    });
    Ok(with_room.filter(|target| target.room > 0).collect())
}

impl Claim {
    /// Leases orders of one target: first those that a person gave again, then those that are due.
    async fn lease(
        &self,
        connection: &mut SqliteConnection,
        target: &OpenTarget,
    ) -> sqlx::Result<Vec<(i64, DueRelay)>> {
        let mut leased = Vec::new();
        for (condition, order, is_open) in
            [(IS_ORDERED, "ordered_at", true), (IS_DUE, "next_attempt_at", !target.is_paused)]
        {
            let room = target.room.saturating_sub(leased.len() as u32);
            if !is_open || room == 0 {
                continue;
            }
            let sql = format!(
                "update relays set leased_until = ?, ordered_at = null where seq in
                     (select seq from relays where target = ? and {condition}
                      order by {order}, seq limit ?)
                 returning seq, id, target, url, tries,
                     (select jobs.id from jobs where jobs.seq = job_seq) as job_id"
            );
            let now = self.now.as_millisecond();
            let mut query = sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(self.lease_until.as_millisecond())
                .bind(&target.name);
            for _ in 0..condition.matches('?').count() {
                query = query.bind(now);
            }
            let rows = query.bind(room).fetch_all(&mut *connection).await?;
            for row in &rows {
                leased.push(due_of(row)?);
            }
        }
        Ok(leased)
    }
}

#[async_trait]
impl UseCase for Claim {
    type Output = Vec<DueRelay>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Vec<DueRelay>> {
        let mut claimed = Vec::new();
        for target in open_targets(connection, self).await? {
            let mut of_target = self.lease(connection, &target).await?;
            of_target.sort_by_key(|(seq, _)| *seq);
            claimed.extend(of_target.into_iter().map(|(_, relay)| relay));
        }
        Ok(claimed)
    }
}

fn due_of(row: &SqliteRow) -> sqlx::Result<(i64, DueRelay)> {
    let relay = DueRelay {
        id: row.try_get("id")?,
        job_id: JobId(row.try_get("job_id")?),
        target: row.try_get("target")?,
        url: row.try_get("url")?,
        tries: row.try_get("tries")?,
    };
    Ok((row.try_get("seq")?, relay))
}

/// What an attempt came to.
pub(super) struct RecordAttempt {
    pub id: Uuid,
    pub attempt: Attempt,
    pub after: AfterAttempt,
}

#[async_trait]
impl UseCase for RecordAttempt {
    type Output = ();

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        let (state, next) = match self.after {
            AfterAttempt::Delivered => (RelayState::Delivered, None),
            AfterAttempt::Retry { at } => (RelayState::Pending, Some(at.as_millisecond())),
            AfterAttempt::Dead => (RelayState::Dead, None),
        };
        let row = sqlx::query(
            "update relays set state = ?1, next_attempt_at = ?2, leased_until = null,
                 ordered_at = case when ?1 = 'pending' then ordered_at end,
                 attempts = attempts + 1, tries = tries + 1, last_status = ?3 where id = ?4
             returning seq, target, attempts,
                 (select jobs.id from jobs where jobs.seq = job_seq) as job_id,
                 exists (select 1 from relay_targets
                     where relay_targets.target = relays.target) as has_failed",
        )
        .bind(state.as_str())
        .bind(next)
        .bind(self.attempt.status)
        .bind(self.id)
        .fetch_optional(&mut *connection)
        .await?;
        // An erasure was faster.
        let Some(row) = row else { return Ok(()) };
        let seq: i64 = row.try_get("seq")?;
        let target: String = row.try_get("target")?;
        let number: i64 = row.try_get("attempts")?;
        sqlx::query(
            "insert into relay_attempts (relay_seq, number, at, millis, status, error, answer)
             values (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(seq)
        .bind(number)
        .bind(self.attempt.at.as_millisecond())
        .bind(i64::try_from(self.attempt.millis).unwrap_or(i64::MAX))
        .bind(self.attempt.status)
        .bind(&self.attempt.error)
        .bind(&self.attempt.answer)
        .execute(&mut *connection)
        .await?;
        // A target that answers 410 is well; it only wants no more of this.
        match self.after == AfterAttempt::Delivered || self.attempt.status == Some(410) {
            true if row.try_get("has_failed")? => forget_failures(connection, &target).await?,
            true => {}
            false => self.count_failure(connection, &target).await?,
        }
        let kind = match self.after {
            AfterAttempt::Delivered => EventType::RelayDelivered,
            AfterAttempt::Retry { .. } => EventType::RelayFailed,
            AfterAttempt::Dead => EventType::RelayDead,
        };
        let data = json!({
            "relayId": self.id, "target": target, "attempt": number, "status": self.attempt.status,
        });
        let event = NewEvent::new(JobId(row.try_get("job_id")?), kind, self.attempt.at).with(data);
        rows::insert_events(connection, &[event]).await
    }
}

impl RecordAttempt {
    /// Enough failures in a row pause the target.
    async fn count_failure(
        &self,
        connection: &mut SqliteConnection,
        target: &str,
    ) -> sqlx::Result<()> {
        sqlx::query(
            "insert into relay_targets (target, failures) values (?1, 1)
             on conflict (target) do update set failures = failures + 1,
                 paused_until = case when failures + 1 >= ?2 then ?3 end",
        )
        .bind(target)
        .bind(FAILURES_BEFORE_PAUSE)
        .bind(clock::add(self.attempt.at, PAUSE).as_millisecond())
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// A success ends the pause.
async fn forget_failures(connection: &mut SqliteConnection, target: &str) -> sqlx::Result<()> {
    sqlx::query("delete from relay_targets where target = ?")
        .bind(target)
        .execute(connection)
        .await?;
    Ok(())
}

/// Orders again what is meant; answers how many. A dry run only counts.
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
        // One for each target goes at once, even if the target is left alone: many would be as
        // many failures of one that is down.
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

/// Whether an order waits for the end of its target's pause; one that a person gave again does not.
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
    // Two halves, since each has an index of its own: a table of a million delivered orders is
    // not looked through.
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

/// A process that ended has nothing under way: what it had leased is due again.
pub(super) async fn give_back(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    sqlx::query("update relays set leased_until = null where leased_until is not null")
        .execute(connection)
        .await?;
    Ok(())
}
