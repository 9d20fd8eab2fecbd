//! Files and folders that only their owner may read.
//!
//! The process's mask (`umask 077`, set in `cli`) is the safety net; the modes are also set here,
//! for callers in other processes and for files of older releases.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Only the owner may read and write.
pub const FILE_MODE: u32 = 0o600;

/// The same for a folder.
pub const FOLDER_MODE: u32 = 0o700;

/// All permissions of the group and others.
const OTHERS: u32 = 0o077;

/// The permissions to create and delete files in a folder, and the bit that restricts this to the
/// owner of a file.
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// From now on, all files and folders that the process creates are private to its owner. Call it
/// before any are created and before threads run.
pub fn set_mask() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// Options that create a private file. An existing file keeps its mode: see [`tighten`].
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}

/// Creates a private folder and its missing parents. An existing folder is not an error.
///
/// # Errors
/// The reason why it cannot be created.
pub fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)
}

/// Creates one private folder.
///
/// # Errors
/// The reason why it cannot be created; `AlreadyExists` if the name is taken.
pub fn create_one_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(FOLDER_MODE).create(path)
}

/// Removes the permissions of all but the owner and logs it. A missing file is ignored; a mode that
/// cannot be changed (another owner, a file system without modes) is a warning.
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

/// Warns about a folder in which other users could replace files, whatever the files' own modes.
pub fn warn_of_writers(folder: &Path) {
    let Ok(found) = fs::metadata(folder) else { return };
    let mode = found.permissions().mode();
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        let folder = folder.display();
        tracing::warn!(%folder, "other users of this machine can replace the files in this folder");
    }
}
