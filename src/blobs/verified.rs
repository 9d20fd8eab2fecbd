//! Which copies have been verified since this process started.
//!
//! The API's handlers ask before they serve a copy; `verify-files` checks every copy.
//!
//! Invariant: a copy counts as verified only after all its bytes were read and matched the recorded
//! length and digest.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use flate2::Crc;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{BlobError, Blobs, FileKey};
use crate::domain::mirror::{FilePlace, StoredCopy};

/// Some 10 MB. When the limit is reached all are forgotten, which costs one more read of each file.
const MAX_REMEMBERED: usize = 100_000;

/// Files verified at the same time: hashing is CPU-bound.
const MAX_AT_A_TIME: usize = 4;

/// What the verification of a copy yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sound {
    /// As archives record it.
    pub crc32: u32,
}

/// A copy and the digest that was verified: a copy that is made anew has to be verified again.
type Proof = (FilePlace, [u8; 32]);

/// Shared by all that serve copies. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Verified {
    proofs: Arc<Mutex<HashMap<Proof, Sound>>>,
    readers: Arc<Semaphore>,
}

impl Default for Verified {
    fn default() -> Self {
        Self { proofs: Arc::default(), readers: Arc::new(Semaphore::new(MAX_AT_A_TIME)) }
    }
}

impl Verified {
    /// Verifies that the file has the recorded content. The first call reads all of it; later calls
    /// compare only its length. Returns `None` if the file is missing or differs: the caller then
    /// records its order as `AfterMirror::Damaged`, so that the copy is made anew.
    ///
    /// # Errors
    /// The store cannot be read, so nothing is known about the file.
    pub async fn verify(
        &self,
        blobs: &Blobs,
        copy: &StoredCopy,
    ) -> Result<Option<Sound>, BlobError> {
        let Some(file) = &copy.output.file else { return Ok(None) };
        let key = FileKey::of(copy);
        match blobs.size(&key).await {
            Ok(bytes) if bytes == file.bytes => {}
            Ok(_) | Err(BlobError::Missing | BlobError::Short) => return Ok(None),
            Err(error) => return Err(error),
        }
        let proof = (copy.place, file.sha256);
        let known =
            || self.proofs.lock().unwrap_or_else(PoisonError::into_inner).get(&proof).copied();
        if let Some(sound) = known() {
            return Ok(Some(sound));
        }
        let Ok(_reading) = self.readers.acquire().await else { return Ok(None) };
        // Another task may have verified it in the meantime.
        if let Some(sound) = known() {
            return Ok(Some(sound));
        }
        let sound = match read_through(blobs, &key, file.bytes).await {
            Ok((sha256, sound)) if sha256 == file.sha256 => sound,
            Ok(_) | Err(BlobError::Missing | BlobError::Short) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        if proofs.len() >= MAX_REMEMBERED {
            proofs.clear();
        }
        proofs.insert(proof, sound);
        Ok(Some(sound))
    }
}

async fn read_through(
    blobs: &Blobs,
    key: &FileKey,
    bytes: u64,
) -> Result<([u8; 32], Sound), BlobError> {
    let mut content = blobs.read(key, 0..bytes).await?;
    let (mut digest, mut crc) = (Sha256::new(), Crc::new());
    while let Some(piece) = content.next().await {
        let piece = piece?;
        digest.update(&piece);
        crc.update(&piece);
    }
    Ok((digest.finalize().into(), Sound { crc32: crc.sum() }))
}
