//! A file being written.
//!
//! Made by [`Blobs::create`]. Invariant: at most two parts are in memory, and an unfinished writer
//! leaves nothing that a reader can see.

mod bucket;
mod local;

use std::mem;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use tokio::task::JoinHandle;

use self::{bucket::BucketFile, local::LocalFile};
use super::{BlobError, Blobs};

/// The place that the parts of one file are written to.
#[async_trait]
trait Target: Send {
    /// Starts to write the next part. The previous part is already written.
    async fn put(&mut self, part: Bytes) -> Result<Writing, BlobError>;

    /// Writes the rest, which may be empty, and publishes the file. All parts are already written.
    async fn finish(&mut self, rest: Bytes) -> Result<(), BlobError>;

    /// Discards the file; a failure is only logged.
    async fn discard(&mut self);
}

/// A part that is being written.
type Writing = JoinHandle<Result<(), BlobError>>;

type WritingEnd = Result<Result<(), BlobError>, tokio::task::JoinError>;

/// A file being written. When it is dropped unfinished, it tries to clean up.
pub struct BlobWriter {
    part_bytes: usize,
    part: BytesMut,
    /// `None` once the file is finished or discarded.
    target: Option<Box<dyn Target>>,
    /// The part that is being written while the next one fills.
    writing: Option<Writing>,
}

impl BlobWriter {
    pub(super) fn new(blobs: &Blobs, path: Path) -> Self {
        let target: Box<dyn Target> = match &blobs.folder {
            Some(folder) => Box::new(LocalFile::new(folder.clone(), &path)),
            None => Box::new(BucketFile::new(blobs.store.clone(), path)),
        };
        let part_bytes = blobs.part_bytes;
        Self { part_bytes, part: BytesMut::new(), target: Some(target), writing: None }
    }

    /// Appends a piece, after waiting for room.
    ///
    /// # Errors
    /// The reason why this piece or an earlier one could not be written. The file cannot be
    /// finished then.
    pub async fn write(&mut self, mut piece: Bytes) -> Result<(), BlobError> {
        while !piece.is_empty() {
            let room = self.part_bytes - self.part.len();
            self.part.extend_from_slice(&piece.split_to(room.min(piece.len())));
            if self.part.len() == self.part_bytes {
                self.put_part().await?;
            }
        }
        Ok(())
    }

    /// Publishes the complete file to readers. On return it is on disk.
    ///
    /// # Errors
    /// The reason why the file could not be published. Readers see what they saw before.
    pub async fn finish(mut self) -> Result<(), BlobError> {
        self.written().await?;
        let rest = mem::take(&mut self.part).freeze();
        if let Some(target) = &mut self.target {
            target.finish(rest).await?;
        }
        self.target = None;
        Ok(())
    }

    /// Discards what was written.
    pub async fn abort(mut self) {
        if let Some(target) = self.target.take() {
            discard(target, self.writing.take()).await;
        }
    }

    async fn put_part(&mut self) -> Result<(), BlobError> {
        self.written().await?;
        let part = mem::take(&mut self.part).freeze();
        if let Some(target) = &mut self.target {
            self.writing = Some(target.put(part).await?);
        }
        Ok(())
    }

    /// Waits for the part that is being written.
    async fn written(&mut self) -> Result<(), BlobError> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let written = outcome(writing).await;
        self.writing = None;
        written
    }
}

async fn outcome(writing: impl Future<Output = WritingEnd>) -> Result<(), BlobError> {
    writing.await.map_err(|_| BlobError::Unavailable("writing broke off".into()))?
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        let (target, writing) = (self.target.take(), self.writing.take());
        if let Some(target) = target
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(discard(target, writing));
        }
    }
}

/// If this fails, readers still see nothing of the rest: a folder is swept at start, a bucket has
/// its rule for incomplete uploads.
async fn discard(mut target: Box<dyn Target>, writing: Option<Writing>) {
    if let Some(writing) = writing {
        let _ = writing.await;
    }
    target.discard().await;
}
