//! Which copies were read through since this process started.
//!
//! The API's handlers ask before they serve a copy, `verify-files` asks for every one. The
//! invariant: a copy counts as verified only after all its bytes had the length and the digest on
//! record.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{BlobError, Blobs, FileKey};
use crate::domain::mirror::{FilePlace, StoredCopy};

/// Some 10 MB. Beyond it all are forgotten, which costs one more reading each.
const MAX_REMEMBERED: usize = 100_000;

/// Files being read through at a time: hashing is work for a processor.
const MAX_AT_A_TIME: usize = 4;

/// A copy, and the content that was verified: one that is made anew has to prove itself again.
type Proof = (FilePlace, [u8; 32]);

/// Shared by all who serve. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Verified {
    proofs: Arc<Mutex<HashSet<Proof>>>,
    readers: Arc<Semaphore>,
}

impl Default for Verified {
    fn default() -> Self {
        Self { proofs: Arc::default(), readers: Arc::new(Semaphore::new(MAX_AT_A_TIME)) }
    }
}

impl Verified {
    /// Whether the file is what was stored. The first time it is read through; after that, only
    /// its length is looked at. False for one that is missing, too: its order is then to be
    /// recorded as `AfterMirror::Damaged`, so that it is made anew.
    ///
    /// # Errors
    /// When the store cannot be read, which says nothing about the file.
    pub async fn verify(&self, blobs: &Blobs, copy: &StoredCopy) -> Result<bool, BlobError> {
        let Some(file) = &copy.output.file else { return Ok(false) };
        let key = FileKey::of(copy);
        match blobs.size(&key).await {
            Ok(bytes) if bytes == file.bytes => {}
            Ok(_) | Err(BlobError::Missing | BlobError::Short) => return Ok(false),
            Err(error) => return Err(error),
        }
        let proof = (copy.place, file.sha256);
        let is_verified =
            || self.proofs.lock().unwrap_or_else(PoisonError::into_inner).contains(&proof);
        if is_verified() {
            return Ok(true);
        }
        let Ok(_reading) = self.readers.acquire().await else { return Ok(false) };
        // Somebody may have read it while we waited.
        if is_verified() {
            return Ok(true);
        }
        match digest(blobs, &key, file.bytes).await {
            Ok(found) if found == file.sha256 => {}
            Ok(_) | Err(BlobError::Missing | BlobError::Short) => return Ok(false),
            Err(error) => return Err(error),
        }
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        if proofs.len() >= MAX_REMEMBERED {
            proofs.clear();
        }
        proofs.insert(proof);
        Ok(true)
    }
}

async fn digest(blobs: &Blobs, key: &FileKey, bytes: u64) -> Result<[u8; 32], BlobError> {
    let mut content = blobs.read(key, 0..bytes).await?;
    let mut digest = Sha256::new();
    while let Some(piece) = content.next().await {
        digest.update(piece?);
    }
    Ok(digest.finalize().into())
}
