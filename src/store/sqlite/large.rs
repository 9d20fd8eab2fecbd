//! Bounds the memory of large reads: SQLite, sqlx and this program each hold a copy for a moment.
//!
//! Used by the store before it reads. Invariant: the bytes of large reads in progress, of all
//! readers together, are bounded; small reads need no permit.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::connections::closed;
use crate::store::StoreError;

/// Bytes of large reads in progress; a read that is larger on its own runs alone.
const MOST_BYTES: u32 = 16 * 1024 * 1024;

/// Reads up to this size need no permit: readers are few, so their memory is bounded anyway.
const SMALL_BYTES: u64 = 256 * 1024;

/// See the module.
pub(super) struct Room(Semaphore);

impl Room {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(MOST_BYTES as usize))
    }

    /// Waits until `bytes` may be read; keep the permit until they are.
    pub(super) async fn of(&self, bytes: u64) -> Result<Option<SemaphorePermit<'_>>, StoreError> {
        if bytes <= SMALL_BYTES {
            return Ok(None);
        }
        let bytes = u32::try_from(bytes).unwrap_or(MOST_BYTES).min(MOST_BYTES);
        self.0.acquire_many(bytes).await.map(Some).map_err(|_| closed())
    }
}
