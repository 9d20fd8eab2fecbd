//! How fast the service is, beside others on the same work: `cargo bench --bench speed [-- PART…]`.
//!
//! Parts: `callbacks`, `submitting`, `reading`, `followers`; without any, all of them. Contenders
//! run in turns within one run, driven by one load generator, and every figure is the median of its
//! rounds with their range: the machine is noisy, so only ratios say something. After the rounds
//! every acknowledged callback is looked for in its database. docs/PERFORMANCE.md explains.

#![allow(clippy::disallowed_methods, reason = "it measures")]

mod callbacks;
mod contenders;
mod followers;
mod load;
mod raw;
mod reading;
mod seed;
mod submitting;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::Path;

use axum::{Json, Router, routing::post};
use serde_json::{Value, json};
use support::{Program, http_client, serve, text};

/// Bytes of a callback's body.
const BODY_BYTES: usize = 4096;

/// Turns of each contender.
const ROUNDS: usize = 9;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|one| one != "--bench").collect();
    if let [mode, name] = &arguments[..]
        && mode == "contender"
    {
        return contenders::run(name).await;
    }
    let is_wanted = |part: &str| arguments.is_empty() || arguments.iter().any(|one| one == part);
    if is_wanted("callbacks") {
        callbacks::measure().await;
    }
    if is_wanted("submitting") {
        submitting::measure().await;
    }
    if is_wanted("reading") {
        reading::measure().await;
    }
    if is_wanted("followers") {
        followers::measure().await;
    }
}

/// A job result of [`BODY_BYTES`].
fn body() -> Vec<u8> {
    result_with(BODY_BYTES - result_with(0).len())
}

/// A job result with so much beyond what it must hold.
fn result_with(padding: usize) -> Vec<u8> {
    let result = json!({
        "success": true,
        "outputFiles": {"meshes": [{
            "extension": ".stl", "structures": ["mandible"], "status": "Available",
            "url": "https://store.example/mesh.stl",
        }]},
        "metadata": "m".repeat(padding),
    });
    serde_json::to_vec(&result).expect("JSON")
}

/// An Engine that takes every job at once.
async fn engine() -> String {
    let engine = Router::new()
        .route("/oauth/token", post(async || Json(json!({"access_token": "t"}))))
        .route("/24.06/job", post(async || Json(json!({"jobId": "e-1"}))));
    serve(engine).await
}

/// A job body with everything that lists are filtered by.
fn job() -> Value {
    support::ready_job_with(json!({
        "endUserId": "user",
        "cloudPackage": "package",
        "externalJobId": "external",
        "finishline": {"reference": "reference"},
    }))
}

/// The release binary on the database in `folder`.
async fn service(folder: &Path, engine: &str, more: &[(&str, &str)]) -> Program {
    let (base_url, token_url) = (format!("{engine}/24.06"), format!("{engine}/oauth/token"));
    let mut settings = vec![
        ("CALLBACKS__PUBLIC_URL", "http://127.0.0.1"),
        ("ENGINE__BASE_URL", &base_url),
        ("ENGINE__AUTH__TOKEN_URL", &token_url),
        ("ENGINE__AUTH__CLIENT_ID", "bench"),
        ("ENGINE__AUTH__CLIENT_SECRET", "bench-secret"),
    ];
    settings.extend(more);
    Program::serve(folder, &settings).await
}

/// A database in `folder` with so many jobs like one that the service made.
async fn database_of(folder: &Path, jobs: usize, are_finished: bool, body: &[u8]) -> seed::Seeded {
    std::fs::create_dir_all(folder).expect("a folder");
    let service = service(folder, &engine().await, &[]).await;
    let request = http_client().post(format!("{}/v1/jobs", service.api)).json(&job());
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 201);
    let submitted: Value = answer.json().await.expect("a job");
    service.terminate().await;
    let file = folder.join("finishline.db");
    let mut seeded = seed::multiply(&file, 1);
    if are_finished {
        let service = self::service(folder, &engine().await, &[]).await;
        let url = format!("{}{}", service.callbacks, seeded.paths[0]);
        let answer = http_client().post(url).body(body.to_vec()).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{}", text(&submitted["id"]));
        service.terminate().await;
    }
    if jobs > 1 || are_finished {
        seeded = seed::multiply(&file, jobs);
    }
    seeded
}

/// A field of `/proc/{id}/status` in KiB.
fn memory_of(id: u32, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux tells it");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the line");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The rounds of one figure.
#[derive(Clone, Default)]
struct Rounds(Vec<f64>);

impl Rounds {
    fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        load::percentile(&sorted, 50)
    }

    /// Median and range.
    fn show(&self) -> String {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let digits = if self.median() < 100.0 { 2 } else { 0 };
        format!("{:.digits$} ({least:.digits$}-{most:.digits$})", self.median())
    }

    /// Each round by the same round of another.
    fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one / other).collect())
    }
}

/// A number of jobs or followers, unless the environment has a smaller one for a quick trial.
fn number_of(variable: &str, usual: usize) -> usize {
    let given = std::env::var(variable).ok();
    given.map_or(usual, |given| given.parse().expect("a number"))
}

/// Where a door listens, without its scheme: the `Host` of a request to it, too.
fn host_of(door: &str) -> &str {
    door.trim_start_matches("http://")
}

/// KiB as MiB.
fn mib(kib: f64) -> String {
    format!("{:.1} MiB", kib / 1024.0)
}

/// Prints a figure beside what is wanted of it.
fn judge(figure: &str, found: &str, wanted: &str, is_met: bool) {
    let verdict = if is_met { "met" } else { "MISSED" };
    println!("  {figure}: {found} (wanted {wanted}: {verdict})");
}
