//! Uploads files to a job's inputs, one after another, with retries.
//!
//! Called by `submit` and `jobs upload`. An input that is uploaded already is not sent again.

use indicatif::{BinaryBytes, ProgressBar};

use super::{
    Failure,
    connection::{Backoff, exit_of, line_of},
    inputs::InputFile,
    progress::Progress,
};
use crate::{
    api,
    client::{Answer, Client, ClientError},
    domain::{ids::JobId, storage::StorageRefusal},
};

/// Tries for each file: enough to outlast a restart of the service.
const TRIES: u32 = 5;

/// Problem code of a link that expired; only a new job gives a new one.
const LINK_EXPIRED: &str = "link-expired";

/// Status of an upload that stalled.
const STOPPED_COMING: u16 = 408;

/// Uploads the files; returns the job in its state afterwards.
pub(super) async fn upload_all(
    client: &Client,
    mut job: Answer<api::JobView>,
    files: &[InputFile],
    progress: &Progress,
) -> Result<Answer<api::JobView>, Failure> {
    let id: JobId = job.value.id().parse()?;
    let flags: Vec<String> = files.iter().map(InputFile::flag).collect();
    let headers = files.first().map(InputFile::header_flags).unwrap_or_default();
    progress.set_resume(format!("finishline jobs upload {id} {}{headers}", flags.join(" ")));
    for file in files {
        match state(&job.value, &file.name) {
            None | Some("awaiting") => job = Upload { client, id, file, progress }.run().await?,
            Some(state) => progress.note(&format!("{} is {state} already", file.name)),
        }
    }
    match unannounced(&job.value) {
        Some(input) => announce(client, (id, input), progress).await,
        None => Ok(job),
    }
}

fn state<'a>(job: &'a api::JobView, name: &str) -> Option<&'a str> {
    Some(job.inputs().iter().find(|input| input.name == name)?.state.as_str())
}

/// An uploaded input of which the Engine was not notified, although all inputs are uploaded.
fn unannounced(job: &api::JobView) -> Option<&str> {
    let is_complete = job.inputs().iter().all(|input| input.state != "awaiting");
    let uploaded = job.inputs().iter().find(|input| input.state == "uploaded");
    Some(uploaded.filter(|_| is_complete)?.name.as_str())
}

async fn announce(
    client: &Client,
    (id, input): (JobId, &str),
    progress: &Progress,
) -> Result<Answer<api::JobView>, Failure> {
    let (mut backoff, mut tries) = (Backoff::default(), 0);
    loop {
        tries += 1;
        match client.notify(id, input).await {
            Err(error) if is_passing(&error) && tries < TRIES => {
                progress.pause(&mut backoff, &line_of(&error)).await;
            }
            notified => return Ok(notified?),
        }
    }
}

/// The upload of one file.
struct Upload<'a> {
    client: &'a Client,
    id: JobId,
    file: &'a InputFile,
    progress: &'a Progress,
}

impl Upload<'_> {
    async fn run(&self) -> Result<Answer<api::JobView>, Failure> {
        let (name, bytes) = (&self.file.name, self.file.bytes);
        let bar = self.progress.upload(name, bytes);
        let (mut backoff, mut tries) = (Backoff::default(), 0);
        loop {
            tries += 1;
            let error = match self.send(&bar).await? {
                Ok(job) => {
                    bar.finish_and_clear();
                    self.progress.note(&format!("{name}: {} uploaded", BinaryBytes(bytes)));
                    return Ok(job);
                }
                Err(error) => error,
            };
            if !is_passing(&error) || tries == TRIES {
                return Err(self.failure(&error));
            }
            let trouble = format!("{name}: {}", line_of(&error));
            self.progress.pause(&mut backoff, &trouble).await;
            if let Some(job) = self.arrived().await? {
                return Ok(job);
            }
        }
    }

    async fn send(
        &self,
        bar: &ProgressBar,
    ) -> Result<Result<Answer<api::JobView>, ClientError>, Failure> {
        let source = self.file.open().await?;
        bar.reset();
        let sent = bar.clone();
        Ok(self.client.upload(self.id, &self.file.name, source, move |bytes| sent.inc(bytes)).await)
    }

    /// The job, if the file arrived although the answer was lost.
    async fn arrived(&self) -> Result<Option<Answer<api::JobView>>, Failure> {
        match self.client.get::<api::JobView>(&format!("/v1/jobs/{}", self.id), &[]).await {
            Ok(job) => {
                let is_there = state(&job.value, &self.file.name) != Some("awaiting");
                Ok(Some(job).filter(|_| is_there))
            }
            // The next try decides, also for a key that may submit but not read.
            Err(error) if error.is_passing() || error.is_refusal() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn failure(&self, error: &ClientError) -> Failure {
        let (name, id) = (&self.file.name, self.id);
        let mut line = format!("{name}: {}", line_of(error));
        if helps_to_repeat(error) {
            let flags = format!("{}{}", self.file.flag(), self.file.header_flags());
            line = format!("{line}; again with: finishline jobs upload {id} {flags}");
        }
        Failure { exit: exit_of(error), line }
    }
}

fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Problem(problem) if problem.status == STOPPED_COMING => true,
        ClientError::Problem(problem) => match storage_of(problem) {
            Some(refusal) => refusal.is_passing(),
            None => error.is_passing(),
        },
        _ => true,
    }
}

/// Whether repeating the command may help: not if the link has expired, nor if the storage refused
/// the upload for good.
fn helps_to_repeat(error: &ClientError) -> bool {
    match error {
        ClientError::Problem(problem) if problem.code == LINK_EXPIRED => false,
        ClientError::Problem(problem) => {
            storage_of(problem).is_none_or(|refusal| refusal.is_passing())
        }
        _ => true,
    }
}

/// The storage's refusal, if the problem reports one.
fn storage_of(problem: &api::Problem) -> Option<StorageRefusal> {
    Some(StorageRefusal {
        status: problem.storage_status?,
        code: problem.storage_code.clone(),
        message: problem.storage_message.clone(),
        is_expired: problem.code == LINK_EXPIRED,
    })
}
