//! The store of output copies: a folder, a bucket or memory.
//!
//! The mirror worker writes copies, the API's handlers and `verify-files` read them, an erasure
//! deletes them.
//!
//! Invariant: a reader finds either no file or the complete one, and a file is durable once
//! `finish` has returned. A solid-state disk may keep the blocks of deleted files, which this
//! program cannot prevent: encrypt that disk.

mod error;
mod folder;
mod key;
mod open;
mod verified;
mod writer;

use std::{ops::Range, path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt, PutPayload, path::Path,
};

pub use self::{
    error::BlobError,
    key::FileKey,
    verified::{Sound, Verified},
    writer::BlobWriter,
};
use crate::{domain::ids::JobId, private_files};

/// Written and deleted at start. No job's folder can have this name.
const PROBE_NAME: &str = "finishline-probe";

/// A file store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// In a bucket: the prefix of every key.
    prefix: Path,
    /// The path, if the store is a folder.
    folder: Option<Arc<PathBuf>>,
    /// How many bytes are collected before a part is written.
    part_bytes: usize,
}

impl Blobs {
    /// Opens `file:///folder` (created if missing), `s3://bucket/prefix`, `az://container/prefix`,
    /// `gs://bucket/prefix` or `memory:///`. Credentials and endpoints come from the platform's
    /// usual environment variables. Sends nothing yet.
    ///
    /// # Errors
    /// [`BlobError::Setting`] for an unusable address or environment; otherwise the reason why a
    /// folder cannot be created or opened.
    pub fn open(url: &str) -> Result<Self, BlobError> {
        if let Some(folder) = open::folder(url) {
            let folder = folder?;
            private_files::create_folder(&folder).map_err(|error| BlobError::of_io(&error))?;
            // An older release may have left it readable to other users.
            private_files::tighten(&folder);
        }
        open::open(url)
    }

    /// Like [`Blobs::open`], but creates nothing: a missing folder is an error.
    ///
    /// # Errors
    /// See [`Blobs::open`].
    pub fn open_existing(url: &str) -> Result<Self, BlobError> {
        open::open(url)
    }

    /// Whether the store is a local folder.
    pub fn is_folder(&self) -> bool {
        self.folder.is_some()
    }

    /// Writes and deletes a small file to prove that both work.
    ///
    /// # Errors
    /// The reason why the store cannot be written to.
    pub async fn probe(&self) -> Result<(), BlobError> {
        let path = self.prefix.clone().join(PROBE_NAME);
        self.store.put(&path, PutPayload::from_static(b"probe")).await?;
        Ok(self.store.delete(&path).await?)
    }

    /// Begins a file. Until [`BlobWriter::finish`] returns, readers see the previous file, if any.
    ///
    /// # Errors
    /// Currently none: the store is not called before the first part is full.
    pub async fn create(&self, key: &FileKey) -> Result<BlobWriter, BlobError> {
        Ok(BlobWriter::new(self, self.path(key)))
    }

    /// Reads a range of a file in pieces. A file that ends before `range` does is an error.
    ///
    /// # Errors
    /// [`BlobError::Missing`] if the file does not exist, [`BlobError::Short`] if it is too short.
    /// The stream yields an error when reading fails midway.
    pub async fn read(
        &self,
        key: &FileKey,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError> {
        let path = self.path(key);
        if range.is_empty() {
            self.store.head(&path).await?;
            return Ok(stream::empty().boxed());
        }
        let wanted = range.end - range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let found = self.store.get_opts(&path, options).await?;
        if found.range.end - found.range.start != wanted {
            return Err(BlobError::Short);
        }
        match found.payload {
            GetResultPayload::File(file, _) => Ok(folder::pieces(file, found.range).boxed()),
            GetResultPayload::Stream(pieces) => Ok(pieces.map_err(BlobError::from).boxed()),
        }
    }

    /// The size of a file in bytes.
    ///
    /// # Errors
    /// [`BlobError::Missing`] if the file does not exist.
    pub async fn size(&self, key: &FileKey) -> Result<u64, BlobError> {
        Ok(self.store.head(&self.path(key)).await?.size)
    }

    /// Deletes one file; a missing file is not an error.
    ///
    /// # Errors
    /// The reason why the file may still exist. The call may be repeated.
    pub async fn delete(&self, key: &FileKey) -> Result<(), BlobError> {
        match self.store.delete(&self.path(key)).await.map_err(BlobError::from) {
            Ok(()) | Err(BlobError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes all files of a job; in a folder also half-written ones. In a bucket, the parts of an
    /// upload that a crash interrupted remain, invisible to readers, until the bucket's rule for
    /// incomplete uploads removes them.
    ///
    /// # Errors
    /// The reason why some files may still exist. The call may be repeated.
    pub async fn delete_job(&self, job_id: JobId) -> Result<(), BlobError> {
        if let Some(folder) = &self.folder {
            return folder::delete_job(folder.clone(), job_id).await;
        }
        let prefix = self.prefix.clone().join(job_id.to_string());
        let found = self.store.list(Some(&prefix)).map_ok(|file| file.location).boxed();
        let mut deleted = self.store.delete_stream(found);
        while let Some(one) = deleted.next().await {
            match one.map_err(BlobError::from) {
                Ok(_) | Err(BlobError::Missing) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Deletes the files that a crash left half written in a folder and returns how many there
    /// were. Call it at start, before anything is written.
    ///
    /// # Errors
    /// The folder cannot be read, or a file in it cannot be deleted.
    pub async fn remove_leftovers(&self) -> Result<usize, BlobError> {
        match &self.folder {
            Some(folder) => folder::remove_leftovers(folder.clone()).await,
            None => Ok(0),
        }
    }

    fn path(&self, key: &FileKey) -> Path {
        key.segments().fold(self.prefix.clone(), |path, segment| path.join(segment))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::mirror::FilePlace;

    async fn write(blobs: &Blobs, key: &FileKey, content: &[u8]) {
        let mut writer = blobs.create(key).await.expect("it begins");
        for piece in content.chunks(700_000) {
            writer.write(Bytes::copy_from_slice(piece)).await.expect("it is written");
        }
        writer.finish().await.expect("it is whole");
    }

    async fn read(blobs: &Blobs, key: &FileKey, range: Range<u64>) -> Result<Vec<u8>, BlobError> {
        let pieces: Vec<Bytes> = blobs.read(key, range).await?.try_collect().await?;
        Ok(pieces.concat())
    }

    fn file_url(folder: &std::path::Path) -> String {
        format!("file://{}/files", folder.display())
    }

    #[tokio::test]
    async fn a_file_is_read_as_it_was_written_and_gone_with_its_job() {
        let folder = tempfile::tempdir().expect("a folder");
        for url in ["memory:///", &file_url(folder.path())] {
            let blobs = Blobs::open(url).expect("it opens");
            let job_id = JobId::new(Timestamp::UNIX_EPOCH);
            let key = |position| FileKey::new(FilePlace { job_id, position }, "m", Some(".stl"));
            // Many parts, and in a folder more than one flush.
            let large: Vec<u8> = (0..70_000_000u32).map(|byte| (byte % 251) as u8).collect();
            write(&blobs, &key(0), &large).await;
            write(&blobs, &key(1), b"").await;
            assert_eq!(read(&blobs, &key(0), 0..70_000_000).await.expect("it is there"), large);
            assert_eq!(read(&blobs, &key(0), 5..9).await.expect("it is there"), large[5..9]);
            assert_eq!(read(&blobs, &key(1), 0..0).await.expect("it is there"), b"");
            assert!(matches!(read(&blobs, &key(0), 0..70_000_001).await, Err(BlobError::Short)));
            blobs.delete_job(job_id).await.expect("it is deleted");
            for position in 0..2 {
                let gone = read(&blobs, &key(position), 0..0).await;
                assert!(matches!(gone, Err(BlobError::Missing)), "{gone:?}");
            }
            blobs.delete_job(job_id).await.expect("it may be repeated");
        }
    }

    #[tokio::test]
    async fn half_a_file_is_seen_by_nobody_and_swept_up_at_the_next_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(&file_url(folder.path())).expect("it opens");
        let place = FilePlace { job_id: JobId::new(Timestamp::UNIX_EPOCH), position: 0 };
        let key = FileKey::new(place, "m", None);
        let mut writer = blobs.create(&key).await.expect("it begins");
        writer.write(Bytes::from(vec![1; 3_000_000])).await.expect("it is written");
        assert!(matches!(blobs.size(&key).await, Err(BlobError::Missing)));
        // Simulates a crash: the writer is never dropped.
        std::mem::forget(writer);
        assert_eq!(blobs.remove_leftovers().await.expect("it sweeps"), 1);
        assert_eq!(blobs.remove_leftovers().await.expect("it sweeps"), 0);
    }
}
