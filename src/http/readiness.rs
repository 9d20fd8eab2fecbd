//! Readiness: whether the database accepts writes and the public URL is known, determined by a
//! probe that all callers share.
//!
//! Called by `health`, kept fresh by a loop of `app`. Invariant: a probe begins at most once a
//! second, regardless of how many callers there are and how often they hang up.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::{clock::Stopwatch, domain::time, store::StoreError};

/// Minimum time from the start of one probe to the next.
const SPACING: Duration = Duration::from_secs(1);

/// How often the service probes without being asked, so that the last finding stays recent.
const REFRESH: Duration = Duration::from_secs(10);

/// A database that has not written by then is not ready; callers have little patience.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// The result of a probe.
#[derive(Debug)]
pub(super) struct Finding {
    /// How long a real write took, or why it failed.
    pub database: Result<Duration, StoreError>,
    /// As shown by `/readyz`; `ok` says whether the Engine can call back.
    pub public_url: Value,
}

/// Cheap to clone; clones share the probes.
#[derive(Clone, Default)]
pub struct Readiness(Arc<watch::Sender<Probes>>);

#[derive(Default)]
struct Probes {
    last: Option<Arc<Finding>>,
    /// When the latest probe began.
    begun: Option<Stopwatch>,
    is_running: bool,
    /// How many probes have ended.
    ended: u64,
}

impl Readiness {
    /// The finding of the latest probe if it began within the last second, otherwise that of a new
    /// one.
    pub(super) async fn fresh(&self, context: &Context) -> Arc<Finding> {
        self.found(context, SPACING).await
    }

    /// The finding of the last probe, of any age; a new one begins only if there was none.
    pub(super) async fn last(&self, context: &Context) -> Arc<Finding> {
        let last = self.0.borrow().last.clone();
        match last {
            Some(finding) => finding,
            None => self.fresh(context).await,
        }
    }

    /// Probes regularly until `stopping` is cancelled.
    pub async fn run(self, context: Context, stopping: CancellationToken) {
        let endless = async {
            loop {
                context.clock.sleep(REFRESH).await;
                self.found(&context, REFRESH).await;
            }
        };
        stopping.run_until_cancelled(endless).await;
    }

    async fn found(&self, context: &Context, oldest: Duration) -> Arc<Finding> {
        let mut probes = self.0.subscribe();
        let (mut begins, mut awaited) = (false, 0);
        self.0.send_if_modified(|probes| {
            let is_due = probes.begun.is_none_or(|begun| begun.elapsed() >= oldest);
            begins = is_due && !probes.is_running;
            if begins {
                probes.begun = Some(Stopwatch::start());
                probes.is_running = true;
            }
            awaited = probes.ended + u64::from(probes.is_running);
            false
        });
        if begins {
            let (readiness, context) = (self.clone(), context.clone());
            // Runs as a task of the service, so that a caller that hangs up does not make another
            // probe begin.
            context.tasks.clone().spawn(async move { readiness.probe(context).await });
        }
        let ended = probes.wait_for(|probes| probes.ended >= awaited).await;
        let last = ended.ok().and_then(|probes| probes.last.clone());
        last.unwrap_or_else(|| Arc::new(Finding::broken()))
    }

    async fn probe(&self, context: Context) {
        let probing = tokio::spawn(async move { probe(&context).await });
        let finding = probing.await.unwrap_or_else(|_| Finding::broken());
        self.0.send_modify(|probes| {
            probes.last = Some(Arc::new(finding));
            probes.is_running = false;
            probes.ended += 1;
        });
    }
}

impl Finding {
    fn broken() -> Self {
        let database = Err(StoreError::Unavailable("the probe broke off".into()));
        Self { database, public_url: json!({ "ok": false, "detail": "the probe broke off" }) }
    }
}

async fn probe(context: &Context) -> Finding {
    let stopwatch = Stopwatch::start();
    let written = context.store.probe(context.clock.now());
    let written = tokio::time::timeout(PROBE_PATIENCE, written).await.unwrap_or_else(|_| {
        Err(StoreError::Unavailable(format!("no answer within {PROBE_PATIENCE:?}")))
    });
    let database = written.map(|()| stopwatch.elapsed());
    Finding { database, public_url: reachability(context).await }
}

/// The doctor's last finding on the public URL. A new URL, also at the start, is checked at once;
/// it does not count as reachable until that succeeds.
async fn reachability(context: &Context) -> Value {
    let url = match context.public_url.current().await {
        Ok(url) => url,
        Err(unknown) => return json!({ "ok": false, "detail": unknown.to_string() }),
    };
    match context.doctor.found(&url, PROBE_PATIENCE).await {
        None => json!({
            "ok": false,
            "url": url,
            "checkedAt": null,
            "detail": "it is being examined, and not proved yet",
        }),
        Some(finding) => json!({
            "ok": finding.fault.is_none(),
            "url": url,
            "checkedAt": time::render(finding.checked_at),
            "bodiesUpTo": finding.bytes,
            "detail": finding.fault.map(|fault| fault.to_string()),
        }),
    }
}
