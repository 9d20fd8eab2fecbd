//! `finishline restore-check`: good backups pass, every kind of bad one is named, none is touched.

use std::{fs, path::Path};

use finishline::store::sqlite::{backup, schema_version};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use super::{
    migrations::{make_newer, older_databases},
    support::{Ended, Service, client, database, finishline, names},
};

const MARK: &[u8] = b"a mark to be found";

/// A folder with `good.db`: a backup of two jobs, one with a body of many pages.
async fn backed_up() -> TempDir {
    let service = Service::start().await;
    let mark = String::from_utf8(MARK.to_vec()).unwrap();
    let padding = "y".repeat(50_000);
    let large = format!(r#"{{"success": true, "mark": "{mark}", "padding": "{padding}"}}"#);
    service.receive(&client(), large).await;
    service.receive(&client(), r#"{"success": false}"#.into()).await;
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("good.db");
    backup::copy(&database(service.folder.path()), &target).await.unwrap();
    service.stop().await;
    folder
}

/// Checks a file, and that neither it nor its folder was touched.
async fn restore_check(folder: &TempDir, file: &str) -> Ended {
    let path = folder.path().join(file);
    let look = || (fs::read(&path).ok(), path.metadata().ok().map(|it| it.modified().unwrap()));
    let (before, listed) = (look(), names(folder.path()));
    let ended = finishline(folder.path(), &[], &["restore-check", "--json", file]).await;
    assert!(look() == before, "{file} was changed");
    assert_eq!(names(folder.path()), listed);
    assert_eq!(ended.code == Some(0), ended.json()["ok"] == true);
    ended
}

fn expect_refusal(ended: &Ended, words: &str) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let (state, detail) = ended.check("file");
    assert_eq!(state, "failed");
    assert!(detail.contains(words), "{detail}");
}

async fn change(path: &Path, sql: &'static str) {
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_good_backup_passes_with_its_figures() {
    let folder = backed_up().await;
    let ended = restore_check(&folder, "good.db").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let figures = ended.json();
    assert_eq!(figures["schema"], schema_version());
    assert_eq!(figures["jobs"], serde_json::json!({ "succeeded": 1, "failed": 1 }));
    assert_eq!((&figures["deliveries"], &figures["wrongBodies"]), (&2.into(), &0.into()));
    let lines = finishline(folder.path(), &[], &["restore-check", "good.db"]).await;
    assert_eq!(lines.code, Some(0));
    assert!(lines.stdout.lines().all(|line| line.starts_with("ok ")), "{lines:?}");
}

#[tokio::test]
async fn a_truncated_backup_is_refused_wherever_it_was_cut() {
    let folder = backed_up().await;
    let whole = fs::read(folder.path().join("good.db")).unwrap();
    let path = folder.path().join("cut.db");
    for cut in [50, 100, 4096, 8192, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        let ended = restore_check(&folder, "cut.db").await;
        assert_eq!(ended.code, Some(1), "cut to {cut}: {ended:?}");
    }
    fs::write(&path, "").unwrap();
    expect_refusal(&restore_check(&folder, "cut.db").await, "not a finishline's");
}

#[tokio::test]
async fn one_flipped_bit_in_a_delivery_is_found() {
    let folder = backed_up().await;
    let mut bytes = fs::read(folder.path().join("good.db")).unwrap();
    let place = bytes.windows(MARK.len()).position(|window| window == MARK).unwrap();
    bytes[place] ^= 1;
    fs::write(folder.path().join("flipped.db"), bytes).unwrap();
    let ended = restore_check(&folder, "flipped.db").await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.check("file").0, "ok");
    let (state, detail) = ended.check("deliveries");
    assert_eq!(state, "failed");
    assert!(detail.starts_with("1 of 2 have a body"), "{detail}");
    assert_eq!(ended.json()["wrongBodies"], 1);
}

#[tokio::test]
async fn a_delivery_without_its_body_and_an_orphan_are_found() {
    let folder = backed_up().await;
    let good = folder.path().join("good.db");
    let bodiless = folder.path().join("bodiless.db");
    fs::copy(&good, &bodiless).unwrap();
    change(&bodiless, "delete from delivery_bodies where delivery_seq = 1").await;
    let ended = restore_check(&folder, "bodiless.db").await;
    assert_eq!((ended.code, ended.check("deliveries").0.as_str()), (Some(1), "failed"));

    let orphaned = folder.path().join("orphaned.db");
    fs::copy(&good, &orphaned).unwrap();
    change(&orphaned, "pragma foreign_keys = off; delete from deliveries where seq = 1").await;
    expect_refusal(&restore_check(&folder, "orphaned.db").await, "refers to none of deliveries");
}

#[tokio::test]
async fn a_backup_without_the_signing_key_fails() {
    let folder = backed_up().await;
    change(&folder.path().join("good.db"), "delete from instance").await;
    let ended = restore_check(&folder, "good.db").await;
    assert_eq!((ended.code, ended.check("signing key").0.as_str()), (Some(1), "failed"));
}

#[tokio::test]
async fn a_newer_backup_is_refused_and_an_older_one_is_said_to_be_migrated() {
    let folder = backed_up().await;
    for (version, path) in older_databases(folder.path()).await {
        let ended = restore_check(&folder, path.to_str().unwrap()).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let detail = ended.check("schema").1;
        assert!(detail.starts_with(&format!("{version}: it will be migrated")), "{detail}");
    }
    make_newer(&folder.path().join("good.db")).await;
    expect_refusal(&restore_check(&folder, "good.db").await, "newer finishline (schema 9999)");
}

#[tokio::test]
async fn what_is_no_backup_of_ours_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("text.db"), "not a database, only text\n".repeat(1_000)).unwrap();
    expect_refusal(&restore_check(&folder, "text.db").await, "not a SQLite database");
    expect_refusal(&restore_check(&folder, "missing.db").await, "there is no file");
    fs::create_dir(folder.path().join("folder.db")).unwrap();
    let ended = finishline(folder.path(), &[], &["restore-check", "--json", "folder.db"]).await;
    expect_refusal(&ended, "there is no file");
    let other = folder.path().join("other.db");
    fs::write(&other, "").unwrap();
    change(&other, "create table jobs (id integer)").await;
    expect_refusal(&restore_check(&folder, "other.db").await, "not a finishline's");
}

#[tokio::test]
async fn the_database_of_a_running_service_is_not_taken_for_a_backup() {
    let service = Service::start().await;
    service.receive(&client(), r#"{"success": true}"#.into()).await;
    let path = database(service.folder.path());
    let ended =
        finishline(Path::new("/"), &[], &["restore-check", "--json", path.to_str().unwrap()]).await;
    expect_refusal(&ended, "make one of it with `finishline backup`");
    service.stop().await;
}
