//! Files are their owner's: whatever the service and its commands make can be read by nobody else.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use finishline::{
    private_files,
    simulator::{Options, Processing, Simulator},
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use super::copies::Mirroring;
use crate::support::{
    Answer, Program, dead_port, free_port, http_client, run_program, text, wait_for,
};

/// Everything below a folder with its mode.
fn modes(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        // What is gone meanwhile was temporary.
        let Ok(about) = path.symlink_metadata() else { continue };
        if about.is_dir() {
            found.extend(modes(&path));
        }
        found.push((path, about.permissions().mode() & 0o7777));
    }
    found
}

/// Fails unless all of it is its owner's; answers the names of what was looked at.
#[track_caller]
fn expect_private(folder: &Path, after: &str) -> Vec<String> {
    let found = modes(folder);
    for (path, mode) in &found {
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        let gone = !path.exists();
        assert!(gone || *mode == wanted, "after {after}: {mode:o} {}", path.display());
    }
    let name = |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
    found.iter().map(|(path, _)| name(path)).collect()
}

fn job() -> Value {
    json!({
        "inputFiles": {"cbct": {"extension": ".nrrd"}},
        "outputFiles": {"meshes": [{"extension": ".stl", "structures": ["mandible"]}]},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_work_was_done_its_files_are_the_owners_alone() {
    let options =
        Options { processing: Processing::After(Default::default()), ..Options::default() };
    let engine = Simulator::start(free_port().await, options).await.expect("a simulator");
    let root = tempfile::tempdir().expect("a folder");
    let folder = root.path().join("state");
    private_files::create_folder(&folder).expect("a folder");
    let callbacks = dead_port().await.to_string();
    let store = format!("file://{}/copies", folder.display());
    let settings = [
        ("API__OPEN_ON_LOOPBACK", "false"),
        ("CALLBACKS__LISTEN", callbacks.as_str()),
        ("CALLBACKS__PUBLIC_URL", &format!("http://{callbacks}")),
        ("ENGINE__BASE_URL", &engine.base_url()),
        ("ENGINE__AUTH__TOKEN_URL", &engine.token_url()),
        ("ENGINE__AUTH__CLIENT_ID", "test"),
        ("ENGINE__AUTH__CLIENT_SECRET", "test-secret"),
        ("OUTBOUND__ALLOW_HTTP", "true"),
        ("OUTBOUND__ALLOW_PRIVATE", "true"),
        ("MIRROR__STORE", &store),
        ("SPOOL__SIZE", "1MiB"),
        ("SPOOL__WAIT", "50ms"),
    ];
    let program = Program::serve(&folder, &settings).await;
    let names = expect_private(&folder, "the start");
    for name in ["finishline.db", "finishline.db-wal", "finishline.db-spool", "finishline.key"] {
        assert!(names.iter().any(|one| one == name), "{name}: {names:?}");
    }

    // A job from its scan to its copied mesh, by the client command.
    let (body, scan) = (folder.join("job.json"), folder.join("scan.nrrd"));
    fs::write(&body, job().to_string()).expect("written");
    fs::write(&scan, [7; 5000]).expect("written");
    for path in [&body, &scan] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set");
    }
    let input = format!("cbct={}", scan.display());
    let environment = [("FINISHLINE_API", program.api.as_str())];
    let args = ["submit", "job.json", "--input", &input, "--download", "home/deep", "--json"];
    let ended = run_program(&folder, &args, &environment).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let names = expect_private(&folder, "a job and its downloads");
    assert!(names.iter().any(|name| name == "deep"), "{names:?}");
    let id: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let id = text(&id["id"]).to_owned();
    let key = fs::read_to_string(folder.join("finishline.key")).expect("a key");
    let ask = async |method: Method, path: &str| {
        let request = http_client().request(method, format!("{}{path}", program.api));
        Answer::of(request.bearer_auth(key.trim())).await
    };
    wait_for("the job to be secured", async || {
        let job = ask(Method::GET, &format!("/v1/jobs/{id}")).await.expect(200).json();
        (job["secured"] == true).then_some(())
    })
    .await;
    let names = expect_private(&folder, "a copy");
    assert!(names.contains(&id), "the copy's folder is there: {names:?}");

    // A callback that goes to the spool, while somebody else holds the database.
    let database = SqliteConnectOptions::new().filename(folder.join("finishline.db"));
    let mut other = SqliteConnection::connect_with(&database).await.expect("it opens");
    sqlx::query("begin exclusive").execute(&mut other).await.expect("it is held");
    let url = engine.jobs().into_iter().find_map(|job| job.callback_url).expect("a callback");
    let spooled = http_client().post(&url).body(r#"{"success": true, "again": 1}"#);
    let spooled = Answer::of(spooled).await.expect(200).json();
    assert_eq!(spooled["outcome"], "spooled");
    expect_private(&folder, "a callback in the spool");
    sqlx::query("rollback").execute(&mut other).await.expect("it is let go");
    other.close().await.expect("it closes");

    let database = format!("sqlite://{}/finishline.db", folder.display());
    let offline = [("FINISHLINE__DATABASE__URL", &*database)];
    let ended = run_program(&folder, &["backup", "backup.db"], &offline).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let result = ["jobs", "result", &id, "--output", "result.json"];
    let ended = run_program(&folder, &result, &environment).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let names = expect_private(&folder, "a backup and a result");
    for name in ["backup.db", "result.json"] {
        assert!(names.iter().any(|one| one == name), "{name}: {names:?}");
    }
    wait_for("the job to be erased", async || {
        let erased = ask(Method::DELETE, &format!("/v1/jobs/{id}")).await;
        matches!(erased.status, 200 | 410).then_some(())
    })
    .await;
    expect_private(&folder, "an erasure");
    let ended = program.terminate().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    expect_private(&folder, "the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_modes_are_said_and_not_left_to_the_mask() {
    // This process has the mask of whoever runs the tests.
    let mirroring = Mirroring::start(&[]).await;
    let job = mirroring.submitted(2).await;
    mirroring.secured(&job).await;
    expect_private(mirroring.folder.path(), "copies");
    expect_private(mirroring.service.folder(), "a service in this process");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_demo_makes_is_private_too() {
    let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tmpdir = temporary.path().to_str().expect("a plain path").to_owned();
    let mark = "The service keeps running";
    let environment = [("TMPDIR".to_owned(), tmpdir)];
    let _demo = Program::start_until(mark, folder.path(), &["demo"], &environment).await;
    let names = expect_private(temporary.path(), "the demo");
    assert!(names.iter().any(|name| name == "demo.db"), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_release_left_readable_is_tightened_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = format!("file://{}/copies", folder.path().display());
    let settings =
        [("API__OPEN_ON_LOOPBACK", "false"), ("MIRROR__STORE", &store), ("SPOOL__SIZE", "1MiB")];
    Program::serve(folder.path(), &settings).await.terminate().await;
    let open = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    };
    for (path, _) in modes(folder.path()) {
        match path.is_dir() {
            true => open(&path, 0o755),
            false => open(&path, 0o644),
        }
    }
    let program = Program::serve(folder.path(), &settings).await;
    expect_private(folder.path(), "the next start");
    for name in ["finishline.db", "finishline.key", "copies"] {
        let said = program.stderr();
        let is_told =
            |line: &str| line.contains(name) && line.contains("other users could read it");
        assert!(said.lines().any(is_told), "{name}: {said}");
    }
}
