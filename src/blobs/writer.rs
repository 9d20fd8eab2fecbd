//! A file being written.
//!
//! Made by [`Blobs::create`]. The invariants: at most two parts are in memory, and a writer that
//! is not finished leaves nothing that a reader could see.

use std::{mem, path::PathBuf, sync::Arc};

use bytes::{Bytes, BytesMut};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use tokio::task::JoinHandle;

use super::{BlobError, Blobs, folder};

/// Dropped unfinished, it tidies up behind itself as far as it can.
pub struct BlobWriter {
    store: Arc<dyn ObjectStore>,
    folder: Option<Arc<PathBuf>>,
    path: Path,
    part_bytes: usize,
    part: BytesMut,
    /// Begun once a part is full; a smaller file is put in one go.
    upload: Option<Box<dyn MultipartUpload>>,
    /// The part that is on its way while the next one fills.
    sending: Option<JoinHandle<object_store::Result<()>>>,
}

impl BlobWriter {
    pub(super) fn new(blobs: &Blobs, path: Path) -> Self {
        Self {
            store: blobs.store.clone(),
            folder: blobs.folder.clone(),
            path,
            part_bytes: blobs.part_bytes,
            part: BytesMut::new(),
            upload: None,
            sending: None,
        }
    }

    /// Appends a piece, once there is room for it.
    ///
    /// # Errors
    /// Why it, or a piece before it, could not be written. The file cannot be finished then.
    pub async fn write(&mut self, mut piece: Bytes) -> Result<(), BlobError> {
        while !piece.is_empty() {
            let room = self.part_bytes - self.part.len();
            self.part.extend_from_slice(&piece.split_to(room.min(piece.len())));
            if self.part.len() == self.part_bytes {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    /// Shows the file to readers, all of it at once; on return it is on disk.
    ///
    /// # Errors
    /// Why not. Readers see what they saw before.
    pub async fn finish(mut self) -> Result<(), BlobError> {
        if self.upload.is_none() {
            let content = PutPayload::from(mem::take(&mut self.part).freeze());
            self.store.put(&self.path, content).await?;
        } else {
            if !self.part.is_empty() {
                self.send_part().await?;
            }
            self.sent().await?;
            if let Some(upload) = &mut self.upload {
                upload.complete().await?;
            }
            self.upload = None;
        }
        match self.folder.take() {
            Some(folder) => folder::sync_root(folder).await,
            None => Ok(()),
        }
    }

    /// Forgets what was written.
    pub async fn abort(mut self) {
        let upload = self.upload.take();
        discard(upload, self.sending.take()).await;
    }

    async fn send_part(&mut self) -> Result<(), BlobError> {
        self.sent().await?;
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(self.store.put_multipart(&self.path).await?),
        };
        let part = PutPayload::from(mem::take(&mut self.part).freeze());
        self.sending = Some(tokio::spawn(upload.put_part(part)));
        Ok(())
    }

    /// Waits for the part that is on its way.
    async fn sent(&mut self) -> Result<(), BlobError> {
        let Some(sending) = &mut self.sending else { return Ok(()) };
        let sent = sending.await;
        self.sending = None;
        match sent {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(BlobError::Unavailable("writing broke off".into())),
        }
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        let upload = self.upload.take();
        let sending = self.sending.take();
        if upload.is_some()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(discard(upload, sending));
        }
    }
}

/// If it fails, what is left is seen by nobody: a folder is swept at start, a bucket has its rule
/// for incomplete uploads.
async fn discard(
    upload: Option<Box<dyn MultipartUpload>>,
    sending: Option<JoinHandle<object_store::Result<()>>>,
) {
    if let Some(sending) = sending {
        let _ = sending.await;
    }
    if let Some(mut upload) = upload
        && let Err(error) = upload.abort().await.map_err(BlobError::from)
    {
        tracing::debug!(%error, "a half-written file could not be removed");
    }
}
