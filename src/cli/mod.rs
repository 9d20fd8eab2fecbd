//! The command line: one file per command.
//!
//! Called by `main`. A command's exit code says how it ended (see `Exit`); a failure is one line on
//! standard error.

mod backup;
mod check;
mod completions;
mod connection;
mod demo;
mod download;
mod events;
mod flags;
mod following;
mod forward;
mod healthcheck;
mod inputs;
mod jobs;
mod key;
mod pages;
mod progress;
mod relays;
mod report;
mod restore_check;
mod rotate_key;
mod sample;
mod screen;
mod serve;
mod signals;
mod simulate_engine;
mod submit;
mod table;
mod upload;
mod verify_files;
mod wait;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, error::ContextValue};

use self::{
    screen::{Form, Screen, say},
    signals::stop_signal,
};
use crate::{
    blobs::BlobError,
    client::ClientError,
    config::{self, Config, variables},
    key_file::KeyFileError,
    printable, private_files,
};

/// Submit Relu Engine jobs, never poll, never lose a result.
#[derive(Debug, Parser)]
#[command(name = "finishline", version, arg_required_else_help = true)]
struct Arguments {
    /// File of settings; else `finishline.toml` where it exists
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    connection: connection::Arguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve,
    /// Run the service and an Engine simulator, and send a job through both
    Demo(demo::Arguments),
    /// Run the Engine simulator alone
    SimulateEngine(Box<simulate_engine::Arguments>),
    /// Examine settings, database, token, Engine, and whether the public URL leads here
    Check(check::Arguments),
    /// Copy the database to a new file, while the service runs or not
    Backup(backup::Arguments),
    /// Make a new key for callback addresses, while the service is stopped
    RotateKey(rotate_key::Arguments),
    /// Read a backup to its last byte, and say whether it could be restored
    RestoreCheck(restore_check::Arguments),
    /// Read every copied file, and say which are not what was stored
    VerifyFiles(verify_files::Arguments),
    /// Ask the running service whether it is alive, for a container's health check
    Healthcheck,
    /// Make API keys
    #[command(subcommand)]
    Key(key::Command),
    /// Submit a job to a running service, upload its scans, take its outputs home
    Submit(submit::Arguments),
    /// Look at jobs, wait for them, erase them
    #[command(subcommand)]
    Jobs(jobs::Command),
    /// See how results are passed on, and order it again
    #[command(subcommand)]
    Relays(relays::Command),
    /// Show what has happened, and what happens
    Events(events::Arguments),
    /// Pass results on to an address of this machine, from the last one it took
    Forward(forward::Arguments),
    /// Print a script that completes commands in a shell
    Completions(completions::Arguments),
}

/// Exit codes; scripts rely on them.
#[derive(Clone, Copy, Debug)]
enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    /// The service cannot be reached, or denies access.
    NotReached = 3,
    TimeIsUp = 4,
    Interrupted = 130,
}

/// A failure: the exit code and a one-line message; empty if the message has been printed already.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    line: String,
}

impl Failure {
    fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Usage, ..error.into().into() }
    }

    /// A failure whose message has been printed already.
    fn silent(exit: Exit) -> Self {
        Self { exit, line: String::new() }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        if let Some(error) = error.downcast_ref::<ClientError>() {
            return Self { exit: connection::exit_of(error), line: connection::line_of(error) };
        }
        // The reader closed our output (a pipe to `head`): no failure.
        let is_closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        if error.downcast_ref::<io::Error>().is_some_and(is_closed) {
            return Self::silent(Exit::Done);
        }
        // An unusable file store or key is a wrong setting.
        let is_setting = error.downcast_ref::<BlobError>().is_some()
            || matches!(error.downcast_ref::<KeyFileError>(), Some(KeyFileError::Invalid(..)));
        let exit = if is_setting { Exit::Usage } else { Exit::Failed };
        Self { exit, line: format!("{error:#}") }
    }
}

/// Runs the command that the arguments name. Call it while the process has one thread.
pub fn run() -> ExitCode {
    // Files that commands create hold results, keys or patients' data.
    private_files::set_mask();
    let parsed = Arguments::command().try_get_matches().and_then(|typed| {
        let arguments = Arguments::from_arg_matches(&typed)?;
        Ok((arguments, typed))
    });
    let (arguments, typed) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return explain(error.format(&mut Arguments::command())),
    };
    if let Err(failure) = flags::refuse_unused(&arguments.command, &typed) {
        return ended(Err(failure));
    }
    drop(typed);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run_command(arguments)),
        Err(error) => Err(error.into()),
    };
    ended(done)
}

/// Prints why a command failed; returns its exit code.
fn ended(done: Result<(), Failure>) -> ExitCode {
    let exit = match done {
        Ok(()) => Exit::Done,
        Err(failure) => {
            if !failure.line.is_empty() {
                say(&format!("finishline: {}", failure.line));
            }
            failure.exit
        }
    };
    ExitCode::from(exit as u8)
}

/// Prints clap's error (exit code 2) or help. It repeats words of the command line, which may be
/// untrusted text that a script passed on, so control characters are escaped.
fn explain(mut error: clap::Error) -> ExitCode {
    let plain = |text: &String| printable::line(text).into_owned();
    let context: Vec<_> = error
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(text) => Some((kind, ContextValue::String(plain(text)))),
            ContextValue::Strings(texts) => {
                Some((kind, ContextValue::Strings(texts.iter().map(plain).collect())))
            }
            _ => None,
        })
        .collect();
    for (kind, value) in context {
        error.insert(kind, value);
    }
    let text = error.to_string();
    let is_plain = text.split('\n').all(|line| printable::line(line) == line);
    let mut typed = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let is_repeated = typed.any(|word| word.contains('\n') && text.contains(&word));
    let printed = match is_plain && !is_repeated {
        true => error.print(),
        // The text is repeated in a hint: printed escaped, which is less readable but harmless.
        false if error.use_stderr() => {
            say(text.trim_end());
            Ok(())
        }
        false => Screen::new(Form::People).line_at_once(text.trim_end()),
    };
    match printed {
        // The help text could not be written.
        Err(failed) if !error.use_stderr() => ended(Err(failed.into())),
        _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8)),
    }
}

async fn run_command(arguments: Arguments) -> Result<(), Failure> {
    let file = arguments.config;
    let connection = &arguments.connection.with_settings(file.clone());
    if flags::is_client(&arguments.command) {
        for stray in variables::strays_of_clients() {
            say(&format!("warning: {}", stray.warning()));
        }
    }
    match arguments.command {
        Command::Serve => serve::run(settings(file)?).await,
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::SimulateEngine(arguments) => simulate_engine::run(*arguments).await,
        Command::Check(arguments) => check::run(arguments, settings(file)).await,
        Command::Backup(arguments) => backup::run(arguments, settings(file)?).await,
        Command::RotateKey(arguments) => rotate_key::run(arguments, settings(file)?).await,
        Command::RestoreCheck(arguments) => restore_check::run(arguments).await,
        Command::VerifyFiles(arguments) => verify_files::run(arguments, settings(file)?).await,
        Command::Healthcheck => healthcheck::run(settings(file)?).await,
        Command::Key(command) => key::run(connection.screen(), command),
        Command::Submit(arguments) => submit::run(connection, arguments).await,
        Command::Jobs(command) => jobs::run(connection, command).await,
        Command::Relays(relays::Command::Secret { host }) => {
            relays::show_secret(connection, &host, &settings(file)?.relay)
        }
        Command::Relays(command) => relays::run(connection, command).await,
        Command::Events(arguments) => events::run(connection, arguments).await,
        Command::Forward(arguments) => forward::run(connection, arguments).await,
        Command::Completions(arguments) => completions::run(arguments),
    }
}

fn settings(file: Option<PathBuf>) -> Result<Config, Failure> {
    let file = file.or_else(config::default_file);
    config::load(file.as_deref(), config::process_environment())
        .map_err(|error| Failure { exit: Exit::Usage, line: error.to_string() })
}

/// Runs the work until it ends or a signal interrupts it.
async fn or_interrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        () = stop_signal() => {
            Err(Failure { exit: Exit::Interrupted, line: "interrupted".into() })
        }
    }
}
