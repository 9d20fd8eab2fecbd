//! The cursor: a small file with the number of the last event that was processed.
//!
//! Invariants: it is replaced atomically and flushed to disk, so a crash leaves the old or the new
//! cursor; only one process uses it at a time; a cursor of another service is refused.

use std::{
    fs::{File, TryLockError},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{cli::Failure, private_files};

/// Far larger than any cursor file.
const MAX_BYTES: u64 = 4096;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The service whose events are counted.
    api: String,
    after: i64,
}

/// See the module.
pub(super) struct Cursor {
    path: PathBuf,
    /// What the file holds.
    record: Option<Record>,
    api: String,
    /// Lock held while the cursor is in use. A file of its own, since the cursor file is replaced
    /// with every write.
    _lock: File,
}

/// What an earlier run left.
pub(super) struct Found {
    path: PathBuf,
    record: Option<Record>,
    api: String,
}

impl Found {
    /// The last event of the earlier run; `None` if there was no run. A cursor of another service
    /// is refused.
    pub(super) fn after(&self) -> Result<Option<i64>, Failure> {
        let Some(record) = &self.record else { return Ok(None) };
        if record.api != self.api {
            return Err(Failure::usage(anyhow!(
                "{} counts the events of {}, not of {}: say --cursor FILE for one of its own, or \
                 --since or --last to begin anew",
                self.path.display(),
                record.api,
                self.api
            )));
        }
        Ok(Some(record.after))
    }
}

impl Cursor {
    /// Locks the cursor for this process, and reads what an earlier run left.
    pub(super) fn open(path: PathBuf, api: &Url) -> Result<(Self, Found), Failure> {
        let lock = lock(&path)?;
        let record = read(&path).map_err(Failure::usage)?;
        let api = api.to_string();
        let found = Found { path: path.clone(), record: record.clone(), api: api.clone() };
        Ok((Self { path, record, api, _lock: lock }, found))
    }

    /// Writes the number to disk, unless it is there already.
    pub(super) fn write(&mut self, after: i64) -> Result<(), Failure> {
        let record = Record { api: self.api.clone(), after };
        if self.record.as_ref() == Some(&record) {
            return Ok(());
        }
        replace(&self.path, &record)
            .with_context(|| format!("{} cannot be written", self.path.display()))?;
        self.record = Some(record);
        Ok(())
    }
}

fn lock(path: &Path) -> Result<File, Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = private_files::options().create(true).truncate(false).write(true).open(&name);
    let file = file.with_context(|| name.display().to_string()).map_err(Failure::usage)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::usage(anyhow!(
            "{} is in use by another finishline forward: say --cursor FILE for one of its own",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => {
            Err(Failure::usage(anyhow!("{} cannot be locked: {error}", name.display())))
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Option<Record>> {
    let shown = path.display();
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata.with_context(|| shown.to_string())?,
    };
    let no_cursor = || {
        anyhow!(
            "{shown} is not a cursor of finishline forward: move it away, and say with --since or \
             --last where to begin"
        )
    };
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(no_cursor());
    }
    let bytes = std::fs::read(path).with_context(|| shown.to_string())?;
    let record: Record = serde_json::from_slice(&bytes).map_err(|_| no_cursor())?;
    if record.after < 0 { Err(no_cursor()) } else { Ok(Some(record)) }
}

fn replace(path: &Path, record: &Record) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut file, record)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The rename must survive a power cut too.
    File::open(folder)?.sync_all()?;
    Ok(())
}
