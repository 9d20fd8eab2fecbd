//! The errors of a file store.
//!
//! Invariant: no error repeats an address, a header or an answer, because any of them may hold a
//! credential.

use std::{error::Error, io};

/// The text before the HTTP status in the messages of `object_store`.
const STATUS_MARK: &str = "status code: ";

/// Why a file could not be written, read or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// The file does not exist.
    #[error("the file is not there")]
    Missing,
    /// The file ends before the requested range does.
    #[error("the file is shorter than what was stored")]
    Short,
    /// The store denies access.
    #[error("the file store refuses access ({0})")]
    Refused(String),
    /// The operation may succeed later: the disk is full, the network is down.
    #[error("the file store is not available ({0})")]
    Unavailable(String),
    /// The settings or the environment variables of the store are unusable.
    #[error("{0}")]
    Setting(String),
}

impl BlobError {
    pub(super) fn of_io(error: &io::Error) -> Self {
        let text = error.to_string();
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Refused(text),
            _ => Self::Unavailable(text),
        }
    }
}

impl From<object_store::Error> for BlobError {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as Cause;
        match &error {
            Cause::NotFound { .. } => Self::Missing,
            Cause::PermissionDenied { .. } => Self::Refused("permission denied".into()),
            Cause::Unauthenticated { .. } => Self::Refused("credentials not accepted".into()),
            _ => match system_error(&error) {
                Some(found) if found.kind() == io::ErrorKind::NotFound => {
                    Self::Unavailable(found.to_string())
                }
                Some(found) => Self::of_io(&found),
                None => Self::Unavailable(status(&error).unwrap_or("no usable answer".into())),
            },
        }
    }
}

/// The error of the operating system that caused this one, if any.
fn system_error(error: &object_store::Error) -> Option<io::Error> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if let Some(code) = code {
            return Some(io::Error::from_raw_os_error(code));
        }
        cause = error.source();
    }
    None
}

/// The HTTP status in an error, if the store answered.
fn status(error: &object_store::Error) -> Option<String> {
    let text = error.to_string();
    let (_, after) = text.split_once(STATUS_MARK)?;
    let code: String = after.chars().take_while(char::is_ascii_digit).collect();
    (!code.is_empty()).then(|| format!("HTTP status {code}"))
}
