//! The second implementation of the store: another one, with failures on command.
//!
//! Included by a test crate with `#[path]`. The invariants: a failure before the fact changes
//! nothing; a late one (see [`Plan::late`]) hides a change that was made; every call is counted.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use finishline::{
    domain::{
        delivery::Delivery,
        event::Event,
        ids::{DeliveryId, JobId},
        job::Job,
        page::{JobFilter, JobPage, Position},
    },
    store::{
        Arrival, Begun, EngineAnswer, EraseTarget, Lookup, NewSubmission, Receipt, Stats, Store,
        StoreError, StoredResult,
    },
};
use futures_util::{StreamExt, stream, stream::BoxStream};
use jiff::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Overloaded,
    Unavailable,
}

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    failure: Failure,
    /// Each so-manieth of the calls that are meant.
    every: u64,
    /// How many more.
    left: u64,
    /// Only calls of this method.
    method: Option<&'static str>,
    is_late: bool,
}

impl Plan {
    pub fn always(failure: Failure) -> Self {
        Self { failure, every: 1, left: u64::MAX, method: None, is_late: false }
    }

    pub fn every(self, calls: u64) -> Self {
        Self { every: calls, ..self }
    }

    pub fn times(self, left: u64) -> Self {
        Self { left, ..self }
    }

    pub fn only(self, method: &'static str) -> Self {
        Self { method: Some(method), ..self }
    }

    /// The change is made, its caller hears of a failure.
    pub fn late(self) -> Self {
        Self { is_late: true, ..self }
    }
}

pub struct FailingStore {
    inner: Arc<dyn Store>,
    plan: Mutex<Option<(Plan, u64)>>,
    calls: AtomicU64,
    failures: AtomicU64,
}

/// When a call is to fail.
enum Strike {
    Before(StoreError),
    After(StoreError),
}

impl FailingStore {
    pub fn around(inner: Arc<dyn Store>) -> Arc<Self> {
        let (calls, failures) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { inner, plan: Mutex::new(None), calls, failures })
    }

    pub fn fail(&self, plan: Plan) {
        *self.plan.lock().expect("no panic") = Some((plan, 0));
    }

    pub fn heal(&self) {
        *self.plan.lock().expect("no panic") = None;
    }

    /// Calls so far, those that failed included.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Calls that failed on command.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    fn strike(&self, method: &str) -> Option<Strike> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut plan = self.plan.lock().expect("no panic");
        let (plan, seen) = plan.as_mut()?;
        if plan.left == 0 || plan.method.is_some_and(|only| only != method) {
            return None;
        }
        *seen += 1;
        if !seen.is_multiple_of(plan.every) {
            return None;
        }
        plan.left -= 1;
        self.failures.fetch_add(1, Ordering::SeqCst);
        let error = match plan.failure {
            Failure::Overloaded => StoreError::Overloaded,
            Failure::Unavailable => StoreError::Unavailable("on command".into()),
        };
        Some(if plan.is_late { Strike::After(error) } else { Strike::Before(error) })
    }

    async fn pass<T>(
        &self,
        method: &str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match self.strike(method) {
            None => call.await,
            Some(Strike::Before(error)) => Err(error),
            Some(Strike::After(error)) => call.await.and(Err(error)),
        }
    }
}

#[async_trait]
impl Store for FailingStore {
    fn signing_key(&self) -> [u8; 32] {
        self.inner.signing_key()
    }

    async fn begin_submission(&self, submission: NewSubmission) -> Result<Begun, StoreError> {
        self.pass("begin_submission", self.inner.begin_submission(submission)).await
    }

    async fn record_answer(
        &self,
        id: JobId,
        answer: EngineAnswer,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError> {
        self.pass("record_answer", self.inner.record_answer(id, answer, now)).await
    }

    async fn receive(&self, arrival: Arrival) -> Result<Receipt, StoreError> {
        self.pass("receive", self.inner.receive(arrival)).await
    }

    async fn record_oversize(
        &self,
        id: JobId,
        limit_bytes: usize,
        now: Timestamp,
    ) -> Result<Lookup<()>, StoreError> {
        self.pass("record_oversize", self.inner.record_oversize(id, limit_bytes, now)).await
    }

    async fn erase(&self, target: EraseTarget, now: Timestamp) -> Result<Lookup<u64>, StoreError> {
        self.pass("erase", self.inner.erase(target, now)).await
    }

    async fn probe(&self, now: Timestamp) -> Result<(), StoreError> {
        self.pass("probe", self.inner.probe(now)).await
    }

    async fn job(&self, id: JobId) -> Result<Lookup<Job>, StoreError> {
        self.pass("job", self.inner.job(id)).await
    }

    async fn jobs(
        &self,
        filter: &JobFilter,
        after: Option<Position>,
        limit: u32,
    ) -> Result<JobPage, StoreError> {
        self.pass("jobs", self.inner.jobs(filter, after, limit)).await
    }

    fn all_jobs(&self, filter: JobFilter) -> BoxStream<'static, Result<Job, StoreError>> {
        match self.strike("all_jobs") {
            None => self.inner.all_jobs(filter),
            Some(Strike::Before(error)) => stream::iter([Err(error)]).boxed(),
            Some(Strike::After(error)) => {
                self.inner.all_jobs(filter).chain(stream::iter([Err(error)])).boxed()
            }
        }
    }

    async fn result(&self, id: JobId) -> Result<Lookup<Option<StoredResult>>, StoreError> {
        self.pass("result", self.inner.result(id)).await
    }

    async fn deliveries(&self, job_id: JobId) -> Result<Lookup<Vec<Delivery>>, StoreError> {
        self.pass("deliveries", self.inner.deliveries(job_id)).await
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.pass("delivery", self.inner.delivery(id)).await
    }

    async fn delivery_body(&self, id: DeliveryId) -> Result<Option<Bytes>, StoreError> {
        self.pass("delivery_body", self.inner.delivery_body(id)).await
    }

    async fn events(&self, job_id: JobId) -> Result<Lookup<Vec<Event>>, StoreError> {
        self.pass("events", self.inner.events(job_id)).await
    }

    async fn stats(&self, now: Timestamp) -> Result<Stats, StoreError> {
        self.pass("stats", self.inner.stats(now)).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
