//! Erasing, and the question before it.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::json as json_of;

use crate::{
    ask, assert_failed, json, shown,
    support::{Service, ready_job, ready_job_with, text},
};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_only_yes_erases() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let other = service.submitted(&ready_job()).await;
    let (id, other) = (text(&job["id"]), text(&other["id"]));
    assert_failed(&ask(&service, &["jobs", "erase", id]).await, 2, &["--yes"]);
    assert_failed(&ask(&service, &["jobs", "erase", "--end-user", "x"]).await, 2, &["--yes"]);
    assert_eq!(service.jobs().await.len(), 2);
    assert_eq!(shown(&ask(&service, &["jobs", "erase", "--yes", id]).await), "erased: 1\n");

    let some = ask(&service, &["jobs", "erase", "--yes", "--json", id, other]).await;
    assert_eq!((some.code, json(&some)), (Some(1), json_of!({ "erased": 1 })));
    assert!(some.stderr.contains(id) && some.stderr.contains("gone"), "{}", some.stderr);
    assert_failed(&ask(&service, &["jobs", "show", id]).await, 1, &["gone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_jobs_of_an_end_user_go_together() {
    let service = Service::start().await;
    for end_user in ["clinic 7", "clinic 7", "clinic 8"] {
        service.submitted(&ready_job_with(json_of!({ "endUserId": end_user }))).await;
    }
    let erased = ask(&service, &["jobs", "erase", "--end-user", "clinic 7", "--yes"]).await;
    assert_eq!(shown(&erased), "erased: 2\n");
    let none = ask(&service, &["jobs", "erase", "--end-user", "clinic 9", "--yes"]).await;
    assert_eq!(shown(&none), "erased: 0\n");
    assert_eq!(service.jobs().await.len(), 1);
}

/// `script` lends the command a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_asks_and_no_means_no() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let program = env!("CARGO_BIN_EXE_finishline");
    for (answer, code, left) in [("\n", 1, 1), ("no\n", 1, 1), ("y\n", 0, 0)] {
        let line = format!("{program} jobs erase {}", text(&job["id"]));
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("FINISHLINE_API", &service.api);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("script, of util-linux");
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        let output = tokio::task::spawn_blocking(|| child.wait_with_output());
        let output = output.await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(code), "{answer:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("[y/N]"));
        assert_eq!(service.jobs().await.len(), left, "{answer:?}");
    }
}
