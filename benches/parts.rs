//! What the service does with each request beside storing it: `cargo bench --bench parts`.
//!
//! Nanoseconds of one call on one core. docs/PERFORMANCE.md sets them beside a whole request.

#![allow(clippy::disallowed_methods, reason = "it measures")]

use divan::{Bencher, counter::BytesCount};
use finishline::{
    api,
    domain::{
        ids::JobId,
        job::{Input, InputState, Job, JobStatus, Origin, Output},
        request::{Defaults, JobRequest},
        result::{self, Reading},
        signature,
    },
};
use jiff::Timestamp;
use serde_json::{json, value::RawValue};

/// Bytes of a result; the smallest is that of the other benches.
const BODIES: [usize; 3] = [4 * 1024, 64 * 1024, 1024 * 1024];

/// Outputs of a job.
const OUTPUTS: [usize; 3] = [1, 16, 256];

fn main() {
    divan::main();
}

/// A result with one output and so many bytes in all.
fn body(bytes: usize) -> Vec<u8> {
    let with = |padding: usize| {
        let result = json!({
            "success": true,
            "jobId": "engine-1",
            "outputFiles": {"meshes": [{
                "extension": ".stl", "structures": ["mandible"], "status": "Available",
                "url": "https://store.example/mesh.stl",
            }]},
            "metadata": "m".repeat(padding),
        });
        serde_json::to_vec(&result).expect("JSON")
    };
    with(bytes - with(0).len())
}

fn output(index: u32) -> Output {
    Output {
        name: format!("meshes-{index}"),
        kind: "meshes".into(),
        index: Some(index),
        extension: Some(".stl".into()),
        structures: ["mandible"].iter().collect(),
        status: Some("Available".into()),
        url: Some("https://store.example/mesh.stl".into()),
        file: None,
    }
}

fn job(outputs: usize) -> Job {
    let now = Timestamp::now();
    let body = RawValue::from_string(api::example_job_body().to_string()).expect("JSON");
    Job {
        id: JobId::new(now),
        status: JobStatus::Succeeded,
        success: Some(true),
        overdue: false,
        origin: Origin::Submitted,
        secured: None,
        reference: Some("case-42".into()),
        engine_job_id: Some("engine-1".into()),
        end_user_id: Some("user".into()),
        cloud_package: Some("package".into()),
        external_job_id: None,
        created_at: now,
        submitted_at: Some(now),
        finished_at: Some(now),
        request: Some(body),
        inputs: vec![Input {
            name: "cbct".into(),
            extension: ".dcm".into(),
            upload_url: None,
            notify_url: None,
            state: InputState::Provided,
        }],
        outputs: (0..outputs as u32).map(output).collect(),
        engine_status: Some(200),
        engine_response: RawValue::from_string(r#"{"jobId":"engine-1"}"#.into()).ok(),
        deliveries: 1,
        warnings: Vec::new(),
    }
}

/// From a callback's bytes to the outputs of its job.
#[divan::bench(args = BODIES)]
fn read_a_result(bencher: Bencher<'_, '_>, bytes: usize) {
    let (body, requested) = (body(bytes), [output(0)]);
    let pointers = ["/jobId".to_owned(), "/id".to_owned()];
    bencher.counter(BytesCount::new(bytes)).bench_local(|| match result::read(&body, &pointers) {
        Reading::Result(result) => result.apply(&requested),
        other => panic!("{other:?}"),
    });
}

/// Whether a callback's address is one of ours.
#[divan::bench]
fn check_a_signature(bencher: Bencher<'_, '_>) {
    let (key, id) = ([7; 32], JobId::new(Timestamp::now()));
    let signature = signature::sign(&key, id);
    bencher.bench_local(|| assert!(signature::is_genuine(&key, id, &signature)));
}

/// From a job on record to the bytes of an answer.
#[divan::bench(args = OUTPUTS)]
fn render_a_job(bencher: Bencher<'_, '_>, outputs: usize) {
    let job = job(outputs);
    bencher
        .with_inputs(|| job.clone())
        .bench_local_values(|job| serde_json::to_vec(&api::Job::from(job)).expect("JSON"));
}

/// From a caller's bytes to what is stored and what the Engine is sent.
#[divan::bench]
fn read_a_submission(bencher: Bencher<'_, '_>) {
    let body = api::example_job_body().to_string();
    let callback = "https://hooks.example/callbacks/id/signature";
    bencher.bench_local(|| {
        let mut request = JobRequest::parse(body.as_bytes(), &Defaults::default()).expect("a job");
        let sent = request.engine_body(callback);
        (request.take_stored_body(), sent)
    });
}
