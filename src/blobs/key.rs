//! Names of files in the store.
//!
//! Invariant: a key stays inside its job's folder and is unique within that job, whatever names the
//! Engine and the caller gave the output.

use crate::domain::mirror::{FilePlace, StoredCopy};

/// The longest output name in a key. File systems allow 255 bytes in all.
const MAX_NAME_CHARS: usize = 100;

/// The longest extension in a key.
const MAX_EXTENSION_CHARS: usize = 20;

/// `{job_id}/{position}-{name}{extension}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileKey {
    folder: String,
    name: String,
}

impl FileKey {
    /// The file's name in its folder, with the output's extension.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Builds a key: the position makes it unique, the name is for people.
    pub fn new(place: FilePlace, output_name: &str, extension: Option<&str>) -> Self {
        let name = harmless(output_name, MAX_NAME_CHARS);
        let extension = harmless(extension.unwrap_or_default(), MAX_EXTENSION_CHARS);
        Self {
            folder: place.job_id.to_string(),
            name: format!("{}-{name}{extension}", place.position),
        }
    }

    /// The key of a recorded copy.
    pub fn of(copy: &StoredCopy) -> Self {
        Self::new(copy.place, &copy.output.name, copy.output.extension.as_deref())
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &str> {
        [self.folder.as_str(), self.name.as_str()].into_iter()
    }
}

/// Keeps letters, digits and `-`, `_`, `.`, which have no special meaning to any store or shell,
/// and replaces the rest.
fn harmless(text: &str, max_chars: usize) -> String {
    let is_kept =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    let harmless = text.chars().map(|one| if is_kept(one) { one } else { '_' });
    harmless.take(max_chars).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::ids::JobId;

    #[test]
    fn no_name_leaves_its_folder_or_takes_anothers_place() {
        let job_id = JobId::new(Timestamp::UNIX_EPOCH);
        let long = "x".repeat(10_000);
        for (position, name) in [
            "..",
            "../../etc/passwd",
            "a/b",
            "a\\b",
            "#1",
            "m#1",
            "\0",
            "",
            ".",
            "%2e%2e%2f",
            "é\u{202e}",
            &long,
        ]
        .into_iter()
        .enumerate()
        {
            let place = FilePlace { job_id, position: position as u32 };
            for extension in
                [None, Some(".stl"), Some("/../.."), Some("#1"), Some("\n"), Some(&*long)]
            {
                let key = FileKey::new(place, name, extension);
                let segments: Vec<&str> = key.segments().collect();
                assert_eq!(segments[0], job_id.to_string());
                assert!(segments[1].starts_with(&format!("{position}-")), "{segments:?}");
                assert!(segments[1].len() <= 140, "{segments:?}");
                let is_harmless = |one: char| one.is_ascii_alphanumeric() || "-_.".contains(one);
                assert!(segments[1].chars().all(is_harmless), "{segments:?}");
            }
        }
    }
}
