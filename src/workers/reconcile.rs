//! Reconciliation: jobs whose callback did not come are looked up at the Engine.
//!
//! A safety net, not the normal path. Invariants: the result of a look-up is judged like a
//! callback, so it never overwrites one; look-ups are rate-limited, however many are due.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use async_trait::async_trait;
use futures_util::{StreamExt, stream};

use super::{Step, Worker};
use crate::{
    clock::{self, Clock},
    config::{ReconcileAfter, ReconcileConfig},
    domain::reconcile::{DueJob, Next, Schedule, after_look, learned_after},
    engine::{Engine, Polled},
    public_url::PublicUrl,
    store::{Arrival, Store},
};

/// Look-ups per step, and how many of them run concurrently. With the pause between steps that is
/// at most 16 a second, so that 10,000 open jobs after a restart do not flood the Engine.
const LOOKS: u32 = 16;
const LOOKS_AT_ONCE: usize = 4;

/// A look-up whose process died is repeated after this time.
const LEASE: Duration = Duration::from_secs(300);

/// See the module.
pub struct Reconciler {
    pub config: ReconcileConfig,
    pub id_pointers: Vec<String>,
    pub store: Arc<dyn Store>,
    pub engine: Engine,
    pub public_url: PublicUrl,
    pub clock: Clock,
}

#[async_trait]
impl Worker for Reconciler {
    const NAME: &'static str = "reconcile";
    const IDLE_PAUSE: Duration = Duration::from_secs(5);
    const BUSY_PAUSE: Duration = Duration::from_secs(1);

    async fn step(&self) -> anyhow::Result<Step> {
        let schedule = self.schedule().await?;
        self.store.schedule_looks(schedule.after).await?;
        if let Ok(public_url) = self.public_url.current().await {
            self.move_stale_to_the_front(&public_url).await?;
        }
        let now = self.clock.now();
        let horizon = schedule.give_up.max(schedule.after);
        let lease_until = clock::add(now, LEASE);
        let due = self.store.claim_due(now, lease_until, horizon, LOOKS).await?;
        let step = if due.len() == LOOKS as usize { Step::Busy } else { Step::Idle };
        let polls = stream::iter(due).map(|job| self.poll(job, schedule));
        let outcomes: Vec<anyhow::Result<()>> =
            polls.buffer_unordered(LOOKS_AT_ONCE).collect().await;
        outcomes.into_iter().collect::<anyhow::Result<()>>()?;
        Ok(step)
    }
}

impl Reconciler {
    async fn schedule(&self) -> anyhow::Result<Schedule> {
        let after = match self.config.after {
            ReconcileAfter::Fixed(after) => after,
            ReconcileAfter::Auto => learned_after(&self.store.turnarounds().await?),
        };
        Ok(Schedule { after, every: self.config.every, give_up: self.config.give_up })
    }

    /// A job's callback address is fixed at its submission: if the public URL has changed since,
    /// its callback cannot come.
    async fn move_stale_to_the_front(&self, public_url: &str) -> anyhow::Result<()> {
        let stale = self.store.expedite_stale(public_url, self.clock.now()).await?;
        if !stale.is_empty() {
            let ids: Vec<String> = stale.iter().take(20).map(ToString::to_string).collect();
            tracing::warn!(
                jobs = stale.len(),
                ids = ids.join(" "),
                "jobs in flight carry a callback address that is no longer the public URL; they \
                 are looked up at the Engine (GET /v1/jobs?staleCallback=true lists them)"
            );
        }
        Ok(())
    }

    async fn poll(&self, job: DueJob, schedule: Schedule) -> anyhow::Result<()> {
        if let Some(engine_job_id) = &job.engine_job_id {
            match self.engine.fetch_result(engine_job_id).await {
                Ok(Polled::Finished(body)) => {
                    let now = self.clock.now();
                    let arrival = Arrival::of_engine(job.id, body, now, &self.id_pointers);
                    self.store.receive(arrival).await.context("a look brought a result")?;
                    tracing::info!(job.id = %job.id, "a look at the Engine brought the result");
                    return Ok(());
                }
                Ok(Polled::Running) => {}
                Err(error) => {
                    tracing::warn!(job.id = %job.id, %error, "a look failed");
                }
            }
        }
        let now = self.clock.now();
        let next = after_look(schedule, &job, now);
        if next == Next::GiveUp {
            tracing::error!(job.id = %job.id, "no result was found; the job is given up");
        }
        self.store.postpone(job.id, next, now).await?;
        Ok(())
    }
}
