//! Wake-up signals between the store's writer and those who wait; they carry no data.
//!
//! The writer gives them after a commit, never before. The invariants: who subscribes before
//! looking misses nothing; a signal is only a hint, so whoever is woken looks again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// Cheap to clone; clones share the signals.
#[derive(Clone, Debug)]
pub struct Wake(Arc<Signals>);

#[derive(Debug)]
struct Signals {
    /// Counts commits; only that it moves matters.
    commits: watch::Sender<u64>,
    /// By job, for as long as somebody waits for it.
    jobs: Mutex<HashMap<Uuid, Waited>>,
}

#[derive(Debug)]
struct Waited {
    notify: Arc<Notify>,
    listeners: usize,
}

impl Default for Wake {
    fn default() -> Self {
        let commits = watch::Sender::new(0);
        Self(Arc::new(Signals { commits, jobs: Mutex::default() }))
    }
}

impl Wake {
    /// Tells that something was committed.
    pub fn committed(&self) {
        self.0.commits.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Tells that a job has finished.
    pub fn finished(&self, job: Uuid) {
        if let Some(waited) = self.jobs().get(&job) {
            waited.notify.notify_waiters();
        }
    }

    /// Changes whenever something has been committed since the last look.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.0.commits.subscribe()
    }

    /// Listens for one job; what is told from now on is heard.
    pub fn job(&self, job: Uuid) -> JobSignal {
        let mut jobs = self.jobs();
        let waited =
            jobs.entry(job).or_insert_with(|| Waited { notify: Arc::default(), listeners: 0 });
        waited.listeners += 1;
        JobSignal { wake: self.clone(), job, notify: waited.notify.clone() }
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<Uuid, Waited>> {
        self.0.jobs.lock().expect("no one panics while holding it")
    }
}

/// One listener for one job.
#[derive(Debug)]
pub struct JobSignal {
    wake: Wake,
    job: Uuid,
    notify: Arc<Notify>,
}

impl JobSignal {
    /// A ticket taken before a look is redeemed by any signal given after it was taken.
    pub fn ticket(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for JobSignal {
    fn drop(&mut self) {
        let mut jobs = self.wake.jobs();
        if let Some(waited) = jobs.get_mut(&self.job) {
            waited.listeners -= 1;
            if waited.listeners == 0 {
                jobs.remove(&self.job);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every schedule of one waiter and one finisher, as a race many times over.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_takes_a_ticket_before_looking_misses_no_signal() {
        for round in 0..100_000u128 {
            let wake = Wake::default();
            let job = Uuid::from_u128(round);
            let is_finished = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let finisher = tokio::spawn({
                let (wake, is_finished) = (wake.clone(), is_finished.clone());
                async move {
                    is_finished.store(true, std::sync::atomic::Ordering::SeqCst);
                    wake.finished(job);
                }
            });
            let signal = wake.job(job);
            loop {
                let ticket = signal.ticket();
                if is_finished.load(std::sync::atomic::Ordering::SeqCst) {
                    break;
                }
                let patience = std::time::Duration::from_secs(30);
                tokio::time::timeout(patience, ticket).await.expect("the signal was missed");
            }
            finisher.await.expect("the finisher ended");
        }
    }

    #[test]
    fn nothing_is_kept_of_a_job_nobody_waits_for() {
        let wake = Wake::default();
        let (one, other) = (wake.job(Uuid::nil()), wake.job(Uuid::nil()));
        drop(one);
        assert_eq!(wake.jobs().len(), 1);
        drop(other);
        assert!(wake.jobs().is_empty());
    }
}
