//! The suite that accepts a store: the promises of the trait, each run against SQLite and against
//! one that fails every second call.
//!
//! The invariant: on the failing one a call is repeated until it is taken, so a promise that holds
//! there holds for a caller that repeats what failed.

use std::{collections::HashSet, sync::Arc};

use finishline::{
    clock,
    domain::{
        ids::{DeliveryId, JobId},
        job::{Input, InputState, Job, JobStatus, Output},
        page::JobFilter,
        result,
    },
    store::{
        Addressee, Arrival, Begun, EngineAnswer, EraseTarget, Idempotency, Lookup, NewSubmission,
        Receipt, Store, StoreError, sqlite::SqliteStore,
    },
};
use jiff::Timestamp;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::failing_store::{FailingStore, Failure, Plan};

/// A store under test.
pub struct Subject {
    pub store: Arc<dyn Store>,
    failing: Option<Arc<FailingStore>>,
    /// Goes with the subject.
    _folder: Option<TempDir>,
}

impl Subject {
    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("store.db");
        let (store, _) = SqliteStore::open(&path, now(0)).await.expect("the database opens");
        Self { _folder: Some(folder), ..Self::of(store) }
    }

    /// One that is open already.
    pub fn of(store: SqliteStore) -> Self {
        Self { store: Arc::new(store), failing: None, _folder: None }
    }

    /// Every second call fails, in turn busy and refused.
    pub async fn failing() -> Self {
        let sqlite = Self::sqlite().await;
        let busy = FailingStore::around(sqlite.store);
        busy.fail(Plan::always(Failure::Overloaded).every(3));
        let failing = FailingStore::around(busy);
        failing.fail(Plan::always(Failure::Unavailable).every(2));
        Self { store: failing.clone(), failing: Some(failing), _folder: sqlite._folder }
    }

    /// Says that an error was to be expected, or fails.
    pub fn forgive(&self, error: &StoreError) {
        assert!(self.failing.is_some(), "nothing was to fail: {error}");
    }
}

/// What a call answers once it is taken; it is made anew for each attempt.
#[macro_export]
macro_rules! taken {
    ($subject:ident.$method:ident($($argument:expr),* $(,)?)) => {
        loop {
            match $subject.store.$method($($argument),*).await {
                Ok(answer) => break answer,
                Err(error) => $subject.forgive(&error),
            }
        }
    };
}

/// Each promise as a test of its own, for each store.
#[macro_export]
macro_rules! promises {
    ($($promise:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(&$crate::conformance::Subject::sqlite().await).await;
            })*
        }
        mod failing {
            $(#[tokio::test]
            async fn $promise() {
                let subject = $crate::conformance::Subject::failing().await;
                super::$promise(&subject).await;
                subject.has_failed();
            })*
        }
    };
}

impl Subject {
    /// Fails unless calls have failed, or the suite would not have met a failure.
    pub fn has_failed(&self) {
        assert!(self.failing.as_ref().is_some_and(|store| store.failures() > 0));
    }
}

/// So many seconds after an arbitrary instant.
pub fn now(seconds: u64) -> Timestamp {
    let start = "2026-03-01T12:00:00Z".parse().expect("a time");
    clock::add(start, std::time::Duration::from_secs(seconds))
}

pub fn submission(id: JobId, seconds: u64) -> NewSubmission {
    let body = r#"{"outputFiles":{"meshes":[{"extension":".stl"}]},"n":1.50}"#;
    let output = |index: u32, structure: &str| Output {
        name: format!("meshes-{index}"),
        kind: "meshes".into(),
        index: Some(index),
        extension: Some(".stl".into()),
        structures: [structure].iter().collect(),
        status: None,
        url: None,
        file: None,
    };
    NewSubmission {
        id,
        now: now(seconds),
        reference: Some("case".into()),
        end_user_id: Some("user".into()),
        cloud_package: Some("package".into()),
        external_job_id: Some("external".into()),
        request: RawValue::from_string(body.into()).expect("JSON"),
        inputs: vec![Input {
            name: "cbct".into(),
            extension: ".dcm".into(),
            upload_url: None,
            notify_url: None,
            state: InputState::Awaiting,
        }],
        outputs: vec![output(0, "skull"), output(1, "mandible")],
        warnings: vec!["careful".into()],
        callback_base: "https://hooks.example".into(),
        relay_url: None,
        idempotency: None,
    }
}

pub fn arrival(addressee: Addressee, id: DeliveryId, seconds: u64, body: &str) -> Arrival {
    Arrival {
        delivery_id: id,
        addressee,
        signer: None,
        received_at: now(seconds),
        source: "203.0.113.7:1".into(),
        headers: vec![("content-type".into(), "application/json".into())],
        body: body.to_owned().into(),
        sha256: Sha256::digest(body).into(),
        reading: result::read(body.as_bytes(), &["/jobId".to_owned()]),
    }
}

pub fn accepted(engine_job_id: &str) -> EngineAnswer {
    EngineAnswer::Accepted {
        engine_status: 202,
        response: RawValue::from_string(r#"{"a":1}"#.into()).ok(),
        engine_job_id: Some(engine_job_id.into()),
        uploads: vec![("cbct".into(), Some("https://up".into()), Some("https://notify".into()))],
        warnings: vec!["odd".into()],
    }
}

#[track_caller]
pub fn found<T>(lookup: Lookup<T>) -> T {
    match lookup {
        Lookup::Found(found) => found,
        Lookup::Erased => panic!("erased"),
        Lookup::Missing => panic!("missing"),
    }
}

/// A job on record as `submitting`.
pub async fn begun(subject: &Subject, seconds: u64) -> Job {
    let id = JobId::new(now(seconds));
    match taken!(subject.begin_submission(submission(id, seconds))) {
        Begun::New(job) => *job,
        other => panic!("{other:?}"),
    }
}

/// A job's timeline: its types.
pub async fn timeline(subject: &Subject, id: JobId) -> Vec<String> {
    found(taken!(subject.events(id, None, 200))).rows.into_iter().map(|event| event.kind).collect()
}

promises! {
    a_submission_is_on_record_when_it_is_answered,
    one_idempotency_key_is_one_job,
    the_engine_s_answer_is_recorded_with_its_event,
    an_answer_after_the_result_leaves_the_status,
    missing_is_not_erased,
    erasing_leaves_only_the_tombstone,
    pages_hold_every_job_once_newest_first,
    figures_count_every_job,
    the_signing_key_is_one_key,
}

async fn a_submission_is_on_record_when_it_is_answered(subject: &Subject) {
    let job = begun(subject, 7).await;
    for job in [&job, &found(taken!(subject.job(job.id)))] {
        assert_eq!(job.status, JobStatus::Submitting);
        assert_eq!((job.created_at, job.submitted_at, job.finished_at), (now(7), None, None));
        let texts = [&job.reference, &job.end_user_id, &job.cloud_package, &job.external_job_id]
            .map(Clone::clone);
        assert_eq!(texts.map(Option::unwrap), ["case", "user", "package", "external"]);
        let expected = submission(job.id, 7);
        assert_eq!(job.inputs, expected.inputs);
        assert_eq!(job.outputs, expected.outputs);
        assert_eq!(job.request.as_ref().map(|body| body.get()), Some(expected.request.get()));
        assert_eq!((&job.warnings[..], job.deliveries), (&["careful".to_owned()][..], 0));
    }
    assert!(timeline(subject, job.id).await.is_empty());
    assert!(found(taken!(subject.result(job.id))).is_none());
    assert!(found(taken!(subject.deliveries(job.id, None, 200))).rows.is_empty());
}

async fn one_idempotency_key_is_one_job(subject: &Subject) {
    let with_key = |id: JobId, api_key: &str, key: u8, fingerprint: u8| NewSubmission {
        idempotency: Some(Idempotency {
            api_key: api_key.into(),
            key_sha256: [key; 32],
            fingerprint: [fingerprint; 32],
        }),
        ..submission(id, 1)
    };
    let id = JobId::new(now(1));
    let other = || JobId::new(now(2));
    let Begun::New(_) = taken!(subject.begin_submission(with_key(id, "a", 1, 1))) else {
        panic!("the key is new")
    };
    assert!(matches!(
        taken!(subject.begin_submission(with_key(other(), "a", 1, 1))),
        Begun::InFlight
    ));
    assert!(matches!(
        taken!(subject.begin_submission(with_key(other(), "a", 1, 2))),
        Begun::Mismatch
    ));
    for (api_key, key) in [("a", 2), ("b", 1)] {
        let begun = taken!(subject.begin_submission(with_key(other(), api_key, key, 2)));
        assert!(matches!(begun, Begun::New(job) if job.id != id), "another key is another job");
    }
    let unsent = || EngineAnswer::Unsent {
        engine_status: None,
        reason: "engine-busy",
        detail: "why".into(),
    };
    found(taken!(subject.record_answer(id, unsent(), now(3))));
    let again = taken!(subject.begin_submission(with_key(other(), "a", 1, 1)));
    assert!(
        matches!(again, Begun::Again(job) if job.id == id && job.status == JobStatus::Submitting)
    );
    assert!(matches!(
        taken!(subject.begin_submission(with_key(other(), "a", 1, 1))),
        Begun::InFlight
    ));
    found(taken!(subject.record_answer(id, accepted("e"), now(4))));
    for _ in 0..2 {
        let replay = taken!(subject.begin_submission(with_key(other(), "a", 1, 1)));
        assert!(
            matches!(replay, Begun::Replay(job) if job.id == id && job.status == JobStatus::Submitted)
        );
    }
    found(taken!(subject.erase(EraseTarget::Job(id), now(5))));
    let erased = taken!(subject.begin_submission(with_key(other(), "a", 1, 1)));
    assert!(matches!(erased, Begun::Erased(gone) if gone == id));
    let jobs = taken!(subject.jobs(&JobFilter::default(), None, 50));
    assert_eq!(jobs.jobs.len(), 2, "nothing was made beside");
}

async fn the_engine_s_answer_is_recorded_with_its_event(subject: &Subject) {
    let refused = || RawValue::from_string(r#""no""#.into()).ok();
    let unsent = EngineAnswer::Unsent {
        engine_status: Some(429),
        reason: "engine-busy",
        detail: "why".into(),
    };
    let lost = EngineAnswer::Unconfirmed {
        engine_status: None,
        reason: "engine-timeout",
        detail: "why".into(),
    };
    let rejected = EngineAnswer::Rejected { engine_status: 400, response: refused() };
    for (answer, status, event, engine_status) in [
        (accepted("engine-1"), JobStatus::Submitted, "job.submitted", Some(202)),
        (rejected, JobStatus::Rejected, "job.rejected", Some(400)),
        (unsent, JobStatus::Unsent, "job.unsent", Some(429)),
        (lost, JobStatus::Unconfirmed, "job.unconfirmed", None),
    ] {
        let job = begun(subject, 1).await;
        let answered = found(taken!(subject.record_answer(job.id, answer.clone(), now(2))));
        for job in [answered, found(taken!(subject.job(job.id)))] {
            assert_eq!((job.status, job.engine_status), (status, engine_status));
            let is_accepted = status == JobStatus::Submitted;
            assert_eq!(job.engine_job_id.as_deref(), is_accepted.then_some("engine-1"));
            assert_eq!(job.submitted_at, is_accepted.then_some(now(2)));
            assert_eq!(job.inputs[0].upload_url.as_deref(), is_accepted.then_some("https://up"));
            assert_eq!(
                job.inputs[0].notify_url.as_deref(),
                is_accepted.then_some("https://notify")
            );
            assert_eq!(job.warnings.len(), if is_accepted { 2 } else { 1 });
        }
        let events = found(taken!(subject.events(job.id, None, 200))).rows;
        assert_eq!(events.len(), 1, "one fact, one event");
        assert_eq!((events[0].kind.as_str(), events[0].at), (event, now(2)));
    }
}

async fn an_answer_after_the_result_leaves_the_status(subject: &Subject) {
    let lost = || EngineAnswer::Unconfirmed {
        engine_status: None,
        reason: "engine-timeout",
        detail: "why".into(),
    };
    for (answer, events) in [
        (accepted("engine-1"), vec!["job.finished", "job.submitted"]),
        (lost(), vec!["job.finished"]),
    ] {
        let job = begun(subject, 1).await;
        let id = DeliveryId::new(now(2));
        let to = Addressee::Job(job.id);
        taken!(subject.receive(arrival(to, id, 2, r#"{"success":true}"#)));
        let job = found(taken!(subject.record_answer(job.id, answer.clone(), now(3))));
        assert_eq!((job.status, job.finished_at), (JobStatus::Succeeded, Some(now(2))));
        if let EngineAnswer::Accepted { .. } = answer {
            assert_eq!(job.engine_job_id.as_deref(), Some("engine-1"));
            assert_eq!(job.submitted_at, Some(now(3)));
        }
        assert_eq!(timeline(subject, job.id).await, events);
    }
}

/// What every question and change says of a job that is not there.
async fn absences(subject: &Subject, id: JobId) -> Vec<&'static str> {
    fn word<T: std::fmt::Debug>(lookup: Lookup<T>) -> &'static str {
        match lookup {
            Lookup::Found(found) => panic!("{found:?}"),
            Lookup::Erased => "erased",
            Lookup::Missing => "missing",
        }
    }
    vec![
        word(taken!(subject.job(id))),
        word(taken!(subject.result(id))),
        word(taken!(subject.deliveries(id, None, 200))),
        word(taken!(subject.events(id, None, 200))),
        word(taken!(subject.record_answer(id, accepted("e"), now(9)))),
        word(taken!(subject.erase(EraseTarget::Job(id), now(9)))),
    ]
}

async fn missing_is_not_erased(subject: &Subject) {
    let unknown = JobId::new(now(1));
    assert_eq!(absences(subject, unknown).await, ["missing"; 6]);
    assert!(taken!(subject.delivery(DeliveryId::new(now(1)))).is_none());
    assert!(taken!(subject.delivery_body(DeliveryId::new(now(1)))).is_none());

    let job = begun(subject, 1).await;
    let delivery = DeliveryId::new(now(1));
    let body = r#"{"success":true}"#;
    let arrive = || arrival(Addressee::Job(job.id), delivery, 2, body);
    taken!(subject.receive(arrive()));
    assert_eq!(found(taken!(subject.erase(EraseTarget::Job(job.id), now(3)))), 1);
    assert_eq!(absences(subject, job.id).await, ["erased"; 6]);
    assert!(matches!(taken!(subject.record_oversize(job.id, 1, now(3))), Lookup::Erased));
    assert_eq!(taken!(subject.receive(arrive())), Receipt::Erased);
    assert!(taken!(subject.delivery(delivery)).is_none());
    assert!(taken!(subject.delivery_body(delivery)).is_none());
    assert_eq!(absences(subject, job.id).await, ["erased"; 6]);
    assert_eq!(absences(subject, unknown).await, ["missing"; 6], "still");
}

async fn erasing_leaves_only_the_tombstone(subject: &Subject) {
    let mut jobs = Vec::new();
    for seconds in 0..70 {
        jobs.push(begun(subject, seconds).await.id);
    }
    let kept = JobId::new(now(1));
    let mut other = submission(kept, 1);
    other.end_user_id = None;
    while let Err(error) = subject.store.begin_submission(other).await {
        subject.forgive(&error);
        other = NewSubmission { end_user_id: None, ..submission(kept, 1) };
    }
    for id in &jobs {
        let to = Addressee::Job(*id);
        taken!(subject.receive(arrival(to, DeliveryId::new(now(1)), 90, r#"{"success":true}"#)));
    }
    let target = || EraseTarget::EndUser("user".into());
    assert_eq!(found(taken!(subject.erase(target(), now(100)))), 70, "more than one batch");
    assert_eq!(found(taken!(subject.erase(target(), now(100)))), 0);
    for id in jobs {
        assert!(matches!(taken!(subject.job(id)), Lookup::Erased));
    }
    let page = taken!(subject.jobs(&JobFilter::default(), None, 200));
    assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [kept]);
}

async fn pages_hold_every_job_once_newest_first(subject: &Subject) {
    let mut ids = Vec::new();
    for number in 0..205 {
        // Several of each second: their order is that in which they came.
        ids.push(begun(subject, number / 7).await.id);
    }
    for id in ids.iter().step_by(3) {
        found(taken!(subject.record_answer(*id, accepted("e"), now(300))));
    }
    ids.reverse();
    let place = |id: &JobId| ids.iter().position(|known| known == id).expect("on record");
    let both = vec![JobStatus::Submitted, JobStatus::Submitting];
    let some = vec![JobStatus::Submitted];
    for (statuses, total) in [(Vec::new(), 205), (both, 205), (some, 69)] {
        let filter = JobFilter { statuses, ..JobFilter::default() };
        for limit in [1, 7, 50, 200] {
            let mut seen = Vec::new();
            let mut after = None;
            loop {
                let page = taken!(subject.jobs(&filter, after, limit));
                assert!(page.jobs.len() <= limit as usize);
                seen.extend(page.jobs.iter().map(|job| place(&job.id)));
                assert!(page.next.is_none() || page.jobs.len() == limit as usize);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(seen.len(), total);
            assert!(seen.is_sorted(), "newest first, each once: {seen:?}");
            assert_eq!(seen.iter().collect::<HashSet<_>>().len(), total);
        }
    }
    // What comes meanwhile does not move what is older.
    let first = taken!(subject.jobs(&JobFilter::default(), None, 10));
    begun(subject, 1000).await;
    let second = taken!(subject.jobs(&JobFilter::default(), first.next, 10));
    assert_eq!(
        second.jobs.iter().map(|job| place(&job.id)).collect::<Vec<_>>(),
        (10..20).collect::<Vec<_>>()
    );
}

async fn figures_count_every_job(subject: &Subject) {
    let of = |stats: &finishline::store::Stats, status| {
        stats.by_status.iter().find(|(known, _)| *known == status).expect("every status").1
    };
    let empty = taken!(subject.stats(now(0)));
    assert!(JobStatus::ALL.iter().all(|status| of(&empty, *status) == 0));
    for (number, body) in [r#"{"success":true}"#, r#"{"success":false}"#, "{}"].iter().enumerate() {
        let job = begun(subject, 1).await;
        found(taken!(subject.record_answer(job.id, accepted("e"), now(2))));
        let to = Addressee::Job(job.id);
        let at = 10 * (number as u64 + 1);
        taken!(subject.receive(arrival(to, DeliveryId::new(now(at)), at, body)));
    }
    let stats = taken!(subject.stats(now(100)));
    for (status, count) in [
        (JobStatus::Succeeded, 1),
        (JobStatus::Failed, 1),
        (JobStatus::Submitted, 1),
        (JobStatus::Unconfirmed, 0),
    ] {
        assert_eq!(of(&stats, status), count, "{status}");
    }
    assert_eq!(stats.turnaround_millis, [8_000, 18_000]);
    assert_eq!(stats.days.len(), 1);
    assert_eq!(stats.days[0].0, "2026-03-01");
    taken!(subject.probe(now(101)));
}

async fn the_signing_key_is_one_key(subject: &Subject) {
    let key = subject.store.signing_key();
    assert_ne!(key, [0; 32]);
    for seconds in 1..3 {
        taken!(subject.probe(now(seconds)));
    }
    assert_eq!(subject.store.signing_key(), key);
    assert_ne!(Subject::sqlite().await.store.signing_key(), key, "each instance has its own");
}
