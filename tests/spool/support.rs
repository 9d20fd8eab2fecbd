//! A spool, a store or a whole service for a test, and what every test asks of them.

use std::{
    future::Future,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use finishline::{
    app::{App, Listeners, Opened},
    clock::Clock,
    config,
    domain::{
        ids::{DeliveryId, JobId},
        result, signature,
    },
    store::{
        Addressee, Arrival, ResultOrders, Store, intake::Intake, spool::Spool, sqlite::SqliteStore,
    },
    wake::Wake,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

/// Longer than anything here takes on a slow machine.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);

pub const KIB: u64 = 1024;

pub fn now() -> Timestamp {
    Clock::system().now()
}

pub fn new_job() -> JobId {
    JobId::new(now())
}

/// A result with something in it to be found again.
pub fn result_body(word: &str) -> Vec<u8> {
    json!({ "success": true, "word": word }).to_string().into_bytes()
}

pub fn arrival(job: JobId, body: impl Into<Bytes>) -> Arrival {
    let body = body.into();
    Arrival {
        delivery_id: DeliveryId::new(now()),
        addressee: Addressee::Job(job),
        signer: None,
        received_at: now(),
        source: "192.0.2.7:4711".into(),
        headers: vec![("content-type".into(), "application/json".into())],
        sha256: Sha256::digest(&body).into(),
        reading: result::read(&body, &[]),
        body,
    }
}

pub fn open_spool(path: &Path, size: u64) -> Spool {
    Spool::open(path, size, None, now()).expect("a spool")
}

/// The arrivals that wait in a spool, oldest first.
pub async fn waiting(spool: &Spool) -> Vec<(u64, Arrival)> {
    let mut found = Vec::new();
    let mut last = 0;
    while let Some(record) = spool.next(last).await.expect("a readable spool") {
        last = record.number;
        found.push((last, record.arrival(&[]).expect("a form that is known")));
    }
    found
}

#[track_caller]
pub fn assert_same(one: &Arrival, other: &Arrival) {
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}

pub async fn open_store(database: &Path) -> (Arc<dyn Store>, JoinHandle<()>) {
    open_waking_store(database, Wake::default()).await
}

/// Every result is to be passed on to a target called `app`.
async fn open_waking_store(database: &Path, wake: Wake) -> (Arc<dyn Store>, JoinHandle<()>) {
    let orders = ResultOrders { relay_targets: vec!["app".to_owned()], ..ResultOrders::default() };
    let (store, writer) =
        SqliteStore::open_with(database, now(), wake, orders).await.expect("a database");
    (Arc::new(store), writer)
}

pub async fn close_store((store, writer): (Arc<dyn Store>, JoinHandle<()>)) {
    store.close().await;
    writer.await.expect("the writer ends");
}

pub fn intake(store: Arc<dyn Store>, spool: Spool) -> Intake {
    Intake::new(store, Clock::system()).with_spool(spool, Duration::from_secs(2), Vec::new())
}

/// A connection of somebody else.
pub async fn stranger(database: &Path) -> SqliteConnection {
    let options =
        SqliteConnectOptions::new().filename(database).busy_timeout(Duration::from_secs(20));
    SqliteConnection::connect_with(&options).await.expect("a connection")
}

pub async fn run(connection: &mut SqliteConnection, statement: &'static str) {
    sqlx::query(statement).execute(connection).await.expect(statement);
}

/// Whether these bytes stand anywhere in a file.
pub fn holds(path: &Path, bytes: &[u8]) -> bool {
    let file = std::fs::read(path).unwrap_or_default();
    file.windows(bytes.len()).any(|window| window == bytes)
}

/// Looks until the condition holds.
pub async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "in vain: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Leaves a test that the machine cannot run, or fails where that is not allowed.
pub fn skip(why: &str) {
    let is_set = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    assert!(!is_set("CI", "true") && !is_set("FINISHLINE_REQUIRE_TMPFS", "1"), "{why}");
    eprintln!("SKIPPED, the promise is not checked: {why}");
}

/// Both doors of a running service, seen from outside.
#[derive(Clone)]
pub struct Doors {
    pub callbacks: String,
    pub api: String,
    pub key: [u8; 32],
    http: reqwest::Client,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<String>,
    pub body: Value,
    pub took: Duration,
}

impl Answer {
    pub fn outcome(&self) -> &str {
        self.body["outcome"].as_str().unwrap_or_default()
    }
}

impl Doors {
    pub fn new(callbacks: String, api: String, key: [u8; 32]) -> Self {
        // Whoever comes first installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { callbacks, api, key, http }
    }

    pub async fn call_back(&self, job: JobId, body: impl Into<reqwest::Body>) -> Answer {
        let signature = signature::sign(&self.key, job);
        let url = format!("{}/callbacks/{job}/{signature}", self.callbacks);
        answer(self.http.post(url).body(body)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.http.get(format!("{}{path}", self.api))).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        answer(self.http.delete(format!("{}{path}", self.api))).await
    }

    /// Whether the database takes writes, as readiness finds out.
    pub async fn is_database_ready(&self) -> bool {
        self.get("/readyz").await.body["checks"]["database"]["ok"] == true
    }

    /// Records that wait in the spool, as readiness tells.
    pub async fn spooled(&self) -> u64 {
        let ready = self.get("/readyz").await.body;
        ready["checks"]["spool"]["records"].as_u64().unwrap_or_else(|| panic!("{ready}"))
    }

    pub async fn until_taken_in(&self) {
        until("the spool is taken in", || async { self.spooled().await == 0 }).await;
    }

    pub async fn deliveries(&self, job: JobId) -> Vec<Value> {
        let answer = self.get(&format!("/v1/jobs/{job}/deliveries?limit=200")).await;
        answer.body["deliveries"].as_array().cloned().unwrap_or_else(|| panic!("{answer:?}"))
    }

    /// The types of a job's events.
    pub async fn events(&self, job: JobId) -> Vec<String> {
        let events = self.get(&format!("/v1/jobs/{job}/events?limit=200")).await.body;
        let kind = |event: &Value| event["type"].as_str().unwrap_or_default().to_owned();
        events["events"].as_array().expect("events").iter().map(kind).collect()
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let started = Instant::now();
    let response = request.send().await.expect("an answer");
    let took = started.elapsed();
    let status = response.status().as_u16();
    let retry_after = response.headers().get("retry-after");
    let retry_after = retry_after.map(|value| value.to_str().expect("text").to_owned());
    let body = response.bytes().await.expect("the whole answer");
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Answer { status, retry_after, body, took }
}

/// The service in this process.
pub struct Service {
    doors: Doors,
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Deref for Service {
    type Target = Doors;

    fn deref(&self) -> &Doors {
        &self.doors
    }
}

impl Service {
    pub async fn start(database: &Path, settings: &[(&str, &str)]) -> Self {
        let defaults = [
            ("CALLBACKS__LISTEN", "127.0.0.1:0"),
            ("CALLBACKS__PUBLIC_URL", "http://127.0.0.1"),
            ("API__LISTEN", "127.0.0.1:0"),
            ("API__OPEN_ON_LOOPBACK", "true"),
            ("ENGINE__BASE_URL", "http://127.0.0.1:9"),
            ("ENGINE__AUTH__TOKEN_URL", ""),
            ("SPOOL__SIZE", "1MiB"),
        ];
        let database_url = format!("sqlite://{}", database.display());
        let settings = defaults.iter().chain(settings).copied();
        let settings = settings.chain([("DATABASE__URL", database_url.as_str())]);
        let environment: std::collections::BTreeMap<String, String> =
            settings.map(|(key, value)| (format!("FINISHLINE__{key}"), value.to_owned())).collect();
        let mut config = config::load(None, environment.into_iter()).expect("settings");
        let listeners = Listeners::bind(&config).await.expect("free ports");
        let callbacks = format!("http://{}", listeners.callbacks().expect("an address"));
        let api = format!("http://{}", listeners.api().expect("an address"));
        let public_url = callbacks.parse().expect("a URL");
        config.callbacks.public_url = config::PublicUrlSetting::Fixed(public_url);
        let wake = Wake::default();
        let (store, writer) = open_waking_store(database, wake.clone()).await;
        let doors = Doors::new(callbacks, api, store.signing_key());
        let opened = Opened { store, writer, wake };
        let app = App::with_store(config, listeners, Clock::system(), opened).await;
        let app = app.expect("a service");
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(app.run(async { _ = stopped.await }));
        Self { doors, stop, task }
    }

    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.expect("the service does not panic").expect("it ends well");
    }
}

/// A temporary folder and the usual names in it.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// In memory where the machine has such a place, for tests that sync a thousand times.
    pub fn fast() -> Self {
        tempfile::tempdir_in("/dev/shm").map_or_else(|_| Self::new(), Self)
    }

    pub fn database(&self) -> PathBuf {
        self.0.path().join("test.db")
    }

    pub fn spool(&self) -> PathBuf {
        self.0.path().join("test.db-spool")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
