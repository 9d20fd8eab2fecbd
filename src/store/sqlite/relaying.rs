//! Passing results on: which orders are due, their attempts, and the health of their targets.
//!
//! Invariants: an order is leased while it is attempted; a paused target gets one probe at a time.

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{SqliteStore, relay_orders, rows, use_case::UseCase};
use crate::{
    clock,
    domain::{
        event::{EventType, NewEvent},
        ids::JobId,
        relay::{
            AfterAttempt, Attempt, DueRelay, FAILURES_BEFORE_PAUSE, PAUSE, Relay, RelayFilter,
            RelayState,
        },
    },
    store::{Backlog, Relaying, StoreError},
};

#[async_trait]
impl Relaying for SqliteStore {
    async fn claim_relays(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        under_way: Vec<(String, u32)>,
        concurrency: u32,
    ) -> Result<Vec<DueRelay>, StoreError> {
        let claim = Claim { now, lease_until, under_way, concurrency };
        if self.read(async |connection| open_targets(connection, &claim).await).await?.is_empty() {
            return Ok(Vec::new());
        }
        self.write(claim).await
    }

    async fn record_attempt(
        &self,
        id: Uuid,
        attempt: Attempt,
        after: AfterAttempt,
    ) -> Result<(), StoreError> {
        self.write(RecordAttempt { id, attempt, after }).await
    }

    async fn resend_relay(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
        let filter = RelayFilter::default();
        let order = relay_orders::Resend { filter, id: Some(id), now, is_dry_run: false };
        Ok(self.write(order).await? > 0)
    }

    async fn resend_relays(
        &self,
        filter: RelayFilter,
        now: Timestamp,
        is_dry_run: bool,
    ) -> Result<u64, StoreError> {
        self.write(relay_orders::Resend { filter, id: None, now, is_dry_run }).await
    }

    async fn relays(
        &self,
        filter: &RelayFilter,
        before: Option<i64>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Relay>, StoreError> {
        self.read(async |connection| {
            relay_orders::list(connection, filter, before, limit, now).await
        })
        .await
    }

    async fn relay(
        &self,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<(Relay, Vec<Attempt>)>, StoreError> {
        self.read(async |connection| relay_orders::show(connection, id, now).await).await
    }

    async fn backlog(&self, now: Timestamp) -> Result<Vec<Backlog>, StoreError> {
        self.read(async |connection| relay_orders::backlog(connection, now).await).await
    }
}

/// Leases orders that may be attempted now.
pub(super) struct Claim {
    pub now: Timestamp,
    pub lease_until: Timestamp,
    /// Targets with the number of attempts in progress.
    pub under_way: Vec<(String, u32)>,
    /// Most attempts at a time for one target.
    pub concurrency: u32,
}

const IS_DUE: &str =
    "state = 'pending' and next_attempt_at <= ? and coalesce(leased_until, 0) <= ?";

/// An order that a person made due again, and that is not being attempted.
const IS_ORDERED: &str =
    "state = 'pending' and ordered_at is not null and coalesce(leased_until, 0) <= ?";

/// A target that has an order to attempt and room for it.
pub(super) struct OpenTarget {
    name: String,
    /// Attempts that may be begun.
    room: u32,
    /// It is paused: only orders that a person made due again go there.
    is_paused: bool,
}

/// The targets that have an order to attempt and room for it.
///
/// The query goes from target to target in the index, so that it costs the same however many orders
/// wait.
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
        // Half open: one order probes the target, the others wait for its outcome.
        let most = if paused_until.is_some() { 1 } else { claim.concurrency };
        let is_paused = paused_until.is_some_and(|until| until > now);
        OpenTarget { name, room: most.saturating_sub(under_way), is_paused }
    });
    Ok(with_room.filter(|target| target.room > 0).collect())
}

impl Claim {
    /// Leases orders of one target: first those that a person made due again, then those that are
    /// due.
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

/// Records the outcome of an attempt.
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
        // The order was erased meanwhile.
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
        // A target that answers 410 is healthy; it only wants no more of this.
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
    /// Counts a failure; enough failures in a row pause the target.
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

/// Forgets a target's failures, which ends its pause.
async fn forget_failures(connection: &mut SqliteConnection, target: &str) -> sqlx::Result<()> {
    sqlx::query("delete from relay_targets where target = ?")
        .bind(target)
        .execute(connection)
        .await?;
    Ok(())
}
