//! Whether copies are still what was stored.

use std::fs;

use finishline::{
    blobs::{Blobs, Verified},
    domain::mirror::{AfterMirror, StoredCopy},
    store::sqlite::copies::Copies,
};
use serde_json::Value;

use super::copies::{Mirroring, copy_path, expect_copies, store_url};
use crate::support::{Ended, run_program, text};

async fn verify_files(mirroring: &Mirroring, arguments: &[&str]) -> Ended {
    let database = format!("sqlite://{}", mirroring.service.database.display());
    let store = store_url(mirroring.folder.path());
    let environment =
        [("FINISHLINE__DATABASE__URL", &*database), ("FINISHLINE__MIRROR__STORE", &*store)];
    let arguments = [&["verify-files"], arguments].concat();
    run_program(mirroring.folder.path(), &arguments, &environment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_files_names_a_flipped_byte_and_a_missing_file_beside_a_running_service() {
    let mirroring = Mirroring::start(&[]).await;
    let job = mirroring.secured(&mirroring.submitted(4).await).await;
    let ended = verify_files(&mirroring, &[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("4 verified"), "{ended:?}");
    let flipped = copy_path(mirroring.folder.path(), &job, 1);
    let mut content = fs::read(&flipped).expect("a copy");
    content[100] ^= 1;
    fs::write(&flipped, content).expect("a byte is flipped");
    fs::remove_file(copy_path(mirroring.folder.path(), &job, 2)).expect("a file is removed");
    let ended = verify_files(&mirroring, &[]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{ended:?}");
    assert!(lines.iter().all(|line| line.contains(text(&job["id"]))), "{ended:?}");
    assert!(lines[0].contains("meshes-1") && lines[0].contains("not those"), "{ended:?}");
    assert!(lines[1].contains("meshes-2") && lines[1].contains("not there"), "{ended:?}");
    let ended = verify_files(&mirroring, &["--json"]).await;
    let found: Value = serde_json::from_str(&ended.stdout).expect("one JSON value");
    assert_eq!((&found["verified"], &found["wrong"]), (&2.into(), &2.into()), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_damaged_when_it_is_first_read_is_made_anew() {
    let mirroring = Mirroring::start(&[]).await;
    let job = mirroring.secured(&mirroring.submitted(1).await).await;
    let path = copy_path(mirroring.folder.path(), &job, 0);
    let mut content = fs::read(&path).expect("a copy");
    content[100] ^= 1;
    fs::write(&path, content).expect("a byte is flipped");
    let blobs = Blobs::open(&store_url(mirroring.folder.path())).expect("the folder");
    let verified = Verified::default();
    let copy = only_copy(&mirroring).await;
    assert_eq!(verified.verify(&blobs, &copy).await.expect("it can be read"), None);
    let store = &mirroring.service.store();
    store
        .record_mirror(copy.place, AfterMirror::Damaged, mirroring.service.clock.now())
        .await
        .expect("it is recorded");
    let job = mirroring.secured(&job).await;
    expect_copies(&mirroring.service.engine, mirroring.folder.path(), &job);
    let again = verified.verify(&blobs, &only_copy(&mirroring).await).await;
    assert!(again.expect("it can be read").is_some());
    // From now on only the length is looked at.
    fs::write(&path, "short").expect("it is cut");
    assert_eq!(verified.verify(&blobs, &copy).await.expect("it can be read"), None);
}

async fn only_copy(mirroring: &Mirroring) -> StoredCopy {
    let copies = Copies::open(&mirroring.service.database).await.expect("it can be read");
    let mut page = copies.expect("it is there").next_page().await.expect("it can be read");
    assert_eq!(page.len(), 1);
    page.remove(0)
}
