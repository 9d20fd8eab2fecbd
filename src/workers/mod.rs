//! The background workers, and the loop they all run in.
//!
//! Started by `app`; each worker has one public step, which tests call directly. Invariants: a step
//! that fails is tried again; a loop that dies ends the process; none outlives shutdown.

pub mod mirror;
pub mod purge;
pub mod reconcile;
pub mod relay;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, heartbeats::Heartbeats};

/// Pause after a failed step: long enough not to flood the log, short enough to resume soon.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// A step may take this long beyond its pause before readiness calls it missed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whether a worker goes on at once or pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More may be waiting than one step handled.
    Busy,
    /// Nothing was due.
    Idle,
}

/// A worker: a step that is repeated until the service stops.
#[async_trait]
pub trait Worker: Send + Sync {
    /// Its name in readiness and logs.
    const NAME: &'static str;

    /// The pause after a step that found nothing more.
    const IDLE_PAUSE: Duration;

    /// The pause after a step that left work: it limits the rate of calls to other systems.
    const BUSY_PAUSE: Duration;

    /// Does what is due now.
    ///
    /// # Errors
    /// The loop logs the error and repeats the step after 5 seconds.
    async fn step(&self) -> anyhow::Result<Step>;

    /// Returns when there may be something to do before the pause is over; by default never.
    async fn woken(&self) {
        std::future::pending().await
    }
}

/// Repeats the worker's step until `stopping`; with `commits`, also as soon as something is
/// committed.
pub async fn turn<W: Worker>(
    worker: W,
    clock: Clock,
    heartbeats: Heartbeats,
    stopping: CancellationToken,
    mut commits: Option<watch::Receiver<u64>>,
) {
    loop {
        if let Some(commits) = &mut commits {
            commits.mark_unchanged();
        }
        heartbeats.beat(W::NAME, clock.now(), W::IDLE_PAUSE + PATIENCE);
        let step = tokio::select! {
            step = worker.step() => step,
            () = stopping.cancelled() => return,
        };
        let step_is_ok = step.is_ok();
        let pause = match step {
            Ok(Step::Busy) => W::BUSY_PAUSE,
            Ok(Step::Idle) => W::IDLE_PAUSE,
            Err(error) => {
                tracing::error!(worker = W::NAME, error = format!("{error:#}"), "a step failed");
                FAILURE_PAUSE
            }
        };
        tokio::select! {
            () = clock.sleep(pause) => {}
            () = worker.woken() => {}
            () = committed(&mut commits), if step_is_ok => {}
            () = stopping.cancelled() => return,
        }
    }
}

async fn committed(commits: &mut Option<watch::Receiver<u64>>) {
    match commits {
        // The sender lives as long as the service.
        Some(commits) => _ = commits.changed().await,
        None => std::future::pending().await,
    }
}
