//! Many at once: whoever comes together with others is answered as if alone.

use finishline::{
    domain::{
        ids::{DeliveryId, JobId},
        job::{Job, JobStatus},
        page::JobFilter,
    },
    store::{Addressee, Begun, EngineAnswer, Idempotency, NewSubmission},
};
use futures_util::future::join_all;

use crate::{
    conformance::{Subject, accepted, arrival, begun, found, now, submission, timeline},
    promises, taken,
};

/// More than one batch of the writer.
const MANY: u64 = 150;

promises! {
    what_is_answered_is_what_is_on_record,
    of_those_who_bring_one_key_one_begins,
    a_result_and_the_engine_s_answer_may_come_at_once,
    a_result_that_many_ask_for_is_answered_to_each,
}

/// The `number`-th of many different ones.
fn varied(number: u64) -> NewSubmission {
    let mut one = submission(JobId::new(now(number)), number);
    let (input, output) = (one.inputs[0].clone(), one.outputs[0].clone());
    one.inputs = (0..number % 4)
        .map(|place| {
            let mut input = input.clone();
            input.name = format!("input-{place}");
            input
        })
        .collect();
    one.outputs = vec![output; (number % 3) as usize];
    one.reference = number.is_multiple_of(2).then(|| format!("case {number}"));
    one.warnings = vec!["odd".into(); (number % 2) as usize];
    one
}

fn answer(number: u64) -> EngineAnswer {
    match (number % 5, accepted(&format!("engine-{number}"))) {
        (0, _) => EngineAnswer::Unsent {
            engine_status: Some(429),
            reason: "engine-busy",
            detail: "why".into(),
        },
        (1, _) => EngineAnswer::Unconfirmed {
            engine_status: None,
            reason: "engine-timeout",
            detail: "why".into(),
        },
        (2, EngineAnswer::Accepted { response, .. }) => {
            EngineAnswer::Rejected { engine_status: 400, response }
        }
        (_, EngineAnswer::Accepted { engine_status, response, engine_job_id, warnings, .. }) => {
            let link = |name: &str| Some(format!("https://{name}.example/{number}"));
            let uploads = (0..number % 4)
                .map(|place| (format!("input-{place}"), link("up"), link("notify")))
                .collect();
            EngineAnswer::Accepted { engine_status, response, engine_job_id, uploads, warnings }
        }
        _ => unreachable!("it was accepted"),
    }
}

async fn on_record(subject: &Subject, id: JobId) -> String {
    format!("{:?}", found(taken!(subject.job(id))))
}

async fn what_is_answered_is_what_is_on_record(subject: &Subject) {
    let jobs: Vec<Job> = join_all((0..MANY).map(async |number| {
        let expected = varied(number);
        let id = expected.id;
        let make = || NewSubmission { id, ..varied(number) };
        let Begun::New(job) = taken!(subject.begin_submission(make())) else {
            panic!("it has no key")
        };
        assert_eq!(job.id, id);
        assert_eq!((&job.inputs, &job.outputs), (&expected.inputs, &expected.outputs));
        assert_eq!((&job.reference, &job.warnings), (&expected.reference, &expected.warnings));
        *job
    }))
    .await;
    for job in &jobs {
        assert_eq!(format!("{job:?}"), on_record(subject, job.id).await);
    }
    let answered = join_all((0..MANY).zip(&jobs).map(async |(number, job)| {
        found(taken!(subject.record_answer(job.id, answer(number), now(1_000 + number))))
    }))
    .await;
    for (number, job) in (0..MANY).zip(answered) {
        assert_eq!(format!("{job:?}"), on_record(subject, job.id).await);
        let status = match answer(number) {
            EngineAnswer::Accepted { .. } => JobStatus::Submitted,
            EngineAnswer::Rejected { .. } => JobStatus::Rejected,
            EngineAnswer::Unsent { .. } => JobStatus::Unsent,
            EngineAnswer::Unconfirmed { .. } => JobStatus::Unconfirmed,
        };
        assert_eq!(job.status, status, "each its own");
        let is_accepted = status == JobStatus::Submitted;
        assert_eq!(job.engine_job_id, is_accepted.then(|| format!("engine-{number}")));
        let link = format!("https://up.example/{number}");
        let links = job.inputs.iter().filter(|input| input.upload_url.as_ref() == Some(&link));
        assert_eq!(links.count(), if is_accepted { job.inputs.len() } else { 0 });
        assert_eq!(timeline(subject, job.id).await.len(), 1);
    }
}

async fn of_those_who_bring_one_key_one_begins(subject: &Subject) {
    let with_key = |fingerprint: u64| NewSubmission {
        idempotency: Some(Idempotency {
            api_key: "company".into(),
            key_sha256: [7; 32],
            fingerprint: [fingerprint as u8; 32],
        }),
        ..submission(JobId::new(now(1)), 1)
    };
    let begun =
        join_all((0..MANY).map(async |number| {
            (number % 3, taken!(subject.begin_submission(with_key(number % 3))))
        }))
        .await;
    let new: Vec<u64> = begun
        .iter()
        .filter_map(|(body, begun)| matches!(begun, Begun::New(_)).then_some(*body))
        .collect();
    let [first] = new[..] else { panic!("one begins: {new:?}") };
    for (body, begun) in begun {
        assert!(
            match begun {
                Begun::New(_) | Begun::InFlight => body == first,
                Begun::Mismatch => body != first,
                _ => false,
            },
            "{body}: {begun:?}"
        );
    }
    assert_eq!(taken!(subject.jobs(&JobFilter::default(), None, 50)).jobs.len(), 1);
}

async fn a_result_and_the_engine_s_answer_may_come_at_once(subject: &Subject) {
    let mut jobs = Vec::new();
    for number in 0..MANY {
        jobs.push(begun(subject, number).await.id);
    }
    let answers =
        join_all(jobs.iter().map(async |id| {
            found(taken!(subject.record_answer(*id, accepted("engine"), now(1_000))))
        }));
    let arrivals = join_all(jobs.iter().map(async |id| {
        let arrive = || {
            let to = Addressee::Job(*id);
            arrival(to, DeliveryId::new(now(1_001)), 1_001, r#"{"success":true}"#)
        };
        taken!(subject.receive(arrive()))
    }));
    tokio::join!(answers, arrivals);
    for id in jobs {
        let job = found(taken!(subject.job(id)));
        assert_eq!(job.status, JobStatus::Succeeded);
        assert_eq!(job.engine_job_id.as_deref(), Some("engine"));
        assert_eq!((job.submitted_at, job.finished_at), (Some(now(1_000)), Some(now(1_001))));
        let mut events = timeline(subject, id).await;
        events.sort();
        assert_eq!(events, ["job.finished", "job.submitted"]);
    }
}

async fn a_result_that_many_ask_for_is_answered_to_each(subject: &Subject) {
    // Small and large bodies, a job without a result, and one that nobody knows.
    let mut expected = Vec::new();
    for (number, padding) in [(1, 10), (2, 200_000), (3, 64 * 1024), (4, 0)] {
        let job = begun(subject, number).await.id;
        let body = format!(r#"{{"success":true,"padding":"{}"}}"#, "x".repeat(padding));
        let arrive = || arrival(Addressee::Job(job), DeliveryId::new(now(number)), number, &body);
        taken!(subject.receive(arrive()));
        expected.push((job, Some(body)));
    }
    expected.push((begun(subject, 5).await.id, None));
    join_all((0..MANY).map(async |number| {
        let (job, body) = &expected[number as usize % expected.len()];
        let result = found(taken!(subject.result(*job)));
        assert_eq!(
            result.as_ref().map(|result| &result.body[..]),
            body.as_ref().map(String::as_bytes)
        );
        let digest = taken!(subject.result_digest(*job));
        assert_eq!(digest, result.map(|result| result.sha256));
    }))
    .await;
    assert_eq!(taken!(subject.result_digest(JobId::new(now(9)))), None);
}
