//! The emergency spool: a pre-allocated file that stores callbacks while the database refuses them.
//!
//! Used only by the intake. Invariants: `append` returns `Ok` only when the record is on disk; it
//! needs neither free disk space nor the database; no file is read or written on an async thread.

mod file;
mod record;

use std::{
    io,
    path::{Path, PathBuf},
    thread,
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use self::{file::SpoolFile, record::Payload};
use super::{Arrival, SpoolMark};
use crate::telemetry;

pub use record::SpoolId;

/// Commands that may wait for the thread; callers wait while the queue is full.
const QUEUE_CAPACITY: usize = 256;

/// Records synced together: beyond this, sharing an fsync gains little and latency grows.
const MAX_GROUP: usize = 64;

/// Why there is no spool; each is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum SpoolOpenError {
    #[error("spool {0} is in use by another finishline: give each its own spool.path")]
    InUse(PathBuf),
    #[error(
        "spool {0} is no spool, or its head is damaged: move the file away, or name another spool.path"
    )]
    Foreign(PathBuf),
    #[error("spool {0} cannot be made or opened (see spool.path and spool.size): {1}")]
    Unusable(PathBuf, io::Error),
}

/// Why a command to the spool was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("the spool is full")]
    Full,
    #[error("the spool fails: {0}")]
    Failed(String),
}

/// How full the spool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolState {
    /// Records that wait to be drained.
    pub records: u64,
    /// The file's size.
    pub bytes: u64,
    pub bytes_free: u64,
    /// No bytes of earlier records are left in it.
    pub is_wiped: bool,
}

/// A record read back.
pub struct SpoolRecord {
    pub number: u64,
    payload: Bytes,
}

impl SpoolRecord {
    /// The arrival it holds; `id_pointers` as in [`crate::domain::result::read`]. `None` if another
    /// version of the program wrote it in a form that this one does not know.
    pub fn arrival(self, id_pointers: &[String]) -> Option<Arrival> {
        record::arrival(self.payload, id_pointers)
    }
}

/// Sends commands to the spool's thread, which ends when this is dropped or closed.
pub struct Spool {
    id: SpoolId,
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<SpoolState>,
}

type Reply<T> = oneshot::Sender<Result<T, SpoolError>>;

enum Command {
    Append(Payload, Reply<()>),
    Next(u64, Reply<Option<SpoolRecord>>),
    Settle(u64, Reply<()>),
    Wipe(Reply<()>),
    Close(Reply<()>),
}

impl Spool {
    /// Opens the file, creating it if there is none, and starts the thread. Blocks. `mark` comes
    /// from the database; new records are numbered above it. A file of another size than
    /// `size_bytes` is resized once its records are drained.
    ///
    /// # Errors
    /// There is no spool; the error says what the operator can change.
    pub fn open(
        path: &Path,
        size_bytes: u64,
        mark: Option<SpoolMark>,
        now: Timestamp,
    ) -> Result<Self, SpoolOpenError> {
        let file = SpoolFile::open(path, size_bytes, mark, now)?;
        let id = file.id;
        let (commands, queue) = mpsc::channel(QUEUE_CAPACITY);
        let (publish, state) = watch::channel(file.state());
        let started = thread::Builder::new()
            .name("finishline-spool".into())
            .spawn(move || run(file, queue, &publish));
        match started {
            Ok(_) => Ok(Self { id, commands, state }),
            Err(error) => Err(SpoolOpenError::Unusable(path.to_owned(), error)),
        }
    }

    /// Which file this is, for [`SpoolMark`].
    pub fn id(&self) -> SpoolId {
        self.id
    }

    pub fn state(&self) -> SpoolState {
        *self.state.borrow()
    }

    /// Completes when a record waits.
    pub async fn filled(&self) {
        let mut state = self.state.clone();
        if state.wait_for(|state| state.records > 0).await.is_err() {
            // The thread has ended: nothing will come any more.
            std::future::pending().await
        }
    }

    /// Puts an arrival on disk.
    ///
    /// # Errors
    /// It may not be on disk: do not acknowledge the callback.
    pub async fn append(&self, arrival: &Arrival) -> Result<(), SpoolError> {
        let payload = Payload::of(arrival);
        self.ask(|reply| Command::Append(payload, reply)).await
    }

    /// The oldest record with a number above `after`.
    ///
    /// # Errors
    /// The file cannot be read, or the spool is closed: the records stay in the file; try again
    /// later.
    pub async fn next(&self, after: u64) -> Result<Option<SpoolRecord>, SpoolError> {
        self.ask(|reply| Command::Next(after, reply)).await
    }

    /// Removes a record that has been drained.
    ///
    /// # Errors
    /// The spool is closed: the record is drained again after the next start, which does no harm.
    pub async fn mark_done(&self, number: u64) -> Result<(), SpoolError> {
        self.ask(|reply| Command::Settle(number, reply)).await
    }

    /// Overwrites earlier records with zeros, unless a record waits.
    ///
    /// # Errors
    /// Bytes of drained records may still be in the file: repeat the call.
    pub async fn wipe(&self) -> Result<(), SpoolError> {
        self.ask(Command::Wipe).await
    }

    /// Ends the thread; when this returns, another process can open the file.
    pub async fn close(&self) {
        // Closed already, if there is no answer.
        let _ = self.ask(Command::Close).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, SpoolError> {
        let closed = || SpoolError::Failed("it has been closed".into());
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

/// The spool's thread. A caller that no longer waits for its reply changes nothing.
fn run(
    mut file: SpoolFile,
    mut queue: mpsc::Receiver<Command>,
    publish: &watch::Sender<SpoolState>,
) {
    show(&file, publish);
    let mut next = queue.blocking_recv();
    while let Some(command) = next.take() {
        match command {
            Command::Append(payload, reply) => {
                next = append(&mut file, (payload, reply), &mut queue, publish);
            }
            Command::Next(after, reply) => {
                let found = file.next(after).map_err(failed);
                let record = |(number, payload)| SpoolRecord { number, payload };
                let _ = reply.send(found.map(|found| found.map(record)));
            }
            Command::Settle(number, reply) => {
                file.mark_done(number);
                show(&file, publish);
                let _ = reply.send(Ok(()));
            }
            Command::Wipe(reply) => {
                let wiped = file.wipe().map_err(failed);
                show(&file, publish);
                let _ = reply.send(wiped);
            }
            Command::Close(reply) => {
                drop(file);
                let _ = reply.send(Ok(()));
                return;
            }
        }
        if next.is_none() {
            next = queue.blocking_recv();
        }
    }
}

/// Writes a record together with those queued directly behind it. Returns the other command that it
/// took from the queue, if any.
fn append(
    file: &mut SpoolFile,
    first: (Payload, Reply<()>),
    queue: &mut mpsc::Receiver<Command>,
    publish: &watch::Sender<SpoolState>,
) -> Option<Command> {
    let (mut payloads, mut replies) = (vec![first.0], vec![first.1]);
    let mut other = None;
    while payloads.len() < MAX_GROUP {
        match queue.try_recv() {
            Ok(Command::Append(payload, reply)) => {
                payloads.push(payload);
                replies.push(reply);
            }
            Ok(command) => {
                other = Some(command);
                break;
            }
            Err(_) => break,
        }
    }
    let appended = file.append(&payloads);
    show(file, publish);
    match appended {
        Ok(fitted) => {
            for (reply, fitted) in replies.into_iter().zip(fitted) {
                let _ = reply.send(if fitted { Ok(()) } else { Err(SpoolError::Full) });
            }
        }
        Err(error) => {
            for reply in replies {
                let _ = reply.send(Err(SpoolError::Failed(error.to_string())));
            }
        }
    }
    other
}

fn failed(error: io::Error) -> SpoolError {
    SpoolError::Failed(error.to_string())
}

fn show(file: &SpoolFile, publish: &watch::Sender<SpoolState>) {
    let state = file.state();
    telemetry::SPOOL_RECORDS.of([]).set(state.records as f64);
    telemetry::SPOOL_FREE_BYTES.of([]).set(state.bytes_free as f64);
    publish.send_replace(state);
}
