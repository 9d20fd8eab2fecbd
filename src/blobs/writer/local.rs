//! A file being written to a local folder.
//!
//! Data is flushed to disk while the rest is still arriving: one large flush at the end would take
//! about as long as everything before it. The error of every flush is checked, because the system
//! reports each error only once.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;

use super::{
    super::folder::{Staged, blocking},
    BlobError, Target, Writing, outcome,
};

/// Bytes between two flushes. With smaller steps, each would wait for the disk's latency.
const FLUSH_BYTES: u64 = 32 * 1024 * 1024;

/// Created on disk with the first part.
pub(super) struct LocalFile {
    root: Arc<PathBuf>,
    target: PathBuf,
    staged: Option<Arc<Staged>>,
    length: u64,
    /// How many bytes are covered by flushes that have begun.
    flushed: u64,
    flushing: Option<Writing>,
}

impl LocalFile {
    pub fn new(root: Arc<PathBuf>, path: &Path) -> Self {
        let target = root.join(path.as_ref());
        Self { root, target, staged: None, length: 0, flushed: 0, flushing: None }
    }

    async fn staged(&mut self) -> Result<Arc<Staged>, BlobError> {
        if let Some(staged) = &self.staged {
            return Ok(staged.clone());
        }
        let target = self.target.clone();
        let staged = Arc::new(blocking(move || Staged::create(target)).await?);
        Ok(self.staged.insert(staged).clone())
    }

    /// Begins the next flush if it is due and the previous one has finished.
    async fn flush(&mut self, staged: &Arc<Staged>) -> Result<(), BlobError> {
        if let Some(flushing) = self.flushing.take_if(|flushing| flushing.is_finished()) {
            outcome(flushing).await?;
        }
        if self.flushing.is_none() && self.length - self.flushed >= FLUSH_BYTES {
            let staged = staged.clone();
            self.flushed = self.length;
            self.flushing = Some(tokio::spawn(blocking(move || staged.flush())));
        }
        Ok(())
    }
}

#[async_trait]
impl Target for LocalFile {
    async fn put(&mut self, part: Bytes) -> Result<Writing, BlobError> {
        let staged = self.staged().await?;
        self.flush(&staged).await?;
        let start = self.length;
        self.length += part.len() as u64;
        Ok(tokio::spawn(blocking(move || staged.write_at(&part, start))))
    }

    async fn finish(&mut self, rest: Bytes) -> Result<(), BlobError> {
        let staged = self.staged().await?;
        if let Some(flushing) = self.flushing.take() {
            outcome(flushing).await?;
        }
        let (root, start) = (self.root.clone(), self.length);
        blocking(move || {
            staged.write_at(&rest, start)?;
            staged.publish(&root)
        })
        .await?;
        self.staged = None;
        Ok(())
    }

    async fn discard(&mut self) {
        if let Some(staged) = self.staged.take()
            && let Err(error) = blocking(move || staged.discard()).await
        {
            tracing::debug!(%error, "a half-written file could not be removed");
        }
    }
}
