//! Orders to pass results on to targets, and their attempts.

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use crate::domain::relay::{AfterAttempt, Attempt, DueRelay, Relay, RelayFilter};

/// What has not been passed on to one target yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    pub target: String,
    /// Orders that wait for their next attempt.
    pub pending: u64,
    /// Given up; they can be ordered again.
    pub dead: u64,
    /// The target failed too often and gets nothing for a while.
    pub is_paused: bool,
}

/// A part of [`super::Store`], whose promises hold here too.
#[async_trait]
pub trait Relaying: Send + Sync {
    /// Leases due orders until `lease_until`: for each target at most `concurrency`, those
    /// `under_way` included, and for a paused one a single probe when its pause is over.
    ///
    /// # Errors
    /// Some may be leased: they are due again when the lease has run out.
    async fn claim_relays(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        under_way: Vec<(String, u32)>,
        concurrency: u32,
    ) -> Result<Vec<DueRelay>, StoreError>;

    /// Records an attempt and the order's next step. The store numbers the attempt. Does nothing if
    /// the order has been erased.
    ///
    /// # Errors
    /// The attempt may not be recorded; the order is attempted again when its lease has run out,
    /// and the target sees it twice.
    async fn record_attempt(
        &self,
        id: Uuid,
        attempt: Attempt,
        after: AfterAttempt,
    ) -> Result<(), StoreError>;

    /// Makes an order due again at once; returns whether it exists.
    ///
    /// # Errors
    /// Repeat the call: the order is attempted once for both.
    async fn resend_relay(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError>;

    /// Makes all matching orders due again, or only counts them in a dry run; returns how many.
    ///
    /// # Errors
    /// All of them were made due, or none. Repeat the call: each is attempted once for both.
    async fn resend_relays(
        &self,
        filter: RelayFilter,
        now: Timestamp,
        is_dry_run: bool,
    ) -> Result<u64, StoreError>;

    /// At most `limit` orders before the one numbered `before`, newest first.
    ///
    /// # Errors
    /// The database cannot be read: ask for the same page again.
    async fn relays(
        &self,
        filter: &RelayFilter,
        before: Option<i64>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Relay>, StoreError>;

    /// An order with its last attempts in their order, see `bounds::MAX_ATTEMPTS`.
    ///
    /// # Errors
    /// The database cannot be read: ask again.
    async fn relay(
        &self,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<(Relay, Vec<Attempt>)>, StoreError>;

    /// The targets that have an order which is not delivered, by name.
    ///
    /// # Errors
    /// The database cannot be read: ask again.
    async fn backlog(&self, now: Timestamp) -> Result<Vec<Backlog>, StoreError>;
}
