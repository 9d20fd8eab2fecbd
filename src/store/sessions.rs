//! Sessions that were signed out: all that is on record of the people in browsers.

use async_trait::async_trait;
use jiff::Timestamp;

use super::StoreError;

/// A session that is over before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedOut {
    /// Its id.
    pub session: [u8; 16],
    /// When it would have ended by itself; until then it must be known.
    pub ends_at: Timestamp,
}

/// A part of [`super::Store`], whose invariants hold here too.
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// The sessions that were signed out when the store was opened.
    fn signed_out(&self) -> Vec<SignedOut>;

    /// Puts a sign-out on record, and forgets those of sessions that would be over by now.
    ///
    /// # Errors
    /// As the store's; the session must count as signed out all the same.
    async fn sign_out(&self, session: SignedOut, now: Timestamp) -> Result<(), StoreError>;
}
