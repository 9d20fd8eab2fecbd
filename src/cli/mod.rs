//! The command line: one file per command.
//!
//! Called by `main`. The invariants: a command's exit code says how it ended (see `Exit`), and a
//! failure is one line on standard error.

mod backup;
mod check;
mod demo;
mod healthcheck;
mod report;
mod restore_check;
mod sample;
mod serve;
mod simulate_engine;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::config::{self, Config};

/// Submit Relu Engine jobs, never poll, never lose a result.
#[derive(Debug, Parser)]
#[command(name = "finishline", version, arg_required_else_help = true)]
struct Arguments {
    /// File of settings; else `finishline.toml` where it exists
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
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
    /// Read a backup to its last byte, and say whether it could be restored
    RestoreCheck(restore_check::Arguments),
    /// Ask the running service whether it is alive, for a container's health check
    Healthcheck,
}

/// How a command ended, as scripts can rely on it.
#[derive(Clone, Copy, Debug)]
enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
}

/// A failure: how to end, and the line that says why.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    line: String,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { exit: Exit::Failed, line: format!("{:#}", error.into()) }
    }
}

/// Runs the command that the arguments name.
pub async fn run() -> ExitCode {
    // Wrong arguments end here, with exit code 2.
    let arguments = Arguments::parse();
    let exit = match carry_out(arguments).await {
        Ok(()) => Exit::Done,
        Err(failure) => {
            eprintln!("finishline: {}", failure.line);
            failure.exit
        }
    };
    ExitCode::from(exit as u8)
}

async fn carry_out(arguments: Arguments) -> Result<(), Failure> {
    let file = arguments.config;
    match arguments.command {
        Command::Serve => serve::run(settings(file)?).await,
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::SimulateEngine(arguments) => simulate_engine::run(*arguments).await,
        Command::Check(arguments) => check::run(arguments, settings(file)).await,
        Command::Backup(arguments) => backup::run(arguments, settings(file)?).await,
        Command::RestoreCheck(arguments) => restore_check::run(arguments).await,
        Command::Healthcheck => healthcheck::run(settings(file)?).await,
    }
}

fn settings(file: Option<PathBuf>) -> Result<Config, Failure> {
    let file = file.or_else(config::default_file);
    config::load(file.as_deref(), config::process_environment())
        .map_err(|error| Failure { exit: Exit::Usage, line: error.to_string() })
}

/// Ready when the process is asked to end, by a terminal or a supervisor.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
