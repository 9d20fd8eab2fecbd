//! A file during its download, under a temporary name, until it is moved into place.
//!
//! Invariant: it is removed unless it is moved into place, and that move is atomic.

use std::{
    fs::Permissions,
    io::{self, Read as _, SeekFrom},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempPath};
use tokio::{
    fs::File,
    io::{AsyncSeekExt as _, AsyncWriteExt as _},
};

use super::{Copy, Existing};
use crate::{client::Partial, domain::digest::hex, private_files};

/// Bytes read from a file at a time.
const PIECE: usize = 256 * 1024;

/// See the module.
pub(super) struct Part {
    file: File,
    path: TempPath,
    digest: Sha256,
    length: u64,
    /// The length that was added to the progress bar.
    expected: u64,
    /// ETag of the bytes received so far.
    pub(super) etag: Option<String>,
}

/// A file in its place.
pub(super) enum Placed {
    Written(Copy),
    /// The same bytes were there already.
    Unchanged(Copy),
}

impl Part {
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let file: NamedTempFile = tempfile::Builder::new()
            .prefix(".finishline-")
            .suffix(".part")
            // It holds a patient's data: only its owner decides who else may read it.
            .permissions(Permissions::from_mode(private_files::FILE_MODE))
            .tempfile_in(folder)?;
        let (file, path) = file.into_parts();
        let file = File::from_std(file);
        Ok(Self { file, path, digest: Sha256::new(), length: 0, expected: 0, etag: None })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The part to resume from; `None` where the sender gave no ETag.
    pub(super) fn partial(&self) -> Option<Partial> {
        let etag = self.etag.clone().filter(|_| self.length > 0)?;
        Some(Partial { length: self.length, etag })
    }

    /// Sets the file's length on the progress bar.
    pub(super) fn expect(&mut self, total: u64, bar: &ProgressBar) {
        bar.dec_length(self.expected);
        bar.inc_length(total);
        self.expected = total;
    }

    pub(super) async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece).await?;
        self.digest.update(piece);
        self.length += piece.len() as u64;
        Ok(())
    }

    pub(super) async fn restart(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.set_len(0).await?;
        self.file.seek(SeekFrom::Start(0)).await?;
        (self.digest, self.length, self.etag) = (Sha256::new(), 0, None);
        Ok(())
    }

    pub(super) fn sha256(&self) -> String {
        hex(&self.digest.clone().finalize())
    }

    /// Moves the complete file into place; `None` if a different file is there and is to be kept.
    pub(super) async fn put(
        mut self,
        place: &Path,
        existing: Existing,
    ) -> io::Result<Option<Placed>> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        let (bytes, sha256) = (self.length, self.sha256());
        let copy = Copy { path: place.to_owned(), bytes, sha256 };
        if let Some(found) = digest_of(place).await?
            && found.sha256 == copy.sha256
        {
            return Ok(Some(Placed::Unchanged(found)));
        }
        let put = match existing {
            Existing::Keep => self.path.persist_noclobber(place),
            Existing::Replace => self.path.persist(place),
        };
        match put {
            Ok(()) => Ok(Some(Placed::Written(copy))),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error.error),
        }
    }
}

/// Hashes an existing file; `None` if there is none, or it is not a regular file.
pub(super) async fn digest_of(path: &Path) -> io::Result<Option<Copy>> {
    let path = path.to_owned();
    let digest = tokio::task::spawn_blocking(move || digest_of_file(path));
    digest.await.unwrap_or_else(|_| Err(io::Error::other("reading the file broke off")))
}

fn digest_of_file(path: PathBuf) -> io::Result<Option<Copy>> {
    match std::fs::metadata(&path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut file = std::fs::File::open(&path)?;
    let (mut digest, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; PIECE]);
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => {
                digest.update(&piece[..read]);
                bytes += read as u64;
            }
        }
    }
    Ok(Some(Copy { path, bytes, sha256: hex(&digest.finalize()) }))
}
