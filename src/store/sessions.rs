//! Sessions that were signed out: all that is on record about the people in browsers.

use async_trait::async_trait;
use jiff::Timestamp;

use super::StoreError;

/// A session that was signed out before it expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedOut {
    /// Its id.
    pub session: [u8; 16],
    /// When it would have expired; the sign-out is kept until then.
    pub ends_at: Timestamp,
}

/// A part of [`super::Store`], whose promises hold here too.
#[async_trait]
pub trait SignOuts: Send + Sync {
    /// The sessions that were signed out before they expired.
    ///
    /// # Errors
    /// The database cannot be read: no session may count as signed in yet.
    async fn signed_out(&self) -> Result<Vec<SignedOut>, StoreError>;

    /// Records a sign-out, and deletes those of sessions that would have expired by now.
    ///
    /// # Errors
    /// The sign-out may not be on record; the session must count as signed out anyway.
    async fn sign_out(&self, session: SignedOut, now: Timestamp) -> Result<(), StoreError>;
}
