//! Files and folders that nobody but their owner may read.
//!
//! The process's mask (`umask 077`, set in `cli`) is the net; the modes are said here all the same,
//! for callers in other processes and for what an older release left behind.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Read and written by the owner alone.
pub const FILE_MODE: u32 = 0o600;

/// The same for a folder.
pub const FOLDER_MODE: u32 = 0o700;

/// What the group and all others may do.
const OTHERS: u32 = 0o077;

/// What lets them make and delete files in a folder, and what takes others' files out of that.
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// The process's files and folders are its owner's from now on, whatever creates them. To be called
/// before any is made and before threads run.
pub fn set_mask() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// Options that make a private file. One that is there already keeps its mode: see [`tighten`].
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}

/// Makes a private folder, and those above it that are missing. One that is there is fine.
///
/// # Errors
/// Why it cannot be made.
pub fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)
}

/// Makes one private folder.
///
/// # Errors
/// Why it cannot be made; `AlreadyExists` where something has its name.
pub fn create_one_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(FOLDER_MODE).create(path)
}

/// Takes a file or folder away from all but its owner, and says so in the log. What is missing is
/// fine; what cannot be changed (it is somebody else's, the file system has no modes) is a warning.
pub fn tighten(path: &Path) {
    let Ok(found) = fs::metadata(path) else { return };
    let mode = found.permissions().mode() & 0o7777;
    if mode & OTHERS == 0 {
        return;
    }
    let tightened = fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS));
    let path = path.display();
    match tightened {
        Ok(()) => tracing::warn!(%path, "other users could read it: it is its owner's alone now"),
        Err(error) => tracing::warn!(%path, %error, "other users of this machine can read it"),
    }
}

/// Warns of a folder in which other users could replace files, whatever those files' own modes.
pub fn warn_of_writers(folder: &Path) {
    let Ok(found) = fs::metadata(folder) else { return };
    let mode = found.permissions().mode();
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        let folder = folder.display();
        tracing::warn!(%folder, "other users of this machine can replace the files in this folder");
    }
}
