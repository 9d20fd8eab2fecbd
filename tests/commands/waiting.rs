//! Waiting for jobs.

use std::{
    io::Write,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    http::{StatusCode, Uri},
};
use serde_json::json as json_of;

use crate::{
    ask, assert_failed, json,
    process::{Process, command},
    shown,
    support::{Service, Setup, http_client, ready_job, serve, text, wait_for},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_ends_when_the_job_does() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let mut waiting = Process::start(&service, &["jobs", "wait", id]);
    service.finish(&job).await;
    assert_eq!(waiting.ended().await, Some(0));
    let over = ask(&service, &["jobs", "wait", id, "--timeout", "1h"]).await;
    assert_eq!(shown(&over), format!("{id}  succeeded\n"));
    let over = ask(&service, &["jobs", "wait", id, "--json"]).await;
    assert_eq!(json(&over), service.job(id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_failed_ends_with_1() {
    let service = Service::start().await;
    service.engine.set(|options| options.fail_job = "always".parse().unwrap());
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    let ended = ask(&service, &["jobs", "wait", text(&job["id"])]).await;
    assert_eq!((ended.code, ended.stdout), (Some(1), format!("{}  failed\n", text(&job["id"]))));

    service.engine.set(|options| options.answer = Some(400));
    service.submit(&ready_job()).await.expect(422);
    let rejected = text(&service.jobs().await[0]["id"]).to_owned();
    let ended = ask(&service, &["jobs", "wait", &rejected, "--json"]).await;
    assert_eq!((ended.code, json(&ended)["status"].clone()), (Some(1), json_of!("rejected")));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_time_is_up_it_ends_with_4_and_says_how_to_go_on() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    for timeout in ["0s", "300ms", "1s"] {
        let ended = ask(&service, &["jobs", "wait", id, "--json", "--timeout", timeout]).await;
        assert_eq!(ended.code, Some(4), "{ended:?}");
        let line = format!("resume with: finishline jobs wait {id}\n");
        assert!(ended.stderr.ends_with(&line), "{}", ended.stderr);
        assert_eq!(json(&ended)["status"], "submitted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_service_does_not_end_the_wait() {
    let mut service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    // Stands between, to know when the waiter waits; answers 502 while there is no service.
    let (calls, api) = (Arc::new(AtomicUsize::new(0)), service.api.clone());
    let seen = calls.clone();
    let proxy = Router::new().fallback(async move |uri: Uri| {
        seen.fetch_add(usize::from(uri.to_string().contains("wait=60")), Ordering::SeqCst);
        let answer = http_client().get(format!("{api}{uri}")).send().await;
        let answer = answer.map_err(|_| StatusCode::BAD_GATEWAY)?;
        answer.bytes().await.map_err(|_| StatusCode::BAD_GATEWAY)
    });
    let proxy = serve(proxy).await;
    let args = ["jobs", "wait", text(&job["id"]), "--api", &proxy];
    let mut waiting = Process::start(&service, &args);
    let called = async |count| {
        let so_many = async || (calls.load(Ordering::SeqCst) >= count).then_some(());
        wait_for("the waiter's call", so_many).await;
    };
    called(1).await;
    service.stop().await;
    waiting.says("again in").await;
    service.start_again().await;
    called(2).await;
    service.finish(&job).await;
    assert_eq!(waiting.ended().await, Some(0), "{:?}", waiting.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_may_be_waited_for() {
    let service = Setup::new().finishing_at_once().start().await;
    std::fs::write(service.folder().join("job.json"), ready_job().to_string()).unwrap();
    let ended = ask(&service, &["submit", "job.json", "--wait", "--json"]).await;
    assert_eq!((ended.code, json(&ended)["status"].clone()), (Some(0), json_of!("succeeded")));

    service.engine.set(|options| options.fail_job = "always".parse().unwrap());
    let ended = ask(&service, &["submit", "job.json", "--wait"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("failed"), "{}", ended.stdout);

    let body = json_of!({
        "inputFiles": { "cbct": { "extension": ".dcm" } },
        "outputFiles": { "meshes": [{ "extension": ".stl", "structures": ["mandible"] }] },
    });
    std::fs::write(service.folder().join("job.json"), body.to_string()).unwrap();
    let ended = ask(&service, &["submit", "job.json", "--wait", "--timeout", "100ms"]).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("upload of: cbct"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_come_through_a_pipe() {
    let service = Service::start().await;
    let mut command = command(&service, &["submit", "-", "--json"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(ready_job().to_string().as_bytes()).unwrap();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let job: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(job["status"], "submitted");
    let missing = ask(&service, &["submit", "no-such-file.json"]).await;
    assert_failed(&missing, 2, &["no-such-file.json"]);
}
