//! Waits for a job to finish, so that callers need not poll.
//!
//! Used by all handlers that answer with a job or its result. A dropped connection costs nothing.
//! Invariant: the waiter subscribes before it reads the job, so it never misses the end.

use std::time::Duration;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};

use super::{Context, access::Caller, error::Problem, jobs::found};
use crate::domain::{ids::JobId, job::Job};

/// Most seconds that a caller may wait in one call: below the usual timeouts of proxies.
pub(super) const MAX_SECONDS: u64 = 60;

/// `?wait=SECONDS`: how long the caller is willing to wait; zero if it is not given.
pub struct Wait(pub Duration);

impl<S: Send + Sync> FromRequestParts<S> for Wait {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut wait = Duration::ZERO;
        let query = parts.uri.query().unwrap_or_default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if name != "wait" {
                return Err(Problem::invalid(format!("/{name}"), "unknown parameter"));
            }
            let seconds = value.parse().ok().filter(|seconds| *seconds <= MAX_SECONDS);
            let detail = format!("expected whole seconds from 0 to {MAX_SECONDS}");
            wait = Duration::from_secs(seconds.ok_or_else(|| Problem::invalid("/wait", detail))?);
        }
        Ok(Self(wait))
    }
}

/// `Prefer: wait=SECONDS` (RFC 7240). It is only a preference, so a longer wait is shortened and an
/// invalid value is ignored.
pub fn preferred(headers: &HeaderMap) -> Option<Duration> {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = preferences.flat_map(|value| value.split([',', ';']));
    let seconds = preferences.find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        is_wait.then(|| value.trim().trim_matches('"').parse::<u64>().ok())?
    })?;
    Some(Duration::from_secs(seconds.min(MAX_SECONDS)))
}

/// The job once it has finished, or its current state when the time is up or the service stops. A
/// caller that has to wait needs a place of its key, and is refused if its session ends meanwhile.
pub async fn finished(
    context: &Context,
    caller: &Caller,
    id: JobId,
    wait: Duration,
) -> Result<Job, Problem> {
    let job = found(context.store.job(id).await?)?;
    if wait.is_zero() || job.status.is_finished() {
        return Ok(job);
    }
    // There may be many waiters, and a job may be large.
    drop(job);
    let _place = context.limits.places.take(&caller.name)?;
    until_finished(context, caller, id, wait).await
}

/// The same for a caller that has a place.
pub async fn until_finished(
    context: &Context,
    caller: &Caller,
    id: JobId,
    wait: Duration,
) -> Result<Job, Problem> {
    let signal = context.wake.job(id.0);
    let deadline = context.clock.sleep(wait);
    let over = caller.over(context);
    tokio::pin!(deadline, over);
    loop {
        let ticket = signal.ticket();
        let job = found(context.store.job(id).await?)?;
        if job.status.is_finished() {
            return Ok(job);
        }
        // There may be many waiters, and a job may be large.
        drop(job);
        tokio::select! {
            () = ticket => {}
            () = &mut over => return Err(Problem::Unauthorized),
            () = &mut deadline => return found(context.store.job(id).await?),
            () = context.stopping.cancelled() => return found(context.store.job(id).await?),
        }
    }
}
