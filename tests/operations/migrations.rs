//! Upgrades: an older binary refuses a newer database, and a kill at any instant of a migration
//! leaves a database that the next start brings up to date, with everything in it.
//!
//! Written over the list of embedded migrations, so that later ones are covered as they come.

use std::{
    fs,
    path::{Path, PathBuf},
};

use finishline::{
    clock::Clock,
    domain::{ids::JobId, job::JobStatus},
    store::{
        CallbackAddresses as _, Lookup, Querying as _, Store as _, Timeline as _,
        sqlite::{OpenError, SqliteStore, schema_version},
    },
};
use sqlx::{
    Connection as _, SqliteConnection,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use uuid::Uuid;

use super::support::{database, finishline};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

const WAL_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

const RESULT: &[u8] = br#"{"success": true}"#;
const KEY: [u8; 32] = [9; 32];
const FINISHED: JobId = JobId(Uuid::from_u128(1));
const INTERRUPTED: JobId = JobId(Uuid::from_u128(2));

/// Rows of the first schema: a job with its result, and one that a crash interrupts.
async fn seed(connection: &mut SqliteConnection) {
    let insert = |sql: &'static str| sqlx::query(sql);
    insert("insert into instance values (1, ?, 0, 0)")
        .bind(&KEY[..])
        .execute(&mut *connection)
        .await
        .unwrap();
    for (seq, id, status) in [(1, FINISHED, "submitting"), (2, INTERRUPTED, "submitting")] {
        insert(
            "insert into jobs (seq, id, origin, status, created_at)
             values (?, ?, 'submitted', ?, 1000)",
        )
        .bind(seq)
        .bind(id.0)
        .bind(status)
        .execute(&mut *connection)
        .await
        .unwrap();
        insert("insert into job_bodies values (?, '{}', null)")
            .bind(seq)
            .execute(&mut *connection)
            .await
            .unwrap();
    }
    insert(
        "insert into deliveries (seq, id, job_seq, received_at, source, outcome, size_bytes, sha256,
             headers) values (1, ?, 1, 2000, 'test', 'stored', ?, ?, '[]')",
    )
    .bind(Uuid::from_u128(3))
    .bind(RESULT.len() as i64)
    .bind(&<sha2::Sha256 as sha2::Digest>::digest(RESULT)[..])
    .execute(&mut *connection)
    .await
    .unwrap();
    insert("insert into delivery_bodies values (1, ?)")
        .bind(RESULT)
        .execute(&mut *connection)
        .await
        .unwrap();
    insert(
        "update jobs set status = 'succeeded', success = 1, finished_at = 2000,
             result_delivery = 1, delivery_count = 1 where seq = 1",
    )
    .execute(&mut *connection)
    .await
    .unwrap();
    insert("insert into events (job_id, type, at, data) values (?, 'job.finished', 2000, '{}')")
        .bind(FINISHED.0)
        .execute(connection)
        .await
        .unwrap();
}

/// A database of an older version, with rows in it, closed cleanly.
async fn older(path: &Path, version: i64) {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let first = MIGRATIONS.iter().map(|migration| migration.version).min().unwrap();
    MIGRATIONS.run_to(first, &mut connection).await.unwrap();
    seed(&mut connection).await;
    MIGRATIONS.run_to(version, &mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn wal(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", path.display()))
}

/// Every table and index, as they were declared.
async fn schema(path: &Path) -> Vec<(String, Option<String>)> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let found = sqlx::query_as("select name, sql from sqlite_master order by name")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    found
}

/// Lengths to which a log may have come when the process was killed: every frame's end, and
/// somewhere within each.
fn cuts(log: &[u8]) -> Vec<usize> {
    let page_bytes = u32::from_be_bytes(log[8..12].try_into().unwrap()) as usize;
    let frame_bytes = FRAME_HEADER_BYTES + page_bytes;
    let frames = (log.len() - WAL_HEADER_BYTES) / frame_bytes;
    assert!(frames > 1, "the upgrade was not caught in the log");
    let ends = (0..=frames).map(|frame| WAL_HEADER_BYTES + frame * frame_bytes);
    let mut cuts = vec![0, 1, WAL_HEADER_BYTES - 1];
    for (turn, end) in ends.enumerate() {
        // Bytes beyond the end, elsewhere in each frame.
        let beyond = (1 + turn * 997) % frame_bytes;
        cuts.extend([end, (end + beyond).min(log.len())]);
    }
    cuts
}

/// Brings a database up to date as a start does, and hands over the file and its log as they were
/// written, before either is merged or taken away.
async fn upgrade_caught_in_the_log(path: &Path) -> (Vec<u8>, Vec<u8>) {
    let before = fs::read(path).unwrap_or_default();
    let (store, writer) = SqliteStore::open(path, Clock::system().now()).await.unwrap();
    let (file, log) = (fs::read(path).unwrap(), fs::read(wal(path)).unwrap());
    if !before.is_empty() {
        assert_eq!(before, file, "nothing was merged into the file meanwhile");
    }
    store.close().await;
    writer.await.unwrap();
    (file, log)
}

async fn expect_seeded_rows(store: &SqliteStore) {
    assert_eq!(store.signing_key(), KEY);
    let Lookup::Found(Some(result)) = store.result(FINISHED).await.unwrap() else {
        panic!("the result is gone");
    };
    assert_eq!(&result.body[..], RESULT);
    let Lookup::Found(job) = store.job(INTERRUPTED).await.unwrap() else {
        panic!("the interrupted job is gone");
    };
    assert_eq!(job.status, JobStatus::Unconfirmed);
    let Lookup::Found(events) = store.events(FINISHED, None, 200).await.unwrap() else {
        panic!("the events are gone");
    };
    assert!(events.rows.iter().any(|event| event.kind == "job.finished"));
}

#[tokio::test]
async fn a_kill_at_any_instant_of_an_upgrade_loses_nothing_and_the_next_start_completes_it() {
    let folder = tempfile::tempdir().unwrap();
    let versions = MIGRATIONS.iter().map(|migration| migration.version);
    // The last one is up to date: its log holds what every start writes.
    for version in versions {
        let path = folder.path().join(format!("from-{version}.db"));
        older(&path, version).await;
        let (file, log) = upgrade_caught_in_the_log(&path).await;
        let complete = schema(&path).await;
        for cut in cuts(&log) {
            let path = folder.path().join(format!("from-{version}-cut-{cut}.db"));
            fs::write(&path, &file).unwrap();
            fs::write(wal(&path), &log[..cut]).unwrap();
            let opened = SqliteStore::open(&path, Clock::system().now()).await;
            let (store, writer) = opened.unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
            expect_seeded_rows(&store).await;
            store.close().await;
            writer.await.unwrap();
            assert_eq!(schema(&path).await, complete, "cut at {cut}");
            fs::remove_file(&path).unwrap();
        }
    }
}

#[tokio::test]
async fn a_kill_at_any_instant_of_the_first_start_leaves_a_file_that_the_next_one_completes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("first.db");
    let (file, log) = upgrade_caught_in_the_log(&path).await;
    let complete = schema(&path).await;
    let states = cuts(&log).into_iter().map(|cut| (&file[..], &log[..cut]));
    // Killed before the log was begun: the file is empty, or holds its head.
    for (number, (file, log)) in states.chain([(&[][..], &[][..]), (&file, &[])]).enumerate() {
        let path = folder.path().join(format!("first-{number}.db"));
        fs::write(&path, file).unwrap();
        fs::write(wal(&path), log).unwrap();
        let opened = SqliteStore::open(&path, Clock::system().now()).await;
        let (store, writer) = opened.unwrap_or_else(|error| panic!("state {number}: {error}"));
        store.close().await;
        writer.await.unwrap();
        assert_eq!(schema(&path).await, complete, "state {number}");
    }
}

#[tokio::test]
async fn a_newer_database_is_refused_with_one_clear_line_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    older(&path, schema_version()).await;
    make_newer(&path).await;
    let before = fs::read(&path).unwrap();

    let refused = SqliteStore::open(&path, Clock::system().now()).await.map(drop);
    assert!(matches!(refused, Err(OpenError::Newer(_, 9999))), "{refused:?}");
    let listen = |key| (key, "127.0.0.1:0".to_owned());
    let settings = [listen("CALLBACKS__LISTEN"), listen("API__LISTEN")];
    let ended = finishline(folder.path(), &settings, &["serve"]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    let line = ended.stderr.lines().find(|line| line.starts_with("finishline: ")).unwrap();
    assert!(line.contains("newer finishline (schema 9999)"), "{line}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// As if a later release had migrated it.
pub async fn make_newer(path: &Path) {
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'later', true, x'00', 0)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
}

/// Every version before this program's, as a database with rows in it.
pub async fn older_databases(folder: &Path) -> Vec<(i64, PathBuf)> {
    let mut made = Vec::new();
    let versions = MIGRATIONS.iter().map(|migration| migration.version);
    for version in versions.filter(|version| *version < schema_version()) {
        let path = folder.join(format!("older-{version}.db"));
        older(&path, version).await;
        made.push((version, path));
    }
    made
}
