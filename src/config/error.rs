//! Errors in the settings, each as one line for the operator.
//!
//! Invariant: the line never holds a secret or a line break.

use std::fmt::Display;

use toml::Value;

use crate::printable;

/// A longer value is cut, to keep the line readable.
const LONGEST_VALUE: usize = 120;
const REDACTED: &str = "[redacted]";
/// Keys whose values, and everything below them, are never shown.
const SECRET_KEYS: [&str; 6] =
    ["client_secret", "inbox_secret", "key", "key_sha256", "secret", "secrets"];
/// Lists of entries with secrets: a bare text in them is probably the secret itself.
const SECRET_LISTS: [&str; 2] = ["keys", "targets"];

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing, may not be read or is not UTF-8.
    #[error("{file} cannot be read: {reason}")]
    Unreadable {
        /// Its path.
        file: String,
        /// Why.
        reason: String,
    },
    /// Not TOML.
    #[error("{file}, line {line}, column {column}: {problem}")]
    Syntax {
        /// Its path.
        file: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What the parser says.
        problem: String,
    },
    /// An unknown key.
    #[error("{key} is not a setting{hint}")]
    Unknown {
        /// The dotted key, or the environment variable.
        key: String,
        /// `: did you mean …?`, or empty.
        hint: String,
    },
    /// An invalid value.
    #[error("{key} = {value} {problem}{origin}")]
    Invalid {
        /// The dotted key.
        key: String,
        /// The value, without secrets.
        value: String,
        /// What would be valid.
        problem: String,
        /// The environment variable that set it, in brackets, or empty.
        origin: String,
    },
    /// A value where a section belongs, or settings that contradict each other.
    #[error("{0}")]
    Mismatch(String),
}

impl ConfigError {
    pub(super) fn unreadable(file: impl Display, reason: impl Display) -> Self {
        Self::Unreadable {
            file: printable::line(&file.to_string()).into_owned(),
            reason: printable::line(&reason.to_string()).into_owned(),
        }
    }

    /// `known` are the valid names, written in the same form as `key`.
    pub(super) fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let hint = match nearest(key, known) {
            Some(name) => format!(": did you mean {name}?"),
            None => ": config.example.toml lists them all".to_owned(),
        };
        Self::Unknown { key: printable::line(key).into_owned(), hint }
    }

    pub(super) fn invalid(key: &str, value: &Value, problem: impl Into<String>) -> Self {
        Self::Invalid {
            key: printable::line(key).into_owned(),
            value: show(key, value),
            problem: printable::line(&problem.into()).into_owned(),
            origin: String::new(),
        }
    }

    /// Adds the environment variable that the value came from.
    pub(super) fn set_by(mut self, variable: &str) -> Self {
        if let Self::Invalid { origin, .. } = &mut self {
            *origin = format!(" (set by {variable})");
        }
        self
    }
}

/// The value as the operator wrote it, without secrets.
fn show(key: &str, value: &Value) -> String {
    let names = || key.split('.').map(|part| part.split('[').next().unwrap_or(part));
    let bare = !matches!(value, Value::Array(_) | Value::Table(_));
    let in_secret_list = names().next_back().is_some_and(|name| SECRET_LISTS.contains(&name));
    if names().any(|name| SECRET_KEYS.contains(&name)) || bare && in_secret_list {
        return REDACTED.to_owned();
    }
    match value {
        Value::String(text) => {
            let text = redact_url(text);
            match text.char_indices().nth(LONGEST_VALUE) {
                Some((end, _)) => format!("{:?}…", &text[..end]),
                None => format!("{text:?}"),
            }
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| show(key, item)).collect();
            format!("[{}]", items.join(", "))
        }
        // Its other keys may be anything, secrets included, so only the name is shown.
        Value::Table(entry) => match entry.get("name").and_then(Value::as_str) {
            Some(name) => format!("{{ name = {name:?}, … }}"),
            None => "{ … }".to_owned(),
        },
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(boolean) => boolean.to_string(),
        Value::Datetime(time) => time.to_string(),
    }
}

/// Hides the user and what follows "?" or "#". Works on text, because a value that is not a valid
/// URL may hold a password too.
fn redact_url(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => (format!("{REDACTED}@"), rest),
        None => (String::new(), rest),
    };
    match rest.find(['?', '#']) {
        Some(end) => format!("{scheme}{user}{}{REDACTED}", &rest[..=end]),
        None => format!("{scheme}{user}{rest}"),
    }
}

/// The name that was probably meant: one with a similar spelling, or the same key in another
/// section.
pub(super) fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let leaf = |name: &str| {
        let name = name.rsplit('.').next().unwrap_or(name);
        name.rsplit("__").next().unwrap_or(name).to_owned()
    };
    let wrong = leaf(key);
    let allowed = (wrong.chars().count() / 3).clamp(1, 3);
    known
        .filter_map(|name| {
            let steps = distance(key, name);
            (steps <= allowed || leaf(name) == wrong).then_some((steps, name))
        })
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, name)| name)
}

/// The edit distance: how many characters must be inserted, deleted or replaced.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, character) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for column in 1..row.len() {
            let replaced = diagonal + usize::from(to[column - 1] != character);
            diagonal = row[column];
            row[column] = replaced.min(diagonal + 1).min(row[column - 1] + 1);
        }
    }
    row[to.len()]
}
