//! `finishline jobs wait`, `upload` and `download`: the steps after a job's submission.
//!
//! Each of them can continue an interrupted `submit`.

use std::{path::PathBuf, time::Duration};

use super::{OneJob, ended, print_job, print_status};
use crate::{
    api,
    cli::{
        Exit, Failure, Screen,
        download::{self, Existing, Folder},
        inputs,
        progress::{self, Progress},
        upload::upload_all,
        wait::{self, Waited},
    },
    client::{Answer, Client},
    domain::ids::JobId,
};

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(in crate::cli) struct Wait {
    #[command(flatten)]
    job: OneJob,
    /// How long, such as 10m; unless given, as long as it takes
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    download: download::Arguments,
    #[command(flatten)]
    progress: progress::Arguments,
}

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group(clap::ArgGroup::new("files").required(true).multiple(true).args(["inputs"])))]
pub(in crate::cli) struct Upload {
    #[command(flatten)]
    job: OneJob,
    #[command(flatten)]
    inputs: inputs::Arguments,
    #[command(flatten)]
    progress: progress::Arguments,
}

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(in crate::cli) struct Download {
    #[command(flatten)]
    job: OneJob,
    /// Folder for the files; made if need be
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    folder: PathBuf,
    /// Replace files in DIR that differ
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    progress: progress::Arguments,
}

/// The command that continues a wait.
pub(in crate::cli) fn wait_command(id: JobId, folder: Option<&Folder>) -> String {
    match folder {
        Some(folder) => format!("finishline jobs wait {id} {}", folder.flags()),
        None => format!("finishline jobs wait {id}"),
    }
}

pub(super) async fn wait(
    client: &Client,
    screen: &mut Screen,
    arguments: Wait,
) -> Result<(), Failure> {
    let id = arguments.job.id;
    let folder = arguments.download.folder().map_err(Failure::usage)?;
    let progress = Progress::new(&arguments.progress, screen, wait_command(id, folder.as_ref()));
    let work = async {
        let Waited { job, exit } = wait::wait(client, id, arguments.timeout, &progress).await?;
        let downloaded = match (&job, &folder) {
            (Some(job), Some(folder)) if job.value.finished_at.is_some() => {
                Some(folder.fetch_all(client, &job.value, &progress).await?)
            }
            _ => None,
        };
        Ok((job, downloaded, exit))
    };
    let (job, downloaded, exit) = progress.or_interrupted(work).await?;
    let exit = download::exit_of(downloaded.as_deref().unwrap_or_default(), exit);
    match (job, downloaded) {
        _ if is_silent(screen, &progress) => {}
        (Some(job), Some(downloaded)) => {
            download::print(screen, &job.map(api::JobView::from), &downloaded)?;
        }
        (Some(job), None) => print_status(screen, &job.map(api::JobView::from))?,
        (None, _) => {}
    }
    ended(exit)
}

pub(super) async fn upload(
    client: &Client,
    screen: &mut Screen,
    arguments: Upload,
) -> Result<(), Failure> {
    let id = arguments.job.id;
    let files = arguments.inputs.readable().map_err(Failure::usage)?;
    let progress = Progress::new(&arguments.progress, screen, format!("finishline jobs show {id}"));
    let work = async {
        let job: Answer<api::JobView> = client.get(&format!("/v1/jobs/{id}"), &[]).await?;
        let announced = job.value.inputs().iter();
        let announced: Vec<_> =
            announced.map(|input| (input.name.as_str(), input.extension.as_str())).collect();
        let warnings = inputs::compare(&arguments.inputs.files, &announced);
        warnings.map_err(Failure::usage)?.iter().for_each(|warning| progress.note(warning));
        upload_all(client, job, &files, &progress).await
    };
    let job = progress.or_interrupted(work).await?;
    match is_silent(screen, &progress) {
        true => Ok(()),
        false => print_job(screen, &job),
    }
}

pub(super) async fn download(
    client: &Client,
    screen: &mut Screen,
    arguments: Download,
) -> Result<(), Failure> {
    let id = arguments.job.id;
    let folder = Folder::new(arguments.folder, Existing::of_flag(arguments.force));
    let folder = folder.map_err(Failure::usage)?;
    let resume = wait_command(id, Some(&folder));
    let progress = Progress::new(&arguments.progress, screen, resume.clone());
    let work = async {
        let job: Answer<api::Job> = client.get(&format!("/v1/jobs/{id}"), &[]).await?;
        if job.value.finished_at.is_none() {
            let line = format!("job {id} has no result yet; wait for it: {resume}");
            return Err(Failure { exit: Exit::Failed, line });
        }
        let downloaded = folder.fetch_all(client, &job.value, &progress).await?;
        Ok((job.map(api::JobView::from), downloaded))
    };
    let (job, downloaded) = progress.or_interrupted(work).await?;
    if !is_silent(screen, &progress) {
        download::print(screen, &job, &downloaded)?;
    }
    let exit = wait::exit_of(job.value.status()).unwrap_or(Exit::Done);
    ended(download::exit_of(&downloaded, exit))
}

/// Whether to print nothing: with `--quiet`, unless JSON was requested.
fn is_silent(screen: &Screen, progress: &Progress) -> bool {
    progress.is_quiet() && !screen.is_json()
}
