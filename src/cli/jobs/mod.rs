//! `finishline jobs`: list, show, wait for, upload to, download, resubmit and erase jobs.
//!
//! One function per command; lists, one job's page, files and erasing have files of their own. A
//! result is written byte for byte as the Engine sent it (on a terminal, its JSON is shown).

mod erase;
mod files;
mod list;
mod reason;
mod show;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Subcommand;
use serde_json::json;

pub(super) use self::{
    files::wait_command,
    show::{print_job, print_status},
};
use super::{
    Exit, Failure, Screen,
    connection::{self, job_id},
    events, or_interrupted,
    pages::Pages,
    table::{Cell, Kind, Table, time},
};
use crate::{api, client::Client, domain::ids::JobId};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List jobs, newest first
    List(Box<list::Arguments>),
    /// Show a job
    Show(OneJob),
    /// Write a job's result, byte for byte as the Engine sent it
    Result {
        #[command(flatten)]
        job: OneJob,
        /// Write it to a file, whole or not at all
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Wait until a job is over: ends with 0, with 1 if it failed, with 4 when the time is up
    Wait(files::Wait),
    /// Upload files for a job's inputs
    Upload(files::Upload),
    /// Download a job's outputs
    Download(files::Download),
    /// List what was received for a job
    Deliveries(OneJob),
    /// Show a job's timeline
    Events(OneJob),
    /// Erase jobs with all that was received for them
    Erase(erase::Arguments),
    /// Ask the Engine once for a job's result
    Refresh(OneJob),
    /// Send a job again that the Engine does not have
    Resubmit {
        #[command(flatten)]
        job: OneJob,
        /// Also if it may be running at the Engine, and would be billed twice
        #[arg(long)]
        confirm: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct OneJob {
    /// Job id
    #[arg(value_name = "ID", value_parser = job_id)]
    id: JobId,
}

pub(super) async fn run(
    connection: &connection::Arguments,
    command: Command,
) -> Result<(), Failure> {
    let (client, mut screen) = (connection.client()?, connection.screen());
    let done = match command {
        Command::Wait(arguments) => files::wait(&client, &mut screen, arguments).await,
        Command::Upload(arguments) => files::upload(&client, &mut screen, arguments).await,
        Command::Download(arguments) => files::download(&client, &mut screen, arguments).await,
        // Erase asks on the terminal, where Ctrl-C must end the process as usual.
        Command::Erase(arguments) => erase::run(&client, &mut screen, arguments).await,
        other => or_interrupted(at_once(&client, &mut screen, other)).await,
    };
    screen.flush()?;
    done
}

async fn at_once(client: &Client, screen: &mut Screen, command: Command) -> Result<(), Failure> {
    match command {
        Command::List(arguments) => list::run(client, screen, &arguments).await,
        Command::Show(OneJob { id }) => {
            let job = client.get(&format!("/v1/jobs/{id}"), &[]).await?;
            let reason = match screen.is_json() {
                true => None,
                false => reason::find(client, &job.value).await?,
            };
            show::print_job_with(screen, &job, reason)
        }
        Command::Result { job, output: None } => Ok(screen.result(&result(client, job.id).await?)?),
        Command::Result { job, output: Some(path) } => {
            let written = write_whole(&path, &result(client, job.id).await?);
            Ok(written.with_context(|| path.display().to_string())?)
        }
        Command::Deliveries(OneJob { id }) => deliveries(client, screen, id).await,
        Command::Events(OneJob { id }) => timeline(client, screen, id).await,
        Command::Refresh(OneJob { id }) => {
            let path = format!("/v1/jobs/{id}/refresh");
            print_status(screen, &client.post(&path, &json!({})).await?)
        }
        Command::Resubmit { job, confirm } => {
            let path = format!("/v1/jobs/{}/resubmit", job.id);
            print_job(screen, &client.post(&path, &json!({ "confirm": confirm })).await?)
        }
        Command::Wait(_) | Command::Upload(_) | Command::Download(_) | Command::Erase(_) => Ok(()),
    }
}

/// Ends a command that has printed everything; no further message.
pub(super) fn ended(exit: Exit) -> Result<(), Failure> {
    match exit {
        Exit::Done => Ok(()),
        exit => Err(Failure::silent(exit)),
    }
}

async fn result(client: &Client, id: JobId) -> Result<Bytes, Failure> {
    let result = client.result(&id.to_string()).await?;
    result.ok_or_else(|| Failure {
        exit: Exit::Failed,
        line: format!("job {id} has no result yet; wait for it: finishline jobs wait {id}"),
    })
}

/// Replaces a file atomically; anything else (a pipe, a terminal) is written to.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return fs::OpenOptions::new().write(true).open(path)?.write_all(bytes);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

async fn deliveries(client: &Client, screen: &mut Screen, id: JobId) -> Result<(), Failure> {
    let table = Table::new(&[
        ("ID", Kind::Whole),
        ("RECEIVED (UTC)", Kind::Whole),
        ("OUTCOME", Kind::Whole),
        ("BYTES", Kind::Number),
        ("REPEATS", Kind::Number),
        ("SOURCE", Kind::Cut),
        ("SHA-256", Kind::Cut),
    ]);
    let row = |one: &api::Delivery| {
        vec![
            one.id.as_str().into(),
            time(one.received_at).into(),
            Cell::status(&one.outcome),
            one.bytes.to_string().into(),
            one.repeats.to_string().into(),
            one.source.as_str().into(),
            one.sha256.as_str().into(),
        ]
    };
    let pages = Pages::all(client, format!("/v1/jobs/{id}/deliveries"));
    pages.print::<api::Deliveries>(screen, (table, row)).await
}

async fn timeline(client: &Client, screen: &mut Screen, id: JobId) -> Result<(), Failure> {
    let pages = Pages::all(client, format!("/v1/jobs/{id}/events"));
    pages.print_rows::<api::Events>(screen, events::print).await
}
