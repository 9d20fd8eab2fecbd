//! Fresh links for outputs whose links have expired.
//!
//! Called by the mirror worker. The Engine is asked once for all outputs of a job whose links
//! expire together, not once for each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync;

use crate::{
    clock::{self, Clock},
    domain::{ids::JobId, mirror::DueMirror},
    engine::{Engine, Polled},
    store::{Arrival, Lookup, Store},
};

/// Pause before the Engine is asked for the same job again, after an answer without a fresh link or
/// with one that does not open either. Outputs that expired together find the answer on record; an
/// output that expired later asks in its third attempt.
const PAUSE: Duration = Duration::from_secs(5);

/// When the Engine was asked for a job. Locked while it is asked.
type Asked = Arc<sync::Mutex<Option<Timestamp>>>;

/// Cheap to clone; clones share the times of the requests.
#[derive(Clone)]
pub struct Renewal {
    pub(super) store: Arc<dyn Store>,
    engine: Engine,
    clock: Clock,
    id_pointers: Vec<String>,
    asked: Arc<Mutex<HashMap<JobId, Asked>>>,
}

impl Renewal {
    /// A renewal that has not asked for anything yet.
    pub fn new(
        store: Arc<dyn Store>,
        engine: Engine,
        clock: Clock,
        id_pointers: Vec<String>,
    ) -> Self {
        Self { store, engine, clock, id_pointers, asked: Arc::default() }
    }

    /// A link other than `expired` for the same output: one recorded meanwhile, or a new one from
    /// the Engine. `None` if there is none for now.
    pub(super) async fn fresh_link(&self, due: &DueMirror, expired: &str) -> Option<String> {
        let asked = self.asked(due.place.job_id);
        let mut asked = asked.lock().await;
        if let Some(fresh) = self.link_on_record(due, expired).await {
            return Some(fresh);
        }
        let now = self.clock.now();
        if asked.is_some_and(|asked| now < clock::add(asked, PAUSE)) {
            return None;
        }
        *asked = Some(now);
        self.ask(due).await;
        self.link_on_record(due, expired).await
    }

    fn asked(&self, job_id: JobId) -> Asked {
        let mut all = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        // Forget entries that nobody holds and whose pause is over.
        all.retain(|_, asked| {
            Arc::strong_count(asked) > 1
                || asked
                    .try_lock()
                    .is_ok_and(|asked| asked.is_some_and(|asked| now < clock::add(asked, PAUSE)))
        });
        all.entry(job_id).or_default().clone()
    }

    async fn link_on_record(&self, due: &DueMirror, expired: &str) -> Option<String> {
        let Ok(Lookup::Found(job)) = self.store.job(due.place.job_id).await else { return None };
        let position = usize::try_from(due.place.position).ok()?;
        let link = job.outputs.into_iter().nth(position)?.url?;
        (link != expired).then_some(link)
    }

    /// Asks the Engine. Its answer is judged like a callback, which records renewed links.
    async fn ask(&self, due: &DueMirror) {
        let job_id = due.place.job_id;
        let Some(engine_job_id) = &due.engine_job_id else { return };
        match self.engine.fetch_result(engine_job_id).await {
            Ok(Polled::Finished(body)) => {
                let now = self.clock.now();
                let arrival = Arrival::of_engine(job_id, body, now, &self.id_pointers);
                if let Err(error) = self.store.receive(arrival).await {
                    tracing::warn!(job.id = %job_id, %error, "fresh links are not on record");
                }
            }
            Ok(Polled::Running) => {}
            Err(error) => {
                tracing::warn!(job.id = %job_id, %error, "no fresh links");
            }
        }
    }
}
