//! Many jobs, so that rows move from page to page; and large ones, erased beside callbacks.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use finishline::{
    clock::Clock,
    domain::{ids::JobId, result},
    store::{
        Addressee, Arrival, EraseTarget, Erasing as _, Lookup, NewSubmission, Receiving as _,
        Store as _, Submissions as _, sqlite::SqliteStore,
    },
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::marks::files_with;

fn number(text: &str) -> u32 {
    let digest = Sha256::digest(text);
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// Marks in the indexes come in no order, so that their pages split in the middle.
fn submission(tail: usize) -> NewSubmission {
    let now = Clock::system().now();
    let scattered = number(&tail.to_string());
    NewSubmission {
        id: JobId::new(now),
        now,
        reference: Some(format!("{scattered:08x}-mark{tail:05}.{}", "r".repeat(tail % 90))),
        end_user_id: Some(format!("user-{}", tail % 2)),
        cloud_package: Some(format!("{:08x}-mark{tail:05}.", scattered.rotate_left(7))),
        external_job_id: Some(format!("{:08x}-mark{tail:05}.", scattered.rotate_left(13))),
        request: RawValue::from_string("{}".into()).expect("JSON"),
        inputs: Vec::new(),
        outputs: Vec::new(),
        warnings: Vec::new(),
        callback_base: "http://127.0.0.1".into(),
        relay_url: None,
        idempotency: None,
    }
}

fn arrival(job: JobId, body: Vec<u8>) -> Arrival {
    let now = Clock::system().now();
    Arrival {
        delivery_id: finishline::domain::ids::DeliveryId::new(now),
        addressee: Addressee::Job(job),
        signer: None,
        received_at: now,
        source: "192.0.2.7:4711".into(),
        headers: Vec::new(),
        sha256: Sha256::digest(&body).into(),
        reading: result::read(&body, &[]),
        body: body.into(),
    }
}

async fn open(folder: &Path) -> (SqliteStore, tokio::task::JoinHandle<()>) {
    let now = Clock::system().now();
    SqliteStore::open(&folder.join("test.db"), now).await.expect("a database")
}

#[tokio::test]
async fn rows_that_moved_from_page_to_page_leave_no_copy_of_an_erased_job() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, writer) = open(folder.path()).await;
    let jobs = 3_000;
    for first in (0..jobs).step_by(500) {
        let batch = (first..first + 500).map(|tail| store.begin_submission(submission(tail)));
        for begun in futures_util::future::join_all(batch).await {
            begun.expect("it is on record");
        }
    }
    assert!(!files_with(folder.path(), "-mark00001.").is_empty());
    let target = EraseTarget::EndUser("user-1".into());
    let erased = store.erase(target, Clock::system().now()).await.expect("erased");
    assert!(matches!(erased, Lookup::Found(count) if count == jobs as u64 / 2));
    let file = std::fs::read(folder.path().join("test.db")).expect("the database");
    let mut left = Vec::new();
    for place in file.windows(6).enumerate().filter(|(_, word)| *word == b"-mark0") {
        let tail = &file[place.0 + 5..place.0 + 10];
        let tail: usize = std::str::from_utf8(tail).expect("digits").parse().expect("a number");
        if tail % 2 == 1 {
            left.push(tail);
        }
    }
    assert!(left.is_empty(), "{} copies are left: {left:?}", left.len());
    assert!(files_with(folder.path(), "-mark00000.").len() == 1, "the others are there");
    store.close().await;
    writer.await.expect("the writer ends");
}

#[tokio::test]
async fn receiving_goes_on_while_large_jobs_are_erased() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, writer) = open(folder.path()).await;
    let store = std::sync::Arc::new(store);
    let end_user = || Some("large".to_owned());
    for tail in 0..16 {
        let job = NewSubmission { end_user_id: end_user(), ..submission(tail) };
        let id = job.id;
        store.begin_submission(job).await.expect("on record");
        for word in ["true", "false"] {
            let mut body = format!("{{\"success\": {word}, \"big\": \"").into_bytes();
            body.resize(4 * 1024 * 1024, b'x');
            body.extend(b"\"}");
            store.receive(arrival(id, body)).await.expect("received");
        }
    }
    let erasing = store.clone();
    let erasure = tokio::spawn(async move {
        let target = EraseTarget::EndUser("large".into());
        erasing.erase(target, Clock::system().now()).await
    });
    let mut waits = Vec::new();
    while !erasure.is_finished() {
        let begun = Instant::now();
        let job = JobId::new(Clock::system().now());
        store.receive(arrival(job, br#"{"success": true}"#.to_vec())).await.expect("received");
        waits.push(begun.elapsed());
    }
    let erased = erasure.await.expect("no panic").expect("erased");
    assert!(matches!(erased, Lookup::Found(16)));
    waits.sort();
    let longest = waits.last().copied().unwrap_or_default();
    println!("{} callbacks beside the erasure of 128 MiB, the slowest {longest:?}", waits.len());
    assert!(waits.len() > 8, "batches let callbacks in between: {waits:?}");
    assert!(longest < Duration::from_secs(5), "{waits:?}");
    store.close().await;
    writer.await.expect("the writer ends");
}
