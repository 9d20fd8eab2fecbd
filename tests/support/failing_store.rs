//! The second implementation of the store: another one, with failures on command.
//!
//! Included by a test crate with `#[path]`. The invariants: a failure before the fact changes
//! nothing; a late one (see [`Plan::late`]) hides a change that was made; every call is counted.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use finishline::{
    domain::{
        callback_address::{AddressRecord, Standing},
        delivery::Delivery,
        event::{Event, NewEvent},
        ids::{DeliveryId, JobId},
        job::{Job, Marks},
        mirror::{AfterMirror, Doomed, DueMirror, FilePlace, FreePlaces, StoredCopy},
        page::{JobFilter, JobPage, Page, Position},
        reconcile::{DueJob, Next},
        relay::{AfterAttempt, Attempt, DueRelay, Relay, RelayFilter},
        signing_keys::SigningKeys,
    },
    store::{
        Arrival, Backlog, Begun, BegunAgain, EngineAnswer, EraseTarget, ErasedBatch, Lookup,
        NewSubmission, Receipt, SessionStore, SignedOut, SpoolMark, Spooled, Stats, Store,
        StoreError, StoredResult,
    },
};
use jiff::Timestamp;
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Overloaded,
    Unavailable,
    /// The call panics, as a fault of the program would.
    Panic,
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
    Panic,
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

    /// Calls so far, those that failed included. Probes do not count: the service makes them by itself.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Calls that failed on command.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    fn strike(&self, method: &str) -> Option<Strike> {
        if method != "probe" {
            self.calls.fetch_add(1, Ordering::SeqCst);
        }
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
            Failure::Panic => return Some(Strike::Panic),
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
            Some(Strike::Panic) => panic!("on command"),
        }
    }
}

#[async_trait]
impl SessionStore for FailingStore {
    fn signed_out(&self) -> Vec<SignedOut> {
        self.inner.signed_out()
    }

    async fn sign_out(&self, session: SignedOut, now: Timestamp) -> Result<(), StoreError> {
        self.pass("sign_out", self.inner.sign_out(session, now)).await
    }
}

#[async_trait]
impl Store for FailingStore {
    fn signing_keys(&self) -> &SigningKeys {
        self.inner.signing_keys()
    }

    async fn callback_address(&self, id: JobId) -> Result<Lookup<AddressRecord>, StoreError> {
        self.pass("callback_address", self.inner.callback_address(id)).await
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

    fn spool_mark(&self) -> Option<SpoolMark> {
        self.inner.spool_mark()
    }

    async fn receive_spooled(&self, spooled: Spooled) -> Result<Option<Receipt>, StoreError> {
        self.pass("receive_spooled", self.inner.receive_spooled(spooled)).await
    }

    async fn record_oversize(
        &self,
        id: JobId,
        limit_bytes: usize,
        now: Timestamp,
    ) -> Result<Lookup<Standing>, StoreError> {
        self.pass("record_oversize", self.inner.record_oversize(id, limit_bytes, now)).await
    }

    async fn erase(&self, target: EraseTarget, now: Timestamp) -> Result<Lookup<u64>, StoreError> {
        self.pass("erase", self.inner.erase(target, now)).await
    }

    async fn erase_batch(
        &self,
        target: &EraseTarget,
        now: Timestamp,
    ) -> Result<Lookup<ErasedBatch>, StoreError> {
        self.pass("erase_batch", self.inner.erase_batch(target, now)).await
    }

    async fn finish_erasure(&self) -> Result<(), StoreError> {
        self.pass("finish_erasure", self.inner.finish_erasure()).await
    }

    async fn record_upload(
        &self,
        id: JobId,
        input: &str,
        bytes: Option<u64>,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError> {
        self.pass("record_upload", self.inner.record_upload(id, input, bytes, now)).await
    }

    async fn note(&self, event: NewEvent) -> Result<Lookup<()>, StoreError> {
        self.pass("note", self.inner.note(event)).await
    }

    async fn record_notified(
        &self,
        id: JobId,
        inputs: Vec<String>,
        now: Timestamp,
    ) -> Result<Lookup<Job>, StoreError> {
        self.pass("record_notified", self.inner.record_notified(id, inputs, now)).await
    }

    async fn claim_mirrors(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        places: FreePlaces,
    ) -> Result<Vec<DueMirror>, StoreError> {
        self.pass("claim_mirrors", self.inner.claim_mirrors(now, lease_until, places)).await
    }

    async fn record_mirror(
        &self,
        place: FilePlace,
        after: AfterMirror,
        now: Timestamp,
    ) -> Result<Lookup<()>, StoreError> {
        self.pass("record_mirror", self.inner.record_mirror(place, after, now)).await
    }

    async fn stored_copies(
        &self,
        after: Option<FilePlace>,
        limit: u32,
    ) -> Result<Vec<StoredCopy>, StoreError> {
        self.pass("stored_copies", self.inner.stored_copies(after, limit)).await
    }

    async fn doomed_files(&self, limit: u32) -> Result<Vec<Doomed>, StoreError> {
        self.pass("doomed_files", self.inner.doomed_files(limit)).await
    }

    async fn forget_doomed(&self, job_id: JobId) -> Result<(), StoreError> {
        self.pass("forget_doomed", self.inner.forget_doomed(job_id)).await
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

    async fn marks(
        &self,
        ids: &[JobId],
        public_url: Option<&str>,
    ) -> Result<HashMap<JobId, Marks>, StoreError> {
        self.pass("marks", self.inner.marks(ids, public_url)).await
    }

    async fn job_of_engine(&self, engine_job_id: &str) -> Result<Option<JobId>, StoreError> {
        self.pass("job_of_engine", self.inner.job_of_engine(engine_job_id)).await
    }

    async fn result(&self, id: JobId) -> Result<Lookup<Option<StoredResult>>, StoreError> {
        self.pass("result", self.inner.result(id)).await
    }

    async fn result_digest(&self, id: JobId) -> Result<Option<[u8; 32]>, StoreError> {
        self.pass("result_digest", self.inner.result_digest(id)).await
    }

    async fn deliveries(
        &self,
        job_id: JobId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Lookup<Page<Delivery>>, StoreError> {
        self.pass("deliveries", self.inner.deliveries(job_id, after, limit)).await
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.pass("delivery", self.inner.delivery(id)).await
    }

    async fn delivery_body(&self, id: DeliveryId) -> Result<Option<Bytes>, StoreError> {
        self.pass("delivery_body", self.inner.delivery_body(id)).await
    }

    async fn events(
        &self,
        job_id: JobId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Lookup<Page<Event>>, StoreError> {
        self.pass("events", self.inner.events(job_id, after, limit)).await
    }

    async fn begin_resubmission(
        &self,
        id: JobId,
        is_confirmed: bool,
        callback_base: &str,
    ) -> Result<Lookup<BegunAgain>, StoreError> {
        let begun = self.inner.begin_resubmission(id, is_confirmed, callback_base);
        self.pass("begin_resubmission", begun).await
    }

    async fn schedule_looks(&self, after: Duration) -> Result<(), StoreError> {
        self.pass("schedule_looks", self.inner.schedule_looks(after)).await
    }

    async fn expedite_stale(
        &self,
        public_url: &str,
        now: Timestamp,
    ) -> Result<Vec<JobId>, StoreError> {
        self.pass("expedite_stale", self.inner.expedite_stale(public_url, now)).await
    }

    async fn claim_due(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        horizon: Duration,
        limit: u32,
    ) -> Result<Vec<DueJob>, StoreError> {
        self.pass("claim_due", self.inner.claim_due(now, lease_until, horizon, limit)).await
    }

    async fn postpone(&self, id: JobId, next: Next, now: Timestamp) -> Result<(), StoreError> {
        self.pass("postpone", self.inner.postpone(id, next, now)).await
    }

    async fn turnarounds(&self) -> Result<Vec<u64>, StoreError> {
        self.pass("turnarounds", self.inner.turnarounds()).await
    }

    async fn claim_relays(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        under_way: Vec<(String, u32)>,
        concurrency: u32,
    ) -> Result<Vec<DueRelay>, StoreError> {
        let claimed = self.inner.claim_relays(now, lease_until, under_way, concurrency);
        self.pass("claim_relays", claimed).await
    }

    async fn record_attempt(
        &self,
        id: Uuid,
        attempt: Attempt,
        after: AfterAttempt,
    ) -> Result<(), StoreError> {
        self.pass("record_attempt", self.inner.record_attempt(id, attempt, after)).await
    }

    async fn resend_relay(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
        self.pass("resend_relay", self.inner.resend_relay(id, now)).await
    }

    async fn resend_relays(
        &self,
        filter: RelayFilter,
        now: Timestamp,
        is_dry_run: bool,
    ) -> Result<u64, StoreError> {
        self.pass("resend_relays", self.inner.resend_relays(filter, now, is_dry_run)).await
    }

    async fn relays(
        &self,
        filter: &RelayFilter,
        before: Option<i64>,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Relay>, StoreError> {
        self.pass("relays", self.inner.relays(filter, before, limit, now)).await
    }

    async fn relay(
        &self,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<(Relay, Vec<Attempt>)>, StoreError> {
        self.pass("relay", self.inner.relay(id, now)).await
    }

    async fn events_after(
        &self,
        seq: i64,
        job_id: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        self.pass("events_after", self.inner.events_after(seq, job_id, limit)).await
    }

    async fn last_event(&self) -> Result<i64, StoreError> {
        self.pass("last_event", self.inner.last_event()).await
    }

    async fn backlog(&self, now: Timestamp) -> Result<Vec<Backlog>, StoreError> {
        self.pass("backlog", self.inner.backlog(now)).await
    }

    async fn stats(&self, now: Timestamp) -> Result<Stats, StoreError> {
        self.pass("stats", self.inner.stats(now)).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
