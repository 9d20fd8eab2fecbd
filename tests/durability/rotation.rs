//! `finishline rotate-key`: a new key signs new jobs, the old one is honoured for its own.
//!
//! The program is run as an operator runs it, between a stop of the service and its next start.

use std::{path::Path, time::Duration};

use finishline::{
    clock::Clock,
    domain::{ids::JobId, signature},
    simulator::FaultRate,
};
use reqwest::Method;
use serde_json::json;

use crate::{evidence::*, failing_store::FailingStore, support::*};

const WEEK: u64 = 7 * 24 * 3600;

async fn rotate_key(database: &Path, arguments: &[&str]) -> Ended {
    let folder = database.parent().expect("a folder");
    let url = format!("sqlite://{}", database.display());
    let settings = [
        ("FINISHLINE__DATABASE__URL", url.as_str()),
        ("FINISHLINE__CALLBACKS__PUBLIC_URL", "http://127.0.0.1"),
        ("FINISHLINE__SPOOL__SIZE", "1MiB"),
    ];
    let arguments: Vec<&str> = ["rotate-key"].iter().chain(arguments).copied().collect();
    run_program(folder, &arguments, &settings).await
}

/// Stops the service, makes a new key, starts it again; answers the new key.
async fn rotate(service: &mut Service) -> [u8; 32] {
    let before = signing_key(&service.database).await;
    service.stop().await;
    let ended = rotate_key(&service.database, &[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    service.start_again().await;
    let after = signing_key(&service.database).await;
    assert_ne!(before, after);
    after
}

fn signed(service: &Service, key: &[u8; 32], id: &str) -> String {
    let id: JobId = id.parse().expect("an id");
    format!("{}{}", service.callbacks, callback_path(key, id))
}

async fn probe(service: &Service, url: &str) -> u16 {
    Answer::of(service.request_to(Method::GET, url)).await.status
}

#[tokio::test]
async fn a_key_is_not_replaced_while_the_service_runs_or_where_there_is_none() {
    let mut service = Service::start().await;
    let key = signing_key(&service.database).await;
    let refused = rotate_key(&service.database, &[]).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("stop the service first"), "{}", refused.stderr);
    assert_eq!(signing_key(&service.database).await, key);
    service.stop().await;
    // What a crash leaves behind is in nobody's way.
    assert!(service.folder().join("finishline.db-lock").exists());
    let made = rotate_key(&service.database, &["--json"]).await;
    let made: serde_json::Value = serde_json::from_str(&made.stdout).expect("one JSON value");
    assert_eq!(made, json!({"key": 2, "earlierKeys": []}), "no job needs the first one");

    let nowhere = rotate_key(&service.folder().join("nowhere.db"), &[]).await;
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.stderr.contains("there is no database"), "{}", nowhere.stderr);
}

#[tokio::test]
async fn a_replaced_key_is_honoured_for_its_own_jobs_and_for_no_other() {
    let (setup, store) = FailingStore::in_setup(Setup::new());
    let mut service = setup.start().await;
    let old = signing_key(&service.database).await;
    let (id, url) = running_job(&service).await;
    let new = rotate(&mut service).await;
    let (later, later_url) = running_job(&service).await;
    assert_eq!(later_url, signed(&service, &new, &later), "the new key signs");

    // The old key's forgeries, for each kind of job.
    let unknown = unknown_job();
    let mut database = connect(&service.database).await;
    let version = data_version(&mut database).await;
    for id in [&later, &unknown.to_string()] {
        let forged = signed(&service, &old, id);
        for body in [r#"{"success":true}"#.to_owned(), "{}".into(), "x".into()] {
            service.post_to(&forged, body).await.problem(404, "not-found");
        }
        assert_eq!(probe(&service, &forged).await, 404);
        let mut wire = Wire::to(&forged).await;
        wire.send(post_head(&forged, "content-length: 1000000000\r\n")).await;
        let head = wire.read_until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 404 "), "before a byte of the body: {head}");
    }
    let nil = signature::PROBE_ID.to_string();
    service.post_to(&signed(&service, &old, &nil), "nonce").await.problem(404, "not-found");
    service.post_to(&signed(&service, &new, &nil), "nonce").await.expect(200);
    assert_eq!(data_version(&mut database).await, version, "nothing is written");
    assert_eq!(service.jobs().await.len(), 2, "no job is made");

    // Forgeries of neither are refused by arithmetic alone.
    let calls = store().calls();
    for key in [[0; 32], [9; 32]] {
        service.post_to(&signed(&service, &key, &id), "{}").await.problem(404, "not-found");
        assert_eq!(probe(&service, &signed(&service, &key, &id)).await, 404);
    }
    assert_eq!(store().calls(), calls, "the store is not asked");

    assert_eq!(probe(&service, &url).await, 204);
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
    assert_eq!(service.job(&id).await["status"], "succeeded");
    assert_eq!(service.outcome(&later_url, r#"{"success":true}"#).await, "stored");
}

#[tokio::test]
async fn a_replaced_key_ends_with_its_last_job() {
    let clock = Clock::manual("2026-03-01T12:00:00Z".parse().expect("a time"));
    let mut service = Setup::new().clock(&clock).start().await;
    let old = signing_key(&service.database).await;
    let (_, url) = running_job(&service).await;
    rotate(&mut service).await;
    let mut database = connect(&service.database).await;
    let keys = "select count(*) from retired_keys";
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
    clock.advance(Duration::from_secs(WEEK));
    service.restart().await;
    assert_eq!(count(&mut database, keys).await, 1);
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "duplicate");
    clock.advance(Duration::from_millis(1));
    service.post_to(&url, r#"{"success":true}"#).await.problem(410, "gone");
    service.restart().await;
    assert_eq!(count(&mut database, keys).await, 0, "no job needs it");
    service.post_to(&url, r#"{"success":true}"#).await.problem(404, "not-found");
    drop(database);
    service.stop().await;
    let file = std::fs::read(&service.database).expect("the file");
    assert!(!file.windows(32).any(|bytes| bytes == old), "nor are its bytes left in the file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_sent_again_has_the_new_key_and_keeps_what_the_engine_may_hold() {
    let mut service = Service::start().await;
    let old = signing_key(&service.database).await;
    let submitted = async |service: &Service, status: u16| {
        let problem = service.submit(&ready_job()).await.expect(status).json();
        text(&problem["jobId"]).to_owned()
    };
    service.engine.set(|options| options.lose_reply = FaultRate::FirstOfEach(1));
    let unconfirmed = submitted(&service, 502).await;
    service.engine.set(|options| {
        (options.lose_reply, options.answer) = (FaultRate::Never, Some(429));
    });
    let unsent = submitted(&service, 503).await;
    service.engine.set(|options| options.answer = None);
    assert_eq!(service.job(&unconfirmed).await["status"], "unconfirmed");
    assert_eq!(service.job(&unsent).await["status"], "unsent");

    let new = rotate(&mut service).await;
    for id in [&unconfirmed, &unsent] {
        let path = format!("/v1/jobs/{id}/resubmit");
        service.post(&path, r#"{"confirm":true}"#).await.expect(201);
        assert_eq!(service.callback_url(id), signed(&service, &new, id));
        assert_eq!(probe(&service, &signed(&service, &new, id)).await, 204);
    }
    let refused = signed(&service, &old, &unsent);
    service.post_to(&refused, r#"{"success":true}"#).await.problem(404, "not-found");
    // The first submission of the other one may be running: either may call back.
    let url = signed(&service, &old, &unconfirmed);
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
    let url = signed(&service, &new, &unconfirmed);
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "duplicate");
}

#[tokio::test]
async fn what_waits_in_the_spool_is_taken_in_before_the_key_is_replaced() {
    let (setup, store) = FailingStore::in_setup(Setup::new());
    let mut service = setup.start().await;
    let old = signing_key(&service.database).await;
    let recovered = unknown_job().to_string();
    store().fail(crate::failing_store::Plan::always(crate::failing_store::Failure::Unavailable));
    let url = signed(&service, &old, &recovered);
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "spooled");
    rotate(&mut service).await;
    assert_eq!(service.job(&recovered).await["origin"], "recovered", "it was answered 2xx");
}

#[tokio::test]
async fn the_number_of_earlier_keys_is_bounded_and_a_backup_holds_them_all() {
    let mut service = Service::start().await;
    let mut urls = Vec::new();
    const MOST: usize = finishline::domain::signing_keys::MAX_RETIRED_KEYS;
    for _ in 0..MOST {
        urls.push(running_job(&service).await.1);
        rotate(&mut service).await;
    }
    urls.push(running_job(&service).await.1);
    service.stop().await;
    let refused = rotate_key(&service.database, &[]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("8 earlier keys"), "{}", refused.stderr);

    let copy = service.folder().join("copy.db");
    let url = format!("sqlite://{}", service.database.display());
    let settings = [
        ("FINISHLINE__DATABASE__URL", url.as_str()),
        ("FINISHLINE__CALLBACKS__PUBLIC_URL", "http://127.0.0.1"),
        ("FINISHLINE__SPOOL__SIZE", "1MiB"),
    ];
    let copied = run_program(service.folder(), &["backup", "copy.db"], &settings).await;
    assert_eq!(copied.code, Some(0), "{copied:?}");
    let checked = run_program(service.folder(), &["restore-check", "copy.db"], &[]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", service.database.display()));
    }
    std::fs::rename(copy, &service.database).expect("restored");
    service.start_again().await;
    for url in urls {
        assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
    }
}
