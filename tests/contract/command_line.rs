//! The command line, as the real binary in a process of its own.
//!
//! The invariant: the exit code says how it ended, and a failure is one line on standard error.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::*;

fn files_in(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("a folder");
    files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned()).collect()
}

#[track_caller]
fn assert_failed(ended: &Ended, code: i32, names: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert_eq!(ended.stdout, "");
    assert_eq!(ended.stderr.lines().count(), 1, "one line: {}", ended.stderr);
    assert!(ended.stderr.starts_with("finishline: "), "{}", ended.stderr);
    for name in names {
        assert!(ended.stderr.contains(name), "it names {name}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn the_demo_shows_its_steps_and_leaves_no_file_behind() {
    let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tmpdir = temporary.path().to_str().expect("a plain path");
    let ended = run_program(folder.path(), &["demo", "--once"], &[("TMPDIR", tmpdir)]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stderr, "");
    for step in [
        "POST /v1/jobs",
        "201 Created",
        "PUT …/inputs/cbct",
        "input.notified",
        "job.submitted",
        "job.finished",
        "the callback came",
        "meshes-0   mandible                 Available",
        " UTC  job.submitted",
        " UTC  job.finished",
    ] {
        assert!(ended.stdout.contains(step), "{step}: {}", ended.stdout);
    }
    // Nothing listens any more; the result's own links are the Engine's words.
    let ours = ended.stdout.lines().filter(|line| !line.starts_with('{'));
    let dead: Vec<&str> = ours.filter(|line| line.contains("http://")).collect();
    assert_eq!(dead, [""; 0]);
    let (_, digest) = ended.stdout.split_once("(sha256 ").expect("the digest");
    let result = ended.stdout.lines().find(|line| line.starts_with('{')).expect("the result");
    assert_eq!(serde_json::from_str::<Value>(result).expect("JSON")["success"], true);
    let computed: [u8; 32] = Sha256::digest(result).into();
    assert_eq!(
        &digest[..64],
        finishline::domain::digest::hex(&computed),
        "the result is the very bytes"
    );
    assert_eq!(files_in(folder.path()), [""; 0]);
    assert_eq!(files_in(temporary.path()), [""; 0]);
}

#[tokio::test]
async fn the_demo_keeps_running_until_it_is_stopped() {
    let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tmpdir = temporary.path().to_str().expect("a plain path").to_owned();
    let environment = [("TMPDIR".to_owned(), tmpdir)];
    let mark = "The service keeps running";
    let program = Program::start_until(mark, folder.path(), &["demo"], &environment).await;
    assert_eq!(files_in(temporary.path()).len(), 1, "its database is in there");
    let ended = program.terminate().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for step in [
        "callbacks   http://127.0.0.1:",
        "api         http://127.0.0.1:",
        "engine      http://127.0.0.1:",
        "curl http://127.0.0.1:",
    ] {
        assert!(ended.stdout.contains(step), "{step}: {}", ended.stdout);
    }
    let (_, look) = ended.stdout.split_once("Look at it:").expect("where to look");
    assert!(look.contains("/v1/jobs/"), "{look}");
    assert_eq!(files_in(temporary.path()), [""; 0]);
}

#[tokio::test]
async fn serve_says_where_it_listens_in_one_line_and_ends_well_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("CALLBACKS__PUBLIC_URL", "http://hooks.example.com")];
    let program = Program::serve(folder.path(), &settings).await;
    let line = format!("finishline ready callbacks={} api={}", program.callbacks, program.api);
    assert_eq!(program.ready, line);
    let client = http_client();
    for door in [&program.callbacks, &program.api] {
        let answer = Answer::of(client.get(format!("{door}/healthz"))).await.expect(200);
        assert_eq!(answer.json(), json!({"status": "ok"}));
    }
    program.said("plain http").await;
    let ended = program.terminate().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, format!("{line}\n"), "nothing else on standard output");
}

#[tokio::test]
async fn serve_without_ngrok_starts_and_says_which_command_to_run() {
    let folder = tempfile::tempdir().unwrap();
    let agent = format!("http://{}", dead_port().await);
    let program = Program::serve(folder.path(), &[("CALLBACKS__NGROK_API", &agent)]).await;
    let port = program.callbacks.rsplit(':').next().expect("a port").to_owned();
    program.said(&format!("ngrok http {port}")).await;
    let ready = Answer::of(http_client().get(format!("{}/readyz", program.api))).await;
    assert_eq!(ready.status, 503);
}

#[tokio::test]
async fn simulate_engine_plays_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["simulate-engine", "--listen", "127.0.0.1:0", "--processing", "0s"];
    let engine = Program::start(folder.path(), &args, &[]).await;
    let word = |name: &str| {
        let word = engine.ready.split(' ').find_map(|word| word.strip_prefix(name));
        word.unwrap_or_else(|| panic!("{}", engine.ready)).to_owned()
    };
    let (base, token) = (word("base="), word("token="));
    let settings = [
        ("ENGINE__BASE_URL", base.as_str()),
        ("ENGINE__AUTH__TOKEN_URL", token.as_str()),
        ("ENGINE__AUTH__CLIENT_ID", "test"),
        ("ENGINE__AUTH__CLIENT_SECRET", "test-secret"),
        // The callback itself is not needed here: the job's acceptance is.
        ("CALLBACKS__PUBLIC_URL", "http://127.0.0.1:9"),
    ];
    let service = Program::serve(folder.path(), &settings).await;
    let submit = http_client().post(format!("{}/v1/jobs", service.api));
    let job = Answer::of(submit.body(ready_job().to_string())).await.expect(201).json();
    let url = format!("{}/{}", base.replace("/24.06", "/_simulator"), "jobs");
    let jobs = Answer::of(http_client().request(Method::GET, &url)).await.expect(200).json();
    assert_eq!(jobs[0]["engine_job_id"], job["engineJobId"]);
    let ended = engine.terminate().await;
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(0), 1), "{ended:?}");
}

#[tokio::test]
async fn healthcheck_tells_alive_from_dead_by_its_exit_code() {
    let mut service = Service::start().await;
    let address = service.api.strip_prefix("http://").expect("an address").to_owned();
    let everywhere = address.replace("127.0.0.1", "0.0.0.0");
    let keys = r#"[{"name": "all", "key": "a-key-that-is-long-enough"}]"#;
    let folder = tempfile::tempdir().unwrap();
    let check = async |listen: &str| {
        let settings = [("FINISHLINE__API__LISTEN", listen), ("FINISHLINE__API__KEYS", keys)];
        run_program(folder.path(), &["healthcheck"], &settings).await
    };
    for listen in [&address, &everywhere] {
        let ended = check(listen).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{listen}");
    }
    service.stop().await;
    assert_failed(&check(&address).await, 1, &[&address]);
    assert_eq!(files_in(folder.path()), [""; 0]);
}

#[tokio::test]
async fn the_file_of_settings_may_be_named_before_or_after_the_command_or_lie_there() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let address = service.api.strip_prefix("http://").expect("an address");
    let write = |name: &str, content: &str| {
        std::fs::write(folder.path().join(name), content).expect("a file");
    };
    write("right.toml", &format!("[api]\nlisten = \"{address}\"\n"));
    write("wrong.toml", "[api]\nlisten = \"nowhere\"\n");
    for args in
        [["--config", "right.toml", "healthcheck"], ["healthcheck", "--config", "right.toml"]]
    {
        let ended = run_program(folder.path(), &args, &[]).await;
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        let wrong = args.map(|arg| arg.replace("right", "wrong"));
        let wrong = wrong.each_ref().map(String::as_str);
        let ended = run_program(folder.path(), &wrong, &[]).await;
        assert_failed(&ended, 2, &["api.listen", "nowhere"]);
        // The environment stands above the file.
        let environment = [("FINISHLINE__API__LISTEN", address)];
        let ended = run_program(folder.path(), &wrong, &environment).await;
        assert_eq!(ended.code, Some(0), "{wrong:?}: {ended:?}");
    }
    write("finishline.toml", "[api]\nlisten = \"lying there\"\n");
    let ended = run_program(folder.path(), &["healthcheck"], &[]).await;
    assert_failed(&ended, 2, &["api.listen", "lying there"]);
    let ended = run_program(folder.path(), &["healthcheck", "--config", "right.toml"], &[]).await;
    assert_eq!(ended.code, Some(0), "a named file stands for the one that lies there: {ended:?}");
}

#[tokio::test]
async fn wrong_settings_are_told_in_one_line_without_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.toml"), "[api]\nlisten = \n").expect("a file");
    std::fs::write(folder.path().join("unknown.toml"), "[api]\nlissen = \"x\"\n").expect("a file");
    type Case =
        (&'static [&'static str], &'static [(&'static str, &'static str)], &'static [&'static str]);
    let cases: [Case; 7] = [
        (&["serve"], &[("FINISHLINE__ENGINE__TIMEOUT", "soon")], &["engine.timeout", "soon"]),
        (&["serve"], &[("FINISHLINE__ENGIN__TIMEOUT", "1s")], &["FINISHLINE__ENGIN__TIMEOUT"]),
        (&["serve"], &[("FINISHLINE__API__KEYS", r#"[{"name":"a","key":"topsecret"}]"#)], &["key"]),
        (&["serve"], &[("FINISHLINE__CALLBACKS__INBOX_SECRET", "topsecret")], &["inbox_secret"]),
        (&["serve", "--config", "missing.toml"], &[], &["missing.toml"]),
        (&["serve", "--config", "broken.toml"], &[], &["broken.toml", "line 2"]),
        (&["serve", "--config", "unknown.toml"], &[], &["api.lissen", "api.listen"]),
    ];
    for (args, settings, names) in cases {
        let ended = run_program(folder.path(), args, settings).await;
        assert_failed(&ended, 2, names);
        assert!(!ended.stderr.contains("topsecret"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn wrong_arguments_end_with_code_2_and_help_with_0() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["fly"][..],
        &["serve", "--fast"],
        &["serve", "extra"],
        &["--config"],
        &["demo", "--once=2"],
        &[],
    ] {
        let ended = run_program(folder.path(), args, &[]).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(ended.stderr.contains("--help"), "{}", ended.stderr);
    }
    let help = run_program(folder.path(), &["--help"], &[]).await;
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for command in ["serve", "demo", "simulate-engine", "healthcheck", "--config"] {
        assert!(help.stdout.contains(command), "{command}: {}", help.stdout);
        if !command.starts_with('-') {
            let help = run_program(folder.path(), &[command, "--help"], &[]).await;
            assert_eq!(help.code, Some(0), "{help:?}");
            assert!(
                help.stdout.contains(&format!("Usage: finishline {command}")),
                "{}",
                help.stdout
            );
        }
    }
    let version = run_program(folder.path(), &["--version"], &[]).await;
    assert_eq!(version.stdout, format!("finishline {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn what_cannot_be_had_at_the_start_ends_with_code_1_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let taken = free_port().await;
    let address = taken.local_addr().expect("an address").to_string();
    let database = format!("sqlite://{}", folder.path().join("finishline.db").display());
    let base = [
        ("FINISHLINE__CALLBACKS__LISTEN", "127.0.0.1:0"),
        ("FINISHLINE__API__LISTEN", "127.0.0.1:0"),
        ("FINISHLINE__DATABASE__URL", database.as_str()),
        ("FINISHLINE__LOG__LEVEL", "off"),
    ];
    let with = |name: &'static str, value: &'static str| {
        let mut settings = base.to_vec();
        settings.retain(|(known, _)| *known != name);
        settings.push((name, value));
        settings
    };
    let address: &'static str = address.leak();
    for (name, key) in [
        ("FINISHLINE__CALLBACKS__LISTEN", "callbacks.listen"),
        ("FINISHLINE__API__LISTEN", "api.listen"),
    ] {
        let ended = run_program(folder.path(), &["serve"], &with(name, address)).await;
        assert_failed(&ended, 1, &[key, address]);
    }
    let nowhere = with("FINISHLINE__DATABASE__URL", "sqlite:///nowhere/at/all/finishline.db");
    let ended = run_program(folder.path(), &["serve"], &nowhere).await;
    assert_failed(&ended, 1, &["/nowhere/at/all/finishline.db"]);

    let _first = Program::serve(folder.path(), &[]).await;
    let ended = run_program(folder.path(), &["serve"], &base).await;
    assert_failed(&ended, 1, &["finishline.db", "in use"]);
}
