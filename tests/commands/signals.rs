//! The demo and the service, ended by a signal or by a reader that closes the pipe.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    process::{Process, command_in},
    support::{Program, wait_for, within},
};

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("a folder").count()
}

fn demo(folder: &Path, args: &[&str]) -> Command {
    let all = [&["demo"], args].concat();
    let mut command = command_in(folder, "", &all);
    command.env("TMPDIR", folder);
    command
}

/// When a signal comes.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The temporary folder is there and nothing else need be.
    Folder,
    FirstLine,
    Submitted,
    Told,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_at_the_first_signal_at_any_time_and_leaves_nothing() {
    for moment in [Moment::Folder, Moment::FirstLine, Moment::Submitted, Moment::Told] {
        for signal in ["-INT", "-TERM", "-HUP"] {
            let folder = tempfile::tempdir().unwrap();
            let mut process = Process::of(demo(folder.path(), &[]));
            wait_for(&format!("{moment:?}"), async || {
                let stdout = process.stdout();
                let has = |words: &str| stdout.iter().any(|line| line.contains(words));
                let is_here = match moment {
                    Moment::Folder => files_in(folder.path()) > 0,
                    Moment::FirstLine => !stdout.is_empty(),
                    Moment::Submitted => has("201 Created"),
                    Moment::Told => has("keeps running"),
                };
                is_here.then_some(())
            })
            .await;
            process.signal(signal);
            let code = process.ended().await;
            let expected = if matches!(moment, Moment::Told) { 0 } else { 130 };
            assert_eq!(code, Some(expected), "{moment:?} {signal}: {:?}", process.stderr());
            assert_eq!(files_in(folder.path()), 0, "{moment:?} {signal}");
            assert_eq!(process.stderr(), [""; 0], "{moment:?} {signal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_quietly_when_nobody_reads_any_more() {
    for lines in [0, 1, 7] {
        for args in [&["--once"][..], &[]] {
            let folder = tempfile::tempdir().unwrap();
            let mut child = demo(folder.path(), args).spawn().unwrap();
            let mut stdout = BufReader::new(child.stdout.take().unwrap());
            for _ in 0..lines {
                stdout.read_line(&mut String::new()).unwrap();
            }
            drop(stdout);
            let output = tokio::task::spawn_blocking(|| child.wait_with_output());
            let output = within(output).await.unwrap().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{lines} {args:?}");
            assert_eq!(files_in(folder.path()), 0, "{lines} {args:?}");
        }
    }
}

#[tokio::test]
async fn a_demo_without_a_place_says_what_to_do_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command_in(folder.path(), "", &["demo", "--once"]);
    command.env("TMPDIR", folder.path().join("not-there"));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains("TMPDIR") && stderr.contains("not-there"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_outlives_the_terminal_that_started_it() {
    let folder = tempfile::tempdir().unwrap();
    let program =
        Program::serve(folder.path(), &[("CALLBACKS__PUBLIC_URL", "https://hooks.example.com")]);
    let program = program.await;
    let id = program.id().to_string();
    Command::new("kill").args(["-HUP", &id]).stdin(Stdio::null()).status().expect("kill");
    program.said("SIGHUP: settings are read at the start only").await;
    assert_eq!(program.terminate().await.code, Some(0));
}
