//! A file being written to a bucket or to memory.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path};

use super::{BlobError, Target, Writing};

/// The multipart upload begins with the first full part. A smaller file is put in one request at
/// the end.
pub(super) struct BucketFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    upload: Option<Box<dyn MultipartUpload>>,
}

impl BucketFile {
    pub fn new(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self { store, path, upload: None }
    }
}

#[async_trait]
impl Target for BucketFile {
    async fn put(&mut self, part: Bytes) -> Result<Writing, BlobError> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(self.store.put_multipart(&self.path).await?),
        };
        let sending = upload.put_part(PutPayload::from(part));
        Ok(tokio::spawn(async move { Ok(sending.await?) }))
    }

    async fn finish(&mut self, rest: Bytes) -> Result<(), BlobError> {
        let rest = PutPayload::from(rest);
        let Some(upload) = &mut self.upload else {
            self.store.put(&self.path, rest).await?;
            return Ok(());
        };
        if rest.content_length() > 0 {
            upload.put_part(rest).await?;
        }
        upload.complete().await?;
        self.upload = None;
        Ok(())
    }

    async fn discard(&mut self) {
        if let Some(mut upload) = self.upload.take()
            && let Err(error) = upload.abort().await.map_err(BlobError::from)
        {
            tracing::debug!(%error, "a half-written file could not be removed");
        }
    }
}
