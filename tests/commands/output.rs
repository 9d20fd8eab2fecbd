//! What the commands print where, and what they do if it goes nowhere.

use std::process::{Command, Stdio};

use serde_json::json as json_of;

use crate::{
    ask, assert_failed, json, shown,
    support::{Service, Setup, free_port, ready_job, run_program, text},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_finishline");

/// Runs a line of a shell beside a service; its exit code and standard error.
async fn shell(service: &Service, line: &str) -> (Option<i32>, String) {
    let mut command = Command::new("bash");
    command.args(["-c", line]).current_dir(service.folder()).env("FINISHLINE_API", &service.api);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standard_output_that_takes_nothing_is_a_failure() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    let id = text(&job["id"]);
    let commands = [
        "jobs list".to_owned(),
        "jobs list --json".to_owned(),
        format!("jobs show {id}"),
        format!("jobs result {id}"),
        "events".to_owned(),
        "relays list".to_owned(),
        "key new".to_owned(),
        "completions bash".to_owned(),
        "--help".to_owned(),
        "--version".to_owned(),
        "demo --once".to_owned(),
    ];
    for command in commands {
        for nowhere in [">&-", ">/dev/full"] {
            let (code, stderr) = shell(&service, &format!("{PROGRAM} {command} {nowhere}")).await;
            assert_eq!(code, Some(1), "{command} {nowhere}: {stderr}");
            assert!(stderr.contains("standard output") || command.starts_with("--"), "{stderr}");
        }
        // Whoever wants to see nothing says so.
        let (code, stderr) = shell(&service, &format!("{PROGRAM} {command} >/dev/null")).await;
        assert_eq!(code, Some(0), "{command}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_prints_nothing_needs_no_standard_output() {
    let service = Service::start().await;
    let listen = service.api.strip_prefix("http://").unwrap();
    let line = format!("FINISHLINE__API__LISTEN={listen} {PROGRAM} healthcheck >&-");
    assert_eq!(shell(&service, &line).await, (Some(0), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_colours_on_a_terminal_that_wants_them_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (no_color, term, is_coloured) in
        [("", "xterm", true), ("1", "xterm", false), ("", "dumb", false)]
    {
        // It ends by itself once it has warned: the port is taken.
        let taken = free_port().await;
        let address = taken.local_addr().unwrap().to_string();
        let mut script = Command::new("script");
        script.args(["-qec", &format!("{PROGRAM} serve"), "/dev/null"]).stdin(Stdio::null());
        script.current_dir(folder.path()).env("TERM", term).env("NO_COLOR", no_color);
        script.env("FINISHLINE__CALLBACKS__LISTEN", &address);
        let output = tokio::task::spawn_blocking(move || script.output());
        let output = output.await.unwrap().expect("script, of util-linux");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("WARN") && text.contains(&address), "{text}");
        assert_eq!(text.contains('\u{1b}'), is_coloured, "{no_color:?} {term}: {text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_show_says_why_a_job_is_not_running() {
    let service = Setup::new().set("ENGINE__RETRY_BUDGET", "0s").start().await;
    for (status, answer, words) in [
        ("rejected", 400, &["the Engine answered 400", "would be refused again"][..]),
        ("unsent", 429, &["the Engine answered 429", "safe to send again"]),
        ("unconfirmed", 500, &["the Engine answered 500", "may be running", "paid twice"]),
    ] {
        service.engine.set(|options| options.answer = Some(answer));
        service.submit(&ready_job()).await;
        let job = service.jobs().await[0].clone();
        assert_eq!(job["status"], status);
        let show = ask(&service, &["jobs", "show", text(&job["id"])]).await;
        let line = shown(&show).lines().find(|line| line.starts_with("reason ")).expect("a reason");
        for word in words {
            assert!(line.contains(word), "{word}: {line}");
        }
        let value = json(&ask(&service, &["jobs", "show", text(&job["id"]), "--json"]).await);
        assert_eq!(value["status"], status, "the service's own JSON");
    }
    service.engine.set(|options| options.answer = None);
    let job = service.submitted(&ready_job()).await;
    let show = ask(&service, &["jobs", "show", text(&job["id"])]).await;
    assert!(!shown(&show).contains("reason "), "{}", show.stdout);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = free_port().await;
    let address = taken.local_addr().unwrap().to_string();
    let simulate = ["simulate-engine", "--listen", &address];
    let ended = run_program(folder.path(), &simulate, &[]).await;
    assert_failed(&ended, 1, &[&address, "--listen"]);
    let database = format!("sqlite://{}", folder.path().join("finishline.db").display());
    let settings = [
        ("FINISHLINE__DATABASE__URL", database.as_str()),
        ("FINISHLINE__CALLBACKS__LISTEN", "127.0.0.1:0"),
        ("FINISHLINE__API__LISTEN", &address),
        ("FINISHLINE__LOG__LEVEL", "off"),
    ];
    let ended = run_program(folder.path(), &["serve"], &settings).await;
    assert_failed(&ended, 1, &[&address, "api.listen"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_upload_names_what_is_to_be_given() {
    let service = Service::start().await;
    let body = json_of!({
        "inputFiles": { "cbct": { "extension": ".dcm" } },
        "outputFiles": { "meshes": [{ "extension": ".stl", "structures": ["mandible"] }] },
    });
    let job = service.submitted(&body).await;
    let id = text(&job["id"]);
    for args in [
        &["jobs", "upload", id][..],
        &["jobs", "upload", id, "--quiet"],
        &["jobs", "upload", id, "--content-type", "application/dicom"],
    ] {
        let ended = ask(&service, args).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains("--input"), "{}", ended.stderr);
    }
}
