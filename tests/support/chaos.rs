//! Chaos: the service is driven, hurt, and held to what it answered.
//!
//! The short form runs as tests (`tests/chaos/`), the long one as `cargo bench --bench chaos`. The
//! invariant of every trial: what was answered 2xx stands in the driver's own fsynced journal, and
//! the journal is a part of what the store holds.

#![allow(dead_code, reason = "the short and the long form use a part of it each")]

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use finishline::{
    domain::{ids::JobId, signature},
    simulator::{FaultRate, Options},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{Program, Service, Setup, http_client, ready_job, text};

/// Senders at a time.
const SENDERS: usize = 8;

/// A public URL that nothing answers at: trials send the callbacks themselves.
const NOWHERE: &str = "http://127.0.0.1:9";

/// What was answered 2xx: job id and SHA-256 of the body, one line each, on disk before it counts.
pub struct Journal {
    file: Mutex<File>,
    entries: Mutex<BTreeMap<String, String>>,
}

impl Journal {
    pub fn create(path: &Path) -> Self {
        let file = OpenOptions::new().create_new(true).append(true).open(path).expect("a journal");
        Self { file: Mutex::new(file), entries: Mutex::default() }
    }

    fn note(&self, job_id: &str, sha256: &str) {
        let mut file = self.file.lock().unwrap();
        writeln!(file, "{job_id} {sha256}").expect("the journal takes a line");
        file.sync_data().expect("the journal is on disk");
        self.entries.lock().unwrap().insert(job_id.to_owned(), sha256.to_owned());
    }

    pub fn len(&self) -> usize {
        self.entries.lock().unwrap().len()
    }
}

/// The settings of a program whose callbacks the trial sends itself.
pub fn settings() -> Vec<(&'static str, &'static str)> {
    vec![
        ("ENGINE__AUTH__TOKEN_URL", ""),
        ("CALLBACKS__PUBLIC_URL", NOWHERE),
        ("SPOOL__SIZE", "4MiB"),
        ("LOG__LEVEL", "error"),
    ]
}

async fn open(database: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(database).read_only(true);
    SqliteConnection::connect_with(&options).await.expect("the database opens")
}

async fn signing_key(database: &Path) -> [u8; 32] {
    let mut connection = open(database).await;
    let row = sqlx::query("select signing_key from instance").fetch_one(&mut connection).await;
    row.expect("an instance").get::<Vec<u8>, _>(0).try_into().expect("32 bytes")
}

/// The database file of a program started in `folder`.
pub fn database_in(folder: &Path) -> PathBuf {
    folder.join("finishline.db")
}

/// Sends callbacks, each for a job of its own, until told to stop; notes those answered 2xx.
async fn drive(callbacks: &str, key: [u8; 32], journal: &Arc<Journal>, stop: &Arc<AtomicBool>) {
    let http = http_client();
    let senders = (0..SENDERS).map(|_| {
        let (http, callbacks) = (http.clone(), callbacks.to_owned());
        let (journal, stop) = (journal.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let id = JobId::new(jiff::Timestamp::now());
                let signature = signature::sign(&key, id);
                let padding = "x".repeat((id.0.as_u128() % 4096) as usize);
                let body = json!({ "success": true, "jobId": id.to_string(), "p": padding });
                let body = body.to_string();
                let sha256 = hex(&Sha256::digest(&body));
                let url = format!("{callbacks}/callbacks/{id}/{signature}");
                match http.post(&url).body(body).send().await {
                    Ok(answer) if answer.status().is_success() => {
                        journal.note(&id.to_string(), &sha256);
                    }
                    // Refused, or the service has just been killed: nothing was claimed.
                    _ => tokio::task::yield_now().await,
                }
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.expect("a sender does not panic");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the journal holds and the store does not, or holds with other bytes; and whether the
/// database is sound with one result per job.
pub async fn lost(database: &Path, journal: &Journal) -> Vec<String> {
    let mut connection = open(database).await;
    let rows = sqlx::query(
        "select jobs.id, delivery_bodies.body from jobs
         join delivery_bodies on delivery_bodies.delivery_seq = jobs.result_delivery",
    )
    .fetch_all(&mut connection)
    .await
    .expect("rows");
    let mut stored = BTreeMap::new();
    for row in &rows {
        let id = JobId(row.get("id")).to_string();
        let is_first =
            stored.insert(id, hex(&Sha256::digest(row.get::<&[u8], _>("body")))).is_none();
        assert!(is_first, "one result per job");
    }
    let sound: String =
        sqlx::query_scalar("pragma integrity_check").fetch_one(&mut connection).await.expect("it");
    assert_eq!(sound, "ok", "the database is sound");
    let entries = journal.entries.lock().unwrap();
    entries
        .iter()
        .filter(|(id, sha)| stored.get(*id) != Some(sha))
        .map(|(id, _)| id.clone())
        .collect()
}

/// What came of the kills.
pub struct Kills {
    pub cycles: usize,
    pub acknowledged: usize,
    pub lost: usize,
    /// From the start of the process to its ready line, ascending.
    pub ready: Vec<Duration>,
}

/// Starts the service, drives it, kills it at a random moment; again and again on one database.
pub async fn kill_cycles(cycles: usize) -> Kills {
    let folder = tempfile::tempdir().unwrap();
    let journal = Arc::new(Journal::create(&folder.path().join("journal")));
    let mut ready = Vec::new();
    for _ in 0..cycles {
        let begun = Instant::now();
        let mut program = Program::serve(folder.path(), &settings()).await;
        ready.push(begun.elapsed());
        let key = signing_key(&database_in(folder.path())).await;
        let stop = Arc::new(AtomicBool::new(false));
        let callbacks = program.callbacks.clone();
        let load = Duration::from_millis(20 + rand::random::<u64>() % 300);
        let killer = async {
            tokio::time::sleep(load).await;
            program.kill();
            stop.store(true, Ordering::Relaxed);
        };
        tokio::join!(drive(&callbacks, key, &journal, &stop), killer);
    }
    // One more start takes in whatever the last kill left in the log or the spool.
    let program = Program::serve(folder.path(), &settings()).await;
    assert_eq!(program.terminate().await.code, Some(0));
    let lost = lost(&database_in(folder.path()), &journal).await;
    ready.sort();
    Kills { cycles, acknowledged: journal.len(), lost: lost.len(), ready }
}

/// What came of submissions to an Engine that fails in one way.
#[derive(Default)]
pub struct Submits {
    pub submits: usize,
    /// Jobs that the Engine accepted more than once.
    pub repeated: usize,
    /// Jobs whose status says less or more than the Engine knows.
    pub misjudged: Vec<String>,
}

/// A way in which the Engine fails, by name.
pub type Fault = (&'static str, Box<dyn Fn(&mut Options) + Send + Sync>);

/// The ways in which the Engine fails, each for the same number of submissions.
pub fn faults() -> Vec<Fault> {
    let half = FaultRate::Probability(0.5);
    let answer = move |code: u16, is_after: bool| {
        move |options: &mut Options| {
            options.answer = Some(code);
            options.answer_rate = FaultRate::Probability(0.5);
            options.answer_after_accept = is_after;
        }
    };
    vec![
        ("reply lost", Box::new(move |options| options.lose_reply = half)),
        ("half a reply", Box::new(move |options| options.half_reply = half)),
        ("reset before accepting", Box::new(move |options| options.close_before_accept = half)),
        ("500 before accepting", Box::new(answer(500, false))),
        ("500 after accepting", Box::new(answer(500, true))),
        ("502 before accepting", Box::new(answer(502, false))),
        ("502 after accepting", Box::new(answer(502, true))),
        ("408 after accepting", Box::new(answer(408, true))),
        ("429 before accepting", Box::new(answer(429, false))),
        ("400 before accepting", Box::new(answer(400, false))),
    ]
}

/// Submits `each` jobs under every fault, with a budget that would allow repeating.
pub async fn faulty_submits(each: usize) -> Submits {
    let mut report = Submits::default();
    for (name, fault) in faults() {
        let service = Setup::new()
            .set("ENGINE__RETRY_BUDGET", "400ms")
            .set("LOG__LEVEL", "error")
            .engine(|options| fault(options))
            .start()
            .await;
        submit_many(&service, each).await;
        let mut accepted: BTreeMap<String, usize> = BTreeMap::new();
        for job in service.engine.jobs() {
            let url = job.callback_url.expect("a callback URL");
            let id = url.split('/').nth_back(1).expect("a job id").to_owned();
            *accepted.entry(id).or_default() += 1;
        }
        let jobs = all_jobs(&service).await;
        assert_eq!(jobs.len(), each, "{name}: every submission is on record");
        report.submits += jobs.len();
        report.repeated += accepted.values().filter(|count| **count > 1).count();
        for job in jobs {
            let count = accepted.get(text(&job["id"])).copied().unwrap_or(0);
            let is_right = match text(&job["status"]) {
                "submitted" => count == 1,
                "unsent" | "rejected" => count == 0,
                "unconfirmed" => count <= 1,
                _ => false,
            };
            if !is_right {
                report.misjudged.push(format!("{name}: {} with {count} accepted", job["status"]));
            }
        }
    }
    report
}

async fn submit_many(service: &Service, count: usize) {
    let next = AtomicU64::new(0);
    let submitters = (0..SENDERS).map(|_| async {
        while next.fetch_add(1, Ordering::Relaxed) < count as u64 {
            service.submit(&ready_job()).await;
        }
    });
    futures_util::future::join_all(submitters).await;
}

async fn all_jobs(service: &Service) -> Vec<Value> {
    let request = service.request(reqwest::Method::GET, "/v1/jobs");
    let answer = request.header("accept", "application/x-ndjson").send().await.expect("an answer");
    let body = answer.text().await.expect("lines");
    body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// What came of callbacks that overtook the Engine's reply.
pub struct Early {
    pub callbacks: usize,
    /// Jobs made by a callback that did not find its job.
    pub orphans: usize,
    /// Jobs without a result.
    pub unfinished: usize,
}

/// Submits to an Engine that calls back before it replies.
pub async fn early_callbacks(count: usize) -> Early {
    let setup = Setup::new().set("LOG__LEVEL", "error").finishing_at_once();
    let setup = setup.engine(|options| options.callback_before_reply = FaultRate::Always);
    let service = setup.start().await;
    submit_many(&service, count).await;
    let jobs = all_jobs(&service).await;
    Early {
        callbacks: service.engine.answered_callbacks().len(),
        orphans: jobs.iter().filter(|job| job["origin"] != "submitted").count(),
        unfinished: jobs.iter().filter(|job| job["finishedAt"].is_null()).count(),
    }
}

/// How long the disk stays full in each round.
const FULL_FOR: Duration = Duration::from_millis(50);

/// What came of a disk that was full again and again.
pub struct Disk {
    pub rounds: usize,
    pub acknowledged: usize,
    /// Of them, while the disk was full.
    pub while_full: usize,
    pub lost: usize,
    /// From the return of space to the first callback that was stored as usual, ascending.
    pub recovery: Vec<Duration>,
}

/// A small file system of its own, gone with the value.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().ok()?;
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(folder.path());
        mount.stderr(std::process::Stdio::null());
        mount.status().ok()?.success().then_some(Self(folder))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// Fills and frees the disk under the service; `None` where no file system can be mounted.
pub async fn disk_rounds(rounds: usize) -> Option<Disk> {
    let disk = Tmpfs::mount()?;
    let folder = disk.0.path();
    let elsewhere = tempfile::tempdir().unwrap();
    let journal = Arc::new(Journal::create(&elsewhere.path().join("journal")));
    let program = Program::serve(folder, &settings()).await;
    let key = signing_key(&database_in(folder)).await;
    let http = http_client();
    let (mut while_full, mut recovery) = (0, Vec::new());
    for _ in 0..rounds {
        let before = journal.len();
        fill(&folder.join("filler"));
        let stop = Arc::new(AtomicBool::new(false));
        let timer = async {
            // The time itself is what is tested: a disk that is full for a moment, under load.
            tokio::time::sleep(FULL_FOR).await;
            stop.store(true, Ordering::Relaxed);
        };
        tokio::join!(drive(&program.callbacks, key, &journal, &stop), timer);
        while_full += journal.len() - before;
        fs::remove_file(folder.join("filler")).unwrap();
        let freed = Instant::now();
        loop {
            let id = JobId::new(jiff::Timestamp::now());
            let url = format!("{}/callbacks/{id}/{}", program.callbacks, signature::sign(&key, id));
            let body = json!({ "success": true, "jobId": id.to_string() }).to_string();
            let sha256 = hex(&Sha256::digest(&body));
            let Ok(answer) = http.post(&url).body(body).send().await else { continue };
            if answer.status().is_success() {
                journal.note(&id.to_string(), &sha256);
                let answer: Value = answer.json().await.expect("JSON");
                if answer["outcome"] == "stored" {
                    break;
                }
            }
            assert!(freed.elapsed() < Duration::from_secs(60), "normal service never came back");
        }
        recovery.push(freed.elapsed());
    }
    assert_eq!(program.terminate().await.code, Some(0));
    let lost = lost(&database_in(folder), &journal).await.len();
    recovery.sort();
    Some(Disk { rounds, acknowledged: journal.len(), while_full, lost, recovery })
}

/// Takes all space that is left.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("a file");
    for size in [1 << 20, 4096, 1] {
        let zeros = vec![0; size];
        while file.write_all(&zeros).is_ok() {}
    }
}

/// The `percent`th percentile of ascending durations, by nearest rank.
pub fn percentile(ascending: &[Duration], percent: usize) -> Duration {
    ascending[(ascending.len() * percent).div_ceil(100).max(1) - 1]
}
