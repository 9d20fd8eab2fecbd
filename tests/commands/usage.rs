//! What is typed for nothing: flags that a command does not use, variables that nothing reads.

use crate::{
    ask, ask_with, assert_failed,
    support::{Service, run_program},
};

/// Commands that ask no service.
const OFFLINE: [&[&str]; 11] = [
    &["serve"],
    &["demo", "--once"],
    &["simulate-engine"],
    &["check"],
    &["backup", "copy.db"],
    &["rotate-key"],
    &["restore-check", "copy.db"],
    &["verify-files"],
    &["healthcheck"],
    &["key", "new"],
    &["completions", "bash"],
];

const OF_CLIENTS: [&[&str]; 4] = [
    &["--api", "http://127.0.0.1:9"],
    &["--key", "a-key"],
    &["--key-file", "a-file"],
    &["--insecure-http"],
];

#[tokio::test]
async fn a_flag_that_a_command_does_not_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for command in OFFLINE.into_iter().chain([&["relays", "secret", "a.example"][..]]) {
        for flag in OF_CLIENTS {
            for args in [[command, flag].concat(), [flag, command].concat()] {
                let ended = run_program(folder.path(), &args, &[]).await;
                assert_failed(&ended, 2, &["finishline: ", flag[0], command[0]]);
            }
        }
    }
    for command in
        [&["serve"][..], &["demo"], &["simulate-engine"], &["healthcheck"], &["completions", "zsh"]]
    {
        for args in [[command, &["--json"]].concat(), [&["--json"], command].concat()] {
            let ended = run_program(folder.path(), &args, &[]).await;
            assert_failed(&ended, 2, &["--json", command[0]]);
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was begun");
}

#[tokio::test]
async fn a_file_of_settings_is_accepted_everywhere_and_not_ignored_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f.toml"), "").unwrap();
    for command in [&["key", "new"][..], &["completions", "fish"], &["restore-check", "none.db"]] {
        let args = [command, &["--config", "f.toml"]].concat();
        let ended = run_program(folder.path(), &args, &[]).await;
        assert!(ended.stderr.contains("--config has no effect"), "{command:?}: {ended:?}");
        assert_ne!(ended.code, Some(2), "{command:?}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_may_stand_before_a_command_that_prints_it() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["--json", "key", "new"][..],
        &["--json", "restore-check", "none.db"],
        &["restore-check", "none.db", "--json"],
    ] {
        let ended = run_program(folder.path(), args, &[]).await;
        assert!(ended.stdout.starts_with('{'), "{args:?}: {ended:?}");
    }
}

#[tokio::test]
async fn a_variable_is_named_as_the_variable() {
    let folder = tempfile::tempdir().unwrap();
    for (variable, value, args) in [
        ("FINISHLINE_API", "ftp://127.0.0.1", &["jobs", "list"][..]),
        ("FINISHLINE_API", "http://127.0.0.1:8086/v1", &["jobs", "list"]),
        ("FINISHLINE_API", "http://127.0.0.1:8086/?a=b", &["jobs", "list"]),
        ("FINISHLINE_API", "127.0.0.1:8086", &["events"]),
        ("FINISHLINE_API", "http://me:hush@127.0.0.1", &["jobs", "list"]),
        ("FINISHLINE_KEY", "two words", &["relays", "list"]),
        (
            "FINISHLINE_INSECURE_HTTP",
            "perhaps",
            &["jobs", "list", "--key", "k", "--api", "http://a.example"],
        ),
        ("FINISHLINE_FORWARD_SECRET", "hush", &["forward", "--to", "http://127.0.0.1:9"]),
    ] {
        let ended = run_program(folder.path(), args, &[(variable, value)]).await;
        assert_failed(&ended, 2, &[variable]);
        let line = &ended.stderr;
        for flag in ["--api", "--key", "--insecure-http", "--secret", "hush"] {
            assert!(!line.contains(flag), "{flag}: {line}");
        }
    }
    for flag in ["--key", "--secret"] {
        let args = match flag {
            "--key" => &["jobs", "list", "--key", "two words"][..],
            _ => &["forward", "--to", "http://127.0.0.1:9", "--secret", "hush"],
        };
        let ended =
            run_program(folder.path(), args, &[("FINISHLINE_KEY", "of-the-variable")]).await;
        assert_failed(&ended, 2, &[flag]);
    }
    // Who asks no service is not bothered by it.
    let ended = run_program(folder.path(), &["key", "new"], &[("FINISHLINE_API", "ftp://x")]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_nothing_reads_is_told_with_what_was_meant() {
    let service = Service::start().await;
    for (variable, meant) in
        [("FINISHLINE_API_KEY", "FINISHLINE_KEY"), ("FINISHLINE_API_URL", "FINISHLINE_API")]
    {
        let ended = ask_with(&service, &["jobs", "list"], &[(variable, "hush")]).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let words = format!("{variable} is not read: did you mean {meant}?");
        assert!(ended.stderr.contains(&words), "{}", ended.stderr);
        assert!(!ended.stderr.contains("hush"));
    }
    let ended = ask(&service, &["jobs", "list"]).await;
    assert_eq!(ended.stderr, "");
    let folder = tempfile::tempdir().unwrap();
    for (variable, meant) in [
        ("FINISHLINE_ENGINE__AUTH__CLIENT_SECRET", "FINISHLINE__ENGINE__AUTH__CLIENT_SECRET"),
        ("FINISHLINE_ENGINE_TIMEOUT", "FINISHLINE__ENGINE__TIMEOUT"),
        ("finishline__engine__timeout", "FINISHLINE__ENGINE__TIMEOUT"),
        ("FINISHLINE.ENGINE.TIMEOUT", "FINISHLINE__ENGINE__TIMEOUT"),
    ] {
        for command in ["serve", "healthcheck", "verify-files"] {
            let ended = run_program(folder.path(), &[command], &[(variable, "hush")]).await;
            assert_failed(&ended, 2, &[variable, &format!("did you mean {meant}?")]);
            assert!(!ended.stderr.contains("hush"));
        }
    }
}
