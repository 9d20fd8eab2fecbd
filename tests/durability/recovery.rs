//! Jobs that are not on record, and jobs that are no longer.
//!
//! The invariant: a callback that proves itself is never turned away for want of a job, save where
//! the job was erased on purpose.

use finishline::domain::ids::JobId;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{evidence::*, node::Node, support::*};

/// A callback address that proves itself for a job nobody knows.
async fn recovered(service: &Service) -> (String, String) {
    let (key, id) = (signing_key(&service.database).await, unknown_job());
    (id.to_string(), format!("{}{}", service.callbacks, callback_path(&key, id)))
}

#[tokio::test]
async fn a_result_for_an_unknown_job_makes_the_job() {
    let service = Service::start().await;
    let (id, url) = recovered(&service).await;
    service.get(&format!("/v1/jobs/{id}")).await.problem(404, "not-found");
    let body = json!({"jobId": "engine-7", "success": true, "outputFiles": {
        "meshes": [
            {"extension": ".stl", "structures": ["skull"], "status": "Failed"},
            {"extension": ".ply", "status": "Available", "downloadUrl": "https://store.example/2"},
        ],
        "report": {"status": "Missing"},
    }})
    .to_string();
    assert_eq!(service.outcome(&url, body.clone()).await, "stored");
    let job = service.job(&id).await;
    for (name, expected) in [
        ("id", json!(id)),
        ("origin", json!("recovered")),
        ("status", json!("partial")),
        ("success", json!(true)),
        ("engineJobId", json!("engine-7")),
        ("request", Value::Null),
        ("engineResponse", Value::Null),
        ("submittedAt", Value::Null),
        ("inputs", json!([])),
        ("deliveries", json!(1)),
    ] {
        assert_eq!(job[name], expected, "{name}: {job}");
    }
    assert_eq!(job["createdAt"], job["finishedAt"]);
    let outputs = job["outputs"].as_array().expect("a list");
    let shown: Vec<_> = outputs
        .iter()
        .map(|output| (text(&output["name"]), text(&output["status"]), output["url"].as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("meshes-0", "Failed", None),
            ("meshes-1", "Available", Some("https://store.example/2")),
            ("report-0", "Missing", None),
        ]
    );
    assert_eq!(service.get(&format!("/v1/jobs/{id}/result")).await.expect(200).body, body);
    assert_eq!(service.event_types(&id).await, ["job.recovered", "job.finished"]);
    assert_eq!(service.jobs().await, [job]);

    // From here on it is a job like any other.
    assert_eq!(service.outcome(&url, body.clone()).await, "duplicate");
    let renewed = body.replace("example/2", "example/3");
    assert_eq!(service.outcome(&url, renewed).await, "refreshed");
    assert_eq!(service.job(&id).await["outputs"][1]["url"], "https://store.example/2");
    assert_eq!(service.outcome(&url, r#"{"success":false}"#).await, "conflict");
    assert_eq!(service.job(&id).await["status"], "partial");
    assert_eq!(service.get(&format!("/v1/jobs/{id}/result")).await.body, body);
}

#[tokio::test]
async fn an_unknown_job_is_made_even_by_what_is_no_result() {
    let service = Service::start().await;
    let (id, url) = recovered(&service).await;
    service.post_to(&url, "not JSON").await.problem(400, "malformed-json");
    let job = service.job(&id).await;
    assert_eq!((&job["origin"], &job["success"]), (&json!("recovered"), &Value::Null));
    assert!(job["finishedAt"].is_null());
    assert_eq!(service.outcome(&url, "{}").await, "unrecognised");
    assert_eq!(service.outcome(&url, r#"{"success":false}"#).await, "stored");
    assert_eq!(service.job(&id).await["status"], "failed");
    assert_eq!(
        service.event_types(&id).await,
        ["job.recovered", "delivery.malformed", "delivery.unrecognised", "job.finished"]
    );
}

#[tokio::test]
async fn a_job_that_a_restored_backup_does_not_know_is_recovered_by_its_callback() {
    let mut node = Node::start(|_| {}).await;
    let submit = async |node: &Node| {
        let request = node.request(Method::POST, "/v1/jobs").body(ready_job().to_string());
        Answer::of(request.header("content-type", "application/json")).await.expect(201).json()
    };
    let older = submit(&node).await;
    assert_eq!(node.release().terminate().await.code, Some(0));
    // Closed, so that the file is whole without its log.
    let backup = std::fs::read(node.database()).expect("the database");
    node.serve().await;
    let newer = submit(&node).await;
    node.kill();
    for file in std::fs::read_dir(node.folder.path()).expect("a folder") {
        std::fs::remove_file(file.expect("a file").path()).expect("it goes");
    }
    std::fs::write(node.database(), backup).expect("the backup is restored");
    node.serve().await;
    let id = text(&newer["id"]);
    node.get(&format!("/v1/jobs/{id}")).await.problem(404, "not-found");

    // The Engine knows nothing of that, and calls back as it was told.
    for job in [&newer, &older] {
        assert!(node.engine.finish(text(&job["engineJobId"])));
    }
    within(node.engine.wait_until(|engine| engine.callbacks().len() == 2)).await;
    for (job, origin, events) in [
        (&newer, "recovered", ["job.recovered", "job.finished"]),
        (&older, "submitted", ["job.submitted", "job.finished"]),
    ] {
        let id = text(&job["id"]);
        let sent = node.engine.callbacks().into_iter().find(|sent| sent.url.contains(id));
        let sent = sent.expect("its callback");
        assert_eq!(sent.status, Some(200));
        let found = node.job(id).await;
        assert_eq!(found["origin"], origin);
        assert_eq!(found["status"], "succeeded");
        assert_eq!(found["engineJobId"], job["engineJobId"]);
        assert_eq!(node.get(&format!("/v1/jobs/{id}/result")).await.body, sent.body);
        assert_eq!(node.event_types(id).await, events);
    }
}

#[tokio::test]
async fn a_callback_for_an_erased_job_is_gone_and_leaves_nothing() {
    let service = Setup::new().set("CALLBACKS__MAX_BODY", "4KiB").start().await;
    let (id, url) = running_job(&service).await;
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
    service.delete(&format!("/v1/jobs/{id}")).await.expect(200);
    let mut database = connect(&service.database).await;
    let before = count(&mut database, "select count(*) from events").await;
    let oversize = "x".repeat(5_000);
    for body in [r#"{"success":true}"#, r#"{"success":false}"#, "{}", "not JSON", "", &oversize] {
        service.post_to(&url, body.to_owned()).await.problem(410, "gone");
    }
    service.get(&format!("/v1/jobs/{id}")).await.problem(410, "gone");
    for question in [
        "select count(*) from jobs",
        "select count(*) from deliveries",
        "select count(*) from delivery_bodies",
    ] {
        assert_eq!(count(&mut database, question).await, 0, "{question}");
    }
    assert_eq!(count(&mut database, "select count(*) from events").await, before);
    assert_eq!(before, 1, "the tombstone");
}

#[tokio::test]
async fn addresses_stay_good_over_restarts() {
    let mut service = Service::start().await;
    let (first, first_url) = running_job(&service).await;
    let key = signing_key(&service.database).await;
    service.restart().await;
    assert_eq!(signing_key(&service.database).await, key);
    assert_eq!(service.outcome(&first_url, r#"{"success":true}"#).await, "stored");
    let (second, second_url) = running_job(&service).await;
    service.restart().await;
    assert_eq!(service.outcome(&first_url, r#"{"success":true}"#).await, "duplicate");
    assert_eq!(service.outcome(&second_url, r#"{"success":true}"#).await, "stored");
    for id in [&first, &second] {
        assert!(id.parse::<JobId>().is_ok());
        assert_eq!(service.job(id).await["status"], "succeeded");
    }
}
