//! `finishline submit`: submits a job to a running service, and on request uploads its scans and
//! downloads its outputs.
//!
//! Mistakes that can be found locally are reported before anything is submitted. Once the service
//! has accepted a job, its id is shown, even if a later step fails.

mod body;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};

use super::{
    Exit, Failure, Screen, connection,
    download::{self, Downloaded, Folder},
    inputs::{self, InputFile, NamedFile},
    jobs, or_interrupted,
    progress::{self, Progress},
    upload::upload_all,
    wait::{self, Waited},
};
use crate::{
    api,
    client::{Answer, Client, ClientError},
    domain::{
        ids::JobId,
        job::InputState,
        request::{Defaults, JobRequest},
    },
};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("waiting").args(["wait", "download"]).multiple(true))]
pub(super) struct Arguments {
    /// File with the Engine's job body; `-` reads standard input; or see --mesh
    #[arg(value_name = "JOB.json", required_unless_present = "meshes", conflicts_with = "meshes")]
    body: Option<PathBuf>,
    #[command(flatten)]
    inputs: inputs::Arguments,
    #[command(flatten)]
    flags: body::Flags,
    /// The same key with the same body never makes two jobs
    #[arg(long, value_name = "KEY", value_parser = idempotency_key)]
    idempotency_key: Option<String>,
    /// Wait until the job is over
    #[arg(long)]
    wait: bool,
    /// How long to wait, such as 10m; unless given, as long as it takes
    #[arg(long, requires = "waiting", value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    download: download::Arguments,
    #[command(flatten)]
    progress: progress::Arguments,
}

fn idempotency_key(text: &str) -> Result<String, String> {
    let is_visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    match (1..=255).contains(&text.len()) && text.bytes().all(is_visible) {
        true => Ok(text.to_owned()),
        false => Err("expected 1 to 255 visible ASCII characters".into()),
    }
}

pub(super) async fn run(
    connection: &connection::Arguments,
    arguments: Arguments,
) -> Result<(), Failure> {
    let (client, mut screen) = (connection.client()?, connection.screen());
    // Read before the signal handlers are installed: until then Ctrl-C ends the process while it
    // reads.
    let Prepared { body, files, warnings } = prepared(&arguments).map_err(Failure::usage)?;
    let folder = arguments.download.folder().map_err(Failure::usage)?;
    let progress = Progress::new(&arguments.progress, &screen, String::new());
    warnings.iter().for_each(|warning| progress.note(warning));
    let key = arguments.idempotency_key.as_deref();
    let submit = async {
        let submitted = client.submit_in_full(body, key).await;
        submitted.map_err(|error| match (&error, key) {
            // The job may have been paid for already.
            (ClientError::Lost(_), None) => Failure {
                exit: connection::exit_of(&error),
                line: format!(
                    "{error}; the job may still be running: look for it with `finishline \
                     jobs list` before it is submitted again, or it may be paid twice"
                ),
            },
            _ => Failure::from(error),
        })
    };
    let submitted = or_interrupted(submit).await?;
    let id: JobId = submitted.value.id().parse().context("the service gave no id")?;
    progress.set_resume(jobs::wait_command(id, folder.as_ref()));
    if submitted.status == 200 {
        progress.note("this job was on record already: the key and the body are the same");
    }
    let course = Course {
        client: &client,
        id,
        files,
        // A download needs a finished job.
        is_waiting: arguments.wait || folder.is_some(),
        timeout: arguments.timeout,
        folder,
        progress: &progress,
    };
    let end = progress.or_interrupted(course.run(submitted)).await?;
    end.print(&mut screen, &progress)?;
    screen.flush()?;
    jobs::ended(end.exit)
}

/// What to submit and upload.
struct Prepared {
    body: Vec<u8>,
    files: Vec<InputFile>,
    warnings: Vec<String>,
}

/// The body and the files, after all local checks.
fn prepared(arguments: &Arguments) -> anyhow::Result<Prepared> {
    let named = &arguments.inputs.files;
    let files = arguments.inputs.readable()?;
    let body = match &arguments.body {
        Some(path) => body::read(path)?,
        None => arguments.flags.body(named)?,
    };
    // An invalid job body is refused by the service, which gives better errors.
    let warnings = match JobRequest::parse(&body, &Defaults::default()) {
        Ok(request) => fit(named, &request)?,
        Err(_) => Vec::new(),
    };
    Ok(Prepared { body, files, warnings })
}

fn fit(files: &[NamedFile], request: &JobRequest) -> anyhow::Result<Vec<String>> {
    let announced = request.inputs.iter();
    let announced: Vec<_> =
        announced.map(|input| (input.name.as_str(), input.extension.as_str())).collect();
    let warnings = inputs::compare(files, &announced)?;
    let is_provided = |file: &&NamedFile| {
        let mut inputs = request.inputs.iter();
        inputs.any(|input| input.name == file.name && input.state == InputState::Provided)
    };
    if let Some(file) = files.iter().find(is_provided) {
        bail!("--input {}: the body says already where it is (downloadUrl)", file.name);
    }
    Ok(warnings)
}

/// The steps after the job is on record.
struct Course<'a> {
    client: &'a Client,
    id: JobId,
    files: Vec<InputFile>,
    is_waiting: bool,
    timeout: Option<Duration>,
    folder: Option<Folder>,
    progress: &'a Progress,
}

/// The outcome of a [`Course`].
struct End {
    job: Answer<api::JobView>,
    downloaded: Option<Vec<Downloaded>>,
    exit: Exit,
}

impl Course<'_> {
    async fn run(&self, mut job: Answer<api::JobView>) -> Result<End, Failure> {
        let is_over = |job: &Answer<api::JobView>| wait::exit_of(job.value.status());
        if !self.files.is_empty() && is_over(&job).is_none() {
            let status = job.value.status();
            self.progress.note(&format!("job {} is {status}, uploading", self.id));
            job = upload_all(self.client, job, &self.files, self.progress).await?;
        }
        if self.is_waiting || !self.files.is_empty() {
            self.warn_of_missing_inputs(&job.value);
        }
        if !self.is_waiting {
            return Ok(End { job, downloaded: None, exit: Exit::Done });
        }
        let exit = match is_over(&job) {
            Some(exit) => exit,
            None => {
                let waited = self.wait(&job.value).await?;
                job = waited.job.map_or(job, |job| job.map(Into::into));
                waited.exit
            }
        };
        self.end(job, exit).await
    }

    fn warn_of_missing_inputs(&self, job: &api::JobView) {
        let awaiting = job.inputs().iter().filter(|input| input.state == "awaiting");
        let awaiting: Vec<&str> = awaiting.map(|input| input.name.as_str()).collect();
        if !awaiting.is_empty() && wait::exit_of(job.status()).is_none() {
            let awaiting = awaiting.join(", ");
            self.progress.note(&format!("the Engine waits for the upload of: {awaiting}"));
        }
    }

    async fn wait(&self, job: &api::JobView) -> Result<Waited, Failure> {
        self.progress.set_resume(jobs::wait_command(self.id, self.folder.as_ref()));
        let status = job.status();
        self.progress.note(&format!("job {} is {status}, waiting for its result", self.id));
        wait::wait(self.client, self.id, self.timeout, self.progress).await
    }

    async fn end(&self, job: Answer<api::JobView>, exit: Exit) -> Result<End, Failure> {
        let finished = job.value.full().filter(|job| job.finished_at.is_some());
        let (downloaded, exit) = match (&self.folder, finished) {
            (Some(folder), Some(job)) => {
                let downloaded = folder.fetch_all(self.client, job, self.progress).await?;
                let exit = download::exit_of(&downloaded, exit);
                (Some(downloaded), exit)
            }
            _ => (None, exit),
        };
        Ok(End { job, downloaded, exit })
    }
}

impl End {
    fn print(&self, screen: &mut Screen, progress: &Progress) -> Result<(), Failure> {
        match &self.downloaded {
            _ if progress.is_quiet() && !screen.is_json() => Ok(screen.line(self.job.value.id())?),
            Some(downloaded) => download::print(screen, &self.job, downloaded),
            None => jobs::print_job(screen, &self.job),
        }
    }
}
