//! The one task that writes: callers hand it a change and wait for its commit.
//!
//! Changes that queue up during a commit go into the next transaction together (group commit), so
//! that all waiting callers share one fsync.
//!
//! ```text
//! callers ── hand_over ──> queue (QUEUE_CAPACITY; full: Overloaded)
//!                            │ recv_many, at most MAX_BATCH
//!                            v
//!                          batch, cut where MAX_BATCH_BYTES are reached
//!                            │
//!           begin ── all changes, kind by kind ── commit
//!              │              │                     │
//!       cannot begin     one fails: roll back       v
//!              │              │                   hooks: wake those who wait for events, results
//!              v              v                     │
//!        refuse all      each change in a           v
//!       that wait        transaction of its own   answer the callers Ok
//! ```
//!
//! Invariants: a caller gets `Ok` only after the commit; a change that fails does not make another
//! one fail; the next batch always gets a connection outside of any transaction, even after an
//! error of SQLite.

use std::fs::File;

use async_trait::async_trait;
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{self, RecordAnswer},
    connections::{closed, connect},
    pipeline::Pipeline,
    receive, submit,
    use_case::UseCase,
};
use crate::{
    clock::Stopwatch,
    domain::{delivery::Outcome, job::Job, result::OUTPUT_BYTES},
    store::{Arrival, Begun, Lookup, NewSubmission, Receipt, ResultOrders, StoreError},
    telemetry,
    wake::Wake,
};

/// Changes that may wait. Each holds at most one callback body in memory.
const QUEUE_CAPACITY: usize = 1024;

/// Changes per transaction: beyond this, sharing an fsync gains little and latency grows.
const MAX_BATCH: usize = 64;

/// Bytes of one transaction's changes, unless one alone is larger: each change is copied several
/// times on its way, and next to large ones an fsync costs little.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// What goes with a commit: the signals to waiters, the orders of a result, and the lock that is
/// released at the end.
pub(super) struct CommitHooks {
    pub wake: Wake,
    pub orders: ResultOrders,
    /// Held while the database may be written.
    pub lock: File,
}

/// Hands changes to the writer task. Cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Change>,
}

/// A queued change. The frequent kinds are applied in batches, by statements that serve all changes
/// of a kind.
enum Change {
    Receive(Box<Waiting<Arrival, Receipt>>),
    Submit(Box<Waiting<NewSubmission, Begun>>),
    Answer(Box<Waiting<RecordAnswer, Lookup<Job>>>),
    Other(Box<dyn Pending>),
}

#[async_trait]
trait Pending: Send {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> sqlx::Result<()>;
    fn finish(self: Box<Self>, outcome: Result<(), &sqlx::Error>);
}

/// A change whose caller waits for the commit.
struct Waiting<C, O> {
    change: C,
    output: Option<O>,
    reply: oneshot::Sender<Result<O, StoreError>>,
}

impl<C, O> Waiting<C, O> {
    fn answer(self, outcome: Result<(), &sqlx::Error>) {
        let answer = match (outcome, self.output) {
            (Ok(()), Some(output)) => Ok(output),
            (Ok(()), None) => Err(StoreError::Unavailable("the change was not applied".into())),
            (Err(error), _) => Err(StoreError::Unavailable(error.to_string())),
        };
        // The caller may be gone; its change is kept.
        let _ = self.reply.send(answer);
    }
}

#[async_trait]
impl<U: UseCase> Pending for Waiting<U, U::Output> {
    async fn apply(&mut self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        self.output = Some(self.change.apply(connection).await?);
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<(), &sqlx::Error>) {
        self.answer(outcome);
    }
}

impl Writer {
    /// Starts the task. It ends when `closing` is cancelled and all changes handed over are
    /// written.
    pub(super) fn start(
        database: Database,
        hooks: CommitHooks,
        closing: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, changes) = mpsc::channel(QUEUE_CAPACITY);
        let task = tokio::spawn(run(database, changes, hooks, closing));
        (Self { queue }, task)
    }

    /// Makes a change; `Ok` once it is on disk.
    pub(super) async fn commit<U: UseCase>(&self, use_case: U) -> Result<U::Output, StoreError> {
        self.hand_over(use_case, |waiting| Change::Other(waiting)).await
    }

    /// Puts an arrival on record; `Ok` once it is on disk.
    pub(super) async fn receive(&self, arrival: Arrival) -> Result<Receipt, StoreError> {
        self.hand_over(arrival, Change::Receive).await
    }

    /// Puts a submission on record; `Ok` once it is on disk.
    pub(super) async fn submit(&self, submission: NewSubmission) -> Result<Begun, StoreError> {
        self.hand_over(submission, Change::Submit).await
    }

    /// Puts the Engine's answer on record; `Ok` once it is on disk.
    pub(super) async fn answer(&self, answer: RecordAnswer) -> Result<Lookup<Job>, StoreError> {
        self.hand_over(answer, Change::Answer).await
    }

    async fn hand_over<C, O>(
        &self,
        change: C,
        kind: impl FnOnce(Box<Waiting<C, O>>) -> Change,
    ) -> Result<O, StoreError> {
        let (reply, answer) = oneshot::channel();
        let change = kind(Box::new(Waiting { change, output: None, reply }));
        telemetry::STORE_QUEUE_DEPTH.of([]).increment(1);
        self.queue.try_send(change).map_err(|error| {
            telemetry::STORE_QUEUE_DEPTH.of([]).decrement(1);
            match error {
                mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => closed(),
            }
        })?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

async fn run(
    mut database: Database,
    mut changes: mpsc::Receiver<Change>,
    hooks: CommitHooks,
    closing: CancellationToken,
) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    loop {
        tokio::select! {
            biased;
            () = closing.cancelled(), if !changes.is_closed() => changes.close(),
            taken = changes.recv_many(&mut batch, MAX_BATCH) => {
                if taken == 0 {
                    break;
                }
                telemetry::STORE_QUEUE_DEPTH.of([]).decrement(taken as f64);
                while !batch.is_empty() {
                    let mut part: Vec<Change> = batch.drain(..fitting(&batch)).collect();
                    let Err(error) = write(&mut database, &mut part, &hooks).await else {
                        continue;
                    };
                    // Trying the rest one by one, each waiting for the database, would take
                    // minutes. So all are refused, with those queued meanwhile, and no change waits
                    // that long.
                    part.append(&mut batch);
                    let taken = match changes.len() {
                        0 => 0,
                        waiting => changes.recv_many(&mut part, waiting).await,
                    };
                    telemetry::STORE_QUEUE_DEPTH.of([]).decrement(taken as f64);
                    refuse(part.drain(..), &error);
                }
            }
        }
    }
    if let Some(connection) = database.connection
        && let Err(error) = connection.close().await
    {
        tracing::error!(%error, "the database was not closed cleanly");
    }
    // A child process that is just being started may hold the file a moment longer; unlocking
    // explicitly frees the lock now.
    let _ = hooks.lock.unlock();
}

/// The write connection, reopened after a failure that may have broken it.
pub(super) struct Database {
    pub options: SqliteConnectOptions,
    pub connection: Option<SqliteConnection>,
}

/// Why a transaction was not committed.
enum Failure {
    /// It could not begin: no change is at fault.
    Begin(sqlx::Error),
    /// A change or the commit failed; all is rolled back.
    Change(sqlx::Error),
}

/// How many changes go into one transaction.
fn fitting(batch: &[Change]) -> usize {
    let mut bytes = 0;
    let fits = |change: &&Change| {
        bytes += change.held_bytes();
        bytes <= MAX_BATCH_BYTES
    };
    batch.iter().take_while(fits).count().max(1)
}

/// Writes a batch in one transaction; if a change fails, writes each change in a transaction of its
/// own, so that only the failing one is refused. An error means that no transaction can begin; the
/// changes left in the batch have not been answered.
async fn write(
    database: &mut Database,
    batch: &mut Vec<Change>,
    hooks: &CommitHooks,
) -> sqlx::Result<()> {
    let started = Stopwatch::start();
    let size = batch.len();
    let orders = &hooks.orders;
    match database.transact(batch, orders).await {
        Ok(()) => reply(batch.drain(..), &hooks.wake),
        Err(Failure::Begin(error)) => return Err(error),
        Err(Failure::Change(error)) if size == 1 => refuse(batch.drain(..), &error),
        Err(Failure::Change(_)) => {
            while !batch.is_empty() {
                match database.transact(&mut batch[..1], orders).await {
                    Ok(()) => reply(batch.drain(..1), &hooks.wake),
                    Err(Failure::Begin(error)) => return Err(error),
                    Err(Failure::Change(error)) => refuse(batch.drain(..1), &error),
                }
            }
        }
    }
    telemetry::STORE_COMMIT_SECONDS.of([]).record(started.elapsed().as_secs_f64());
    telemetry::STORE_BATCH_SIZE.of([]).record(size as f64);
    Ok(())
}

impl Database {
    /// Makes the changes in one transaction.
    ///
    /// It sends the transaction's statements itself, because a full or failing disk makes SQLite
    /// roll back on its own, which sqlx's transactions do not notice: they would never begin
    /// another one.
    async fn transact(
        &mut self,
        batch: &mut [Change],
        orders: &ResultOrders,
    ) -> Result<(), Failure> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            lost => lost.insert(connect(&self.options).await.map_err(Failure::Begin)?),
        };
        let mut pipeline = Pipeline::begin(connection);
        let Err(error) = apply_all(&mut pipeline, batch, orders).await else { return Ok(()) };
        if pipeline.has_begun() {
            // Fails if SQLite has rolled back already. If a transaction stays open, the next one
            // cannot begin, and the connection is reopened.
            let _ = sqlx::query("rollback").execute(connection).await;
            return Err(Failure::Change(error));
        }
        if !is_busy(&error)
            && let Some(connection) = self.connection.take()
        {
            // An error on closing says nothing new.
            let _ = connection.close().await;
        }
        Err(Failure::Begin(error))
    }
}

/// Whether another process holds the database: the connection itself is still good.
fn is_busy(error: &sqlx::Error) -> bool {
    const BUSY: i32 = 5;
    const LOCKED: i32 = 6;
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    // Extended codes have the primary one in their last byte.
    code.is_some_and(|code| matches!(code & 0xff, BUSY | LOCKED))
}

/// Applies the changes, kind by kind, and commits. No caller of a batch has been answered yet, so
/// any order will do.
async fn apply_all(
    pipeline: &mut Pipeline<'_>,
    batch: &mut [Change],
    orders: &ResultOrders,
) -> sqlx::Result<()> {
    let (mut arrivals, mut submissions) = (Vec::new(), Vec::new());
    let (mut answers, mut others) = (Vec::new(), Vec::new());
    for change in batch {
        match change {
            Change::Receive(waiting) => arrivals.push(&mut **waiting),
            Change::Submit(waiting) => submissions.push(&mut **waiting),
            Change::Answer(waiting) => answers.push(&mut **waiting),
            Change::Other(pending) => others.push(pending),
        }
    }
    if !arrivals.is_empty() {
        let taken = receive::apply(pipeline, &changes_of(&arrivals), orders).await?;
        set_outputs(arrivals, taken.into_iter().map(|one| one.receipt).collect());
    }
    if !submissions.is_empty() {
        let begun = submit::begin(pipeline, &changes_of(&submissions)).await?;
        set_outputs(submissions, begun);
    }
    if !answers.is_empty() {
        let jobs = answer::record(pipeline, &changes_of(&answers), orders).await?;
        set_outputs(answers, jobs);
    }
    for pending in others {
        pending.apply(pipeline.connection().await?).await?;
    }
    pipeline.commit().await
}

fn changes_of<'a, C, O>(waiting: &'a [&mut Waiting<C, O>]) -> Vec<&'a C> {
    waiting.iter().map(|one| &one.change).collect()
}

fn set_outputs<C, O>(waiting: Vec<&mut Waiting<C, O>>, outputs: Vec<O>) {
    for (one, output) in waiting.into_iter().zip(outputs) {
        one.output = Some(output);
    }
}

impl Change {
    fn held_bytes(&self) -> usize {
        match self {
            Self::Receive(waiting) => {
                waiting.change.body.len() + waiting.change.reading.held_bytes()
            }
            Self::Submit(waiting) => {
                let NewSubmission { request, inputs, outputs, .. } = &waiting.change;
                request.get().len() + (inputs.len() + outputs.len()) * OUTPUT_BYTES
            }
            Self::Answer(_) | Self::Other(_) => 0,
        }
    }

    fn finish(self, outcome: Result<(), &sqlx::Error>) {
        match self {
            Self::Receive(waiting) => waiting.answer(outcome),
            Self::Submit(waiting) => waiting.answer(outcome),
            Self::Answer(waiting) => waiting.answer(outcome),
            Self::Other(pending) => pending.finish(outcome),
        }
    }
}

/// Wakes the waiters for results and commits, then answers the callers.
fn reply(changes: impl Iterator<Item = Change>, wake: &Wake) {
    let changes: Vec<Change> = changes.collect();
    for change in &changes {
        let finished = match change {
            Change::Receive(waiting) => match waiting.output {
                Some(Receipt::Kept { job_id, outcome: Outcome::Stored }) => Some(job_id),
                _ => None,
            },
            // The result came before the reply.
            Change::Answer(waiting) => match &waiting.output {
                Some(Lookup::Found(job)) if job.status.is_finished() => Some(job.id),
                _ => None,
            },
            _ => None,
        };
        if let Some(job_id) = finished {
            wake.finished(job_id.0);
        }
    }
    wake.committed();
    for change in changes {
        change.finish(Ok(()));
    }
}

fn refuse(changes: impl Iterator<Item = Change>, error: &sqlx::Error) {
    for change in changes {
        change.finish(Err(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_is_stuck_in_a_transaction_is_opened_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = crate::store::sqlite::open::any()
            .filename(folder.path().join("test.db"))
            .create_if_missing(true)
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
            .synchronous(sqlx::sqlite::SqliteSynchronous::Full);
        let mut connection = connect(&options).await.expect("a database");
        sqlx::query("begin").execute(&mut connection).await.expect("a transaction nobody ends");
        let mut database = Database { options, connection: Some(connection) };
        let orders = ResultOrders::default();
        assert!(matches!(database.transact(&mut [], &orders).await, Err(Failure::Begin(_))));
        assert!(database.transact(&mut [], &orders).await.is_ok());
    }
}
