//! Holds everything that must survive a crash, and all the SQL.
//!
//! Called by the HTTP layer and the workers through `Arc<dyn Store>`. The trait combines small
//! traits, one for each noun, each in a file of its own with its types; `sqlite/` has a file with
//! the SQL for each of them. Every implementation promises the following, which
//! `tests/durability/conformance.rs` checks:
//! - one method is one transaction; when it returns `Ok`, the change is on disk;
//! - a change that was handed over is made even if its caller goes away, and before those handed
//!   over later;
//! - times are supplied by the caller, in whole milliseconds;
//! - `Lookup::Missing` means never on record, `Lookup::Erased` means erased on purpose.

mod arrival;
mod callback_addresses;
mod erasing;
pub mod intake;
mod mirroring;
mod querying;
mod receiving;
mod reconciling;
mod relaying;
mod sessions;
pub mod spool;
pub mod sqlite;
mod statistics;
mod submissions;
mod timeline;
mod uploading;

use async_trait::async_trait;
use jiff::Timestamp;

pub use self::{
    arrival::{Addressee, Arrival, Receipt, SpoolMark, Spooled, inbox_key},
    callback_addresses::CallbackAddresses,
    erasing::{EraseTarget, ErasedBatch, Erasing},
    mirroring::Mirroring,
    querying::{Querying, StoredResult},
    receiving::{Receiving, ResultOrders},
    reconciling::Reconciling,
    relaying::{Backlog, Relaying},
    sessions::{SignOuts, SignedOut},
    statistics::{Statistics, Stats},
    submissions::{
        Begun, BegunAgain, EngineAnswer, Idempotency, InputLinks, NewSubmission, Submissions,
    },
    timeline::Timeline,
    uploading::Uploading,
};

/// What a caller can do about a failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The queue of changes is full and nothing was changed: try again in a moment.
    #[error("more changes are waiting than the database can take in")]
    Overloaded,
    /// The database refuses (full, locked, damaged, closed); the text is for the log only. The
    /// change may still have been made.
    #[error("the database refuses: {0}")]
    Unavailable(String),
}

/// The result of looking up one thing.
#[derive(Debug)]
pub enum Lookup<T> {
    Found(T),
    /// It was on record and has been erased.
    Erased,
    Missing,
}

/// The whole store; see the module.
#[async_trait]
pub trait Store:
    Submissions
    + Uploading
    + CallbackAddresses
    + Receiving
    + Querying
    + Timeline
    + Statistics
    + Reconciling
    + Relaying
    + Mirroring
    + Erasing
    + SignOuts
{
    /// Makes a real write, to prove that the database accepts writes.
    ///
    /// # Errors
    /// It does not accept them: the service is not ready.
    async fn probe(&self, now: Timestamp) -> Result<(), StoreError>;

    /// Refuses new changes, makes those already handed over, and closes the database.
    async fn close(&self);
}
