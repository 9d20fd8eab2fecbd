//! Reads secrets from the settings, an environment variable or a file.
//!
//! Called by `load` and by the forms of secrets. Invariant: the same text is the same secret,
//! whatever its source and whichever editor wrote it; and no error repeats it.

use std::{fs::File, io::Read};

use toml::{Table, Value};

use super::error::ConfigError;

/// Secrets that can also be given as a file, by section.
const SECRETS: [(&str, &str); 3] =
    [("callbacks", "inbox_secret"), ("engine.auth", "client_secret"), ("relay", "secret")];

/// Secrets of list entries.
const LISTED_SECRETS: [(&str, &str); 2] = [("api.keys", "key"), ("relay.targets", "secret")];

/// A larger file does not hold a secret.
const MAX_FILE_BYTES: u64 = 64 * 1024;

const BOM: char = '\u{feff}';

/// Removes a byte-order mark and the line ends around a secret, which many editors add. Spaces
/// around it are part of it: issuers do give out such secrets.
///
/// # Errors
/// The problem, worded to follow the key.
pub(super) fn clean(text: &str) -> Result<&str, &'static str> {
    let secret = text.trim_start_matches(BOM).trim_matches(['\r', '\n']);
    if secret.trim().is_empty() {
        return Err("is blank: leave it empty, or write the secret");
    }
    if secret.chars().any(|one| one.is_control() || one == BOM) {
        return Err(
            "holds a line break or another control character: write the secret as one line",
        );
    }
    Ok(secret)
}

/// Replaces each `…_file` by the secret in that file; the sections know only the secret.
pub(super) fn take_files(settings: &mut Table) -> Result<(), ConfigError> {
    for (section, name) in SECRETS {
        if let Some(table) = table_at(settings, section) {
            take_file(table, section, name)?;
        }
    }
    for (list, name) in LISTED_SECRETS {
        let (section, list_name) = list.rsplit_once('.').unwrap_or(("", list));
        let entries = table_at(settings, section).and_then(|table| table.get_mut(list_name));
        let Some(Value::Array(entries)) = entries else { continue };
        for (index, entry) in entries.iter_mut().enumerate() {
            if let Value::Table(entry) = entry {
                take_file(entry, &format!("{list}[{index}]"), name)?;
            }
        }
    }
    Ok(())
}

fn table_at<'a>(settings: &'a mut Table, section: &str) -> Option<&'a mut Table> {
    section.split('.').try_fold(settings, |table, name| table.get_mut(name)?.as_table_mut())
}

fn take_file(table: &mut Table, place: &str, name: &str) -> Result<(), ConfigError> {
    let Some(given) = table.remove(&format!("{name}_file")) else { return Ok(()) };
    let key = format!("{place}.{name}_file");
    let invalid = |problem: &str| Err(ConfigError::invalid(&key, &given, problem));
    let Value::String(path) = &given else {
        return invalid("is not a path: write it like \"/run/secrets/client_secret\"");
    };
    if path.is_empty() {
        return Ok(());
    }
    if table.get(name).is_some_and(|secret| secret.as_str() != Some("")) {
        return invalid(&format!("is given beside {place}.{name}: leave one out"));
    }
    let text = match read(path) {
        Ok(text) => text,
        Err(reason) => return invalid(&format!("cannot be read: {reason}")),
    };
    if text.trim_start_matches(BOM).trim().is_empty() {
        return invalid("is an empty file: put the secret into it");
    }
    match clean(&text) {
        Ok(secret) => table.insert(name.to_owned(), Value::String(secret.to_owned())),
        Err(problem) => return invalid(problem),
    };
    Ok(())
}

fn read(path: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|reason| reason.to_string())?;
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|reason| reason.to_string())?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("it is larger than 64KiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8: save it as UTF-8".to_owned())
}
