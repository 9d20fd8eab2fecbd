//! Uploads one input from the caller to the Engine's storage, and notifies the Engine.
//!
//! Called by `inputs`. Invariants: an input counts as uploaded only if the Engine's storage or the
//! caller confirmed it; the Engine is notified once, when all inputs that its notify address covers
//! are uploaded; an upload that the storage has accepted is recorded even if the caller hangs up.

use axum::body::Body;

use super::{
    Context,
    error::Problem,
    extract::{BodyError, pieces},
    jobs::found,
    places::Place,
};
use crate::{
    domain::{
        ids::JobId,
        job::Job,
        request::Violation,
        upload::{NoUpload, UploadFailure, due_notice, target},
    },
    engine::{FileHead, NotifyError, UploadError},
    telemetry,
};

/// Added to the detail of a failure only if a repeat may succeed.
const REPEATABLE: &str = "the upload can be repeated";

/// A file being received.
pub(super) struct Arriving {
    pub head: FileHead,
    pub body: Body,
    /// Kept until the upload is recorded.
    pub place: Place,
}

/// Streams a body to the input's address, then notifies the Engine if that is due.
pub(super) async fn upload(
    context: Context,
    (id, name): (JobId, String),
    file: Arriving,
) -> Result<Job, Problem> {
    let tasks = context.tasks.clone();
    let uploaded = tasks.spawn(async move {
        let outcome = upload_and_notify(&context, (id, &name), file).await;
        let answer = outcome.as_ref().map_or_else(Problem::code, |_| "uploaded");
        telemetry::UPLOADS.of([answer.into()]).increment(1);
        outcome
    });
    uploaded.await.unwrap_or(Err(Problem::Internal))
}

/// Accepts the caller's statement that the input is uploaded, and notifies the Engine if that is
/// due.
pub(super) async fn notify(context: Context, id: JobId, name: String) -> Result<Job, Problem> {
    let tasks = context.tasks.clone();
    let notified = tasks.spawn(async move {
        let job = found(context.store.job(id).await?)?;
        match target(&job, &name) {
            Ok(_) => finish_upload(&context, (id, &name), None).await,
            Err(NoUpload::Notified) => Ok(job),
            Err(reason) => Err(reason.into()),
        }
    });
    notified.await.unwrap_or(Err(Problem::Internal))
}

async fn upload_and_notify(
    context: &Context,
    (id, name): (JobId, &str),
    file: Arriving,
) -> Result<Job, Problem> {
    let Arriving { head, body, place: _until_recorded } = file;
    let lock = context.input_locks.take_over(id, name).await;
    let address = {
        let job = found(context.store.job(id).await?)?;
        target(&job, name)?.1.to_owned()
    };
    let length = head.length;
    let sent = tokio::select! {
        sent = context.engine.upload(&address, head, pieces(&context.limits, body)) => sent,
        () = lock.is_over.cancelled() => {
            let detail = "another upload of this input took its place".into();
            return Err(Problem::UploadFailed { detail, storage: None });
        }
    };
    if let Err(error) = sent {
        let problem = Problem::from(error);
        note_failure(context, (id, name), &problem).await;
        return Err(problem);
    }
    finish_upload(context, (id, name), Some(length)).await
}

/// Records the failure of an upload that had begun in the log and in the job's timeline.
async fn note_failure(context: &Context, (id, name): (JobId, &str), problem: &Problem) {
    let (code, detail) = (problem.code(), problem.detail());
    tracing::warn!(job.id = %id, code, "an input was not uploaded: {detail}");
    let storage = match problem {
        Problem::LinkExpired(storage) | Problem::UploadFailed { storage, .. } => storage.clone(),
        // Nothing was sent.
        Problem::ValidationFailed(_) => return,
        _ => None,
    };
    let failure = UploadFailure { input: name.to_owned(), code, detail, storage };
    let noted = context.store.note(failure.event(id, context.clock.now())).await;
    if let Err(error) = noted {
        tracing::warn!(job.id = %id, %error, "that an upload failed is not on record");
    }
}

/// Records an upload and notifies the Engine if that is due.
async fn finish_upload(
    context: &Context,
    (id, name): (JobId, &str),
    length: Option<u64>,
) -> Result<Job, Problem> {
    let _lock = context.input_locks.wait_for(id).await;
    let store = &context.store;
    let job = found(store.record_upload(id, name, length, context.clock.now()).await?)?;
    let Some(notice) = due_notice(&job.inputs, name) else { return Ok(job) };
    if let Err(error) = context.engine.notify(&notice.url).await {
        let problem = Problem::from(error);
        tracing::warn!(job.id = %id, code = problem.code(), "the Engine was not told of an input");
        return Err(problem);
    }
    let told = store.record_notified(id, notice.inputs, context.clock.now()).await?;
    tracing::info!(job.id = %id, "inputs uploaded and the Engine told");
    found(told)
}

impl From<UploadError<BodyError>> for Problem {
    fn from(error: UploadError<BodyError>) -> Self {
        match error {
            UploadError::Refused(reason) => Self::UrlRefused(reason),
            UploadError::MissingHeaders(names) => {
                let detail = "the link for the upload signs this header: send it with the file, \
                              with the value that was signed";
                let missing =
                    |name| Violation { pointer: format!("/{name}"), detail: detail.into() };
                Self::ValidationFailed(names.into_iter().map(missing).collect())
            }
            UploadError::Expired(storage) => Self::LinkExpired(storage),
            UploadError::Rejected(refusal) => {
                let outlook = match (refusal.is_passing(), refusal.status) {
                    (true, _) => REPEATABLE,
                    (false, 400 | 401 | 403) => {
                        "as it is it would be refused again: the link may be signed for other \
                         headers than the upload's"
                    }
                    (false, _) => "as it is it would be refused again",
                };
                let detail = format!("the Engine's storage answered {refusal}; {outlook}");
                Self::UploadFailed { detail, storage: Some(refusal) }
            }
            UploadError::Failed(cause) => {
                let detail = format!("the Engine's storage: {cause}; {REPEATABLE}");
                Self::UploadFailed { detail, storage: None }
            }
            UploadError::Source(BodyError::TooSlow) => Self::RequestTimeout,
            // Nobody is left to read this.
            UploadError::Source(_) => {
                let detail = format!("the body broke off; {REPEATABLE}");
                Self::UploadFailed { detail, storage: None }
            }
        }
    }
}

impl From<NotifyError> for Problem {
    fn from(error: NotifyError) -> Self {
        match error {
            NotifyError::Refused(reason) => Self::UrlRefused(reason),
            NotifyError::Failed(error) => {
                let (engine_status, detail) = (error.engine_status(), error.to_string());
                Self::NotifyFailed { engine_status, detail }
            }
        }
    }
}
