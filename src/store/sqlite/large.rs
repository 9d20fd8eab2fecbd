//! Room for what is large and being read: SQLite, sqlx and we have a copy of it each for a moment.
//!
//! Asked by the store before it reads. The invariant: what is being read at a time, all readers
//! together, is bounded; small things need no room.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::connections::closed;
use crate::store::StoreError;

/// Bytes that are being read at a time; what is larger alone is read alone.
const MOST_BYTES: u32 = 16 * 1024 * 1024;

/// Up to this size nothing is asked for: readers are few, so it is bounded anyway.
const SMALL_BYTES: u64 = 256 * 1024;

/// See the module.
pub(super) struct Room(Semaphore);

impl Room {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(MOST_BYTES as usize))
    }

    /// Waits until so many bytes may be read; to be kept until they are.
    pub(super) async fn of(&self, bytes: u64) -> Result<Option<SemaphorePermit<'_>>, StoreError> {
        if bytes <= SMALL_BYTES {
            return Ok(None);
        }
        let bytes = u32::try_from(bytes).unwrap_or(MOST_BYTES).min(MOST_BYTES);
        self.0.acquire_many(bytes).await.map(Some).map_err(|_| closed())
    }
}
