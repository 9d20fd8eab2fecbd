//! Purges jobs that finished long ago, and finishes erasures that were left incomplete.
//!
//! One step erases one batch, so that receiving continues in between. An erasure that was refused
//! is retried until nothing is left.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::{Step, Worker};
use crate::{clock, config::RetentionConfig, erasure::Eraser, store::EraseTarget};

/// See the module.
pub struct Purger {
    config: RetentionConfig,
    eraser: Eraser,
    /// When to look for old jobs next; `None`: at once.
    next_look: Mutex<Option<Timestamp>>,
    /// The last attempt to finish an erasure was refused.
    is_refused: AtomicBool,
}

impl Purger {
    /// A purger that has not looked for old jobs yet.
    pub fn new(config: RetentionConfig, eraser: Eraser) -> Self {
        Self { config, eraser, next_look: Mutex::new(None), is_refused: AtomicBool::new(false) }
    }
}

#[async_trait]
impl Worker for Purger {
    const NAME: &'static str = "purge";
    const IDLE_PAUSE: Duration = Duration::from_secs(30);
    const BUSY_PAUSE: Duration = Duration::ZERO;

    async fn step(&self) -> anyhow::Result<Step> {
        if let Some(before) = self.due() {
            let batch = self.eraser.erase_some(&EraseTarget::FinishedBefore(before)).await?;
            if batch.jobs > 0 {
                tracing::info!(jobs = batch.jobs, "jobs erased: they finished long ago");
            }
            if !batch.is_last {
                return Ok(Step::Busy);
            }
            *self.locked() = Some(clock::add(self.eraser.clock.now(), self.config.every));
        }
        self.finish().await;
        Ok(Step::Idle)
    }
}

impl Purger {
    fn locked(&self) -> std::sync::MutexGuard<'_, Option<Timestamp>> {
        self.next_look.lock().expect("no one panics while holding it")
    }

    /// Jobs that finished before this are to be erased now; `None` if purging is off or not due
    /// yet.
    fn due(&self) -> Option<Timestamp> {
        let erase_after = self.config.erase_after?;
        let now = self.eraser.clock.now();
        // A time further ahead than `every` was set while the clock was wrong.
        let latest = clock::add(now, self.config.every);
        let is_due = self.locked().is_none_or(|next| next <= now || next > latest);
        is_due.then(|| before(now, erase_after))
    }

    /// A backup or a replica may hold the log for hours, so a failure is logged only once.
    async fn finish(&self) {
        let finished = self.eraser.finish().await;
        let was_refused = self.is_refused.swap(finished.is_err(), Ordering::SeqCst);
        match finished {
            Err(error) if !was_refused => tracing::warn!(
                %error,
                "bytes of erased jobs may still be in the write-ahead log; trying on"
            ),
            Ok(()) if was_refused => tracing::info!("nothing of erased jobs is left"),
            _ => {}
        }
    }
}

fn before(now: Timestamp, erase_after: Duration) -> Timestamp {
    let erase_after = SignedDuration::try_from(erase_after).unwrap_or(SignedDuration::MAX);
    now.checked_sub(erase_after).unwrap_or(Timestamp::MIN)
}
