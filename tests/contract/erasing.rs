//! Erasure: a job and everything of it, gone for good.
//!
//! The invariant: what was erased is in no answer and in no file any more.

use std::{path::Path, time::Duration};

use reqwest::Method;
use serde_json::json;

use crate::support::*;

/// Every address that leads to something of a job.
fn paths(id: &str) -> Vec<String> {
    ["", "/result", "/deliveries", "/events"].map(|path| format!("/v1/jobs/{id}{path}")).into()
}

async fn erase(service: &Service, what: &str) -> u64 {
    let answer = service.delete(&format!("/v1/jobs{what}")).await.expect(200).json();
    assert_eq!(answer.as_object().map(serde_json::Map::len), Some(1), "{answer}");
    answer["erased"].as_u64().expect("a number")
}

#[tokio::test]
async fn an_erased_job_is_gone_and_its_late_callback_is_refused() {
    let service = Service::start().await;
    let finished = service.submitted(&ready_job()).await;
    let running = service.submitted(&ready_job()).await;
    let kept = service.submitted(&ready_job()).await;
    service.finish(&finished).await;
    for job in [&finished, &running] {
        let id = text(&job["id"]);
        let deliveries = service.get(&format!("/v1/jobs/{id}/deliveries")).await.json();
        assert_eq!(erase(&service, &format!("/{id}")).await, 1);
        service.delete(&format!("/v1/jobs/{id}")).await.problem(410, "gone");
        for path in paths(id) {
            service.get(&path).await.problem(410, "gone");
        }
        for delivery in deliveries["deliveries"].as_array().expect("a list") {
            for path in ["", "/body"] {
                let path = format!("/v1/deliveries/{}{path}", text(&delivery["id"]));
                service.get(&path).await.problem(404, "not-found");
            }
        }
        let url = service.callback_url(id);
        for body in [r#"{"success":true}"#, "not json", ""] {
            service.post_to(&url, body).await.problem(410, "gone");
        }
        service.get(&format!("/v1/jobs/{id}")).await.problem(410, "gone");
    }
    let jobs = service.jobs().await;
    assert_eq!((jobs.len(), &jobs[0]["id"]), (1, &kept["id"]));
    assert!(service.engine.finish(text(&running["engineJobId"])));
    within(service.engine.wait_until(|engine| engine.callbacks().len() == 2)).await;
    assert_eq!(service.engine.callbacks()[1].status, Some(410), "the real callback too");
}

#[tokio::test]
async fn an_erasure_is_remembered_after_a_restart() {
    let mut service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    erase(&service, &format!("/{id}")).await;
    service.restart().await;
    service.get(&format!("/v1/jobs/{id}")).await.problem(410, "gone");
    service.post_to(&service.callback_url(id), r#"{"success":true}"#).await.problem(410, "gone");
    assert!(service.jobs().await.is_empty());
}

#[tokio::test]
async fn all_jobs_of_an_end_user_are_erased_and_nobody_else_s() {
    let service = Service::start().await;
    let of = |user: &str| ready_job_with(json!({"endUserId": user}));
    // More than one batch of the eraser.
    let (one, two) = (of("user 1&2"), of("user 1"));
    let mut erased = Vec::new();
    for _ in 0..5 {
        let jobs = futures_util::future::join_all((0..30).map(|_| service.submitted(&one))).await;
        erased.extend(jobs);
    }
    let kept = service.submitted(&two).await;
    let bare = service.submitted(&ready_job()).await;
    assert_eq!(erase(&service, "?endUserId=nobody").await, 0);
    assert_eq!(erase(&service, "?endUserId=user+1%262").await, 150);
    assert_eq!(erase(&service, "?endUserId=user+1%262").await, 0);
    let left: Vec<_> = service.jobs().await.iter().map(|job| job["id"].clone()).collect();
    assert_eq!(left, [bare["id"].clone(), kept["id"].clone()]);
    for job in [&erased[0], &erased[149]] {
        service.get(&format!("/v1/jobs/{}", text(&job["id"]))).await.problem(410, "gone");
    }
}

#[tokio::test]
async fn a_job_may_be_erased_while_it_is_being_submitted() {
    let setup = Setup::new().engine(|options| options.reply_delay = Duration::from_secs(1));
    let service = setup.start().await;
    let request = service.request(Method::POST, "/v1/jobs").body(ready_job().to_string());
    let submission = tokio::spawn(Answer::of(request));
    within(service.engine.wait_until(|engine| engine.jobs().len() == 1)).await;
    let id = service.jobs().await[0]["id"].clone();
    assert_eq!(erase(&service, &format!("/{}", text(&id))).await, 1);
    submission.await.expect("an answer").problem(410, "gone");
    assert!(service.jobs().await.is_empty());
    let url = service.callback_url(text(&id));
    service.post_to(&url, r#"{"success":true}"#).await.problem(410, "gone");
}

/// The files of the service that hold these bytes.
fn files_with(folder: &Path, mark: &str) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("a folder");
    let files = files.map(|file| file.expect("a file").path());
    let holds = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).expect("a readable file");
        String::from_utf8_lossy(&bytes).contains(mark)
    };
    files.filter(holds).map(|path| path.display().to_string()).collect()
}

#[tokio::test]
async fn erased_bytes_are_in_no_file_of_the_database() {
    let service = Service::start().await;
    let body = |tail: &str| {
        ready_job_with(json!({
            "endUserId": format!("mark-user-{tail}"),
            "cloudPackage": format!("mark-package-{tail}"),
            "externalJobId": format!("mark-external-{tail}"),
            "options": {"note": format!("mark-options-{tail}")},
            "finishline": {"reference": format!("mark-reference-{tail}")},
        }))
    };
    let mut jobs = Vec::new();
    for tail in ["one", "kept", "two"] {
        let key = format!("mark-key-{tail}");
        let job = service.submit_once(&key, &body(tail).to_string()).await.expect(201).json();
        let url = service.callback_url(text(&job["id"]));
        let pages = format!("mark-result-{tail} ").repeat(5_000);
        let result = json!({"success": true, "outputFiles": {"meshes": [{"status": "Available",
            "url": format!("https://store.example/mark-link-{tail}")}]}, "big": pages});
        for result in [result.to_string(), format!("mark-malformed-{tail}")] {
            let request = service.request_to(Method::POST, &url);
            let request = request.header("x-mark", format!("mark-header-{tail}"));
            assert!(matches!(Answer::of(request.body(result)).await.status, 200 | 400));
        }
        jobs.push(job);
    }
    let kinds = [
        "user",
        "package",
        "external",
        "options",
        "reference",
        "result",
        "link",
        "malformed",
        "header",
    ];
    for kind in kinds {
        for tail in ["one", "two", "kept"] {
            let mark = format!("mark-{kind}-{tail}");
            assert!(!files_with(service.folder(), &mark).is_empty(), "{mark} is on record");
        }
    }
    assert_eq!(erase(&service, &format!("/{}", text(&jobs[0]["id"]))).await, 1);
    assert_eq!(erase(&service, "?endUserId=mark-user-two").await, 1);
    for kind in kinds.into_iter().chain(["key"]) {
        for tail in ["one", "two"] {
            let mark = format!("mark-{kind}-{tail}");
            assert_eq!(files_with(service.folder(), &mark), [""; 0], "{mark}");
        }
    }
    let kept = service.job(text(&jobs[1]["id"])).await;
    assert_eq!((&kept["status"], &kept["deliveries"]), (&json!("succeeded"), &json!(2)));
    assert!(!files_with(service.folder(), "mark-result-kept").is_empty());
}

#[tokio::test]
async fn an_erased_job_leaves_a_tombstone_and_no_trace_in_answers() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    service.finish(&job).await;
    assert_eq!(files_with(service.folder(), "job.erased"), [""; 0]);
    erase(&service, &format!("/{id}")).await;
    assert!(!files_with(service.folder(), "job.erased").is_empty(), "the tombstone is on record");
    assert_eq!(files_with(service.folder(), "job.finished"), [""; 0], "the timeline is not");
    service.get(&format!("/v1/jobs/{id}/events")).await.problem(410, "gone");
    assert_eq!(service.get("/v1/stats").await.expect(200).json()["jobs"], 0);
}
