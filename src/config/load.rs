//! Builds one checked `Config` from defaults, file and environment. Called once by each command
//! that needs the settings, and by tests.
//!
//! Nothing is ignored silently: anything that is not understood stops the load.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_path_to_error::Segment;
use toml::{Table, Value};

use super::error::ConfigError;
use super::form::NUMBER;
use super::{Config, EXAMPLE, check, secret, variables};
use crate::printable;

/// The settings file if none is named.
const DEFAULT_FILE: &str = "finishline.toml";
pub(super) const ENVIRONMENT_PREFIX: &str = "FINISHLINE__";

const BOOLEAN: &str = "is not a boolean: write true or false";
const LIST: &str = r#"is not a list: write it in brackets, like ["…", "…"]"#;
const JSON_LIST: &str = r#"is not a JSON list: write it like ["…", "…"] or [{"name": "…"}]"#;

static DEFAULTS: LazyLock<Table> = LazyLock::new(|| {
    EXAMPLE.parse().expect("config.example.toml is part of the program and a test reads it")
});

/// `finishline.toml` in the working directory, if it exists.
pub fn default_file() -> Option<PathBuf> {
    let file = PathBuf::from(DEFAULT_FILE);
    // A file that cannot be accessed is passed on to `load`, which reports why.
    (!matches!(file.try_exists(), Ok(false))).then_some(file)
}

/// The process's environment for [`load`]. Unlike `std::env::vars` it does not panic if a variable
/// is not Unicode; `load` refuses a setting that is not.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| {
        let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
        (text(name), text(value))
    })
}

/// Loads and checks the settings: defaults < `file` < `environment`. A named file must exist. Only
/// environment variables that begin with `FINISHLINE__` are read; others that look as if they were
/// meant to be read are errors or warnings.
///
/// # Errors
/// The first mistake found, as one line for the operator.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut settings = DEFAULTS.clone();
    if let Some(file) = file {
        overlay(&mut settings, read_file(file)?, "")?;
    }
    let mut origins = BTreeMap::new();
    // Sorted, so that the same one of two mistakes is reported each time.
    let mut environment: Vec<_> = environment.collect();
    environment.sort();
    let strays = variables::strays(environment.iter().map(|(name, _)| name.as_str()))?;
    environment.retain(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX));
    for (variable, text) in environment {
        let key = set(&mut settings, &variable, &text)?;
        origins.insert(key, variable);
    }
    let config = build(settings).map_err(|error| with_origin(error, &origins))?;
    Ok(Config { stray_variables: strays, ..config })
}

/// Every dotted key, of settings and of sections.
pub(super) fn known_keys() -> Vec<String> {
    fn collect(table: &Table, prefix: &str, keys: &mut Vec<String>) {
        for (name, value) in table {
            let key = join(prefix, name);
            if let Value::Table(section) = value {
                collect(section, &key, keys);
            }
            keys.push(key);
        }
    }
    let mut keys = Vec::new();
    collect(&DEFAULTS, "", &mut keys);
    keys
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

pub(super) fn variable_of(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

fn read_file(file: &Path) -> Result<Table, ConfigError> {
    let bytes = fs::read(file).map_err(|reason| ConfigError::unreadable(file.display(), reason))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        ConfigError::unreadable(
            file.display(),
            format!("line {line} is not UTF-8: save it as UTF-8"),
        )
    })?;
    text.parse::<Table>().map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or(&text);
        ConfigError::Syntax {
            file: printable::line(&file.display().to_string()).into_owned(),
            line: 1 + before.matches('\n').count(),
            column: 1 + before.chars().rev().take_while(|it| *it != '\n').count(),
            problem: printable::line(error.message()).into_owned(),
        }
    })
}

/// Puts a file's tables over the defaults. A section must stay a section; the types of values are
/// checked by the sections' own types, which can say what would be right.
fn overlay(settings: &mut Table, layer: Table, prefix: &str) -> Result<(), ConfigError> {
    for (name, value) in layer {
        let key = join(prefix, &name);
        match (settings.get_mut(&name), value) {
            (None, _) => {
                let known = known_keys();
                return Err(ConfigError::unknown(&key, known.iter().map(String::as_str)));
            }
            (Some(Value::Table(section)), Value::Table(layer)) => overlay(section, layer, &key)?,
            (Some(Value::Table(_)), value) => return Err(not_a_section(&key, &value)),
            (Some(setting), value) => *setting = value,
        }
    }
    Ok(())
}

/// The value is left out: somebody may have put a secret where no value belongs.
fn not_a_section(key: &str, value: &Value) -> ConfigError {
    ConfigError::Mismatch(format!(
        "{key} is a section, not a single value ({}): write its settings under [{key}]",
        value.type_str()
    ))
}

/// Puts one environment variable over the settings; returns the key that it sets.
fn set(settings: &mut Table, variable: &str, text: &str) -> Result<String, ConfigError> {
    let keys = known_keys();
    let Some(key) = keys.iter().find(|key| variable_of(key) == variable) else {
        return Err(unknown_variable(variable, &keys));
    };
    let given = Value::String(text.to_owned());
    let invalid = |problem: &str| Err(ConfigError::invalid(key, &given, problem).set_by(variable));
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return invalid("is not UTF-8: set it to plain text");
    }
    let value = match find(&DEFAULTS, key) {
        Some(Value::Table(_)) => {
            return Err(ConfigError::Mismatch(format!(
                "{variable} names the section {key}, which has no value of its own: \
                 set {variable}__… for one of its settings"
            )));
        }
        Some(Value::Boolean(_)) => match text {
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            _ => return invalid(BOOLEAN),
        },
        Some(Value::Integer(_)) => match text.parse() {
            Ok(number) => Value::Integer(number),
            Err(_) => return invalid(NUMBER),
        },
        // serde_json's message may repeat part of the value, so it is not passed on.
        Some(Value::Array(_)) => match serde_json::from_str::<Vec<Value>>(text) {
            Ok(items) => Value::Array(items),
            Err(_) => return invalid(JSON_LIST),
        },
        _ => given,
    };
    let (section, name) = match key.rsplit_once('.') {
        Some((section, name)) => (section_mut(settings, section), name),
        None => (settings, key.as_str()),
    };
    section.insert(name.to_owned(), value);
    Ok(key.clone())
}

fn unknown_variable(variable: &str, keys: &[String]) -> ConfigError {
    let inside_value = keys.iter().find(|key| {
        variable.starts_with(&format!("{}__", variable_of(key)))
            && !matches!(find(&DEFAULTS, key), Some(Value::Table(_)))
    });
    if let Some(key) = inside_value {
        return ConfigError::Unknown {
            key: printable::line(variable).into_owned(),
            hint: format!(": {key} is one value, set {} as a whole", variable_of(key)),
        };
    }
    let known: Vec<_> = keys.iter().map(|key| variable_of(key)).collect();
    ConfigError::unknown(variable, known.iter().map(String::as_str))
}

fn find<'a>(settings: &'a Table, key: &str) -> Option<&'a Value> {
    let mut names = key.split('.');
    let first = settings.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}

fn section_mut<'a>(settings: &'a mut Table, key: &str) -> &'a mut Table {
    key.split('.').fold(settings, |table, name| {
        table
            .get_mut(name)
            .and_then(Value::as_table_mut)
            .expect("the defaults hold every section, and no layer replaces one")
    })
}

/// Turns the merged tables into sections.
fn build(mut settings: Table) -> Result<Config, ConfigError> {
    secret::take_files(&mut settings)?;
    refuse_placeholders(&Value::Table(settings.clone()), "")?;
    let config: Config = serde_path_to_error::deserialize(settings.clone())
        .map_err(|error| explain(&settings, &error))?;
    check::check(&config)?;
    Ok(config)
}

/// Nothing expands variables here: what a shell, a template or Docker Compose should have filled in
/// is still text.
fn refuse_placeholders(value: &Value, key: &str) -> Result<(), ConfigError> {
    let is_placeholder = |text: &str| {
        let text = text.trim();
        let pairs = [("${", "}"), ("$(", ")"), ("{{", "}}")];
        pairs.iter().any(|(open, close)| text.starts_with(open) && text.ends_with(close))
    };
    match value {
        Value::Table(section) => section
            .iter()
            .try_for_each(|(name, value)| refuse_placeholders(value, &join(key, name))),
        Value::Array(items) => (0..).zip(items).try_for_each(|(index, item): (usize, _)| {
            refuse_placeholders(item, &format!("{key}[{index}]"))
        }),
        Value::String(text) if is_placeholder(text) => Err(ConfigError::invalid(
            key,
            value,
            "is not filled in: variables are not expanded here, write the value itself",
        )),
        _ => Ok(()),
    }
}

/// Rewords serde's error for an operator, without the value that serde may have put into it.
fn explain(settings: &Table, error: &serde_path_to_error::Error<toml::de::Error>) -> ConfigError {
    let mut key = String::new();
    let mut value = Some(Value::Table(settings.clone()));
    let mut parent = String::new();
    for segment in error.path() {
        match segment {
            Segment::Map { key: name } => {
                parent.clone_from(&key);
                key = join(&key, name);
                value = value.and_then(|value| value.get(name).cloned());
            }
            Segment::Seq { index } => {
                key = format!("{key}[{index}]");
                value = value.and_then(|value| value.get(*index).cloned());
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    let message = error.inner().message();
    if message.starts_with("unknown field") {
        let names = message.rsplit_once("expected").map_or("", |(_, names)| names);
        let known: Vec<_> =
            names.split('`').skip(1).step_by(2).map(|name| join(&parent, name)).collect();
        return ConfigError::unknown(&key, known.iter().map(String::as_str));
    }
    let value = value.unwrap_or_else(|| Value::String(String::new()));
    ConfigError::invalid(&key, &value, problem(message))
}

/// Rewords serde's message as "is not …". Everything before its last "expected" may hold the value.
fn problem(message: &str) -> String {
    if let Some(field) = message.strip_prefix("missing field ") {
        return format!("has no {}: add it", field.replace('`', ""));
    }
    let expected = match message.rsplit_once(", expected ") {
        Some((_, expected)) if message.starts_with("invalid ") => expected,
        _ => return message.to_owned(),
    };
    match expected {
        "a boolean" => BOOLEAN.to_owned(),
        "a sequence" => LIST.to_owned(),
        form if form.starts_with("is not ") => form.to_owned(),
        other => format!("is not {other}"),
    }
}

/// Adds the environment variable that set the key, or the list that the key is an entry of.
fn with_origin(error: ConfigError, origins: &BTreeMap<String, String>) -> ConfigError {
    let ConfigError::Invalid { key, .. } = &error else {
        return error;
    };
    let setting = key.split('[').next().unwrap_or(key);
    match origins.get(setting) {
        Some(variable) => error.set_by(variable),
        None => error,
    }
}
