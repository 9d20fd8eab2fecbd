//! Waits for a job, for `jobs wait` and `submit --wait`.
//!
//! A timeout prints the command that continues the wait, as an interruption does.

use std::time::Duration;

use super::{
    Exit, Failure,
    connection::Backoff,
    progress::{Progress, expected},
};
use crate::{
    api,
    client::{Answer, Client, ClientError},
    clock::Stopwatch,
    domain::ids::JobId,
};

/// The longest wait that the service allows in one call.
const ONE_CALL: Duration = Duration::from_secs(60);

/// A service that is shutting down answers at once; pause so as not to ask in a tight loop.
const BETWEEN_CALLS: Duration = Duration::from_millis(250);

/// How long a service that has answered before may be unreachable: a restart, an update.
const OUTAGE: Duration = Duration::from_secs(120);

/// How the wait ended.
pub(super) struct Waited {
    /// The job in its last known state; `None` if the time was up before the service answered.
    pub(super) job: Option<Answer<api::Job>>,
    pub(super) exit: Exit,
}

/// Waits until a job is over or the time is up.
pub(super) async fn wait(
    client: &Client,
    id: JobId,
    timeout: Option<Duration>,
    progress: &Progress,
) -> Result<Waited, Failure> {
    let waited = until_over(client, id, timeout, progress).await?;
    if let Exit::TimeIsUp = waited.exit {
        let status = waited.job.as_ref().map_or("not known", |job| &job.value.status);
        progress.say_resume(&format!("time is up, the job is {status}; "));
    }
    Ok(waited)
}

async fn until_over(
    client: &Client,
    id: JobId,
    timeout: Option<Duration>,
    progress: &Progress,
) -> Result<Waited, Failure> {
    let (clock, mut outage) = (Stopwatch::start(), None::<Stopwatch>);
    let (mut job, mut backoff, mut spinner) = (None, Backoff::default(), None);
    loop {
        let left = timeout.map(|timeout| timeout.saturating_sub(clock.elapsed()));
        // The first call does not wait, so that a job that is over is shown at once.
        let one_call = if job.is_none() { Duration::ZERO } else { ONE_CALL };
        let look = look(client, id, left.unwrap_or(ONE_CALL).min(one_call));
        let seen = match left {
            // `--timeout 0` waits for no result, but does wait for the first answer.
            Some(left) if job.is_some() || !left.is_zero() => {
                tokio::time::timeout(left, look).await.ok()
            }
            _ => Some(look.await),
        };
        match seen {
            None => return Ok(Waited { job, exit: Exit::TimeIsUp }),
            Some(Ok(seen)) => {
                if let Some(exit) = exit_of(&seen.value.status) {
                    return Ok(Waited { job: Some(seen), exit });
                }
                if left.is_some_and(|left| left.is_zero()) {
                    return Ok(Waited { job: Some(seen), exit: Exit::TimeIsUp });
                }
                if spinner.is_none() {
                    spinner = progress.work(&seen.value);
                    if let Some(spinner) = &spinner {
                        spinner.set_message(outlook(client).await);
                    }
                }
                if job.replace(seen).is_some() {
                    tokio::time::sleep(BETWEEN_CALLS).await;
                }
                (outage, backoff) = (None, Backoff::default());
            }
            Some(Err(error)) => {
                let since = *outage.get_or_insert_with(Stopwatch::start);
                if !error.is_passing() || job.is_none() || since.elapsed() > OUTAGE {
                    return Err(error.into());
                }
                let trouble = error.to_string();
                let paused = progress.pause(&mut backoff, &trouble);
                match left {
                    Some(left) => _ = tokio::time::timeout(left, paused).await,
                    None => paused.await,
                }
            }
        }
    }
}

/// The usual duration of jobs; empty if the service does not give it.
async fn outlook(client: &Client) -> String {
    let stats = client.get::<api::Stats>("/v1/stats", &[]).await;
    stats.map(|stats| expected(&stats.value.turnaround)).unwrap_or_default()
}

async fn look(client: &Client, id: JobId, wait: Duration) -> Result<Answer<api::Job>, ClientError> {
    // Whole seconds, rounded up.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    client.get(&format!("/v1/jobs/{id}"), &[("wait", seconds.to_string())]).await
}

/// The exit code for a job with this status; `None` while it may still get a result.
pub(super) fn exit_of(status: &str) -> Option<Exit> {
    match status {
        "succeeded" | "partial" => Some(Exit::Done),
        // An unsent job gets no result unless a person resubmits it.
        "failed" | "rejected" | "unsent" => Some(Exit::Failed),
        _ => None,
    }
}
