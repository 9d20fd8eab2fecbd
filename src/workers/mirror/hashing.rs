//! Digests of a file while it is received.
//!
//! Used by `fetch`. SHA-256 of a piece takes longer than receiving it, so it is computed on another
//! thread. At most two batches of pieces are held in memory.

use std::mem;

use bytes::Bytes;
use md5::Md5;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use super::fetch::Fault;

/// Large enough that the cost of switching threads does not matter.
const BATCH_BYTES: usize = 1024 * 1024;

/// Digests of the bytes so far.
pub(super) struct Digests {
    pub sha256: Sha256,
    /// Only if the server sent one.
    pub md5: Option<Md5>,
}

impl Digests {
    fn update(mut self, batch: &[Bytes]) -> Self {
        for piece in batch {
            self.sha256.update(piece);
            if let Some(md5) = &mut self.md5 {
                md5.update(piece);
            }
        }
        self
    }
}

/// See the module.
pub(super) struct Hashing {
    batch: Vec<Bytes>,
    batch_bytes: usize,
    under_way: JoinHandle<Digests>,
}

impl Hashing {
    /// `with_md5` also computes the MD5.
    pub fn begin(with_md5: bool) -> Self {
        let digests = Digests { sha256: Sha256::new(), md5: with_md5.then(Md5::new) };
        let under_way = tokio::task::spawn_blocking(|| digests);
        Self { batch: Vec::new(), batch_bytes: 0, under_way }
    }

    /// Adds the next piece, waiting until there is room for it.
    pub async fn update(&mut self, piece: Bytes) -> Result<(), Fault> {
        self.batch_bytes += piece.len();
        self.batch.push(piece);
        if self.batch_bytes >= BATCH_BYTES { self.hash_batch().await } else { Ok(()) }
    }

    /// The digests of all pieces.
    pub async fn finish(mut self) -> Result<Digests, Fault> {
        self.hash_batch().await?;
        self.under_way.await.map_err(broken_off)
    }

    async fn hash_batch(&mut self) -> Result<(), Fault> {
        let digests = (&mut self.under_way).await.map_err(broken_off)?;
        let batch = mem::take(&mut self.batch);
        self.batch_bytes = 0;
        self.under_way = tokio::task::spawn_blocking(move || digests.update(&batch));
        Ok(())
    }
}

/// The runtime is being shut down.
fn broken_off(_: tokio::task::JoinError) -> Fault {
    Fault::other("the program is stopping")
}
