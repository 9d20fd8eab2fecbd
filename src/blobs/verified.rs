//! Which copies were read through since this process started.
//!
//! The API's handlers ask before they serve a copy, `verify-files` asks for every one. The
//! invariant: a copy counts as verified only after all its bytes had the length and the digest on
//! record.

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

/// Some 10 MB. Beyond it all are forgotten, which costs one more reading each.
const MAX_REMEMBERED: usize = 100_000;

/// Files being read through at a time: hashing is work for a processor.
const MAX_AT_A_TIME: usize = 4;

/// What a reading of a sound copy finds beside its soundness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sound {
    /// As archives tell it.
    pub crc32: u32,
}

/// A copy, and the content that was verified: one that is made anew has to prove itself again.
type Proof = (FilePlace, [u8; 32]);

/// Shared by all who serve. Cheap to clone.
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
    /// What is known of the file if it is what was stored. The first time it is read through; after
    /// that, only its length is looked at. `None` if it is not, and for one that is missing, too: its order is then to be
    /// recorded as `AfterMirror::Damaged`, so that it is made anew.
    ///
    /// # Errors
    /// When the store cannot be read, which says nothing about the file.
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
        // Somebody may have read it while we waited.
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
