//! Arrivals, written many at a time: each statement serves the whole batch, because each costs a
//! hop to the database's thread.
//!
//! Called by the writer within its transaction. The invariant: what is decided for an arrival
//! depends on the rows and on the arrivals before it in the batch, as if each came alone.

use std::collections::HashMap;

use serde_json::json;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::rows;
use crate::{
    domain::{
        delivery::{MAX_MALFORMED, Outcome, Says, judge},
        event::{EventType, NewEvent},
        ids::JobId,
        job::{JobStatus, Origin, Output},
        result::{Reading, reading_digest},
    },
    store::{Addressee, Arrival, Receipt},
};

/// Puts arrivals on record; one receipt for each, in their order.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    arrivals: &[&Arrival],
) -> sqlx::Result<Vec<Receipt>> {
    let mut batch = Batch::load(connection, arrivals).await?;
    let receipts = arrivals.iter().map(|arrival| batch.take_in(arrival)).collect();
    batch.write(connection).await?;
    Ok(receipts)
}

/// A job as far as its arrivals concern it.
struct State {
    seq: i64,
    id: JobId,
    origin: Origin,
    inbox_key: Option<[u8; 32]>,
    created_at: i64,
    status: JobStatus,
    success: Option<bool>,
    finished_at: Option<i64>,
    engine_job_id: Option<String>,
    result_delivery: Option<i64>,
    result_reading: Option<[u8; 32]>,
    delivery_count: i64,
    warnings: Vec<String>,
    outputs: Vec<Output>,
    /// Deliveries on record by digest: their seq.
    known: HashMap<[u8; 32], i64>,
    malformed: usize,
    is_new: bool,
    is_changed: bool,
    are_outputs_changed: bool,
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
    async fn load(
        connection: &mut SqliteConnection,
        arrivals: &[&'a Arrival],
    ) -> sqlx::Result<Self> {
        let (last_delivery, last_job): (i64, i64) = sqlx::query_as(
            "select (select coalesce(max(seq), 0) from deliveries),
                    (select coalesce(max(seq), 0) from jobs)",
        )
        .fetch_one(&mut *connection)
        .await?;
        let mut batch = Self {
            states: HashMap::new(),
            addressees: HashMap::new(),
            next_delivery: last_delivery + 1,
            deliveries: Vec::new(),
            repeats: HashMap::new(),
            events: Vec::new(),
        };
        batch.find_jobs(connection, arrivals).await?;
        batch.find_erased(connection, arrivals).await?;
        batch.load_outputs(connection).await?;
        batch.load_deliveries(connection).await?;
        batch.make_missing(arrivals, last_job + 1);
        Ok(batch)
    }

    async fn find_jobs(
        &mut self,
        connection: &mut SqliteConnection,
        arrivals: &[&Arrival],
    ) -> sqlx::Result<()> {
        let mut query = QueryBuilder::<Sqlite>::new(
            "select seq, id, origin, created_at, status, success, finished_at, engine_job_id, result_delivery,
                    result_reading, delivery_count, warnings, inbox_key
             from jobs where ",
        );
        push_addressees(&mut query, arrivals, "id", "inbox_key");
        for row in query.build().fetch_all(connection).await? {
            let state = State::from_row(&row)?;
            if let Some(key) = state.inbox_key {
                self.addressees.insert(Addressee::Inbox(key), Some(state.seq));
            }
            self.addressees.insert(Addressee::Job(state.id), Some(state.seq));
            self.states.insert(state.seq, state);
        }
        Ok(())
    }

    async fn find_erased(
        &mut self,
        connection: &mut SqliteConnection,
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
        let mut query =
            QueryBuilder::<Sqlite>::new("select job_id, inbox_key from erased_jobs where ");
        push_addressees(&mut query, &unknown, "job_id", "inbox_key");
        for row in query.build().fetch_all(connection).await? {
            self.addressees.insert(Addressee::Job(JobId(row.try_get("job_id")?)), None);
            if let Some(key) = rows::optional_digest(&row, "inbox_key")? {
                self.addressees.insert(Addressee::Inbox(key), None);
            }
        }
        Ok(())
    }

    async fn load_outputs(&mut self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        if self.states.is_empty() {
            return Ok(());
        }
        let mut query = QueryBuilder::<Sqlite>::new(
            "select job_seq, name, kind, kind_index, extension, structures, status, url
             from job_outputs where job_seq in (",
        );
        push_list(&mut query, self.states.keys().copied());
        query.push(") order by job_seq, position");
        for row in query.build().fetch_all(connection).await? {
            let output = rows::output(&row)?;
            if let Some(state) = self.states.get_mut(&row.try_get("job_seq")?) {
                state.outputs.push(output);
            }
        }
        Ok(())
    }

    async fn load_deliveries(&mut self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        if self.states.is_empty() {
            return Ok(());
        }
        let mut query = QueryBuilder::<Sqlite>::new(
            "select job_seq, seq, sha256, outcome from deliveries where job_seq in (",
        );
        push_list(&mut query, self.states.keys().copied());
        query.push(")");
        for row in query.build().fetch_all(connection).await? {
            let Some(state) = self.states.get_mut(&row.try_get("job_seq")?) else { continue };
            state.known.insert(rows::digest(&row, "sha256")?, row.try_get("seq")?);
            if row.try_get::<&str, _>("outcome")? == Outcome::Malformed.as_str() {
                state.malformed += 1;
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
                self.events.push(NewEvent::new(state.id, kind, arrival.received_at));
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
        receipt
    }

    async fn write(self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        let mut states: Vec<&State> = self.states.values().filter(|one| one.is_changed).collect();
        states.sort_by_key(|state| state.seq);
        let (new, known): (Vec<&State>, Vec<&State>) = states.iter().partition(|one| one.is_new);
        insert_jobs(connection, &new).await?;
        self.insert_deliveries(connection).await?;
        update_jobs(connection, &known).await?;
        upsert_outputs(connection, &states).await?;
        for (delivery, times) in &self.repeats {
            sqlx::query("update deliveries set repeats = repeats + ? where seq = ?")
                .bind(times)
                .bind(delivery)
                .execute(&mut *connection)
                .await?;
        }
        rows::insert_events(connection, &self.events).await
    }

    async fn insert_deliveries(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        if self.deliveries.is_empty() {
            return Ok(());
        }
        let mut query = QueryBuilder::<Sqlite>::new(
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
        query.build().execute(&mut *connection).await?;

        let mut query =
            QueryBuilder::<Sqlite>::new("insert into delivery_bodies (delivery_seq, body) ");
        query.push_values(&self.deliveries, |mut row, (seq, _, _, arrival)| {
            row.push_bind(seq).push_bind(&arrival.body[..]);
        });
        query.build().execute(connection).await?;
        Ok(())
    }
}

impl State {
    /// A job that only this arrival tells of.
    fn new(seq: i64, arrival: &Arrival) -> Self {
        let (id, origin, inbox_key) = match arrival.addressee {
            Addressee::Job(id) => (id, Origin::Recovered, None),
            Addressee::Inbox(key) => (JobId::new(arrival.received_at), Origin::Inbox, Some(key)),
        };
        Self {
            seq,
            id,
            origin,
            inbox_key,
            created_at: arrival.received_at.as_millisecond(),
            status: JobStatus::Unconfirmed,
            success: None,
            finished_at: None,
            engine_job_id: None,
            result_delivery: None,
            result_reading: None,
            delivery_count: 0,
            warnings: Vec::new(),
            outputs: Vec::new(),
            known: HashMap::new(),
            malformed: 0,
            is_new: true,
            is_changed: true,
            are_outputs_changed: false,
        }
    }

    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            seq: row.try_get("seq")?,
            id: JobId(row.try_get("id")?),
            origin: rows::parsed(row, "origin", rows::origin)?,
            inbox_key: rows::optional_digest(row, "inbox_key")?,
            created_at: row.try_get("created_at")?,
            status: rows::parsed(row, "status", str::parse)?,
            success: row.try_get("success")?,
            finished_at: row.try_get("finished_at")?,
            engine_job_id: row.try_get("engine_job_id")?,
            result_delivery: row.try_get("result_delivery")?,
            result_reading: rows::optional_digest(row, "result_reading")?,
            delivery_count: row.try_get("delivery_count")?,
            warnings: rows::texts(row, "warnings")?,
            outputs: Vec::new(),
            known: HashMap::new(),
            malformed: 0,
            is_new: false,
            is_changed: false,
            are_outputs_changed: false,
        })
    }

    /// Applies what a delivery means for the job.
    fn follow(
        &mut self,
        outcome: Outcome,
        says: Says,
        delivery: i64,
        arrival: &Arrival,
        outputs: Vec<Output>,
    ) {
        match (outcome, &arrival.reading, says) {
            (Outcome::Stored, Reading::Result(result), Says::Result(digest)) => {
                self.status = result.status(&outputs);
                self.success = Some(result.success);
                self.finished_at = Some(arrival.received_at.as_millisecond());
                self.result_delivery = Some(delivery);
                self.result_reading = Some(digest);
                if self.engine_job_id.is_none() {
                    self.engine_job_id.clone_from(&result.engine_job_id);
                }
                if outputs.iter().any(|output| output.index.is_none()) {
                    self.warn("The result holds outputs that match none of the requested ones.");
                }
                self.outputs = outputs;
                self.are_outputs_changed = true;
            }
            (Outcome::Refreshed, ..) => {
                for (known, renewed) in self.outputs.iter_mut().zip(outputs) {
                    if renewed.url.is_some() {
                        known.url = renewed.url;
                    }
                }
                self.are_outputs_changed = true;
            }
            (Outcome::Conflict, ..) => {
                self.warn("A later delivery contradicts the result; the first one stands.");
            }
            (Outcome::Unrecognised, Reading::Unrecognised(reason), _) => {
                self.warn(&format!("A delivery is no job result ({reason}); the job stays open."));
            }
            (Outcome::Malformed, ..) => self.warn("A delivery is not JSON."),
            _ => {}
        }
    }

    fn warn(&mut self, warning: &str) {
        if !self.warnings.iter().any(|known| known == warning) {
            self.warnings.push(warning.to_owned());
        }
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

async fn insert_jobs(connection: &mut SqliteConnection, jobs: &[&State]) -> sqlx::Result<()> {
    for job in jobs {
        sqlx::query(
            "insert into jobs (seq, id, origin, status, success, engine_job_id, inbox_key,
                 created_at, finished_at, result_delivery, result_reading, delivery_count, warnings)
             values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(job.seq)
        .bind(job.id.0)
        .bind(job.origin.as_str())
        .bind(job.status.as_str())
        .bind(job.success)
        .bind(&job.engine_job_id)
        .bind(job.inbox_key.map(|key| key.to_vec()))
        .bind(job.created_at)
        .bind(job.finished_at)
        .bind(job.result_delivery)
        .bind(job.result_reading.map(|digest| digest.to_vec()))
        .bind(job.delivery_count)
        .bind(rows::json_texts(&job.warnings))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn update_jobs(connection: &mut SqliteConnection, jobs: &[&State]) -> sqlx::Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let mut query = QueryBuilder::<Sqlite>::new(
        "update jobs set status = fresh.column2, success = fresh.column3,
             finished_at = fresh.column4, engine_job_id = fresh.column5,
             result_delivery = fresh.column6, result_reading = fresh.column7,
             delivery_count = fresh.column8, warnings = fresh.column9,
             overdue = case when fresh.column6 is null then overdue else 0 end
         from (",
    );
    query.push_values(jobs, |mut row, job| {
        row.push_bind(job.seq)
            .push_bind(job.status.as_str())
            .push_bind(job.success)
            .push_bind(job.finished_at)
            .push_bind(&job.engine_job_id)
            .push_bind(job.result_delivery)
            .push_bind(job.result_reading.map(|digest| digest.to_vec()))
            .push_bind(job.delivery_count)
            .push_bind(rows::json_texts(&job.warnings));
    });
    query.push(") as fresh where jobs.seq = fresh.column1");
    query.build().execute(connection).await?;
    Ok(())
}

async fn upsert_outputs(connection: &mut SqliteConnection, jobs: &[&State]) -> sqlx::Result<()> {
    let changed = jobs.iter().filter(|job| job.are_outputs_changed);
    let rows: Vec<(i64, i64, &Output)> = changed
        .flat_map(|job| {
            (0..).zip(&job.outputs).map(|(position, output)| (job.seq, position, output))
        })
        .collect();
    rows::upsert_outputs(connection, &rows).await
}

fn push_list(query: &mut QueryBuilder<Sqlite>, values: impl Iterator<Item = i64>) {
    let mut list = query.separated(", ");
    for value in values {
        list.push_bind(value);
    }
}

/// `ID in (…) or KEY in (…)` for whom the arrivals are.
fn push_addressees(
    query: &mut QueryBuilder<Sqlite>,
    arrivals: &[&Arrival],
    id_column: &str,
    key_column: &str,
) {
    query.push(id_column).push(" in (");
    let mut list = query.separated(", ");
    for arrival in arrivals {
        if let Addressee::Job(id) = arrival.addressee {
            list.push_bind(id.0);
        }
    }
    query.push(")");
    if arrivals.iter().all(|arrival| matches!(arrival.addressee, Addressee::Job(_))) {
        return;
    }
    query.push(" or ").push(key_column).push(" in (");
    let mut list = query.separated(", ");
    for arrival in arrivals {
        if let Addressee::Inbox(key) = arrival.addressee {
            list.push_bind(key.to_vec());
        }
    }
    query.push(")");
}
