//! Records arrivals in batches: each statement serves the whole batch, because each costs a round
//! trip to the database's thread.
//!
//! Called by the writer within its transaction. Invariant: what is decided for an arrival depends
//! on the rows and on the arrivals before it in the batch, as if each came alone.

pub(super) mod inbox;
pub(super) mod reads;
mod state;

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::json;
use sqlx::{QueryBuilder, Row, Sqlite, sqlite::SqliteRow};

use self::{
    reads::{push_addressees, push_reads},
    state::{Known, State, insert_jobs, push_updates, upsert_outputs},
};
use super::{mirror_orders, pipeline::Pipeline, relay_orders, rows};
use crate::{
    domain::{
        callback_address::Standing,
        delivery::{Budget, MAX_REPEAT_EVENTS, Outcome, Verdict, classify},
        event::{EventType, NewEvent},
        ids::JobId,
        job::{Origin, Output},
        result::{Reading, reading_digest},
        signing_keys::KeyNumber,
    },
    store::{Addressee, Arrival, Receipt, ResultOrders},
};

/// What became of an arrival.
pub(super) struct Received {
    pub receipt: Receipt,
    /// Whether an event records it; further arrivals of the same kind are only counted.
    pub has_event: bool,
}

/// Records arrivals; returns what became of each, in the same order.
pub(super) async fn apply(
    pipeline: &mut Pipeline<'_>,
    arrivals: &[&Arrival],
    orders: &ResultOrders,
) -> sqlx::Result<Vec<Received>> {
    let arrivals = inbox::addressed(pipeline, arrivals).await?;
    let arrivals: Vec<&Arrival> = arrivals.iter().map(AsRef::as_ref).collect();
    let mut batch = Batch::load(pipeline, &arrivals).await?;
    let mut taken = Vec::with_capacity(arrivals.len());
    for arrival in &arrivals {
        let events = batch.events.len();
        let receipt = batch.receive(arrival);
        taken.push(Received { receipt, has_event: batch.events.len() > events });
    }
    batch.write(pipeline, orders).await?;
    Ok(taken)
}

struct Batch<'a> {
    states: HashMap<i64, State>,
    /// The seq of each addressee's job; `None` if it has been erased.
    addressees: HashMap<Addressee, Option<i64>>,
    current_key: KeyNumber,
    next_delivery: i64,
    /// New deliveries: seq, job's seq, outcome, arrival.
    deliveries: Vec<(i64, i64, Outcome, &'a Arrival)>,
    /// Deliveries on record that came again: seq, how often.
    repeats: HashMap<i64, i64>,
    /// Jobs whose links the Engine renewed when it was asked: seq, time.
    renewals: Vec<(i64, Timestamp)>,
    events: Vec<NewEvent>,
}

impl<'a> Batch<'a> {
    async fn load(pipeline: &mut Pipeline<'_>, arrivals: &[&'a Arrival]) -> sqlx::Result<Self> {
        let mut batch = Self {
            states: HashMap::new(),
            addressees: HashMap::new(),
            current_key: KeyNumber::FIRST,
            next_delivery: 1,
            deliveries: Vec::new(),
            repeats: HashMap::new(),
            renewals: Vec::new(),
            events: Vec::new(),
        };
        let last_job = batch.find_jobs(pipeline, arrivals).await?;
        batch.find_erased(pipeline, arrivals).await?;
        batch.make_missing(arrivals, last_job + 1);
        Ok(batch)
    }

    /// Loads the jobs that arrivals are for, with their outputs and those of their deliveries that
    /// have the same bytes. Returns the last job's seq.
    async fn find_jobs(
        &mut self,
        pipeline: &mut Pipeline<'_>,
        arrivals: &[&Arrival],
    ) -> sqlx::Result<i64> {
        push_reads(pipeline.next().await?, arrivals);
        let [last, jobs, outputs, deliveries] = pipeline.rows().await?;
        for row in jobs {
            let state = State::from_row(&row)?;
            if let Some(key) = state.inbox_key {
                self.addressees.insert(Addressee::Inbox(key), Some(state.seq));
            }
            self.addressees.insert(Addressee::Job(state.id), Some(state.seq));
            self.states.insert(state.seq, state);
        }
        self.add_details(&outputs, &deliveries)?;
        let last = last.first().ok_or(sqlx::Error::RowNotFound)?;
        self.next_delivery = last.try_get::<i64, _>("delivery")? + 1;
        self.current_key = KeyNumber(last.try_get("key_number")?);
        last.try_get("job")
    }

    fn add_details(&mut self, outputs: &[SqliteRow], deliveries: &[SqliteRow]) -> sqlx::Result<()> {
        for row in outputs {
            let output = rows::output(row)?;
            if let Some(state) = self.states.get_mut(&row.try_get("job_seq")?) {
                state.outputs.push(output);
            }
        }
        for row in deliveries {
            let Some(state) = self.states.get_mut(&row.try_get("job_seq")?) else { continue };
            let repeats = row.try_get::<i64, _>("repeats")?.unsigned_abs();
            let known = Known { delivery: row.try_get("seq")?, repeats };
            state.known.insert(rows::digest(row, "sha256")?, known);
        }
        Ok(())
    }

    async fn find_erased(
        &mut self,
        pipeline: &mut Pipeline<'_>,
        arrivals: &[&Arrival],
    ) -> sqlx::Result<()> {
        let unknown: Vec<&Arrival> = arrivals
            .iter()
            .copied()
            .filter(|arrival| !self.addressees.contains_key(&arrival.addressee))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let query = pipeline.next().await?;
        query.push("select job_id, inbox_key from erased_jobs where ");
        push_addressees(query, &unknown, "job_id", "inbox_key");
        query.push(";");
        let [erased] = pipeline.rows().await?;
        for row in erased {
            self.addressees.insert(Addressee::Job(JobId(row.try_get("job_id")?)), None);
            if let Some(key) = rows::optional_digest(&row, "inbox_key")? {
                self.addressees.insert(Addressee::Inbox(key), None);
            }
        }
        Ok(())
    }

    /// Makes the jobs that arrivals prove but that are not on record. A replaced key proves none:
    /// the jobs that were submitted under it are on record.
    fn make_missing(&mut self, arrivals: &[&Arrival], first_seq: i64) {
        let mut next_seq = first_seq;
        for arrival in arrivals {
            let is_proven = arrival.signer.is_none_or(|signer| signer == self.current_key);
            if self.addressees.contains_key(&arrival.addressee) || !is_proven {
                continue;
            }
            let state = State::new(next_seq, arrival, self.current_key);
            if state.origin == Origin::Recovered {
                let kind = EventType::JobRecovered;
                self.events.push(NewEvent::new(state.id, kind, arrival.received_at));
            }
            self.addressees.insert(arrival.addressee, Some(next_seq));
            self.states.insert(next_seq, state);
            next_seq += 1;
        }
    }

    fn receive(&mut self, arrival: &'a Arrival) -> Receipt {
        let seq = match self.addressees.get(&arrival.addressee) {
            Some(Some(seq)) => *seq,
            Some(None) => return Receipt::Erased,
            None => return Receipt::Unproven,
        };
        let state =
            self.states.get_mut(&seq).expect("every addressee on record was loaded or made");
        match state.standing(arrival, self.current_key) {
            Standing::Valid => {}
            Standing::Ended => return Receipt::Ended,
            Standing::NotOurs => return Receipt::Unproven,
        }
        let (verdict, outputs) = match &arrival.reading {
            Reading::Result(result) => {
                let outputs = result.apply(&state.outputs);
                (Verdict::Result(reading_digest(result.success, &outputs)), outputs)
            }
            Reading::Unrecognised(_) => (Verdict::Unrecognised, Vec::new()),
            Reading::Malformed(_) => (Verdict::Malformed, Vec::new()),
        };
        let outcome =
            classify(verdict, state.result_reading, state.known.contains_key(&arrival.sha256));
        let receipt = Receipt::Kept { job_id: state.id, outcome };
        if let Some(known) = state.known.get_mut(&arrival.sha256) {
            *self.repeats.entry(known.delivery).or_default() += 1;
            known.repeats += 1;
            if outcome == Outcome::Duplicate && known.repeats <= MAX_REPEAT_EVENTS {
                let kind = EventType::DeliveryDuplicate;
                // Lets the drain of the spool see that this exact arrival has been counted.
                let arrival_id = arrival.delivery_id.to_string();
                let event = NewEvent::new(state.id, kind, arrival.received_at);
                self.events.push(event.with(json!({ "arrivalId": arrival_id })));
            }
            return receipt;
        }
        let exceeded = state.exceeded_by(outcome, arrival);
        match exceeded {
            // Not counted: few malformed bodies are kept, and their senders get an error.
            Some(Budget::Malformed) => return receipt,
            Some(budget) => self.events.extend(state.leave_out(budget, outcome, arrival)),
            None => {
                let delivery = self.next_delivery;
                self.next_delivery += 1;
                state.keep(outcome, verdict, delivery, arrival);
                self.deliveries.push((delivery, seq, outcome, arrival));
            }
        }
        if exceeded.is_none() || arrival.was_asked_for() {
            state.follow(outcome, arrival, outputs);
        }
        if exceeded.is_none() {
            self.events.push(event_of(state, outcome, arrival));
        }
        if arrival.was_asked_for() {
            let event = NewEvent::new(state.id, EventType::JobReconciled, arrival.received_at);
            self.events.push(event.with(json!({ "outcome": outcome.as_str() })));
            if outcome == Outcome::Refreshed {
                self.renewals.push((seq, arrival.received_at));
            }
        }
        receipt
    }

    async fn write(self, pipeline: &mut Pipeline<'_>, orders: &ResultOrders) -> sqlx::Result<()> {
        let mut states: Vec<&State> = self.states.values().filter(|one| one.is_changed).collect();
        states.sort_by_key(|state| state.seq);
        let (new, known): (Vec<&State>, Vec<&State>) = states.iter().partition(|one| one.is_new);
        insert_jobs(pipeline, &new).await?;
        self.write_rows(pipeline, &known).await?;
        upsert_outputs(pipeline, &states).await?;
        for (delivery, times) in &self.repeats {
            let query = pipeline.next().await?;
            query.push("update deliveries set repeats = repeats + ").push_bind(times);
            query.push(" where seq = ").push_bind(delivery).push(";");
        }
        relay_orders::insert(pipeline, &self.relays(&orders.relay_targets)).await?;
        if orders.is_mirroring {
            let connection = pipeline.connection().await?;
            let results =
                self.deliveries.iter().filter(|(_, _, outcome, _)| *outcome == Outcome::Stored);
            let results = results.map(|(_, job_seq, _, arrival)| (*job_seq, arrival.received_at));
            mirror_orders::order(connection, &self.outputs_of(results)).await?;
            mirror_orders::renew(connection, &self.outputs_of(self.renewals.iter().copied()))
                .await?;
        }
        Ok(())
    }

    /// The outputs of these jobs, with the time they were received.
    fn outputs_of(
        &self,
        jobs: impl Iterator<Item = (i64, Timestamp)>,
    ) -> Vec<(i64, &[Output], Timestamp)> {
        jobs.filter_map(|(job_seq, at)| {
            Some((job_seq, &self.states.get(&job_seq)?.outputs[..], at))
        })
        .collect()
    }

    /// The relay orders of new results: one for every target, the job's own included.
    fn relays(&self, relay_targets: &[String]) -> Vec<relay_orders::Order> {
        let results =
            self.deliveries.iter().filter(|(_, _, outcome, _)| *outcome == Outcome::Stored);
        let mut orders = Vec::new();
        for (_, job_seq, _, arrival) in results {
            let at = arrival.received_at;
            for target in relay_targets {
                orders.push((*job_seq, target.clone(), None, at));
            }
            let own = self.states.get(job_seq).and_then(|state| state.relay_url.as_ref());
            if let Some(url) = own.and_then(|url| url::Url::parse(url).ok()) {
                let origin = url.origin().ascii_serialization();
                orders.push((*job_seq, origin, Some(url.into()), at));
            }
        }
        orders
    }

    /// Writes everything that usually has one row per arrival in one text: its length then depends
    /// only on the batch's, and few texts have to be prepared. The number of outputs varies, so
    /// they are written separately.
    async fn write_rows(&self, pipeline: &mut Pipeline<'_>, known: &[&State]) -> sqlx::Result<()> {
        let query = pipeline.next().await?;
        if !self.deliveries.is_empty() {
            self.push_deliveries(query);
        }
        if !known.is_empty() {
            push_updates(query, known);
        }
        if !self.events.is_empty() {
            rows::push_events(query, &self.events);
            query.push(";");
        }
        Ok(())
    }

    fn push_deliveries(&self, query: &mut QueryBuilder<Sqlite>) {
        query.push(
            "insert into deliveries
                 (seq, id, job_seq, received_at, source, outcome, size_bytes, sha256, headers) ",
        );
        query.push_values(&self.deliveries, |mut row, (seq, job_seq, outcome, arrival)| {
            let headers = serde_json::to_string(&arrival.headers).expect("texts are JSON");
            row.push_bind(seq)
                .push_bind(arrival.delivery_id.0)
                .push_bind(job_seq)
                .push_bind(arrival.received_at.as_millisecond())
                .push_bind(&arrival.source)
                .push_bind(outcome.as_str())
                .push_bind(arrival.body.len() as i64)
                .push_bind(&arrival.sha256[..])
                .push_bind(headers);
        });
        query.push("; insert into delivery_bodies (delivery_seq, body) ");
        query.push_values(&self.deliveries, |mut row, (seq, _, _, arrival)| {
            row.push_bind(seq).push_bind(&arrival.body[..]);
        });
        query.push(";");
    }
}

fn event_of(state: &State, outcome: Outcome, arrival: &Arrival) -> NewEvent {
    let kind = EventType::of_delivery(outcome);
    let delivery_id = arrival.delivery_id.to_string();
    let data = match outcome {
        Outcome::Stored => json!({
            "deliveryId": delivery_id,
            "status": state.status.as_str(),
            "success": state.success,
        }),
        _ => json!({ "deliveryId": delivery_id }),
    };
    NewEvent::new(state.id, kind, arrival.received_at).with(data)
}
