//! Which of the global flags a command uses; the others are refused instead of ignored.
//!
//! Called before a command runs. Every flag on the command line has an effect or is refused, except
//! `--config`: a command that reads no settings reports that it has no effect and continues.

use anyhow::anyhow;
use clap::{ArgMatches, parser::ValueSource};

use super::{Command, Failure, relays, say};

/// The global flags: their ids, and how they are typed.
const EVERYWHERE: [(&str, &str); 6] = [
    ("config", "--config"),
    ("api", "--api"),
    ("key", "--key"),
    ("key_file", "--key-file"),
    ("insecure_http", "--insecure-http"),
    ("json", "--json"),
];

/// Refuses flags that the command does not use.
pub(super) fn refuse_unused(command: &Command, typed: &ArgMatches) -> Result<(), Failure> {
    let used = used(command);
    let is_typed = |id: &str| typed.value_source(id) == Some(ValueSource::CommandLine);
    for (id, flag) in EVERYWHERE {
        if used.contains(&id) || !is_typed(id) {
            continue;
        }
        let name = name(typed);
        if id == "config" {
            say(&format!("finishline {name} reads no settings: {flag} has no effect"));
            continue;
        }
        let instead = match (id, used.contains(&"config")) {
            ("json", _) => "leave it out",
            (_, true) => "it finds the service through the settings, see --config",
            (_, false) => "it asks no service, leave it out",
        };
        return Err(Failure::usage(anyhow!("finishline {name} does not use {flag}: {instead}")));
    }
    Ok(())
}

/// The command as it was typed, without its arguments.
fn name(typed: &ArgMatches) -> String {
    let below = typed.subcommand().map(|(name, matches)| (name, matches.subcommand_name()));
    match below {
        Some((name, Some(further))) => format!("{name} {further}"),
        Some((name, None)) => name.to_owned(),
        None => String::new(),
    }
}

fn used(command: &Command) -> &'static [&'static str] {
    match command {
        Command::Serve | Command::Healthcheck => &["config"],
        Command::Check(_)
        | Command::Backup(_)
        | Command::RotateKey(_)
        | Command::VerifyFiles(_)
        | Command::Relays(relays::Command::Secret { .. }) => &["config", "json"],
        Command::RestoreCheck(_) | Command::Key(_) => &["json"],
        Command::Demo(_) | Command::SimulateEngine(_) | Command::Completions(_) => &[],
        // The settings name the file of the key that the service generated.
        Command::Submit(_)
        | Command::Jobs(_)
        | Command::Relays(_)
        | Command::Events(_)
        | Command::Forward(_) => &["config", "api", "key", "key_file", "insecure_http", "json"],
    }
}

/// Whether a command is a client of the API.
pub(super) fn is_client(command: &Command) -> bool {
    used(command).contains(&"api")
}
