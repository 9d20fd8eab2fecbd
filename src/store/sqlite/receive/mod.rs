//! Arrivals, written many at a time: each statement serves the whole batch, because each costs a
//! hop to the database's thread.
//!
//! Called by the writer within its transaction. The invariant: what is decided for an arrival
//! depends on the rows and on the arrivals before it in the batch, as if each came alone.

mod state;

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::json;
use sqlx::{QueryBuilder, Row, Sqlite, sqlite::SqliteRow};

use self::state::{State, insert_jobs, push_updates, upsert_outputs};
use super::{mirror, pipeline::Pipeline, relay, rows};
use crate::{
    domain::{
        bounds::MAX_OUTPUTS,
        delivery::{ENGINE_SOURCE, MAX_MALFORMED, Outcome, Says, judge},
        event::{EventType, NewEvent},
        ids::JobId,
        job::{Origin, Output},
        result::{Reading, reading_digest},
    },
    store::{Addressee, Arrival, Receipt, ResultOrders},
};

/// Puts arrivals on record; one receipt for each, in their order.
pub(super) async fn apply(
    pipeline: &mut Pipeline<'_>,
    arrivals: &[&Arrival],
    orders: &ResultOrders,
) -> sqlx::Result<Vec<Receipt>> {
    let mut batch = Batch::load(pipeline, arrivals).await?;
    let receipts = arrivals.iter().map(|arrival| batch.take_in(arrival)).collect();
    batch.write(pipeline, orders).await?;
    Ok(receipts)
}

struct Batch<'a> {
    states: HashMap<i64, State>,
    /// Whom an arrival is for: the job's seq; `None` if it has been erased.
    addressees: HashMap<Addressee, Option<i64>>,
    next_delivery: i64,
    /// New deliveries: seq, job's seq, outcome, arrival.
    deliveries: Vec<(i64, i64, Outcome, &'a Arrival)>,
    /// Deliveries on record that came again: seq, how often.
    repeats: HashMap<i64, i64>,
    events: Vec<NewEvent>,
}

impl<'a> Batch<'a> {
    async fn load(pipeline: &mut Pipeline<'_>, arrivals: &[&'a Arrival]) -> sqlx::Result<Self> {
        let mut batch = Self {
            states: HashMap::new(),
            addressees: HashMap::new(),
            next_delivery: 1,
            deliveries: Vec::new(),
            repeats: HashMap::new(),
            events: Vec::new(),
        };
        let last_job = batch.find_jobs(pipeline, arrivals).await?;
        batch.find_erased(pipeline, arrivals).await?;
        batch.make_missing(arrivals, last_job + 1);
        Ok(batch)
    }

    /// The jobs that arrivals are for, with their outputs and deliveries. Answers the last job's seq.
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
            state.known.insert(rows::digest(row, "sha256")?, row.try_get("seq")?);
            if row.try_get::<&str, _>("outcome")? == Outcome::Malformed.as_str() {
                state.malformed += 1;
            }
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

    /// Jobs that arrivals prove, but that are not on record.
    fn make_missing(&mut self, arrivals: &[&Arrival], first_seq: i64) {
        let mut next_seq = first_seq;
        for arrival in arrivals {
            if self.addressees.contains_key(&arrival.addressee) {
                continue;
            }
            let state = State::new(next_seq, arrival);
            if state.origin == Origin::Recovered {
                let kind = EventType::JobRecovered;
                self.events.push(NewEvent::new(state.id, kind, arrival.received_at));
            }
            self.addressees.insert(arrival.addressee, Some(next_seq));
            self.states.insert(next_seq, state);
            next_seq += 1;
        }
    }

    fn take_in(&mut self, arrival: &'a Arrival) -> Receipt {
        let Some(seq) = self.addressees.get(&arrival.addressee).copied().flatten() else {
            return Receipt::Erased;
        };
        let state =
            self.states.get_mut(&seq).expect("every addressee on record was loaded or made");
        let (says, outputs) = match &arrival.reading {
            Reading::Result(result) => {
                let outputs = result.apply(&state.outputs);
                (Says::Result(reading_digest(result.success, &outputs)), outputs)
            }
            Reading::Unrecognised(_) => (Says::Unrecognised, Vec::new()),
            Reading::Malformed(_) => (Says::Malformed, Vec::new()),
        };
        let known = state.known.get(&arrival.sha256).copied();
        let outcome = judge(says, state.result_reading, known.is_some());
        let receipt = Receipt::Kept { job_id: state.id, outcome };
        if let Some(delivery) = known {
            *self.repeats.entry(delivery).or_default() += 1;
            if outcome == Outcome::Duplicate {
                let kind = EventType::DeliveryDuplicate;
                // Tells the spool's take-in that this very arrival has been counted.
                let arrival_id = arrival.delivery_id.to_string();
                let event = NewEvent::new(state.id, kind, arrival.received_at);
                self.events.push(event.with(json!({ "arrivalId": arrival_id })));
            }
            return receipt;
        }
        if outcome == Outcome::Malformed {
            if state.malformed >= MAX_MALFORMED {
                return receipt;
            }
            state.malformed += 1;
        }

        let delivery = self.next_delivery;
        self.next_delivery += 1;
        state.known.insert(arrival.sha256, delivery);
        state.delivery_count += 1;
        state.is_changed = true;
        state.follow(outcome, says, delivery, arrival, outputs);
        self.deliveries.push((delivery, seq, outcome, arrival));
        self.events.push(event_of(state, outcome, arrival));
        if arrival.source == ENGINE_SOURCE {
            let event = NewEvent::new(state.id, EventType::JobReconciled, arrival.received_at);
            self.events.push(event.with(json!({ "outcome": outcome.as_str() })));
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
        relay::insert(pipeline, &self.relays(&orders.relay_targets)).await?;
        if orders.is_mirroring {
            let connection = pipeline.connection().await?;
            mirror::order(connection, &self.outputs_of(Outcome::Stored)).await?;
            mirror::renew(connection, &self.outputs_of(Outcome::Refreshed)).await?;
        }
        Ok(())
    }

    /// The outputs of the jobs that a delivery with this outcome came for, and when.
    fn outputs_of(&self, wanted: Outcome) -> Vec<(i64, &[Output], Timestamp)> {
        let deliveries = self.deliveries.iter().filter(|(_, _, outcome, _)| *outcome == wanted);
        deliveries
            .filter_map(|(_, job_seq, _, arrival)| {
                let state = self.states.get(job_seq)?;
                Some((*job_seq, &state.outputs[..], arrival.received_at))
            })
            .collect()
    }

    /// A result is passed on to every target, the job's own included.
    fn relays(&self, relay_targets: &[String]) -> Vec<relay::Order> {
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

    /// All that has one row for each arrival, as a rule, in one text: its length then depends on the
    /// batch's alone, and few texts have to be prepared. Outputs vary.
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

/// Four statements: the last seqs, the jobs that arrivals are for, their outputs, their deliveries.
pub(super) fn push_reads(query: &mut QueryBuilder<Sqlite>, arrivals: &[&Arrival]) {
    query.push(
        "select (select coalesce(max(seq), 0) from deliveries) as delivery,
                (select coalesce(max(seq), 0) from jobs) as job;
         select seq, id, origin, created_at, status, success, finished_at, engine_job_id, result_delivery,
                result_reading, delivery_count, warnings, inbox_key, relay_url
         from jobs where ",
    );
    push_addressees(query, arrivals, "id", "inbox_key");
    query.push(
        "; select job_seq, name, kind, kind_index, extension, structures, status, url
         from job_outputs where job_seq in (select seq from jobs where ",
    );
    push_addressees(query, arrivals, "id", "inbox_key");
    query.push(format!(
        ") and position < {MAX_OUTPUTS} order by job_seq, position;
         select job_seq, seq, sha256, outcome from deliveries
         where job_seq in (select seq from jobs where "
    ));
    push_addressees(query, arrivals, "id", "inbox_key");
    query.push(");");
}

/// `ID in (…)` and `KEY in (…)` for whom the arrivals are, joined by "or" where there are both. An
/// empty list would have the whole table scanned.
fn push_addressees(
    query: &mut QueryBuilder<Sqlite>,
    arrivals: &[&Arrival],
    id_column: &str,
    key_column: &str,
) {
    let (jobs, inbox): (Vec<&Arrival>, Vec<&Arrival>) =
        arrivals.iter().partition(|arrival| matches!(arrival.addressee, Addressee::Job(_)));
    for (position, (column, arrivals)) in [(id_column, jobs), (key_column, inbox)]
        .into_iter()
        .filter(|(_, some)| !some.is_empty())
        .enumerate()
    {
        query.push(if position == 0 { "" } else { " or " });
        query.push(column).push(" in (");
        let mut list = query.separated(", ");
        for arrival in arrivals {
            match arrival.addressee {
                Addressee::Job(id) => list.push_bind(id.0),
                Addressee::Inbox(key) => list.push_bind(key.to_vec()),
            };
        }
        query.push(")");
    }
}
