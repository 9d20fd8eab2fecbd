//! Large files through the release binary: `cargo bench --bench files [-- MEBIBYTES ROUNDS]`.
//!
//! Prints how far the service's resident memory grows, and its throughput beside that of `curl`
//! between the same two ends, in pairs, one after the other. The ends are in this process: a
//! storage that puts what it takes on the disk, as an Engine's does, a storage that forgets it,
//! and a source of zeros. A copy of an output ends on the disk; what curl writes is on the disk
//! after `sync`, and the pair without it is printed too. The defaults: 2048 3.

#![allow(clippy::disallowed_methods, reason = "it measures")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::Instant,
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{StatusCode, header::CONTENT_LENGTH},
    response::IntoResponse,
    routing::{get, post, put},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use support::{Program, http_client, serve, text};
use tokio::io::AsyncWriteExt;

const MIB: u64 = 1024 * 1024;

/// Of one piece that the source sends.
const PIECE: usize = 256 * 1024;

/// Of the storages.
const KEEPS: &str = "/keep";
const FORGETS: &str = "/forget";

/// What must not be exceeded, and what is wanted.
const MOST_GROWTH_MIB: u64 = 64;
const LEAST_RATIO: f64 = 0.8;

#[tokio::main]
async fn main() {
    let given: Vec<u64> =
        std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let number = |position: usize, default| given.get(position).copied().unwrap_or(default);
    let (bytes, rounds) = (number(0, 2048) * MIB, number(1, 3));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bench = Bench::start(folder.path(), bytes).await;
    bench.job(None, FORGETS).await;
    // Once without measuring: the file's first reading comes from the disk, all others do not.
    bench.upload_by_curl(&format!("{}{FORGETS}", bench.ends)).await;

    for (what, storage) in
        [("upload to a storage that keeps", KEEPS), ("upload to one that forgets", FORGETS)]
    {
        let (before, mut pairs) = (bench.resident(), Vec::new());
        for _ in 0..rounds {
            let direct = bench.upload_by_curl(&format!("{}{storage}", bench.ends)).await;
            let job = bench.job(None, storage).await;
            let path = format!("{}/v1/jobs/{}/inputs/cbct", bench.service.api, text(&job["id"]));
            pairs.push((direct, bench.upload_by_curl(&path).await));
        }
        report(what, bytes, &pairs, bench.peak().saturating_sub(before));
    }

    let before = bench.resident();
    let (mut copied, mut copied_safely, mut served) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let file = folder.path().join("by-curl");
        let direct = bench.download_by_curl(&format!("{}/file", bench.ends), &file).await;
        let syncing = Instant::now();
        std::fs::File::open(&file).and_then(|file| file.sync_all()).expect("it is on disk");
        let safely = direct + syncing.elapsed().as_secs_f64();
        std::fs::remove_file(&file).expect("it is deleted");
        let job = bench.job(Some(format!("{}/file", bench.ends)), FORGETS).await;
        let through = bench.finish(&job).await;
        copied.push((direct, through));
        copied_safely.push((safely, through));
        let output = format!("{}/v1/jobs/{}/outputs/x-0", bench.service.api, text(&job["id"]));
        let nowhere = Path::new("/dev/null");
        let first = bench.download_by_curl(&output, nowhere).await;
        println!("  first reading, verified: {:.0} MiB/s", rate(bytes, first));
        let direct = bench.download_by_curl(&format!("{}/file", bench.ends), nowhere).await;
        served.push((direct, bench.download_by_curl(&output, nowhere).await));
        bench.erase(&job).await;
    }
    let growth = bench.peak().saturating_sub(before);
    report("copy of an output, against curl and sync", bytes, &copied_safely, growth);
    report("copy of an output, against curl alone", bytes, &copied, growth);
    report("download", bytes, &served, growth);
}

/// Seconds by `curl` alone and with the service between.
type Pair = (f64, f64);

fn report(what: &str, bytes: u64, pairs: &[Pair], growth_kib: u64) {
    for (direct, through) in pairs {
        println!(
            "  {what}: curl {:.0} MiB/s, through the service {:.0} MiB/s, ratio {:.2}",
            rate(bytes, *direct),
            rate(bytes, *through),
            direct / through
        );
    }
    let mut ratios: Vec<f64> = pairs.iter().map(|(direct, through)| direct / through).collect();
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
    let growth = growth_kib / 1024;
    let verdict = |is_met| if is_met { "met" } else { "MISSED" };
    println!(
        "{what} of {} MiB: median ratio {ratio:.2} (>= {LEAST_RATIO}: {}), memory grew by {growth} \
         MiB (< {MOST_GROWTH_MIB}: {})",
        bytes / MIB,
        verdict(ratio >= LEAST_RATIO),
        verdict(growth < MOST_GROWTH_MIB),
    );
}

fn rate(bytes: u64, seconds: f64) -> f64 {
    (bytes / MIB) as f64 / seconds
}

struct Bench {
    service: Program,
    /// Origin of the Engine, its storage and the source.
    ends: String,
    shared: Arc<Ends>,
    scan: std::path::PathBuf,
}

struct Ends {
    bytes: u64,
    kept: std::path::PathBuf,
    /// For the job that is submitted next.
    upload_url: Mutex<String>,
    /// Of the job that was submitted last.
    callback_url: Mutex<String>,
}

impl Bench {
    async fn start(folder: &Path, bytes: u64) -> Self {
        let shared = Arc::new(Ends {
            bytes,
            kept: folder.join("kept"),
            upload_url: Mutex::default(),
            callback_url: Mutex::default(),
        });
        let ends = Router::new()
            .route("/oauth/token", post(async || Json(json!({"access_token": "t"}))))
            .route("/24.06/job", post(take_job))
            .route("/notify", post(async || StatusCode::NO_CONTENT))
            .route(KEEPS, put(keep_file))
            .route(FORGETS, put(forget_file))
            .route("/file", get(give_file))
            .with_state(shared.clone());
        let ends = serve(ends).await;
        let scan = folder.join("scan");
        let file = std::fs::File::create(&scan).expect("a file");
        file.set_len(bytes).expect("a file of zeros");
        let (base_url, token_url) = (format!("{ends}/24.06"), format!("{ends}/oauth/token"));
        let store = format!("file://{}/files", folder.display());
        let settings = [
            ("CALLBACKS__PUBLIC_URL", "http://127.0.0.1"),
            ("ENGINE__BASE_URL", &base_url),
            ("ENGINE__AUTH__TOKEN_URL", &token_url),
            ("ENGINE__AUTH__CLIENT_ID", "bench"),
            ("ENGINE__AUTH__CLIENT_SECRET", "bench-secret"),
            ("MIRROR__STORE", &store),
        ];
        Self { service: Program::serve(folder, &settings).await, ends, shared, scan }
    }

    /// Submits a job; with a link, its input needs no upload.
    async fn job(&self, link: Option<String>, storage: &str) -> Value {
        *self.shared.upload_url.lock().unwrap() = format!("{}{storage}", self.ends);
        let mut body = json!({
            "inputFiles": {"cbct": {"extension": ".dcm"}},
            "outputFiles": {"x": {"extension": ".stl"}},
        });
        if let Some(link) = link {
            body["inputFiles"]["cbct"]["downloadUrl"] = link.into();
        }
        let request = http_client().post(format!("{}/v1/jobs", self.service.api)).json(&body);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 201);
        answer.json().await.expect("a job")
    }

    /// Calls back with a link to the source; answers the seconds until its copy is on record.
    async fn finish(&self, job: &Value) -> f64 {
        let path = self.shared.callback_url.lock().unwrap().clone();
        let path = path.strip_prefix("http://127.0.0.1").expect("our public URL").to_owned();
        let result = json!({"success": true, "outputFiles": {"x": [
            {"extension": ".stl", "status": "Available", "url": format!("{}/file", self.ends)},
        ]}});
        let began = Instant::now();
        let called = http_client().post(format!("{}{path}", self.service.callbacks)).json(&result);
        assert_eq!(called.send().await.expect("an answer").status(), 200);
        let url = format!("{}/v1/jobs/{}", self.service.api, text(&job["id"]));
        // Beyond the usual deadline: the file is large.
        loop {
            let answer = http_client().get(&url).send().await.expect("an answer");
            let job: Value = answer.json().await.expect("a job");
            if job["secured"] == true {
                return began.elapsed().as_secs_f64();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn erase(&self, job: &Value) {
        let url = format!("{}/v1/jobs/{}", self.service.api, text(&job["id"]));
        let erased = http_client().delete(url).send().await.expect("an answer");
        assert_eq!(erased.status(), 200);
        // The next round needs the room, and an erasure may take its time over files.
        let files = self.scan.parent().expect("a folder").join("files");
        let _ = std::fs::remove_dir_all(files.join(text(&job["id"])));
    }

    async fn upload_by_curl(&self, url: &str) -> f64 {
        let scan = self.scan.to_string_lossy().into_owned();
        curl(&["-T", &scan, "-o", "/dev/null", url]).await
    }

    async fn download_by_curl(&self, url: &str, file: &Path) -> f64 {
        curl(&["-o", &file.to_string_lossy(), url]).await
    }

    /// Resident memory now, and at its largest, in KiB.
    fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.service.id()));
        let status = status.expect("Linux tells it");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

/// Runs curl; answers the seconds it took.
async fn curl(arguments: &[&str]) -> f64 {
    let mut command = Command::new("curl");
    command.args(["-sS", "--fail", "--noproxy", "*", "-w", "%{time_total}"]).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().expect("curl is installed"));
    let output = output.await.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("seconds")
}

async fn take_job(State(ends): State<Arc<Ends>>, Json(body): Json<Value>) -> Json<Value> {
    text(&body["finishWebhook"]).clone_into(&mut ends.callback_url.lock().unwrap());
    let upload_url = ends.upload_url.lock().unwrap().clone();
    let notify_url = upload_url.replace(KEEPS, "/notify").replace(FORGETS, "/notify");
    Json(json!({"jobId": "e-1", "inputFiles": {"cbct": {
        "uploadUrl": upload_url, "notifyUrl": notify_url,
    }}}))
}

async fn forget_file(State(ends): State<Arc<Ends>>, body: Body) -> StatusCode {
    let (mut pieces, mut taken) = (body.into_data_stream(), 0);
    while let Some(Ok(piece)) = pieces.next().await {
        taken += piece.len() as u64;
    }
    if taken == ends.bytes { StatusCode::CREATED } else { StatusCode::BAD_REQUEST }
}

/// Answers when the file is on the disk.
async fn keep_file(State(ends): State<Arc<Ends>>, body: Body) -> StatusCode {
    let (mut pieces, mut taken) = (body.into_data_stream(), 0);
    let mut file = tokio::fs::File::create(&ends.kept).await.expect("a file");
    file.set_max_buf_size(PIECE);
    while let Some(Ok(piece)) = pieces.next().await {
        taken += piece.len() as u64;
        file.write_all(&piece).await.expect("it is written");
    }
    file.flush().await.expect("it is written");
    file.sync_all().await.expect("it is on disk");
    std::fs::remove_file(&ends.kept).expect("it is deleted");
    if taken == ends.bytes { StatusCode::CREATED } else { StatusCode::BAD_REQUEST }
}

async fn give_file(State(ends): State<Arc<Ends>>) -> impl IntoResponse {
    let piece = Bytes::from_static(&[0; PIECE]);
    let pieces = stream::iter(0..ends.bytes / PIECE as u64)
        .map(move |_| Ok::<_, std::convert::Infallible>(piece.clone()));
    ([(CONTENT_LENGTH, ends.bytes)], Body::from_stream(pieces))
}
