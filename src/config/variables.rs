//! The environment variables that begin with `FINISHLINE`: which of them are read, and what was
//! probably meant by the others.
//!
//! Called by `load` and by the client commands. Invariant: a value is never shown.

use std::ffi::{OsStr, OsString};

use super::error::{ConfigError, nearest};
use super::load::{ENVIRONMENT_PREFIX, known_keys, variable_of};
use crate::printable;

/// The address of the service, for the client commands.
pub const API: &str = "FINISHLINE_API";
/// The key of the client commands.
pub const KEY: &str = "FINISHLINE_KEY";
/// Allows the client commands to send the key over plain http.
pub const INSECURE_HTTP: &str = "FINISHLINE_INSECURE_HTTP";
/// Signs the requests of `finishline forward`.
pub const FORWARD_SECRET: &str = "FINISHLINE_FORWARD_SECRET";

const OF_CLIENTS: [&str; 4] = [API, KEY, INSECURE_HTTP, FORWARD_SECRET];

/// The beginning of every variable that may be meant for us, in any case.
const OURS: &str = "FINISHLINE";

/// A variable that nothing reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrayVariable {
    name: String,
    /// What was probably meant.
    meant: Option<String>,
}

impl StrayVariable {
    /// The warning about it.
    pub fn warning(&self) -> String {
        let name = printable::line(&self.name);
        match &self.meant {
            Some(meant) => format!("{name} is not read: did you mean {meant}?"),
            None => format!(
                "{name} is not read: a setting's variable is written like \
                 FINISHLINE__ENGINE__TIMEOUT, with two underscores each time"
            ),
        }
    }
}

/// The variables that look like ours but are not read.
///
/// # Errors
/// One of them differs from a setting's variable only in underscores or case, so it was probably
/// meant to set it.
pub(super) fn strays<'a>(
    names: impl Iterator<Item = &'a str>,
) -> Result<Vec<StrayVariable>, ConfigError> {
    let mut strays = Vec::new();
    for name in names {
        let is_setting = name.starts_with(ENVIRONMENT_PREFIX);
        if is_setting || !is_for_us(name) || OF_CLIENTS.contains(&name) {
            continue;
        }
        if client_of(name).is_none()
            && let Some(setting) = setting_of(name)
        {
            return Err(ConfigError::Unknown {
                key: printable::line(name).into_owned(),
                hint: format!(": did you mean {setting}?"),
            });
        }
        strays.push(StrayVariable { name: name.to_owned(), meant: meant(name) });
    }
    Ok(strays)
}

/// Variables in the process's environment that look as if they were meant for a client command.
pub fn strays_of_clients() -> Vec<StrayVariable> {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let of_clients = names.filter(|name| {
        is_for_us(name) && !name.starts_with(ENVIRONMENT_PREFIX) && setting_of(name).is_none()
    });
    let strays = of_clients.filter(|name| !OF_CLIENTS.contains(&name.as_str()));
    let strays = strays.map(|name| StrayVariable { meant: meant(&name), name });
    strays.filter(|stray| stray.meant.is_some()).collect()
}

/// The value of a client command's variable; an empty one counts as not set.
///
/// # Errors
/// A line that names the variable, if its value is not UTF-8.
pub fn of_client(name: &'static str) -> Result<Option<String>, String> {
    let value = std::env::var_os(name).filter(|value| value != OsStr::new(""));
    let text = value.map(OsString::into_string).transpose();
    text.map_err(|_| format!("{name} is not UTF-8: set it to plain text"))
}

/// Whether a variable may be meant for this program. Kubernetes and Docker give every container the
/// addresses of a service named finishline; these are not.
fn is_for_us(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let Some(rest) = upper.strip_prefix(OURS) else { return false };
    let is_word = rest.starts_with(|character: char| !character.is_ascii_alphanumeric());
    is_word && !is_service_link(rest)
}

/// Like `_SERVICE_HOST`, `_SERVICE_PORT_API`, `_PORT`, `_PORT_8085_TCP_ADDR`; also of a service
/// named, for example, finishline-callbacks.
fn is_service_link(rest: &str) -> bool {
    let is_port = |text: &str| {
        let mut words = text.split('_');
        let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
        words.next().is_some_and(|word| !word.is_empty() && is_number(word))
            && matches!(words.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    let has = |mark: &str| rest.split_once(mark).map(|(_, text)| text);
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || rest == "_PORT"
        || has("_PORT_").is_some_and(is_port)
}

/// The setting whose variable differs from this name only in underscores, other separators or case.
fn setting_of(name: &str) -> Option<String> {
    let words = words_of(name);
    let keys = known_keys();
    let is_section = |key: &str| keys.iter().any(|other| other.starts_with(&format!("{key}.")));
    let values = keys.iter().filter(|key| !is_section(key));
    values.map(|key| variable_of(key)).find(|known| words_of(known) == words)
}

/// The client variable that differs from this name only in underscores or case.
fn client_of(name: &str) -> Option<&'static str> {
    OF_CLIENTS.into_iter().find(|known| words_of(known) == words_of(name))
}

fn words_of(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_uppercase()).collect()
}

/// The setting that ends with this name, or else a name with a similar spelling or with the same
/// last or first words.
fn meant(name: &str) -> Option<String> {
    if let Some(known) = client_of(name) {
        return Some(known.to_owned());
    }
    let upper = name.to_ascii_uppercase();
    let settings: Vec<String> = known_keys().iter().map(|key| variable_of(key)).collect();
    let rest = format!("__{}", upper.trim_start_matches(OURS).trim_matches('_'));
    if let Some(setting) = settings.iter().find(|setting| setting.ends_with(&rest)) {
        return Some(setting.clone());
    }
    let ending = upper.rsplit('_').next().unwrap_or_default();
    let is_same_end = |known: &&str| known.rsplit('_').next() == Some(ending);
    let is_same_begin = |known: &&str| upper.starts_with(&format!("{known}_"));
    let mut clients = OF_CLIENTS.into_iter();
    let client = nearest(&upper, clients.clone())
        .or_else(|| clients.clone().find(is_same_end))
        .or_else(|| clients.find(is_same_begin));
    client.or_else(|| nearest(&upper, settings.iter().map(String::as_str))).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_that_an_orchestrator_hands_over_are_not_meant_for_us() {
        for name in [
            "FINISHLINE_SERVICE_HOST",
            "FINISHLINE_SERVICE_PORT",
            "FINISHLINE_SERVICE_PORT_CALLBACKS",
            "FINISHLINE_PORT",
            "FINISHLINE_PORT_8085_TCP",
            "FINISHLINE_PORT_8085_TCP_ADDR",
            "FINISHLINE_CALLBACKS_SERVICE_HOST",
            "FINISHLINE_CALLBACKS_PORT_8085_TCP_PROTO",
            "FINISHLINES",
            "PATH",
        ] {
            assert_eq!(strays([name].into_iter()).expect("not wrong"), [], "{name}");
        }
    }

    #[test]
    fn a_variable_that_is_not_read_is_told_with_what_was_meant() {
        for (name, meant) in [
            ("FINISHLINE_API_KEY", Some(KEY)),
            ("FINISHLINE_APII", Some(API)),
            ("FINISHLINE_API_URL", Some(API)),
            ("finishline_key", Some(KEY)),
            ("FINISHLINE_INSECUREHTTP", Some(INSECURE_HTTP)),
            ("FINISHLINE_CLIENT_SECRET", Some("FINISHLINE__ENGINE__AUTH__CLIENT_SECRET")),
            ("FINISHLINE_COLOUR", None),
        ] {
            let found = strays([name].into_iter()).expect("no setting");
            assert_eq!(found[0].meant.as_deref(), meant, "{name}");
        }
    }
}
