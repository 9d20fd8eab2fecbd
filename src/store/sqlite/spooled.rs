//! Taking in what waited in the emergency spool, each arrival once.
//!
//! Carried out by the writer. The invariant: the mark moves in the transaction that takes the record
//! in. The arrival may be on record all the same: the database was slow, not gone, and committed it
//! after the intake had turned to the spool; such a commit always comes before the take-in, because
//! the writer keeps the order in which it is asked.

use async_trait::async_trait;
use serde_json::json;
use sqlx::{Row, SqliteConnection};

use super::{
    pipeline::Pipeline,
    receive::{self, TakenIn},
    rows,
    writer::UseCase,
};
use crate::{
    domain::{
        delivery::Outcome,
        event::{EventType, NewEvent},
        result::Reading,
    },
    store::{Addressee, Arrival, Receipt, ResultOrders, SpoolMark, Spooled},
};

pub(super) struct TakeIn {
    pub spooled: Spooled,
    /// See [`receive::apply`].
    pub orders: ResultOrders,
}

#[async_trait]
impl UseCase for TakeIn {
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
            take_in(connection, arrival, &self.orders).await?
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

/// How far the spool has been taken in.
pub(super) async fn mark(connection: &mut SqliteConnection) -> sqlx::Result<Option<SpoolMark>> {
    let row =
        sqlx::query("select spool_id, spool_mark from instance").fetch_one(connection).await?;
    let Some(spool) = row.try_get::<Option<&[u8]>, _>("spool_id")? else { return Ok(None) };
    let spool = spool.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let number = row.try_get::<i64, _>("spool_mark")? as u64;
    Ok(Some(SpoolMark { spool, number }))
}

/// Whether this very arrival is on record: as a delivery, or as the repetition of one. Repetitions
/// of a malformed body leave no trace of their own and are not counted again; what is counted
/// without an event may be counted twice.
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

async fn take_in(
    connection: &mut SqliteConnection,
    arrival: &Arrival,
    orders: &ResultOrders,
) -> sqlx::Result<Option<Receipt>> {
    let mut pipeline = Pipeline::within(connection);
    let taken = receive::apply(&mut pipeline, &[arrival], orders).await?.pop();
    pipeline.flush().await?;
    // What is only counted has no event here either.
    if let Some(TakenIn { receipt: Receipt::Kept { job_id, .. }, is_told: true }) = taken {
        let event = NewEvent::new(job_id, EventType::DeliverySpooled, arrival.received_at)
            .with(json!({ "deliveryId": arrival.delivery_id.to_string() }));
        rows::insert_events(connection, &[event]).await?;
    }
    Ok(taken.map(|taken| taken.receipt))
}
