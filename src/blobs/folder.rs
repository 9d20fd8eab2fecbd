//! The file operations on a local folder that `object_store` does not provide.
//!
//! Invariant: it changes only what this program made: folders named by a job id, and files in them
//! whose names begin with a position.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{Stream, stream};

use super::BlobError;
use crate::{domain::ids::JobId, private_files};

/// Files are written to `name#1`, `name#2`… and renamed once they are complete.
const STAGING_MARK: char = '#';

/// Bytes per read. `object_store` reads 8 KiB at a time, and each read is a hop to a thread and
/// back.
const PIECE_BYTES: u64 = 256 * 1024;

/// Reads a range of a file in pieces.
pub(super) fn pieces(
    file: File,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, BlobError>> + Send + 'static {
    stream::try_unfold((file, range), async |(file, range): (File, Range<u64>)| {
        if range.is_empty() {
            return Ok(None);
        }
        let end = range.end.min(range.start + PIECE_BYTES);
        let (file, piece) = blocking(move || {
            let length = usize::try_from(end - range.start).map_err(io::Error::other)?;
            let mut piece = vec![0; length];
            // A file that was truncated after it was opened is reported as short, not as a read
            // failure.
            let is_whole = match file.read_exact_at(&mut piece, range.start) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
                read => read.map(|()| true)?,
            };
            Ok((file, is_whole.then_some(Bytes::from(piece))))
        })
        .await?;
        let piece = piece.ok_or(BlobError::Short)?;
        Ok(Some((piece, (file, end..range.end))))
    })
}

/// A file being written under a temporary name. Its methods block.
#[derive(Debug)]
pub(super) struct Staged {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Staged {
    /// Creates a temporary file, and its job's folder if necessary. A name that is taken belongs to
    /// another writer of the same file, so the next number is tried.
    pub fn create(target: PathBuf) -> io::Result<Self> {
        let mut number = 1;
        loop {
            let mut path = target.clone().into_os_string();
            path.push(format!("{STAGING_MARK}{number}"));
            let path = PathBuf::from(path);
            match private_files::options().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { file, path, target }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let made = private_files::create_one_folder(parent(&target)?);
                    made.or_else(|error| match error.kind() {
                        io::ErrorKind::AlreadyExists => Ok(()),
                        _ => Err(error),
                    })?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub fn write_at(&self, content: &[u8], start: u64) -> io::Result<()> {
        self.file.write_all_at(content, start)
    }

    /// Flushes what is written so far to disk. Others may write meanwhile.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Renames the complete file to its final name. On return both the content and the name are on
    /// disk.
    pub fn publish(&self, root: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, &self.target)?;
        sync(parent(&self.target)?)?;
        // The folder that holds the job's folder, which may be new.
        sync(root)
    }

    pub fn discard(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Deletes a job's folder with all its files.
pub(super) async fn delete_job(folder: Arc<PathBuf>, job_id: JobId) -> Result<(), BlobError> {
    blocking(move || {
        match fs::remove_dir_all(folder.join(job_id.to_string())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => done?,
        }
        sync(&folder)
    })
    .await
}

/// Deletes half-written files and returns how many there were.
pub(super) async fn remove_leftovers(folder: Arc<PathBuf>) -> Result<usize, BlobError> {
    blocking(move || {
        let mut removed = 0;
        for job in fs::read_dir(&*folder)? {
            let job = job?;
            let is_job = job.file_name().to_str().is_some_and(|name| name.parse::<JobId>().is_ok());
            if !is_job || !job.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(job.path())? {
                let file = file?;
                if file.file_name().to_str().is_some_and(is_staging) {
                    fs::remove_file(file.path())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    })
    .await
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn is_staging(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((file, number)) = name.rsplit_once(STAGING_MARK) else { return false };
    let position = file.split('-').next().unwrap_or_default();
    is_number(number) && is_number(position)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, BlobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| BlobError::of_io(&error)),
        Err(_) => Err(BlobError::Unavailable("the program is stopping".into())),
    }
}
