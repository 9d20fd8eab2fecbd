//! As a part of a shell's command line: pipes, terminals, completions.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Command, Stdio},
};

use crate::{
    ask, ask_with,
    process::{Process, command},
    shown,
    support::{Service, Setup, ready_job, ready_job_with, run_program, text, within},
};

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_may_stop_at_any_time() {
    let service = Setup::new().engine(|options| options.result_padding = 400_000).start().await;
    // More than a pipe holds, so that the rest is written when nobody reads any more.
    let long = "x".repeat(200);
    for _ in 0..150 {
        let label = serde_json::json!({ "finishline": { "reference": long } });
        service.submitted(&ready_job_with(label)).await;
    }
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    let id = text(&job["id"]);
    for args in [
        &["jobs", "list", "--all"][..],
        &["jobs", "list", "--all", "--json"],
        &["jobs", "result", id],
        &["events"],
        &["events", "--json"],
        &["completions", "bash"],
    ] {
        let mut child = command(&service, args).spawn().unwrap();
        let mut first = [0; 1];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = tokio::task::spawn_blocking(|| child.wait_with_output());
        let output = within(output).await.unwrap().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_ends_when_nobody_reads_any_more() {
    let service = Service::start().await;
    service.submitted(&ready_job()).await;
    let mut child = command(&service, &["events", "--follow", "--after", "0"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    service.submitted(&ready_job()).await;
    let ended = tokio::task::spawn_blocking(move || child.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_for_terminals() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    let show = ["jobs", "show", text(&job["id"])];
    let environment = [("TERM", "xterm-256color"), ("CLICOLOR_FORCE", "1")];
    let piped = ask_with(&service, &show, &environment).await;
    assert!(!shown(&piped).contains('\u{1b}'));

    let line = format!("{} {}", env!("CARGO_BIN_EXE_finishline"), show.join(" "));
    for (no_color, is_coloured) in [("", true), ("1", false)] {
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
        script.env("FINISHLINE_API", &service.api).env("TERM", "xterm").env("NO_COLOR", no_color);
        let output = tokio::task::spawn_blocking(move || script.output());
        let output = output.await.unwrap().expect("script, of util-linux");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("succeeded"), "{text}");
        assert_eq!(text.contains("\u{1b}[32m"), is_coloured, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_shows_on_a_terminal_how_long_it_takes() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    let job = service.submitted(&ready_job()).await;
    let line = format!("{} jobs wait {}", env!("CARGO_BIN_EXE_finishline"), text(&job["id"]));
    let mut script = Command::new("script");
    script.args(["-qefc", &line, "/dev/null"]).stdin(Stdio::null());
    script.env("FINISHLINE_API", &service.api).env("TERM", "xterm");
    let mut child = script.stdout(Stdio::piped()).spawn().expect("script, of util-linux");
    let mut stdout = child.stdout.take().unwrap();
    let shown = tokio::task::spawn_blocking(move || {
        let (mut seen, mut piece) = (Vec::new(), [0; 512]);
        while !String::from_utf8_lossy(&seen).contains("half of the jobs take") {
            let read = stdout.read(&mut piece).unwrap();
            assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&piece[..read]);
        }
        (stdout, String::from_utf8_lossy(&seen).into_owned())
    });
    let (stdout, text) = within(shown).await.unwrap();
    assert!(text.contains("the Engine works on it for 00:00:"), "{text}");
    service.finish(&job).await;
    drop(stdout);
    let ended = tokio::task::spawn_blocking(move || child.wait());
    within(ended).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_cannot_steer_the_terminal() {
    let service = Service::start().await;
    let label = serde_json::json!({ "finishline": { "reference": "\u{1b}[2Jx\r\ny" } });
    service.submitted(&ready_job_with(label)).await;
    let table = ask(&service, &["jobs", "list"]).await;
    assert!(shown(&table).contains("\\u{1b}[2Jx\\r\\ny"), "{}", table.stdout);
    assert_eq!(table.stdout.lines().count(), 2);
}

#[tokio::test]
async fn completions_are_scripts_of_their_shell() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = run_program(folder.path(), &["completions", shell], &[]).await;
        for word in ["finishline", "deliveries", "resubmit", "--idempotency-key"] {
            let word = if shell == "fish" { word.trim_start_matches("--") } else { word };
            assert!(shown(&script).contains(word), "{shell}: {word}");
        }
        if shell == "bash" {
            let mut bash = Command::new("bash");
            let mut bash = bash.arg("-n").stdin(Stdio::piped()).spawn().expect("bash");
            bash.stdin.take().unwrap().write_all(script.stdout.as_bytes()).unwrap();
            assert!(bash.wait().unwrap().success());
        }
    }
}

#[tokio::test]
async fn completions_know_the_values_of_a_flag() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = run_program(folder.path(), &["completions", shell], &[]).await;
        for word in ["unconfirmed", "rejected", "partial", "paused", "delivered"] {
            assert!(shown(&script).contains(word), "{shell}: {word}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_nobody_hears_is_no_reason_to_stop() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let line = format!(
        "{} jobs wait {} --timeout 0s 2>&-; echo $?",
        env!("CARGO_BIN_EXE_finishline"),
        text(&job["id"])
    );
    let mut shell = Command::new("bash");
    shell.args(["-c", &line]).env("FINISHLINE_API", &service.api);
    shell.stdout(Stdio::piped()).stderr(Stdio::piped());
    let process = Process::of(shell);
    assert_eq!(process.shows(2).await[1], "4");
}
