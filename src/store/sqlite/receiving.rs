//! Records arrivals, directly and from the emergency spool, each of them once.
//!
//! The statements for arrivals, which the writer runs in batches, are in `receive/`. Invariant: the
//! spool's mark moves in the transaction that records the arrival. The arrival may be on record
//! already: a slow database may commit it after the intake has turned to the spool. Such a commit
//! always comes before the drain, because the writer keeps the order of its queue.

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use sqlx::{Row, SqliteConnection};

use super::{
    SqliteStore, callback_addresses,
    pipeline::Pipeline,
    receive::{self, Received},
    rows,
    use_case::UseCase,
};
use crate::{
    domain::{
        callback_address::Standing,
        delivery::{MAX_OVERSIZE_EVENTS, Outcome},
        event::{EventType, NewEvent},
        ids::JobId,
        result::Reading,
    },
    store::{
        Addressee, Arrival, Lookup, Receipt, Receiving, ResultOrders, SpoolMark, Spooled,
        StoreError,
    },
};

#[async_trait]
impl Receiving for SqliteStore {
    async fn receive(&self, arrival: Arrival) -> Result<Receipt, StoreError> {
        self.writer.receive(arrival).await
    }

    async fn spool_mark(&self) -> Result<Option<SpoolMark>, StoreError> {
        self.read(async |connection| mark(connection).await).await
    }

    async fn receive_spooled(&self, spooled: Spooled) -> Result<Option<Receipt>, StoreError> {
        let orders = self.orders.clone();
        let receipt = self.write(ReceiveSpooled { spooled, orders }).await?;
        if let Some(Receipt::Kept { job_id, outcome: Outcome::Stored }) = receipt {
            self.wake.finished(job_id.0);
        }
        Ok(receipt)
    }

    async fn record_oversize(
        &self,
        id: JobId,
        limit_bytes: usize,
        now: Timestamp,
    ) -> Result<Lookup<Standing>, StoreError> {
        self.write(RecordOversize { id, limit_bytes, now }).await
    }
}

pub(super) struct ReceiveSpooled {
    pub spooled: Spooled,
    /// See [`receive::apply`].
    pub orders: ResultOrders,
}

#[async_trait]
impl UseCase for ReceiveSpooled {
    type Output = Option<Receipt>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Option<Receipt>> {
        let Spooled { arrival, spool, number, is_oldest } = &self.spooled;
        let mark = mark(connection).await?;
        if mark.is_some_and(|mark| mark.spool == *spool && *number <= mark.number) {
            return Ok(None);
        }
        let mut pipeline = Pipeline::within(connection);
        let addressed = receive::inbox::addressed(&mut pipeline, &[arrival]).await?.pop();
        let arrival = addressed.as_deref().unwrap_or(arrival);
        let receipt = if is_counted(connection, arrival).await? {
            None
        } else {
            receive_with_event(connection, arrival, &self.orders).await?
        };
        if *is_oldest {
            sqlx::query("update instance set spool_id = ?, spool_mark = ?")
                .bind(&spool[..])
                .bind(*number as i64)
                .execute(connection)
                .await?;
        }
        Ok(receipt)
    }
}

/// How far the spool has been drained.
pub(super) async fn mark(connection: &mut SqliteConnection) -> sqlx::Result<Option<SpoolMark>> {
    let row =
        sqlx::query("select spool_id, spool_mark from instance").fetch_one(connection).await?;
    let Some(spool) = row.try_get::<Option<&[u8]>, _>("spool_id")? else { return Ok(None) };
    let spool = spool.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let number = row.try_get::<i64, _>("spool_mark")? as u64;
    Ok(Some(SpoolMark { spool, number }))
}

/// Whether this exact arrival is on record, as a delivery or as the repetition of one. Repetitions
/// of a malformed body leave no trace of their own and are not counted again; an arrival that is
/// counted without an event may be counted twice.
async fn is_counted(connection: &mut SqliteConnection, arrival: &Arrival) -> sqlx::Result<bool> {
    let (job_id, inbox_key) = match arrival.addressee {
        Addressee::Job(id) => (Some(id.0), None),
        Addressee::Inbox(key) => (None, Some(key.to_vec())),
    };
    let is_malformed = matches!(arrival.reading, Reading::Malformed(_));
    sqlx::query_scalar(
        "with job as (select seq, id from jobs where id = ?1 or inbox_key = ?2)
         select exists (select 1 from deliveries where id = ?3)
             or exists (select 1 from events where job_id = (select id from job) and at = ?9
                 and type = ?4 and data ->> 'arrivalId' = ?5)
             or (?6 and exists (select 1 from deliveries
                 where job_seq = (select seq from job) and sha256 = ?7 and outcome = ?8))",
    )
    .bind(job_id)
    .bind(inbox_key)
    .bind(arrival.delivery_id.0)
    .bind(EventType::DeliveryDuplicate.as_str())
    .bind(arrival.delivery_id.to_string())
    .bind(is_malformed)
    .bind(&arrival.sha256[..])
    .bind(Outcome::Malformed.as_str())
    .bind(arrival.received_at.as_millisecond())
    .fetch_one(connection)
    .await
}

async fn receive_with_event(
    connection: &mut SqliteConnection,
    arrival: &Arrival,
    orders: &ResultOrders,
) -> sqlx::Result<Option<Receipt>> {
    let mut pipeline = Pipeline::within(connection);
    let taken = receive::apply(&mut pipeline, &[arrival], orders).await?.pop();
    pipeline.flush().await?;
    // An arrival that is only counted has no event here either.
    if let Some(Received { receipt: Receipt::Kept { job_id, .. }, has_event: true }) = taken {
        let event = NewEvent::new(job_id, EventType::DeliverySpooled, arrival.received_at)
            .with(json!({ "deliveryId": arrival.delivery_id.to_string() }));
        rows::insert_events(connection, &[event]).await?;
    }
    Ok(taken.map(|taken| taken.receipt))
}

/// Records that a body was too large to be kept.
pub(super) struct RecordOversize {
    pub id: JobId,
    pub limit_bytes: usize,
    pub now: Timestamp,
}

#[async_trait]
impl UseCase for RecordOversize {
    type Output = Lookup<Standing>;

    async fn apply(&self, connection: &mut SqliteConnection) -> sqlx::Result<Lookup<Standing>> {
        match callback_addresses::address(connection, self.id).await? {
            Lookup::Erased => return Ok(Lookup::Erased),
            Lookup::Found(record) if record.standing_at(self.now) != Standing::Valid => {
                return Ok(Lookup::Found(Standing::Ended));
            }
            Lookup::Found(_) | Lookup::Missing => {}
        }
        if self.count(connection).await? <= i64::from(MAX_OVERSIZE_EVENTS) {
            let event = NewEvent::new(self.id, EventType::DeliveryOversize, self.now)
                .with(json!({ "limitBytes": self.limit_bytes }));
            rows::insert_events(connection, &[event]).await?;
        }
        Ok(Lookup::Found(Standing::Valid))
    }
}

impl RecordOversize {
    /// Counts the oversize bodies, including this one. For a job that is not on record its events
    /// are counted: it has no others.
    async fn count(&self, connection: &mut SqliteConnection) -> sqlx::Result<i64> {
        let counted = sqlx::query_scalar(
            "update jobs set oversize_count = oversize_count + 1 where id = ?
             returning oversize_count",
        )
        .bind(self.id.0)
        .fetch_optional(&mut *connection)
        .await?;
        match counted {
            Some(count) => Ok(count),
            None => {
                sqlx::query_scalar(
                    "select count(*) + 1 from (select 1 from events where job_id = ? limit ?)",
                )
                .bind(self.id.0)
                .bind(MAX_OVERSIZE_EVENTS)
                .fetch_one(connection)
                .await
            }
        }
    }
}
