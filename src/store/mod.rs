//! Everything that must survive a crash, and the only SQL.
//!
//! Called by the HTTP layer and the workers through `Arc<dyn Store>`. The trait is made of one small
//! trait for each noun, each with its values in a file of its own; `sqlite/` has a file for each of
//! them too, with the SQL. What every implementation promises, and `tests/durability/conformance.rs`
//! checks:
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
    /// change may have been made all the same.
    #[error("the database refuses: {0}")]
    Unavailable(String),
}

/// The answer to a question about one thing.
#[derive(Debug)]
pub enum Lookup<T> {
    Found(T),
    /// It was on record and has been erased.
    Erased,
    Missing,
}

/// All of the store, see the module.
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
    /// Writes for real, to prove that the database takes writes.
    ///
    /// # Errors
    /// It does not: the service is not ready.
    async fn probe(&self, now: Timestamp) -> Result<(), StoreError>;

    /// Takes no more changes, makes those handed over, closes the database.
    async fn close(&self);
}
