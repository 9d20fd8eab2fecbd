//! `finishline backup`: online, whole, private, and never over another file.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use finishline::{
    clock::Clock,
    domain::ids::JobId,
    store::{CallbackAddresses as _, Lookup, Querying as _, Store as _, sqlite::SqliteStore},
};

use super::support::{Service, client, database, finishline, names};

fn body(number: usize) -> String {
    format!(r#"{{"success": true, "number": {number}, "padding": "{}"}}"#, "x".repeat(20_000))
}

fn settings(service: &Service) -> [(&'static str, String); 1] {
    [("DATABASE__URL", format!("sqlite://{}", database(service.folder.path()).display()))]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_holds_everything_that_was_answered_before_it_began() {
    let service = Arc::new(Service::start().await);
    let target = tempfile::tempdir().unwrap();
    let mut before = Vec::new();
    for number in 0..100 {
        before.push((service.receive(&client(), body(number)).await, body(number)));
    }
    let stored = Arc::new(AtomicUsize::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (service, stored, is_over) = (service.clone(), stored.clone(), is_over.clone());
            tokio::spawn(async move {
                let client = client();
                let mut number = 1_000 * sender;
                while !is_over.load(Ordering::Relaxed) {
                    service.receive(&client, body(number)).await;
                    number += 1;
                    stored.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    while stored.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let at_start = stored.load(Ordering::Relaxed);
    let ended = finishline(target.path(), &settings(&service), &["backup", "copy.db"]).await;
    let at_end = stored.load(Ordering::Relaxed);
    is_over.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.unwrap();
    }
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.starts_with("copy.db: ") && ended.stdout.contains(", jobs: "),
        "{ended:?}"
    );
    assert!(at_end > at_start, "callbacks were stored while the backup ran");
    assert_eq!(names(target.path()), ["copy.db"], "nothing is left beside it");
    let copy = target.path().join("copy.db");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);

    let checked = finishline(target.path(), &[], &["restore-check", "copy.db"]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    expect_results(&copy, service.signing_key, &before).await;
    let service = Arc::into_inner(service).expect("the senders are gone");
    service.stop().await;
}

/// Opens the copy as a service would, and compares.
async fn expect_results(copy: &std::path::Path, key: [u8; 32], expected: &[(JobId, String)]) {
    let (store, writer) = SqliteStore::open(copy, Clock::system().now()).await.unwrap();
    assert_eq!(store.signing_key(), key);
    for (id, body) in expected {
        let Lookup::Found(Some(result)) = store.result(*id).await.unwrap() else {
            panic!("{id} is not in the backup");
        };
        assert_eq!(result.body, body.as_bytes());
    }
    store.close().await;
    writer.await.unwrap();
}

#[tokio::test]
async fn a_stopped_service_can_be_backed_up_too() {
    let service = Service::start().await;
    let id = service.receive(&client(), body(1)).await;
    let key = service.signing_key;
    let settings = settings(&service);
    let folder = service.stop().await;
    let ended = finishline(folder.path(), &settings, &["backup", "--json", "copy.db"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let figures = ended.json();
    assert_eq!((&figures["file"], &figures["jobs"]), (&"copy.db".into(), &1.into()));
    let copy = folder.path().join("copy.db");
    assert_eq!(figures["bytes"], fs::metadata(&copy).unwrap().len());
    expect_results(&copy, key, &[(id, body(1))]).await;
}

#[tokio::test]
async fn a_file_that_exists_is_never_overwritten() {
    let service = Service::start().await;
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("empty.db"), "").unwrap();
    fs::write(target.path().join("full.db"), "mine").unwrap();
    std::os::unix::fs::symlink("nowhere", target.path().join("link.db")).unwrap();
    fs::create_dir(target.path().join("folder.db")).unwrap();
    for name in ["empty.db", "full.db", "link.db", "folder.db"] {
        let ended = finishline(target.path(), &settings(&service), &["backup", name]).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{name}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        assert!(ended.stderr.contains("exists already"), "{ended:?}");
    }
    assert_eq!(fs::read(target.path().join("empty.db")).unwrap(), b"");
    assert_eq!(fs::read(target.path().join("full.db")).unwrap(), b"mine");
    assert_eq!(names(target.path()), ["empty.db", "folder.db", "full.db", "link.db"]);
    service.stop().await;
}

#[tokio::test]
async fn without_a_database_or_a_folder_there_is_one_line_and_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let ended = finishline(folder.path(), &[], &["backup", "copy.db"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("there is no database at finishline.db"), "{ended:?}");
    assert!(names(folder.path()).is_empty());

    let service = Service::start().await;
    let ended = finishline(folder.path(), &settings(&service), &["backup", "no/copy.db"]).await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(ended.stderr.contains("no/copy.db cannot be written"), "{ended:?}");
    service.stop().await;
}

#[tokio::test]
async fn what_was_erased_before_a_backup_is_not_in_it() {
    let service = Service::start().await;
    let secret = r#"{"success": true, "patient": "Erika Mustermann"}"#;
    let id = service.receive(&client(), secret.into()).await;
    let url = format!("http://{}/v1/jobs/{id}", service.api);
    assert_eq!(client().delete(url).send().await.unwrap().status(), 200);
    let folder = tempfile::tempdir().unwrap();
    let ended = finishline(folder.path(), &settings(&service), &["backup", "copy.db"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let copy = fs::read(folder.path().join("copy.db")).unwrap();
    assert!(!copy.windows(16).any(|window| window == b"Erika Mustermann"));
    service.stop().await;
}
