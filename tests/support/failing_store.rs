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
        job::{Job, JobFlags},
        mirror::{AfterMirror, DueMirror, FilePlace, FreePlaces, PendingFileDeletion, StoredCopy},
        page::{JobFilter, JobPage, Page, Position},
        reconcile::{DueJob, Next},
        relay::{AfterAttempt, Attempt, DueRelay, Relay, RelayFilter},
        signing_keys::SigningKeys,
    },
    store::{
        Arrival, Backlog, Begun, BegunAgain, CallbackAddresses, EngineAnswer, EraseTarget,
        ErasedBatch, Erasing, Lookup, Mirroring, NewSubmission, Querying, Receipt, Receiving,
        Reconciling, Relaying, SignOuts, SignedOut, SpoolMark, Spooled, Statistics, Stats, Store,
        StoreError, StoredResult, Submissions, Timeline, Uploading,
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

/// What the loops of a service call, whenever their time comes.
const OF_LOOPS: &[&str] = &[
    "backlog",
    "claim_due",
    "claim_mirrors",
    "claim_relays",
    "erase_batch",
    "expedite_stale",
    "finish_erasure",
    "pending_file_deletions",
    "probe",
    "schedule_looks",
    "turnarounds",
];

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

    /// Calls so far, those that failed included, without those that the service makes by itself.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Calls that failed on command.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    fn strike(&self, method: &str) -> Option<Strike> {
        if !OF_LOOPS.contains(&method) {
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

/// Implements traits of the store: each method that can fail is given with its arguments and what
/// it answers, and asks the inner store unless the plan says that the call fails.
macro_rules! forward {
    ($($noun:ident {
        $($method:ident($($name:ident: $kind:ty),*) -> $answer:ty;)*
        $(+ { $($plain:tt)* })?
    })*) => {$(
        #[async_trait]
        impl $noun for FailingStore {
            $(async fn $method(&self, $($name: $kind),*) -> Result<$answer, StoreError> {
                self.pass(stringify!($method), self.inner.$method($($name),*)).await
            })*
            $($($plain)*)?
        }
    )*};
}

forward! {
    Submissions {
        begin_submission(submission: NewSubmission) -> Begun;
        record_answer(id: JobId, answer: EngineAnswer, now: Timestamp) -> Lookup<Job>;
        begin_resubmission(id: JobId, is_confirmed: bool, callback_base: &str) -> Lookup<BegunAgain>;
    }
    Uploading {
        record_upload(id: JobId, input: &str, bytes: Option<u64>, now: Timestamp) -> Lookup<Job>;
        record_notified(id: JobId, inputs: Vec<String>, now: Timestamp) -> Lookup<Job>;
    }
    CallbackAddresses {
        callback_address(id: JobId) -> Lookup<AddressRecord>;
        + {
            fn signing_keys(&self) -> &SigningKeys {
                self.inner.signing_keys()
            }
        }
    }
    Receiving {
        receive(arrival: Arrival) -> Receipt;
        spool_mark() -> Option<SpoolMark>;
        receive_spooled(spooled: Spooled) -> Option<Receipt>;
        record_oversize(id: JobId, limit_bytes: usize, now: Timestamp) -> Lookup<Standing>;
    }
    Querying {
        job(id: JobId) -> Lookup<Job>;
        jobs(filter: &JobFilter, after: Option<Position>, limit: u32) -> JobPage;
        job_flags(ids: &[JobId], public_url: Option<&str>) -> HashMap<JobId, JobFlags>;
        job_of_engine(engine_job_id: &str) -> Option<JobId>;
        result(id: JobId) -> Lookup<Option<StoredResult>>;
        result_digest(id: JobId) -> Option<[u8; 32]>;
        deliveries(job_id: JobId, after: Option<i64>, limit: u32) -> Lookup<Page<Delivery>>;
        delivery(id: DeliveryId) -> Option<Delivery>;
        delivery_body(id: DeliveryId) -> Option<Bytes>;
    }
    Timeline {
        note(event: NewEvent) -> Lookup<()>;
        events(job_id: JobId, after: Option<i64>, limit: u32) -> Lookup<Page<Event>>;
        events_after(seq: i64, job_id: Option<JobId>, limit: u32) -> Vec<Event>;
        last_event() -> i64;
    }
    Statistics {
        stats(now: Timestamp) -> Stats;
        turnarounds() -> Vec<u64>;
    }
    Reconciling {
        schedule_looks(after: Duration) -> ();
        expedite_stale(public_url: &str, now: Timestamp) -> Vec<JobId>;
        claim_due(now: Timestamp, lease_until: Timestamp, horizon: Duration, limit: u32) -> Vec<DueJob>;
        postpone(id: JobId, next: Next, now: Timestamp) -> ();
    }
    Relaying {
        claim_relays(now: Timestamp, lease_until: Timestamp, under_way: Vec<(String, u32)>, concurrency: u32) -> Vec<DueRelay>;
        record_attempt(id: Uuid, attempt: Attempt, after: AfterAttempt) -> ();
        resend_relay(id: Uuid, now: Timestamp) -> bool;
        resend_relays(filter: RelayFilter, now: Timestamp, is_dry_run: bool) -> u64;
        relays(filter: &RelayFilter, before: Option<i64>, limit: u32, now: Timestamp) -> Vec<Relay>;
        relay(id: Uuid, now: Timestamp) -> Option<(Relay, Vec<Attempt>)>;
        backlog(now: Timestamp) -> Vec<Backlog>;
    }
    Mirroring {
        claim_mirrors(now: Timestamp, lease_until: Timestamp, places: FreePlaces) -> Vec<DueMirror>;
        record_mirror(place: FilePlace, after: AfterMirror, now: Timestamp) -> Lookup<()>;
        stored_copies(after: Option<FilePlace>, limit: u32) -> Vec<StoredCopy>;
        pending_file_deletions(limit: u32) -> Vec<PendingFileDeletion>;
        finish_file_deletion(job_id: JobId) -> ();
    }
    Erasing {
        erase(target: EraseTarget, now: Timestamp) -> Lookup<u64>;
        erase_batch(target: &EraseTarget, now: Timestamp) -> Lookup<ErasedBatch>;
        finish_erasure() -> ();
    }
    SignOuts {
        signed_out() -> Vec<SignedOut>;
        sign_out(session: SignedOut, now: Timestamp) -> ();
    }
    Store {
        probe(now: Timestamp) -> ();
        + {
            async fn close(&self) {
                self.inner.close().await;
            }
        }
    }
}
