//! Results in every dialect of the Engine, through the simulator: what the job's JSON makes of them.
//!
//! The invariant: nothing is guessed; what cannot be matched is shown as such.

use finishline::simulator::{Echo, FaultRate, Options, OutputStatus, ResultShape, UrlField};
use serde_json::{Value, json};

use crate::{evidence::*, support::*};

/// Four meshes of one kind and a second kind that stands alone.
fn wide_job() -> Value {
    ready_job_with(json!({"outputFiles": {
        "meshes": [
            {"extension": ".stl", "structures": ["mandible", "skull"]},
            {"extension": ".stl", "structures": ["tooth18"]},
            {"extension": ".ply", "structures": ["tooth18"]},
            {"extension": ".stl", "structures": ["left_nerve"]},
        ],
        "report": [{"extension": ".pdf"}],
    }}))
}

/// Runs a job on an Engine of this dialect until it has finished; answers the job's JSON.
async fn finished(body: &Value, dialect: impl FnOnce(&mut Options)) -> (Service, Value) {
    let service = Setup::new().engine(dialect).start().await;
    let job = service.submitted(body).await;
    let job = service.finish(&job).await;
    let id = text(&job["id"]);
    let sent = service.engine.callbacks();
    assert_eq!((sent.len(), sent[0].status), (1, Some(200)));
    let result = service.get(&format!("/v1/jobs/{id}/result")).await.expect(200);
    assert_eq!(result.body, sent[0].body, "the result is what the Engine sent");
    (service, job)
}

/// Name, status, and whether there is a link, of each output.
fn shown(job: &Value) -> Vec<(&str, Option<&str>, bool)> {
    let outputs = job["outputs"].as_array().expect("a list").iter();
    outputs
        .map(|output| (text(&output["name"]), output["status"].as_str(), output["url"].is_string()))
        .collect()
}

const NAMES: [&str; 5] = ["meshes-0", "meshes-1", "meshes-2", "meshes-3", "report-0"];

fn all(status: &'static str) -> Vec<(&'static str, Option<&'static str>, bool)> {
    NAMES.map(|name| (name, Some(status), true)).into()
}

#[tokio::test]
async fn an_output_is_shown_as_the_contract_has_it() {
    let (service, job) = finished(&wide_job(), |_| {}).await;
    let outputs = job["outputs"].as_array().expect("a list");
    let link = text(&outputs[0]["url"]);
    assert!(link.starts_with(&service.engine.origin()), "{link}");
    assert_eq!(
        outputs[0],
        json!({"name": "meshes-0", "kind": "meshes", "index": 0, "extension": ".stl",
            "structures": ["mandible", "skull"], "status": "Available", "url": link, "file": null})
    );
    assert_eq!((&outputs[2]["index"], &outputs[2]["extension"]), (&json!(2), &json!(".ply")));
    assert_eq!((&outputs[4]["kind"], &outputs[4]["structures"]), (&json!("report"), &json!([])));
    assert_eq!(shown(&job), all("Available"));
    // The link is the very output's: what it leads to is the file of that name.
    for (position, file) in [(0, "meshes-0.stl"), (2, "meshes-2.ply"), (4, "report-0.pdf")] {
        let link = text(&outputs[position]["url"]);
        assert!(link.contains(file), "{link}");
        Answer::of(service.request_to(reqwest::Method::GET, link)).await.expect(200);
    }
}

#[tokio::test]
async fn every_dialect_of_a_result_reads_the_same() {
    type Dialect = (&'static str, fn(&mut Options));
    let dialects: [Dialect; 8] = [
        ("url", |_| {}),
        ("downloadUrl", |options| options.url_field = UrlField::DownloadUrl),
        ("a single object", |options| options.result_shape = ResultShape::Single),
        ("extension only", |options| options.echo = Echo::Extension),
        ("no echo", |options| options.echo = Echo::Nothing),
        ("no echo, single", |options| {
            options.echo = Echo::Nothing;
            options.result_shape = ResultShape::Single;
            options.url_field = UrlField::DownloadUrl;
        }),
        ("gzip", |options| options.gzip_callbacks = true),
        ("chunked, padded and deep", |options| {
            options.chunked_callbacks = true;
            options.result_padding = 100_000;
            options.result_nesting = 300;
        }),
    ];
    for (name, dialect) in dialects {
        let (_, job) = finished(&wide_job(), dialect).await;
        assert_eq!(job["status"], "succeeded", "{name}");
        assert_eq!(job["success"], true, "{name}");
        assert_eq!(shown(&job), all("Available"), "{name}");
        assert_eq!(job["warnings"], json!([]), "{name}");
        for output in job["outputs"].as_array().expect("a list") {
            let file = format!("{}{}", text(&output["name"]), text(&output["extension"]));
            let link = text(&output["url"]);
            assert!(link.contains(&file), "{name}: {link} is not that of {file}");
        }
    }
}

#[tokio::test]
async fn a_single_output_may_stand_without_a_list() {
    let (service, job) = finished(&ready_job(), |options| {
        options.result_shape = ResultShape::Single;
        options.status_success = true;
    })
    .await;
    let sent = service.engine.callbacks().remove(0).body;
    let sent: Value = serde_json::from_slice(&sent).expect("JSON");
    assert!(sent["outputFiles"]["meshes"].is_object(), "the dialect is spoken: {sent}");
    assert_eq!(shown(&job), [("meshes-0", Some("Success"), true)]);
    assert_eq!(job["status"], "succeeded");
}

#[tokio::test]
async fn the_status_success_counts_as_available_and_keeps_its_spelling() {
    let (_, job) = finished(&wide_job(), |options| options.status_success = true).await;
    assert_eq!(shown(&job), all("Success"));
    assert_eq!((&job["status"], &job["success"]), (&json!("succeeded"), &json!(true)));
}

#[tokio::test]
async fn a_missing_output_is_no_failure() {
    for echo in [Echo::All, Echo::Nothing] {
        let (service, job) = finished(&wide_job(), |options| {
            options.missing = vec!["tooth18".into()];
            options.echo = echo;
        })
        .await;
        assert_eq!((&job["status"], &job["success"]), (&json!("succeeded"), &json!(true)));
        let mut expected = all("Available");
        expected[1] = ("meshes-1", Some("Missing"), false);
        expected[2] = ("meshes-2", Some("Missing"), false);
        assert_eq!(shown(&job), expected);
        let outputs = &service.engine.jobs()[0].outputs;
        assert_eq!(outputs[1].status, Some(OutputStatus::Missing), "the Engine meant that one");
    }
}

#[tokio::test]
async fn everything_missing_is_still_a_success() {
    let kinds = || vec!["meshes".to_owned(), "report".to_owned()];
    let (_, job) = finished(&wide_job(), |options| options.missing = kinds()).await;
    assert_eq!(job["status"], "succeeded");
    assert!(shown(&job).iter().all(|(_, status, link)| *status == Some("Missing") && !link));
}

#[tokio::test]
async fn a_failed_output_makes_the_job_partial() {
    let (_, job) = finished(&wide_job(), |options| {
        options.failed = vec!["left_nerve".into()];
        options.missing = vec!["tooth18".into()];
    })
    .await;
    assert_eq!((&job["status"], &job["success"]), (&json!("partial"), &json!(true)));
    let statuses: Vec<_> = shown(&job).into_iter().map(|(_, status, _)| status).collect();
    let [available, missing, failed] = ["Available", "Missing", "Failed"].map(Some);
    assert_eq!(statuses, [available, missing, missing, failed, available]);
}

#[tokio::test]
async fn a_job_that_failed_as_a_whole_has_failed() {
    let (service, job) =
        finished(&wide_job(), |options| options.fail_job = FaultRate::Always).await;
    assert_eq!((&job["status"], &job["success"]), (&json!("failed"), &json!(false)));
    assert_eq!(shown(&job), NAMES.map(|name| (name, None, false)));
    let events = service.events(text(&job["id"])).await;
    let last = events.last().expect("an event");
    assert_eq!(
        (&last["type"], &last["data"]["status"]),
        (&json!("job.finished"), &json!("failed"))
    );
    assert_eq!(last["data"]["success"], false);
}

#[tokio::test]
async fn unequal_lists_without_an_echo_are_matched_to_nothing() {
    let service = Service::start().await;
    let job = service.submitted(&wide_job()).await;
    let id = text(&job["id"]);
    let body = json!({"success": true, "outputFiles": {"meshes": [
        {"status": "Available", "url": "https://store.example/1"},
        {"status": "Failed"},
    ], "report": [{"status": "Available", "url": "https://store.example/3"}]}});
    assert_eq!(service.outcome(&service.callback_url(id), body.to_string()).await, "stored");
    let job = service.job(id).await;
    let unmatched =
        [("unmatched-0", Some("Available"), true), ("unmatched-1", Some("Failed"), false)];
    let mut expected: Vec<_> = NAMES[..4].iter().map(|name| (*name, None, false)).collect();
    expected.push(("report-0", Some("Available"), true));
    expected.extend(unmatched);
    assert_eq!(shown(&job), expected);
    assert_eq!(job["status"], "partial", "a failure is one even where it matches nothing");
    assert_eq!(job["outputs"][5]["index"], Value::Null);
    assert_eq!(job["warnings"].as_array().map(Vec::len), Some(1), "and somebody is told");
}

#[tokio::test]
async fn echoed_outputs_are_matched_whatever_their_order() {
    let service = Service::start().await;
    let job = service.submitted(&wide_job()).await;
    let id = text(&job["id"]);
    let body = json!({"success": true, "outputFiles": {"report": {"status": "Available"}, "meshes": [
        {"extension": ".ply", "structures": ["tooth18"], "status": "b"},
        {"extension": ".stl", "structures": ["tooth18"], "status": "a"},
        {"extension": ".stl", "structures": ["skull", "mandible"], "status": "c"},
        {"extension": ".obj", "structures": ["left_nerve"], "status": "d"},
    ]}});
    assert_eq!(service.outcome(&service.callback_url(id), body.to_string()).await, "stored");
    let job = service.job(id).await;
    let statuses: Vec<_> =
        shown(&job).into_iter().map(|(name, status, _)| (name, status)).collect();
    assert_eq!(
        statuses,
        [
            ("meshes-0", Some("c")),
            ("meshes-1", Some("a")),
            ("meshes-2", Some("b")),
            ("meshes-3", None),
            ("report-0", Some("Available")),
            ("unmatched-0", Some("d")),
        ]
    );
}

#[tokio::test]
async fn a_job_with_as_many_files_as_a_job_may_have_is_taken_and_finished() {
    let service = Service::start().await;
    let meshes = vec![json!({"extension": ".stl", "structures": ["skull"]}); 1_000];
    let input = json!({"extension": ".dcm", "downloadUrl": "https://store.example/scan.dcm"});
    let inputs: serde_json::Map<_, _> =
        (0..100).map(|number| (format!("scan{number}"), input.clone())).collect();
    let body = ready_job_with(json!({"inputFiles": inputs, "outputFiles": {"meshes": meshes}}));
    let job = service.submitted(&body).await;
    assert_eq!(job["outputs"].as_array().map(Vec::len), Some(1_000));
    assert_eq!(job["inputs"].as_array().map(Vec::len), Some(100));
    let id = text(&job["id"]);
    let url = service.callback_url(id);
    assert_eq!(
        service.outcome(&url, result("Available", "https://store.example/1")).await,
        "stored"
    );
    assert_eq!(service.job(id).await["status"], "succeeded");
}

#[tokio::test]
async fn unknown_statuses_are_shown_as_spelled_and_make_nothing_fail() {
    let service = Service::start().await;
    for status in ["available", "AVAILABLE", "Pending review", "Übersprungen", "", "Failure"] {
        let (id, url) = running_job(&service).await;
        assert_eq!(
            service.outcome(&url, result(status, "https://store.example/1")).await,
            "stored"
        );
        let job = service.job(&id).await;
        assert_eq!(job["outputs"][0]["status"], status);
        assert_eq!(job["status"], "succeeded", "{status}");
    }
    // A status that is no text is none.
    let (id, url) = running_job(&service).await;
    let body = r#"{"success":true,"outputFiles":{"meshes":[{"status":7,"url":["x"]}]}}"#;
    assert_eq!(service.outcome(&url, body).await, "stored");
    let job = service.job(&id).await;
    assert_eq!(shown(&job), [("meshes-0", None, false)]);
}
