//! The real process, killed at the worst moment and started again on the same database.
//!
//! The invariant: whatever was answered 2xx is there, byte for byte.

use std::{
    os::unix::fs::PermissionsExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use finishline::{domain::ids::JobId, simulator::FaultRate};
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::json;

use crate::{evidence::*, node::Node, support::*};

const ROUNDS: usize = 5;

/// Senders that are always waiting for an answer.
const SENDERS: usize = 240;

/// Acknowledgements before the process is killed.
const ACKNOWLEDGED: usize = 600;

/// A callback that was answered 2xx.
struct Acknowledged {
    job: JobId,
    sha256: String,
    outcome: String,
}

/// What the senders of one round share.
#[derive(Default)]
struct Load {
    acknowledged: Mutex<Vec<Acknowledged>>,
    count: AtomicUsize,
    /// Requests that got no answer.
    lost: AtomicUsize,
}

/// Bodies of all sizes, none like another; every fourth job gets a second, contradicting one.
fn body(seed: usize, is_second: bool) -> String {
    let padding = "x".repeat(seed * 7919 % 20_000);
    format!(r#"{{"success":{},"seed":{seed},"padding":"{padding}"}}"#, !is_second)
}

/// Sends callbacks until one is not answered.
async fn send(
    load: Arc<Load>,
    http: reqwest::Client,
    origin: String,
    key: [u8; 32],
    sender: usize,
) {
    for number in 0.. {
        let (job, seed) = (unknown_job(), sender * 100_000 + number);
        let url = format!("{origin}{}", callback_path(&key, job));
        for is_second in [false, true] {
            if is_second && seed % 4 != 0 {
                continue;
            }
            let body = body(seed, is_second);
            let Ok(answer) = http.post(&url).body(body.clone()).send().await else {
                load.lost.fetch_add(1, Ordering::SeqCst);
                return;
            };
            let is_taken = answer.status() == 200;
            // The head alone is an acknowledgement already.
            assert!(is_taken || answer.status() == 503, "{}", answer.status());
            if is_taken {
                let outcome = if is_second { "conflict" } else { "stored" }.to_owned();
                let sha256 = sha256(body.as_bytes());
                let acknowledged = Acknowledged { job, sha256, outcome };
                load.acknowledged.lock().expect("no panic").push(acknowledged);
                load.count.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// Fails unless the callback is on record as it was answered.
async fn expect_on_record(node: &Node, acknowledged: &Acknowledged) {
    let Acknowledged { job, sha256: expected, outcome } = acknowledged;
    let found = node.get(&format!("/v1/jobs/{job}/deliveries")).await.expect(200).json();
    let deliveries = found["deliveries"].as_array().expect("a list");
    let delivery = deliveries.iter().find(|one| one["sha256"] == expected.as_str());
    let delivery =
        delivery.unwrap_or_else(|| panic!("{job} was answered 2xx and is lost: {found}"));
    assert_eq!(&delivery["outcome"], outcome);
    let path = format!("/v1/deliveries/{}/body", text(&delivery["id"]));
    assert_eq!(&sha256(&node.get(&path).await.expect(200).body), expected);
    let result = node.get(&format!("/v1/jobs/{job}/result")).await.expect(200);
    if outcome == "stored" {
        assert_eq!(&sha256(&result.body), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_acknowledged_is_lost_by_a_kill() {
    let mut node = Node::start(|_| {}).await;
    let key = signing_key(&node.database()).await;
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let load = Arc::new(Load::default());
        let http =
            reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a client");
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (load, http) = (Arc::clone(&load), http.clone());
                let sender = round * SENDERS + sender;
                tokio::spawn(send(load, http, node.callbacks.clone(), key, sender))
            })
            .collect();
        wait_for("the load", async || {
            (load.count.load(Ordering::SeqCst) >= ACKNOWLEDGED).then_some(())
        })
        .await;
        node.kill();
        for sender in senders {
            within(sender).await.expect("a sender does not panic");
        }
        let lost = load.lost.load(Ordering::SeqCst);
        assert_eq!(lost, SENDERS, "every sender was cut off in the middle");
        let acknowledged = std::mem::take(&mut *load.acknowledged.lock().expect("no panic"));
        assert!(acknowledged.iter().any(|one| one.outcome == "conflict"));
        node.serve().await;
        stream::iter(&acknowledged)
            .for_each_concurrent(16, |acknowledged| expect_on_record(&node, acknowledged))
            .await;
        let mut database = connect(&node.database()).await;
        let check: String = sqlx::query_scalar("pragma integrity_check")
            .fetch_one(&mut database)
            .await
            .expect("an answer");
        assert_eq!(check, "ok");
        let broken = sqlx::query("pragma foreign_key_check").fetch_all(&mut database).await;
        assert!(broken.expect("an answer").is_empty());
        all.extend(acknowledged);
    }
    // The first rounds have survived the later ones too.
    assert!(all.len() >= ROUNDS * ACKNOWLEDGED);
    stream::iter(all.iter().step_by(10))
        .for_each_concurrent(16, |acknowledged| expect_on_record(&node, acknowledged))
        .await;
}

#[tokio::test]
async fn submissions_cut_off_by_a_kill_are_unconfirmed_and_never_sent_again() {
    const JOBS: usize = 12;
    let mut node = Node::start(|options| {
        options.hang = FaultRate::Always;
        options.answer_after_accept = true;
    })
    .await;
    let submit = |key: String| {
        let request = node.request(Method::POST, "/v1/jobs").body(ready_job().to_string());
        let request = request.header("content-type", "application/json");
        request.header("idempotency-key", key)
    };
    let submissions: Vec<_> =
        (0..JOBS).map(|number| tokio::spawn(submit(format!("key-{number}")).send())).collect();
    within(node.engine.wait_until(|engine| engine.jobs().len() == JOBS)).await;
    node.kill();
    for submission in submissions {
        assert!(submission.await.expect("no panic").is_err(), "nobody was answered");
    }
    let sent = node.engine.requests().submissions;
    assert_eq!(sent, JOBS);

    node.engine.set(|options| options.hang = FaultRate::Never);
    node.serve().await;
    let listed = node.get("/v1/jobs?limit=200").await.expect(200).json();
    let jobs = listed["jobs"].as_array().expect("a list").clone();
    assert_eq!(jobs.len(), JOBS);
    for job in &jobs {
        assert_eq!(job["status"], "unconfirmed");
        let id = text(&job["id"]);
        let events = node.get(&format!("/v1/jobs/{id}/events")).await.expect(200).json();
        let events = events["events"].as_array().expect("a list");
        assert_eq!((events.len(), &events[0]["type"]), (1, &json!("job.unconfirmed")));
        assert_eq!(events[0]["data"]["reason"], "interrupted");
    }
    // Their callers ask again: each hears of its job, and the Engine hears of nothing.
    for number in 0..JOBS {
        let request = node.request(Method::POST, "/v1/jobs").body(ready_job().to_string());
        let request = request.header("content-type", "application/json");
        let answer = Answer::of(request.header("idempotency-key", format!("key-{number}"))).await;
        assert_eq!(answer.header("idempotency-replayed"), Some("true"));
        assert_eq!(answer.expect(200).json()["status"], "unconfirmed");
    }
    let request = node.request(Method::POST, "/v1/jobs").body(ready_job().to_string());
    Answer::of(request.header("content-type", "application/json")).await.expect(201);
    assert_eq!(node.engine.requests().submissions, sent + 1, "only the new one");

    // What the Engine took all the same is settled by its callback.
    for job in node.engine.jobs() {
        assert!(node.engine.finish(&job.engine_job_id));
    }
    within(node.engine.wait_until(|engine| engine.answered_callbacks().len() == JOBS + 1)).await;
    for job in &jobs {
        assert_eq!(node.job(text(&job["id"])).await["status"], "succeeded");
    }
}

#[tokio::test]
async fn a_termination_finishes_what_is_in_flight_and_ends_well() {
    let mut node = Node::start(|options| options.reply_delay = Duration::from_millis(700)).await;
    let key = signing_key(&node.database()).await;
    let id = unknown_job();
    let url = format!("{}{}", node.callbacks, callback_path(&key, id));
    // The service asks for the body: it is in the middle of this callback from here on.
    let mut wire = Wire::to(&url).await;
    wire.send(post_head(&url, "content-length: 16\r\nexpect: 100-continue\r\n")).await;
    assert_eq!(wire.read_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    let request = node.request(Method::POST, "/v1/jobs").body(ready_job().to_string());
    let submission = tokio::spawn(Answer::of(request.header("content-type", "application/json")));
    within(node.engine.wait_until(|engine| engine.jobs().len() == 1)).await;

    let ended = tokio::spawn(node.release().terminate());
    wait_for("the door to be closed", async || {
        let address = node.callbacks.trim_start_matches("http://");
        tokio::net::TcpStream::connect(address).await.err()
    })
    .await;
    wire.send(r#"{"success":true}"#).await;
    let answer = wire.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("stored"), "{answer}");
    let submitted = submission.await.expect("an answer").expect(201).json();
    let ended = ended.await.expect("no panic");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    let wal = std::fs::metadata(node.folder.path().join("finishline.db-wal"));
    assert!(wal.is_err(), "closed, with nothing left in the log");
    node.serve().await;
    assert_eq!(node.job(&id.to_string()).await["status"], "succeeded");
    let job = node.job(text(&submitted["id"])).await;
    assert_eq!(job["status"], "submitted", "it was finished, not interrupted");
    assert_eq!(job["engineJobId"], submitted["engineJobId"]);
}

#[tokio::test]
async fn a_second_process_on_the_same_database_is_refused_with_one_line() {
    let mut node = Node::start(|_| {}).await;
    let database = format!("sqlite://{}", node.database().display());
    let environment = [
        ("FINISHLINE__CALLBACKS__LISTEN", "127.0.0.1:0"),
        ("FINISHLINE__CALLBACKS__PUBLIC_URL", "https://hooks.example"),
        ("FINISHLINE__API__LISTEN", "127.0.0.1:0"),
        ("FINISHLINE__DATABASE__URL", database.as_str()),
        ("FINISHLINE__LOG__LEVEL", "error"),
    ];
    let second = run_program(node.folder.path(), &["serve"], &environment).await;
    assert_ne!(second.code, Some(0));
    assert!(second.code.is_some(), "it says no, it does not crash");
    assert_eq!(second.stdout, "");
    let lines: Vec<&str> = second.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{}", second.stderr);
    assert!(lines[0].contains("in use") && lines[0].contains("finishline.db"), "{}", lines[0]);
    // The first is none the worse, and what it leaves behind does not lock anyone out.
    node.get("/readyz").await.expect(200);
    node.kill();
    node.serve().await;
    node.get("/readyz").await.expect(200);
}

#[tokio::test]
async fn the_database_is_its_owner_s_alone_and_commits_to_a_log() {
    let node = Node::start(|_| {}).await;
    let key = signing_key(&node.database()).await;
    let url = format!("{}{}", node.callbacks, callback_path(&key, unknown_job()));
    Answer::of(node.post_to(&url, r#"{"success":true}"#)).await.expect(200);
    let mut database = connect(&node.database()).await;
    let journal: String = sqlx::query_scalar("pragma journal_mode")
        .fetch_one(&mut database)
        .await
        .expect("an answer");
    assert_eq!(journal, "wal");
    let mut seen = Vec::new();
    for file in std::fs::read_dir(node.folder.path()).expect("a folder") {
        let file = file.expect("a file");
        let name = file.file_name().into_string().expect("text");
        if name.starts_with("finishline.db") {
            let mode = file.metadata().expect("metadata").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}: {mode:o}");
            seen.push(name);
        }
    }
    for name in ["finishline.db", "finishline.db-wal"] {
        assert!(seen.iter().any(|one| one == name), "{seen:?}");
    }
}

/// Counts the calls that force bytes onto the disk into the file that `SYNC_COUNT` names.
const COUNTING_LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
static void count(void) {
    const char *path = getenv("SYNC_COUNT");
    int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (file >= 0) { if (write(file, "s", 1)) {} close(file); }
}
int fsync(int file) {
    count();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file);
}
int fdatasync(int file) {
    count();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(file);
}
"#;

/// With `synchronous=NORMAL` a commit to the log forces nothing: this would count to zero.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn every_acknowledgement_has_forced_the_log_onto_the_disk() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let in_folder = |name: &str| folder.path().join(name).display().to_string();
    let (source, library, syncs) = (in_folder("sync.c"), in_folder("sync.so"), in_folder("syncs"));
    std::fs::write(&source, COUNTING_LIBRARY).expect("a file");
    // The compiler that has built SQLite.
    let built = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-o", &library, &source, "-ldl"])
        .status();
    assert!(built.expect("a C compiler").success());
    let database = format!("sqlite://{}", in_folder("finishline.db"));
    let environment: Vec<(String, String)> = [
        ("LD_PRELOAD", library.as_str()),
        ("SYNC_COUNT", &syncs),
        ("FINISHLINE__CALLBACKS__LISTEN", "127.0.0.1:0"),
        ("FINISHLINE__CALLBACKS__PUBLIC_URL", "https://hooks.example"),
        ("FINISHLINE__API__LISTEN", "127.0.0.1:0"),
        ("FINISHLINE__API__OPEN_ON_LOOPBACK", "true"),
        ("FINISHLINE__DATABASE__URL", &database),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let program = Program::start(folder.path(), &["serve"], &environment).await;
    let count = || std::fs::metadata(&syncs).map_or(0, |file| file.len());
    let key = signing_key(&folder.path().join("finishline.db")).await;
    let http = http_client();
    let mut last = count();
    assert!(last > 0, "the library counts");
    for _ in 0..20 {
        let url = format!("{}{}", program.callbacks, callback_path(&key, unknown_job()));
        Answer::of(http.post(url).body(r#"{"success":true}"#)).await.expect(200);
        assert!(count() > last, "answered, and nothing was forced onto the disk");
        last = count();
    }
    Answer::of(http.get(format!("{}/v1/jobs", program.api))).await.expect(200);
    assert_eq!(count(), last, "a question forces nothing");
}
