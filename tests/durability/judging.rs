//! The suite's second part: what is received, alone and many at once.
//!
//! The invariant: a batch is a matter of speed; nobody can tell from the rows that there was one.

use std::{pin::Pin, task::Poll};

use finishline::{
    domain::{
        delivery::{MAX_MALFORMED, Outcome},
        ids::{DeliveryId, JobId},
        job::{Job, JobStatus},
    },
    store::{Addressee, Arrival, EraseTarget, Lookup, Receipt, StoreError, sqlite::SqliteStore},
};
use futures_util::future::{join_all, poll_fn};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{conformance::*, promises, taken};

promises! {
    a_body_is_judged_by_what_is_on_record,
    what_follows_from_a_body_is_written_with_it,
    an_inbox_key_is_one_job,
    a_body_too_large_is_an_event,
    events_grow_in_the_order_of_their_facts,
}

const AVAILABLE: &str = r#"{"success":true,"outputFiles":{"meshes":[{"status":"Available","url":"1"},{"status":"x"}]}}"#;
const RENEWED: &str = r#"{"success":true,"outputFiles":{"meshes":[{"status":"Available","url":"2"},{"status":"x"}]}}"#;
const MISSING: &str =
    r#"{"success":true,"outputFiles":{"meshes":[{"status":"Missing"},{"status":"x"}]}}"#;
const FAILED: &str = r#"{"success":false}"#;

fn to(id: JobId, seconds: u64, body: &str) -> Arrival {
    arrival(Addressee::Job(id), DeliveryId::new(now(seconds)), seconds, body)
}

async fn a_body_is_judged_by_what_is_on_record(subject: &Subject) {
    let job = begun(subject, 0).await;
    let mut kept = 0;
    for (position, (body, outcome, is_new)) in [
        ("{}", Outcome::Unrecognised, true),
        ("{}", Outcome::Duplicate, false),
        ("x", Outcome::Malformed, true),
        ("x", Outcome::Malformed, false),
        (AVAILABLE, Outcome::Stored, true),
        (AVAILABLE, Outcome::Duplicate, false),
        (RENEWED, Outcome::Refreshed, true),
        (MISSING, Outcome::Conflict, true),
        (FAILED, Outcome::Conflict, true),
        (MISSING, Outcome::Duplicate, false),
        (RENEWED, Outcome::Duplicate, false),
        ("[]", Outcome::Unrecognised, true),
        ("y", Outcome::Malformed, true),
    ]
    .into_iter()
    .enumerate()
    {
        let seconds = 10 + position as u64;
        let receipt = taken!(subject.receive(to(job.id, seconds, body)));
        assert_eq!(receipt, Receipt::Kept { job_id: job.id, outcome }, "{position}: {body}");
        kept += usize::from(is_new);
        let deliveries = found(taken!(subject.deliveries(job.id, None, 200))).rows;
        assert_eq!(deliveries.len(), kept, "{position}");
        let now_on_record = found(taken!(subject.job(job.id)));
        assert_eq!(now_on_record.deliveries as usize, kept);
        let result = found(taken!(subject.result(job.id)));
        assert_eq!(result.is_some(), position >= 4, "the first result is the result");
        if let Some(result) = result {
            assert_eq!((&result.body[..], result.finished_at), (AVAILABLE.as_bytes(), now(14)));
            assert_eq!(
                (now_on_record.status, now_on_record.success),
                (JobStatus::Succeeded, Some(true))
            );
        }
    }
    let job = found(taken!(subject.job(job.id)));
    assert_eq!(job.outputs[0].url.as_deref(), Some("1"), "nobody asked for another link");
    assert_eq!(job.outputs[0].status.as_deref(), Some("Available"));
    let repeats = found(taken!(subject.deliveries(job.id, None, 200)))
        .rows
        .iter()
        .map(|one| one.repeats)
        .sum::<u64>();
    assert_eq!(repeats, 5);
    for number in 0..10 {
        taken!(subject.receive(to(job.id, 50, &format!("z{number}"))));
    }
    let deliveries = found(taken!(subject.deliveries(job.id, None, 200))).rows;
    let malformed = deliveries.iter().filter(|one| one.outcome == Outcome::Malformed).count();
    assert_eq!(malformed, MAX_MALFORMED as usize);
}

async fn what_follows_from_a_body_is_written_with_it(subject: &Subject) {
    for known in [true, false] {
        let id = if known { begun(subject, 0).await.id } else { JobId::new(now(0)) };
        let delivery = DeliveryId::new(now(5));
        let body =
            r#"{"jobId":"e7","success":true,"outputFiles":{"meshes":[{"status":"Failed"},{}]}}"#;
        taken!(subject.receive(arrival(Addressee::Job(id), delivery, 5, body)));
        let job = found(taken!(subject.job(id)));
        assert_eq!((job.status, job.finished_at), (JobStatus::Partial, Some(now(5))));
        assert_eq!((job.engine_job_id.as_deref(), job.deliveries), (Some("e7"), 1));
        assert_eq!(job.outputs[0].status.as_deref(), Some("Failed"));
        let result = found(taken!(subject.result(id))).expect("a result");
        assert_eq!(result.body, body);
        let kept = taken!(subject.delivery(delivery)).expect("the delivery");
        assert_eq!(
            (kept.job_id, kept.outcome, kept.bytes),
            (id, Outcome::Stored, body.len() as u64)
        );
        assert_eq!((kept.sha256, kept.source.as_str()), (result.sha256, "203.0.113.7:1"));
        assert_eq!(kept.headers, [("content-type".to_owned(), "application/json".to_owned())]);
        assert_eq!(taken!(subject.delivery_body(delivery)).expect("its bytes"), body);
        let events =
            if known { vec!["job.finished"] } else { vec!["job.recovered", "job.finished"] };
        assert_eq!(timeline(subject, id).await, events);
    }
}

async fn an_inbox_key_is_one_job(subject: &Subject) {
    let receive = |key: u8, body: &'static str| {
        arrival(Addressee::Inbox([key; 32]), DeliveryId::new(now(1)), 1, body)
    };
    let Receipt::Kept { job_id, outcome: Outcome::Stored } =
        taken!(subject.receive(receive(1, AVAILABLE)))
    else {
        panic!("the first is stored")
    };
    for (body, outcome) in [(AVAILABLE, Outcome::Duplicate), (FAILED, Outcome::Conflict)] {
        assert_eq!(taken!(subject.receive(receive(1, body))), Receipt::Kept { job_id, outcome });
    }
    let other = taken!(subject.receive(receive(2, AVAILABLE)));
    assert!(
        matches!(other, Receipt::Kept { job_id: other, outcome: Outcome::Stored } if other != job_id)
    );
    found(taken!(subject.erase(EraseTarget::Job(job_id), now(2))));
    assert_eq!(taken!(subject.receive(receive(1, AVAILABLE))), Receipt::Erased);
}

async fn a_body_too_large_is_an_event(subject: &Subject) {
    let job = begun(subject, 0).await;
    found(taken!(subject.record_oversize(job.id, 77, now(3))));
    let events = found(taken!(subject.events(job.id, None, 200))).rows;
    assert_eq!(
        (events.len(), events[0].kind.as_str(), events[0].at),
        (1, "delivery.oversize", now(3))
    );
    assert_eq!(events[0].data, r#"{"limitBytes":77}"#);
    assert!(found(taken!(subject.deliveries(job.id, None, 200))).rows.is_empty());
    assert_eq!(found(taken!(subject.job(job.id))).status, JobStatus::Submitting);
}

async fn events_grow_in_the_order_of_their_facts(subject: &Subject) {
    let (one, two) = (begun(subject, 0).await.id, begun(subject, 0).await.id);
    let mut last = 0;
    for step in 0..6 {
        let id = if step % 2 == 0 { one } else { two };
        taken!(subject.receive(to(id, step, &format!("[{step}]"))));
        let newest =
            found(taken!(subject.events(id, None, 200))).rows.last().expect("an event").seq;
        assert!(newest > last, "{newest} after {last}");
        last = newest;
    }
    found(taken!(subject.erase(EraseTarget::Job(one), now(9))));
    taken!(subject.receive(to(two, 9, "[9]")));
    let newest = found(taken!(subject.events(two, None, 200))).rows.last().expect("an event").seq;
    assert!(newest > last + 1, "the numbers of what was erased are not used again");
}

/// What became of all arrivals, handed over one after the other without awaiting any: on one
/// thread the writer finds them all in its queue.
async fn receive_at_once(
    subject: &Subject,
    arrivals: Vec<Arrival>,
) -> Vec<Result<Receipt, StoreError>> {
    join_all(arrivals.into_iter().map(|arrival| subject.store.receive(arrival))).await
}

/// Everything on record of a job, as text, without numbers that others take part in.
async fn record(subject: &Subject, id: JobId) -> String {
    let job: Job = found(taken!(subject.job(id)));
    let deliveries = found(taken!(subject.deliveries(id, None, 200))).rows;
    let events = found(taken!(subject.events(id, None, 200))).rows;
    let events: Vec<_> =
        events.into_iter().map(|event| (event.kind, event.at, event.data)).collect();
    let result = found(taken!(subject.result(id)));
    format!("{job:#?}\n{deliveries:#?}\n{events:#?}\n{result:#?}")
}

#[tokio::test]
async fn many_arrivals_in_one_batch_end_as_if_each_had_come_alone() {
    // More that are malformed than a job keeps.
    const BODIES: [&str; 12] =
        [AVAILABLE, RENEWED, MISSING, FAILED, "{}", "[]", "u", "v", "w", "x", "y", "z"];
    let mut random = StdRng::seed_from_u64(7);
    let (alone, batched) = (Subject::sqlite().await, Subject::sqlite().await);
    let mut outcomes = std::collections::HashSet::new();
    for round in 0..25 {
        let known = [JobId::new(now(round)), JobId::new(now(round))];
        let unknown = [JobId::new(now(round)), JobId::new(now(round))];
        let erased = JobId::new(now(round));
        for subject in [&alone, &batched] {
            for id in known.into_iter().chain([erased]) {
                taken!(subject.begin_submission(submission(id, round)));
            }
            found(taken!(subject.erase(EraseTarget::Job(erased), now(round))));
        }
        let ids: Vec<JobId> = known.into_iter().chain(unknown).chain([erased]).collect();
        // Both stores get the same ids, so that what they keep can be compared as it is.
        let plan: Vec<(JobId, DeliveryId, &str)> = (0..random.random_range(2..90))
            .map(|_| {
                let body = BODIES[random.random_range(0..BODIES.len())];
                (ids[random.random_range(0..ids.len())], DeliveryId::new(now(round)), body)
            })
            .collect();
        let arrivals = || {
            let arrivals = plan.iter().enumerate();
            arrivals.map(|(second, (id, delivery, body))| {
                arrival(Addressee::Job(*id), *delivery, second as u64, body)
            })
        };
        let mut one_by_one = Vec::new();
        for arrival in arrivals() {
            one_by_one.push(alone.store.receive(arrival).await.expect("it is taken"));
        }
        let at_once = receive_at_once(&batched, arrivals().collect()).await;
        let at_once: Vec<_> = at_once.into_iter().map(|one| one.expect("it is taken")).collect();
        assert_eq!(at_once, one_by_one, "round {round}");
        for id in &ids[..4] {
            if plan.iter().any(|(to, ..)| to == id) || known.contains(id) {
                assert_eq!(record(&batched, *id).await, record(&alone, *id).await, "round {round}");
            } else {
                assert!(matches!(taken!(batched.job(*id)), Lookup::Missing));
            }
        }
        outcomes.extend(one_by_one.iter().map(|receipt| match receipt {
            Receipt::Kept { outcome, .. } => Some(*outcome),
            Receipt::Erased => None,
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!(outcomes.len(), 7, "every outcome, and erased: {outcomes:?}");
}

#[tokio::test]
async fn a_change_that_fails_takes_no_other_down_and_leaves_nothing() {
    let subject = &Subject::sqlite().await;
    let jobs = [begun(subject, 0).await.id, begun(subject, 0).await.id, begun(subject, 0).await.id];
    let taken_id = DeliveryId::new(now(1));
    taken!(subject.receive(arrival(Addressee::Job(jobs[0]), taken_id, 1, "{}")));
    let before = record(subject, jobs[1]).await;
    let store = &subject.store;
    // One delivery and one submission under ids that are taken: neither can be written.
    let poison = store.receive(arrival(Addressee::Job(jobs[1]), taken_id, 2, AVAILABLE));
    let twin = store.begin_submission(submission(jobs[0], 2));
    let good = store.receive(to(jobs[0], 2, AVAILABLE));
    let fresh = JobId::new(now(2));
    let begun = store.begin_submission(submission(fresh, 2));
    let answer = store.record_answer(jobs[2], accepted("e"), now(2));
    let last = store.receive(to(jobs[2], 3, AVAILABLE));
    let (good, poison, begun, twin, answer, last) =
        tokio::join!(good, poison, begun, twin, answer, last);
    assert!(matches!(poison, Err(StoreError::Unavailable(_))), "{poison:?}");
    assert!(matches!(twin, Err(StoreError::Unavailable(_))), "{twin:?}");
    let stored = |id| Receipt::Kept { job_id: id, outcome: Outcome::Stored };
    assert_eq!(good.expect("taken"), stored(jobs[0]));
    assert_eq!(last.expect("taken"), stored(jobs[2]));
    assert_eq!(found(answer.expect("taken")).status, JobStatus::Submitted);
    begun.expect("taken");
    assert_eq!(found(taken!(subject.job(fresh))).status, JobStatus::Submitting);
    assert_eq!(record(subject, jobs[1]).await, before, "the failed one left nothing");
    assert_eq!(timeline(subject, jobs[0]).await, ["delivery.unrecognised", "job.finished"]);
    assert_eq!(timeline(subject, jobs[2]).await, ["job.submitted", "job.finished"]);
    let repeated = taken!(subject.receive(to(jobs[1], 4, AVAILABLE)));
    assert_eq!(repeated, stored(jobs[1]), "and may be repeated");
}

/// Polls once, so that the work is handed over, and lets go.
async fn hand_over<T>(work: impl Future<Output = T>) {
    let mut work = Box::pin(work);
    poll_fn(|context| {
        assert!(Pin::new(&mut work).poll(context).is_pending(), "a commit takes a while");
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn what_was_handed_over_is_carried_out_without_its_caller() {
    let subject = &Subject::sqlite().await;
    let job = begun(subject, 0).await;
    hand_over(subject.store.receive(to(job.id, 1, AVAILABLE))).await;
    let other = JobId::new(now(1));
    hand_over(subject.store.begin_submission(submission(other, 1))).await;
    // The queue is taken in order: once this is on disk, so are they.
    taken!(subject.probe(now(2)));
    assert_eq!(found(taken!(subject.job(job.id))).status, JobStatus::Succeeded);
    assert_eq!(found(taken!(subject.job(other))).status, JobStatus::Submitting);
}

#[tokio::test]
async fn closing_carries_out_what_was_handed_over_and_takes_no_more() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("store.db");
    let (store, writer) = SqliteStore::open(&path, now(0)).await.expect("the database opens");
    let key = finishline::store::CallbackAddresses::signing_key(&store);
    let subject = Subject::of(store);
    let ids: Vec<JobId> = (0..200).map(|_| JobId::new(now(1))).collect();
    for id in &ids {
        hand_over(subject.store.receive(to(*id, 1, AVAILABLE))).await;
    }
    subject.store.close().await;
    crate::support::within(writer).await.expect("the writer ends well");
    let late = subject.store.begin_submission(submission(JobId::new(now(9)), 9)).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))));
    assert!(matches!(subject.store.job(ids[0]).await, Err(StoreError::Unavailable(_))));
    drop(subject);

    let (store, _) = SqliteStore::open(&path, now(5)).await.expect("the database opens again");
    assert_eq!(
        finishline::store::CallbackAddresses::signing_key(&store),
        key,
        "the same ever after"
    );
    let subject = &Subject::of(store);
    for id in &ids {
        assert_eq!(found(taken!(subject.result(*id))).expect("a result").body, AVAILABLE);
    }
}

#[tokio::test]
async fn more_than_can_wait_is_refused_at_once_and_the_rest_is_carried_out() {
    let subject = &Subject::sqlite().await;
    let ids: Vec<JobId> = (0..3_000).map(|_| JobId::new(now(1))).collect();
    let arrivals = ids.iter().map(|id| to(*id, 1, FAILED)).collect();
    let receipts = receive_at_once(subject, arrivals).await;
    let mut refused = 0;
    for (id, receipt) in ids.iter().zip(receipts) {
        match receipt {
            Ok(receipt) => {
                let outcome = Outcome::Stored;
                assert_eq!(receipt, Receipt::Kept { job_id: *id, outcome });
                assert_eq!(found(taken!(subject.job(*id))).status, JobStatus::Failed);
            }
            Err(StoreError::Overloaded) => {
                refused += 1;
                assert!(matches!(taken!(subject.job(*id)), Lookup::Missing), "nothing was claimed");
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!((1..ids.len()).contains(&refused), "some were refused, some taken: {refused}");
}
