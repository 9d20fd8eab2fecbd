//! The attacker's bench: `cargo bench --bench hostile [-- --seconds N] [--rate N] [ATTACK]…`.
//!
//! Each attack runs for a minute against a fresh service on loopback, beside an honest sender of
//! callbacks. It fails unless the service's resident memory stays small, and every honest callback
//! is answered `stored` in time and is there afterwards, byte for byte. A word of an attack's name
//! chooses it; without words all attacks run.

#![allow(clippy::disallowed_methods, reason = "it measures")]

mod attacks;
mod honest;
#[path = "../speed/load.rs"]
#[allow(dead_code, reason = "of the load generator, the exchange alone is used")]
mod load;
#[path = "../speed/seed.rs"]
#[allow(dead_code, reason = "the sizes of a database are of no interest here")]
mod seed;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, routing::post};
use serde_json::json;
use tokio::time::timeout;

use self::{attacks::ATTACKS, honest::Honest, seed::Seeded};
use crate::support::{Program, http_client, serve};

const MOST_MIB: f64 = 256.0;
const MOST_P99_MILLIS: f64 = 250.0;

/// Genuine addresses that the attacker knows, beside those of the honest sender.
const KNOWN: usize = 64;

/// Keys as their owners know them. The attackers' ones may do as little as their attack needs.
const OPERATOR_KEY: &str = "operator-7d1f9b3c5e2a8064";
pub const READ_KEY: &str = "reader-4c8e0a6b2d9f1357ab";
pub const SUBMIT_KEY: &str = "submitter-91b3d5f7086a2c4e";

/// What the command line asks for.
struct Order {
    /// Of each attack.
    time: Duration,
    /// Honest callbacks a second.
    rate: usize,
    words: Vec<String>,
}

/// What an attack is run against, and counts.
pub struct Target {
    pub callbacks: SocketAddr,
    pub api: SocketAddr,
    /// Paths of genuine callback addresses.
    pub known: Vec<String>,
    /// Connections and requests that were begun.
    pub begun: AtomicU64,
    /// Requests that were answered 2xx.
    pub accepted: AtomicU64,
    /// Requests that were answered otherwise.
    pub refused: AtomicU64,
}

impl Target {
    pub fn note(&self, status: u16) {
        let counter = if matches!(status, 200..=299) { &self.accepted } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn main() -> ExitCode {
    let order = Order::read();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let is_held = runtime.expect("a runtime").block_on(run(&order));
    if is_held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Order {
    fn read() -> Self {
        let mut order = Self { time: Duration::from_secs(60), rate: 50, words: Vec::new() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a number");
            match word.as_str() {
                "--seconds" => order.time = Duration::from_secs(number()),
                "--rate" => order.rate = number() as usize,
                // Cargo's own.
                "--bench" => {}
                _ => order.words.push(word),
            }
        }
        order
    }

    fn callbacks(&self) -> usize {
        self.rate * self.time.as_secs() as usize
    }
}

async fn run(order: &Order) -> bool {
    allow_many_files();
    let folder = tempfile::tempdir().expect("a folder");
    let engine = engine().await;
    let seeded = database(&folder.path().join("seed"), &engine, order.callbacks() + KNOWN).await;
    println!(
        "{} s each, beside {} honest callbacks a second; wanted: all stored, p99 < \
         {MOST_P99_MILLIS} ms, resident memory < {MOST_MIB} MiB\n",
        order.time.as_secs(),
        order.rate
    );
    println!(
        "{:<42} {:>9} {:>9} {:>9} | {:>6} {:>6} {:>5} {:>9} | {:>8} |",
        "attack", "begun", "accepted", "refused", "honest", "stored", "lost", "p99 ms", "peak MiB"
    );
    let mut is_held = true;
    for (name, attack) in ATTACKS {
        if !order.words.is_empty() && !order.words.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let own = folder.path().join(name.replace([' ', '/'], "-"));
        fs::create_dir_all(&own).expect("a folder");
        fs::copy(folder.path().join("seed/finishline.db"), own.join("finishline.db"))
            .expect("a copy of the database");
        let service = service(&own, &engine).await;
        let row = round(order, &service, &seeded, *attack).await;
        drop(service);
        fs::remove_dir_all(&own).expect("it is removed");
        println!("{name:<42} {row}");
        is_held &= row.failures().is_empty();
    }
    is_held
}

/// What came of one attack.
struct Row {
    begun: u64,
    accepted: u64,
    refused: u64,
    honest: honest::Outcome,
    /// `None` if the service died.
    peak_mib: Option<f64>,
}

/// One attack beside the honest sender, and what is on record afterwards.
async fn round(order: &Order, service: &Program, seeded: &Seeded, attack: attacks::Attack) -> Row {
    let address = |door: &str| -> SocketAddr {
        door.trim_start_matches("http://").parse().expect("an address")
    };
    let (own, known) = (order.callbacks(), seeded.paths.len() - KNOWN);
    let target = Arc::new(Target {
        callbacks: address(&service.callbacks),
        api: address(&service.api),
        known: seeded.paths[known..].to_vec(),
        begun: AtomicU64::new(0),
        accepted: AtomicU64::new(0),
        refused: AtomicU64::new(0),
    });
    let honest = Honest {
        callbacks: service.callbacks.clone(),
        api: service.api.clone(),
        key: OPERATOR_KEY,
        rate: order.rate,
    };
    let jobs = Seeded { ids: seeded.ids[..own].to_vec(), paths: seeded.paths[..own].to_vec() };
    let sending = honest.send(jobs);
    // It never ends by itself; what it holds open ends with it.
    let _ = timeout(order.time, attack(target.clone())).await;
    let mut outcome = sending.await.expect("the honest sender does not panic");
    honest.verify(&mut outcome).await;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Row {
        begun: count(&target.begun),
        accepted: count(&target.accepted),
        refused: count(&target.refused),
        honest: outcome,
        peak_mib: peak_mib(service.id()),
    }
}

impl Row {
    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let honest = &self.honest;
        if honest.stored < honest.sent {
            failures.push(format!("not stored: {:?}", honest.others));
        }
        if honest.lost > 0 {
            failures.push(format!("{} lost", honest.lost));
        }
        if honest.p99_millis() >= MOST_P99_MILLIS {
            failures.push(format!("p99 >= {MOST_P99_MILLIS} ms"));
        }
        match self.peak_mib {
            None => failures.push("the service died".to_owned()),
            Some(peak) if peak >= MOST_MIB => failures.push(format!("memory >= {MOST_MIB} MiB")),
            Some(_) => {}
        }
        failures
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let honest = &self.honest;
        write!(
            formatter,
            "{:>9} {:>9} {:>9} | {:>6} {:>6} {:>5} {:>9.1} | {:>8.1} | ",
            self.begun,
            self.accepted,
            self.refused,
            honest.sent,
            honest.stored,
            honest.lost,
            honest.p99_millis(),
            self.peak_mib.unwrap_or(f64::NAN)
        )?;
        let failures = self.failures();
        match failures.is_empty() {
            true => formatter.write_str("held"),
            false => write!(formatter, "FAILED: {}", failures.join("; ")),
        }
    }
}

/// An Engine that takes every job at once.
async fn engine() -> String {
    let engine = Router::new()
        .route("/oauth/token", post(async || Json(json!({"access_token": "t"}))))
        .route("/24.06/job", post(async || Json(json!({"jobId": "e-1"}))));
    serve(engine).await
}

/// The release binary with its default limits on the database in `folder`.
async fn service(folder: &Path, engine: &str) -> Program {
    let (base_url, token_url) = (format!("{engine}/24.06"), format!("{engine}/oauth/token"));
    let keys = json!([
        {"name": "operator", "key": OPERATOR_KEY},
        {"name": "reader", "key": READ_KEY, "scopes": ["read"]},
        {"name": "submitter", "key": SUBMIT_KEY, "scopes": ["submit", "read"]},
    ])
    .to_string();
    let settings = [
        ("CALLBACKS__PUBLIC_URL", "http://127.0.0.1"),
        ("API__KEYS", keys.as_str()),
        ("ENGINE__BASE_URL", &base_url),
        ("ENGINE__AUTH__TOKEN_URL", &token_url),
        ("ENGINE__AUTH__CLIENT_ID", "bench"),
        ("ENGINE__AUTH__CLIENT_SECRET", "bench-secret"),
        // A flood of warnings is collected in this process's memory.
        ("LOG__LEVEL", "error"),
    ];
    Program::serve(folder, &settings).await
}

/// A database in `folder` with this many jobs, each waiting for its callback.
async fn database(folder: &Path, engine: &str, jobs: usize) -> Seeded {
    fs::create_dir_all(folder).expect("a folder");
    let service = service(folder, engine).await;
    let request = http_client().post(format!("{}/v1/jobs", service.api));
    let request = request.bearer_auth(SUBMIT_KEY).json(&support::ready_job());
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 201);
    service.terminate().await;
    seed::multiply(&folder.join("finishline.db"), jobs)
}

/// The most memory that a process has had; `None` if it is not there any more.
fn peak_mib(id: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib / 1024.0)
}

/// The attackers are here.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a soft limit may be raised");
}
