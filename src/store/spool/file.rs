//! The spool's file: a head with its id, then consecutive records, then zeros.
//!
//! Owned by the spool's thread; everything here blocks. Invariants: the disk space is allocated
//! before the file gets its final name; a record is in the index only once it is synced; the bytes
//! after the last record are zero, or are zeroed before the next record is written.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::{FallocateFlags, fallocate};
use sha2::{Digest, Sha256};

use super::{
    SpoolOpenError, SpoolState,
    record::{HEADER_BYTES, Header, Payload, SpoolId},
};
use crate::{private_files, store::SpoolMark};

/// Length of the head's block; the first record begins after it.
const START: u64 = 4096;

const MAGIC: &[u8; 32] = b"finishline emergency spool 1\n\0\0\0";

/// Bytes of the head that its digest covers: magic and id.
const HEAD: usize = 48;

/// Bytes read or zeroed at a time.
const BLOCK: usize = 256 * 1024;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

pub(super) struct SpoolFile {
    file: File,
    pub id: SpoolId,
    /// The size in the settings; the file may have another one until its earlier records are
    /// drained.
    wanted_bytes: u64,
    size_bytes: u64,
    /// Records that wait, oldest first.
    entries: VecDeque<Entry>,
    /// Where the next record goes.
    end: u64,
    /// All bytes from here on are zero.
    clean_from: u64,
    next_number: u64,
}

/// A record that waits.
#[derive(Clone, Copy)]
struct Entry {
    offset: u64,
    number: u64,
    length: u64,
    digest: [u8; 32],
}

impl SpoolFile {
    /// Opens the file and finds its records, or creates it.
    pub(super) fn open(
        path: &Path,
        size_bytes: u64,
        mark: Option<SpoolMark>,
        now: Timestamp,
    ) -> Result<Self, SpoolOpenError> {
        let size_bytes = size_bytes.max(START);
        let unusable = |error| SpoolOpenError::Unusable(path.to_owned(), error);
        let (file, id, is_new) = match existing(path).map_err(unusable)? {
            Some(file) => {
                lock(&file, path)?;
                let Some(id) = read_head(&file).map_err(unusable)? else {
                    return Err(SpoolOpenError::Foreign(path.to_owned()));
                };
                (file, id, false)
            }
            None => {
                let (file, id) = create(path, size_bytes).map_err(unusable)?;
                lock(&file, path)?;
                (file, id, true)
            }
        };
        let mut spool = Self {
            size_bytes: file.metadata().map_err(unusable)?.len(),
            file,
            id,
            wanted_bytes: size_bytes,
            entries: VecDeque::new(),
            end: START,
            clean_from: START,
            next_number: 0,
        };
        if !is_new {
            spool.scan().map_err(unusable)?;
        }
        spool.next_number = spool.first_number(mark, now);
        spool.clean().and_then(|()| spool.wipe()).map_err(unusable)?;
        Ok(spool)
    }

    /// The next record's number, above every number in this file or the database. It is at least
    /// the time in microseconds, for a database that was restored from a backup and later replaced
    /// by the newer one again.
    fn first_number(&self, mark: Option<SpoolMark>, now: Timestamp) -> u64 {
        let last = self.entries.back().map_or(0, |entry| entry.number);
        let marked = mark.filter(|mark| mark.spool == self.id).map_or(0, |mark| mark.number);
        let now = u64::try_from(now.as_microsecond()).unwrap_or(0);
        now.max(last.max(marked) + 1)
    }

    pub(super) fn state(&self) -> SpoolState {
        SpoolState {
            records: self.entries.len() as u64,
            bytes: self.size_bytes,
            bytes_free: self.size_bytes.saturating_sub(self.end),
            is_wiped: self.clean_from == START,
        }
    }

    /// Writes the payloads that fit and syncs them together. Returns which fitted; after an error
    /// none of them counts as written.
    pub(super) fn append(&mut self, payloads: &[Payload]) -> io::Result<Vec<bool>> {
        self.clean()?;
        let mut end = self.end;
        let mut written = Vec::with_capacity(payloads.len());
        let mut fitted = Vec::with_capacity(payloads.len());
        for payload in payloads {
            let header = payload.header(self.next_number);
            let stop = header.span().and_then(|span| end.checked_add(span));
            let Some(stop) = stop.filter(|stop| *stop <= self.size_bytes) else {
                fitted.push(false);
                continue;
            };
            self.next_number += 1;
            self.clean_from = stop;
            let mut first = header.to_bytes(&self.id).to_vec();
            first.extend(&payload.description);
            self.file.write_all_at(&first, end)?;
            self.file.write_all_at(&payload.body, end + first.len() as u64)?;
            let Header { number, length, digest } = header;
            written.push(Entry { offset: end, number, length, digest });
            fitted.push(true);
            end = stop;
        }
        if !written.is_empty() {
            self.file.sync_data()?;
        }
        self.entries.extend(written);
        self.end = end;
        Ok(fitted)
    }

    /// The oldest record with a number above `after`: its number and payload.
    pub(super) fn next(&mut self, after: u64) -> io::Result<Option<(u64, Bytes)>> {
        loop {
            let place = self.entries.partition_point(|entry| entry.number <= after);
            let Some(entry) = self.entries.get(place).copied() else { return Ok(None) };
            if let Some(payload) = self.read(entry)? {
                return Ok(Some((entry.number, payload)));
            }
            tracing::error!(
                record = entry.number,
                "a record of the spool is damaged: that callback is lost, look its job up"
            );
            self.mark_done(entry.number);
        }
    }

    /// Removes a record from the index; its bytes stay until the file is wiped.
    pub(super) fn mark_done(&mut self, number: u64) {
        if let Ok(place) = self.entries.binary_search_by_key(&number, |entry| entry.number) {
            self.entries.remove(place);
        }
    }

    /// Unless a record waits, overwrites earlier records with zeros and brings the file to the
    /// wanted size. The disk space stays allocated.
    pub(super) fn wipe(&mut self) -> io::Result<()> {
        if !self.entries.is_empty() {
            return Ok(());
        }
        self.end = START;
        self.clean()?;
        if self.size_bytes > self.wanted_bytes {
            self.file.set_len(self.wanted_bytes)?;
            self.file.sync_all()?;
            self.size_bytes = self.wanted_bytes;
        } else if self.size_bytes < self.wanted_bytes {
            self.grow();
        }
        Ok(())
    }

    /// Grows the file to the wanted size. A failure is only logged: a smaller spool is better than
    /// none.
    fn grow(&mut self) {
        let (size, wanted) = (self.size_bytes, self.wanted_bytes);
        let grown = allocate(&self.file, size, wanted).and_then(|()| self.file.sync_all());
        match grown {
            Ok(()) => self.size_bytes = wanted,
            Err(error) => {
                tracing::warn!(%error, bytes = size, wanted, "the spool cannot grow to spool.size");
                // Tried once per start: the next start may find space.
                self.wanted_bytes = size;
            }
        }
    }

    /// Zeroes the bytes after the last record, left by a write that failed or was torn by a crash.
    fn clean(&mut self) -> io::Result<()> {
        if self.clean_from <= self.end {
            return Ok(());
        }
        zero(&self.file, self.end, self.clean_from)?;
        self.file.sync_data()?;
        self.clean_from = self.end;
        Ok(())
    }

    /// Finds the records of an existing file, including those after a damaged one.
    fn scan(&mut self) -> io::Result<()> {
        self.clean_from = self.used()?;
        let (mut offset, mut last, mut is_damaged) = (START, 0, false);
        while offset.saturating_add(HEADER_BYTES) <= self.clean_from {
            let mut bytes = [0; HEADER_BYTES as usize];
            self.file.read_exact_at(&mut bytes, offset)?;
            let header = Header::parse(&bytes, &self.id);
            let stop = header.as_ref().and_then(|header| offset.checked_add(header.span()?));
            let (Some(header), Some(stop)) = (header, stop) else {
                is_damaged |= bytes != [0; HEADER_BYTES as usize];
                offset += HEADER_BYTES;
                continue;
            };
            let Header { number, length, digest } = header;
            let entry = Entry { offset, number, length, digest };
            if number > last && self.read(entry)?.is_some() {
                self.entries.push_back(entry);
                self.end = stop;
                last = number;
            } else {
                is_damaged = true;
            }
            offset = stop;
        }
        // The last record's padding and closing zeros may lie after the last byte that is not 0.
        self.clean_from = self.clean_from.max(self.end);
        if is_damaged {
            tracing::warn!(
                records = self.entries.len(),
                "the spool holds a record that is not whole: a callback that was never answered, \
                 or damage to the disk"
            );
        }
        Ok(())
    }

    /// Where the zeros at the end of the file begin, rounded up to a whole block.
    fn used(&self) -> io::Result<u64> {
        let mut block = vec![0; BLOCK];
        let (mut offset, mut used) = (START, START);
        while offset < self.size_bytes {
            let length = (self.size_bytes - offset).min(BLOCK as u64) as usize;
            self.file.read_exact_at(&mut block[..length], offset)?;
            offset += length as u64;
            if block[..length] != ZEROS[..length] {
                used = offset;
            }
        }
        Ok(used)
    }

    /// The payload of a record; `None` if it does not match its header.
    fn read(&self, entry: Entry) -> io::Result<Option<Bytes>> {
        let first = entry.offset + HEADER_BYTES;
        if first.checked_add(entry.length).is_none_or(|end| end > self.size_bytes) {
            return Ok(None);
        }
        let mut payload = vec![0; entry.length as usize];
        self.file.read_exact_at(&mut payload, first)?;
        let digest: [u8; 32] = Sha256::digest(&payload).into();
        Ok((digest == entry.digest).then(|| payload.into()))
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        // A child process that is just being started may hold the file a moment longer; unlocking
        // explicitly frees the lock now.
        let _ = self.file.unlock();
    }
}

fn existing(path: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().read(true).write(true).open(path) {
        // An empty file holds no records: it was created by hand to set its owner.
        Ok(file) if file.metadata()?.len() == 0 => Ok(None),
        Ok(file) => {
            // It may have been restored from a copy with another mode. Best effort: not every file
            // system supports modes.
            let _ = file.set_permissions(Permissions::from_mode(private_files::FILE_MODE));
            Ok(Some(file))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates the file under a temporary name and renames it once it is complete.
fn create(path: &Path, size_bytes: u64) -> io::Result<(File, SpoolId)> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push("-new");
    let unfinished = PathBuf::from(unfinished);
    let made = fill(&unfinished, size_bytes).and_then(|made| {
        fs::rename(&unfinished, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(made)
    });
    if made.is_err() {
        // Best effort: it must not occupy disk space that was too scarce already.
        let _ = fs::remove_file(&unfinished);
    }
    made
}

fn fill(path: &Path, size_bytes: u64) -> io::Result<(File, SpoolId)> {
    let mut options = private_files::options();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.open(path)?;
    allocate(&file, 0, size_bytes)?;
    let id: SpoolId = rand::random();
    let mut head = MAGIC.to_vec();
    head.extend(id);
    head.extend(Sha256::digest(&head));
    file.write_all_at(&head, 0)?;
    file.sync_all()?;
    Ok((file, id))
}

fn read_head(file: &File) -> io::Result<Option<SpoolId>> {
    let mut head = [0; HEAD + 32];
    match file.read_exact_at(&mut head, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let is_whole = head.starts_with(MAGIC) && head[HEAD..] == Sha256::digest(&head[..HEAD])[..];
    Ok(is_whole.then(|| std::array::from_fn(|place| head[MAGIC.len() + place])))
}

fn lock(file: &File, path: &Path) -> Result<(), SpoolOpenError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => SpoolOpenError::InUse(path.to_owned()),
        TryLockError::Error(error) => SpoolOpenError::Unusable(path.to_owned(), error),
    })
}

/// Allocates disk space for `from..to`, so that later writes there need none.
fn allocate(file: &File, from: u64, to: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), from, to - from) {
        Ok(()) => Ok(()),
        // Not every file system supports it; writing zeros always allocates.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let written = zero(file, from, to);
            if written.is_err() {
                // Release the space that was written so far.
                let _ = file.set_len(from);
            }
            written
        }
        Err(error) => Err(error.into()),
    }
}

fn zero(file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut offset = from;
    while offset < to {
        let length = (to - offset).min(BLOCK as u64);
        file.write_all_at(&ZEROS[..length as usize], offset)?;
        offset += length;
    }
    Ok(())
}
