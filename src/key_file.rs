//! The API key that the service generates if the settings have none, in a file that only its owner
//! can read.
//!
//! Made by `app`, read by the client commands. Invariant: the file exists with its whole content
//! and its mode, or not at all; an existing file is never replaced; the key is never logged.

use std::{
    fmt,
    fs::{File, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::fs::OFlags;

use crate::private_files;

/// 256 bits cannot be guessed.
const KEY_BYTES: usize = 32;

/// The minimum for a key that a person put there: characters, and different characters.
const MIN_CHARACTERS: usize = 22;
const MIN_DIFFERENT: usize = 10;

/// Far more than a key needs.
const MAX_FILE_BYTES: u64 = 1024;

/// The key in a key file: one word of ASCII.
#[derive(Clone)]
pub struct LocalKey(String);

impl LocalKey {
    /// The text, for the code that sends it or hashes it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// The reason why there is no key; each is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The content of the file is not a key. The file is left unchanged.
    #[error("the key file {0} {1}: mend it, or delete it and the next start makes a new one")]
    Invalid(PathBuf, &'static str),
    /// Another owner's file, a full disk, a missing folder.
    #[error("the key file {0} cannot be {1}: {2}")]
    Unusable(PathBuf, &'static str, io::Error),
}

/// Reads the key; `None` if there is no such file.
///
/// # Errors
/// The file exists but cannot be read, or holds no key.
pub fn read(path: &Path) -> Result<Option<LocalKey>, KeyFileError> {
    let unreadable = |error| KeyFileError::Unusable(path.to_owned(), "read", error);
    let invalid = |reason| KeyFileError::Invalid(path.to_owned(), reason);
    let mut options = File::options();
    // The name may belong to a pipe, and opening that would block until it has a writer.
    options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(unreadable)?,
    };
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(invalid("is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    parse(&bytes).map(Some).map_err(invalid)
}

/// Reads the key, or makes the file if it is missing. If two processes make it at the same time,
/// one wins, and both return its key.
///
/// # Errors
/// Like [`read`], or the file cannot be made.
pub fn read_or_make(path: &Path) -> Result<LocalKey, KeyFileError> {
    let unwritable = |error| KeyFileError::Unusable(path.to_owned(), "written", error);
    loop {
        if let Some(key) = read(path)? {
            private_files::tighten(path);
            return Ok(key);
        }
        if path.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
            return Err(KeyFileError::Invalid(path.to_owned(), "is a link that leads nowhere"));
        }
        let key = fresh();
        match make(path, &key) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| key).map_err(unwritable),
        }
    }
}

fn fresh() -> LocalKey {
    LocalKey(URL_SAFE_NO_PAD.encode(rand::random::<[u8; KEY_BYTES]>()))
}

/// Writes the key under a temporary name; the file is renamed once it is complete and on disk.
fn make(path: &Path, key: &LocalKey) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mode = Permissions::from_mode(private_files::FILE_MODE);
    let prefix = ".finishline-key-";
    let mut file = tempfile::Builder::new().prefix(prefix).permissions(mode).tempfile_in(folder)?;
    writeln!(file, "{}", key.expose())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|failed| failed.error)?;
    File::open(folder)?.sync_all()
}

/// Ignores a byte-order mark and line ends.
fn parse(bytes: &[u8]) -> Result<LocalKey, &'static str> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
    let key = &bytes[..end.map_or(0, |last| last + 1)];
    if key.is_empty() {
        return Err("is empty");
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("is too long for a key");
    }
    // It is sent in a header, where other characters are not possible.
    if !key.iter().all(u8::is_ascii_graphic) {
        return Err("does not hold one word of letters, digits and punctuation");
    }
    let different: std::collections::BTreeSet<&u8> = key.iter().collect();
    if key.len() < MIN_CHARACTERS || different.len() < MIN_DIFFERENT {
        return Err("holds a key that can be guessed: at least 22 characters, 10 different ones");
    }
    Ok(LocalKey(String::from_utf8_lossy(key).into_owned()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("a file").permissions().mode() & 0o777
    }

    #[test]
    fn the_key_is_made_once_and_read_from_then_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("finishline.key");
        assert!(read(&path).expect("no file is fine").is_none());
        let made = read_or_make(&path).expect("it is made");
        assert_eq!(made.expose().len(), 43);
        assert_eq!(mode(&path), 0o600);
        assert_eq!(read_or_make(&path).expect("it is there").expose(), made.expose());
        assert_eq!(read(&path).expect("it is there").expect("it is there").expose(), made.expose());
        assert_eq!(
            fs::read_dir(folder.path()).expect("a folder").count(),
            1,
            "nothing else is left"
        );
        assert_eq!(format!("{made:?}"), "[redacted]");
    }

    #[test]
    fn of_many_that_make_it_at_once_one_wins_and_all_have_its_key() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("finishline.key");
            let start = std::sync::Barrier::new(8);
            let make = || {
                start.wait();
                read_or_make(&path).expect("it is made").0
            };
            let keys: Vec<String> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            assert!(keys.iter().all(|key| *key == keys[0]), "all have the same key");
            assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
            assert_eq!(mode(&path), 0o600);
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("finishline.key");
        let long = "0123456789abcdef".repeat(80);
        for content in [
            "",
            "\n",
            "\u{feff}\r\n",
            "short",
            "0123456789abcdefghijk",
            "abcabcabcabcabcabcabcabcabcabc",
            "two words 0123456789abcdef",
            " 0123456789abcdef0123456789",
            "0123456789abcdef0123456789 ",
            "0123456789abcdef\n0123456789abcdef",
            "0123456789abcdef\x00123456789abcdef",
            "0123456789abcdefghijklmné",
            &long,
        ] {
            fs::write(&path, content).expect("written");
            let refused = read_or_make(&path).expect_err(content).to_string();
            assert!(!refused.contains('\n') && refused.contains("finishline.key"), "{refused}");
            assert!(!refused.contains("0123"), "the content is not shown: {refused}");
            assert!(read(&path).is_err(), "{content:?}");
            assert_eq!(fs::read(&path).expect("a file"), content.as_bytes());
        }
        for content in ["\u{feff}0123456789abcdefghijkl\r\n", "0123456789abcdefghijkl"] {
            fs::write(&path, content).expect("written");
            assert_eq!(read_or_make(&path).expect(content).expose(), "0123456789abcdefghijkl");
        }
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("a folder");
        assert!(read_or_make(&path).is_err(), "a folder is no file");
        fs::remove_dir(&path).expect("removed");
        symlink("nowhere", &path).expect("a link");
        assert!(read_or_make(&path).is_err(), "a dangling link is not written through");
    }

    #[test]
    fn a_key_that_others_could_read_is_taken_away_from_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("finishline.key");
        fs::write(&path, "0123456789abcdefghijkl\n").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("set");
        read_or_make(&path).expect("it is read");
        assert_eq!(mode(&path), 0o600);
    }
}
