//! The loops that run beside the requests, and the one loop they all run in.
//!
//! Started by `app`; each worker is one public step, which tests take by hand. The invariants: a
//! step that fails is tried again; a loop that dies ends the process; none outlives shutdown.

pub mod reconcile;

use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, pulse::Pulse};

/// After a step that failed: long enough not to flood the log, short enough to go on soon.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// A step may take this long beyond its pause before readiness calls it missed.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a worker found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// More is waiting than one step took up.
    More,
    Nothing,
}

/// A worker: something that is done again and again.
#[async_trait]
pub trait Worker: Send + Sync {
    /// As readiness and logs call it.
    const NAME: &'static str;

    /// The pause after a step that found nothing more.
    const IDLE_PAUSE: Duration;

    /// The pause after a step that left work over: it paces the outside.
    const BUSY_PAUSE: Duration;

    /// Does what is due now.
    async fn step(&self) -> anyhow::Result<Found>;
}

/// Turns until `stopping`.
pub async fn turn<W: Worker>(worker: W, clock: Clock, pulse: Pulse, stopping: CancellationToken) {
    loop {
        pulse.beat(W::NAME, clock.now(), W::IDLE_PAUSE + PATIENCE);
        let step = tokio::select! {
            step = worker.step() => step,
            () = stopping.cancelled() => return,
        };
        let pause = match step {
            Ok(Found::More) => W::BUSY_PAUSE,
            Ok(Found::Nothing) => W::IDLE_PAUSE,
            Err(error) => {
                tracing::error!(worker = W::NAME, error = format!("{error:#}"), "a step failed");
                FAILURE_PAUSE
            }
        };
        tokio::select! {
            () = clock.sleep(pause) => {}
            () = stopping.cancelled() => return,
        }
    }
}
