//! Sessions that were signed out: all that is on record about the people in browsers.

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

/// A part of [`super::Store`], whose promises hold here too.
#[async_trait]
pub trait SignOuts: Send + Sync {
    /// The sessions that were signed out before their time.
    ///
    /// # Errors
    /// The database cannot be read: no session may count as signed in yet.
    async fn signed_out(&self) -> Result<Vec<SignedOut>, StoreError>;

    /// Puts a sign-out on record, and forgets those of sessions that would be over by now.
    ///
    /// # Errors
    /// The sign-out may not be on record; the session must count as signed out all the same.
    async fn sign_out(&self, session: SignedOut, now: Timestamp) -> Result<(), StoreError>;
}
