//! Wake-up signals from the store's writer to its waiters; they carry no data.
//!
//! The writer sends them after a commit, never before. Invariant: a waiter that subscribes before
//! it looks misses no signal. A signal is only a hint, so a woken waiter looks again.

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
    /// Counts commits; only the change matters, not the value.
    commits: watch::Sender<u64>,
    /// By job, kept while at least one listener waits for it.
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
    /// Signals that something was committed.
    pub fn committed(&self) {
        self.0.commits.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Signals that a job has finished.
    pub fn finished(&self, job: Uuid) {
        if let Some(waited) = self.jobs().get(&job) {
            waited.notify.notify_waiters();
        }
    }

    /// A receiver that changes whenever something is committed.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.0.commits.subscribe()
    }

    /// Starts to listen for one job; take a [`JobSignal::ticket`] before each look.
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
    /// A future that completes at the first signal after its creation, polled by then or not.
    /// Create it before looking.
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
    use std::{
        pin::Pin,
        sync::atomic::{AtomicBool, Ordering},
        task::{Context, Poll},
    };

    use super::*;

    /// Yields: the explorer may continue with any task here.
    async fn turn() {
        let mut has_waited = false;
        std::future::poll_fn(|context| {
            if has_waited {
                return Poll::Ready(());
            }
            has_waited = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    struct Woken(AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    type Task = Pin<Box<dyn Future<Output = ()>>>;

    /// Runs the tasks in every possible order of their turns. Returns the number of orders, or one
    /// after which a task waits and nothing is left to wake it.
    fn explore(tasks: impl Fn() -> Vec<Task>) -> Result<usize, Vec<usize>> {
        // For each turn: the index of the chosen runnable task, and how many were runnable.
        let mut path: Vec<(usize, usize)> = Vec::new();
        for schedules in 1.. {
            let mut tasks: Vec<Option<Task>> = tasks().into_iter().map(Some).collect();
            let wakers: Vec<Arc<Woken>> =
                tasks.iter().map(|_| Arc::new(Woken(AtomicBool::new(true)))).collect();
            for depth in 0.. {
                let is_awake = |index: &usize| wakers[*index].0.load(Ordering::SeqCst);
                let can_go_on: Vec<usize> =
                    (0..tasks.len()).filter(|i| tasks[*i].is_some()).filter(is_awake).collect();
                if can_go_on.is_empty() {
                    break;
                }
                if depth == path.len() {
                    path.push((0, can_go_on.len()));
                }
                let index = can_go_on[path[depth].0];
                wakers[index].0.store(false, Ordering::SeqCst);
                let waker = wakers[index].clone().into();
                let task = tasks[index].as_mut().expect("it has not ended");
                if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    tasks[index] = None;
                }
            }
            if tasks.iter().any(Option::is_some) {
                return Err(path.into_iter().map(|(choice, _)| choice).collect());
            }
            while path.last().is_some_and(|(choice, of)| choice + 1 == *of) {
                path.pop();
            }
            match path.last_mut() {
                Some((choice, _)) => *choice += 1,
                None => return Ok(schedules),
            }
        }
        unreachable!("the loop has no end of its own")
    }

    /// Waits as `http::wait` does.
    async fn wait(wake: Wake, is_finished: Arc<AtomicBool>) {
        let signal = wake.job(Uuid::nil());
        loop {
            turn().await;
            let ticket = signal.ticket();
            turn().await;
            if is_finished.load(Ordering::SeqCst) {
                return;
            }
            turn().await;
            ticket.await;
        }
    }

    /// The wrong order: looks before it takes the ticket.
    async fn wait_wrongly(wake: Wake, is_finished: Arc<AtomicBool>) {
        let signal = wake.job(Uuid::nil());
        while !is_finished.load(Ordering::SeqCst) {
            turn().await;
            signal.ticket().await;
        }
    }

    /// Finishes as the writer does: commits first, then signals.
    async fn finish(wake: Wake, is_finished: Arc<AtomicBool>) {
        turn().await;
        is_finished.store(true, Ordering::SeqCst);
        turn().await;
        wake.finished(Uuid::nil());
    }

    /// The signals are tokio's, whose atomic operations no explorer can reach; each step between
    /// two turns is one call into tokio, which tokio promises to be atomic. So this test explores
    /// our own part, the order of the steps; the race below covers the rest by chance.
    #[test]
    fn in_no_order_of_steps_is_a_signal_missed() {
        let explored = explore(|| {
            let (wake, is_finished) = (Wake::default(), Arc::<AtomicBool>::default());
            vec![
                Box::pin(wait(wake.clone(), is_finished.clone())) as Task,
                Box::pin(wait(wake.clone(), is_finished.clone())),
                Box::pin(finish(wake, is_finished)),
            ]
        });
        let schedules = explored.expect("no waiter is left waiting");
        assert!(schedules > 1_000, "only {schedules} orders");

        let wrong = explore(|| {
            let (wake, is_finished) = (Wake::default(), Arc::<AtomicBool>::default());
            vec![
                Box::pin(wait_wrongly(wake.clone(), is_finished.clone())) as Task,
                Box::pin(finish(wake, is_finished)),
            ]
        });
        wrong.expect_err("the explorer finds what looking first would miss");
    }

    /// Races one waiter against one finisher 100,000 times.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_takes_a_ticket_before_looking_misses_no_signal() {
        for round in 0..100_000u128 {
            let wake = Wake::default();
            let job = Uuid::from_u128(round);
            let is_finished = Arc::new(AtomicBool::new(false));
            let finisher = tokio::spawn({
                let (wake, is_finished) = (wake.clone(), is_finished.clone());
                async move {
                    is_finished.store(true, Ordering::SeqCst);
                    wake.finished(job);
                }
            });
            let signal = wake.job(job);
            loop {
                let ticket = signal.ticket();
                if is_finished.load(Ordering::SeqCst) {
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
