//! The real process, killed while it copies from servers that misbehave.
//!
//! The invariant: no file that looks whole has wrong bytes, at any kill; and in the end all are
//! there.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use finishline::simulator::{FaultRate, Options, Processing, Simulator};
use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::copies::{expect_copies, files_below, job_of, store_url};
use crate::support::{
    Answer, DEADLINE, Program, dead_port, free_port, http_client, run_program, text,
};

const JOBS: usize = 100;
const MESHES: usize = 10;
const KILLS: usize = 5;

/// Copied while the servers misbehave; for the others they behave. Attempts fail by chance, and one
/// that fails a fifth time is repeated after 5 minutes: nobody waits for that.
const BADLY_SERVED: usize = 900;

/// The longest wait before a fifth attempt, of 60 s, and some.
const PATIENCE: Duration = Duration::from_secs(240);

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);

struct Node {
    engine: Simulator,
    folder: tempfile::TempDir,
    callbacks: String,
    program: Program,
}

impl Node {
    async fn start() -> Self {
        let options = Options {
            processing: Processing::After(Duration::ZERO),
            cut_downloads: FaultRate::Probability(0.3),
            lie_length: 50,
            lie_length_rate: FaultRate::Probability(0.03),
            corrupt_downloads: FaultRate::Probability(0.03),
            expire_downloads: FaultRate::Probability(0.05),
            resign_polls: true,
            throttle: 2_000_000,
            seed: Some(7),
            ..Options::default()
        };
        let engine = Simulator::start(free_port().await, options).await.expect("a simulator");
        let folder = tempfile::tempdir().expect("a folder");
        let callbacks = format!("http://{}", dead_port().await);
        let program = serve(folder.path(), &engine, &callbacks).await;
        Self { engine, folder, callbacks, program }
    }

    async fn kill_and_start_again(&mut self) {
        self.program.kill();
        expect_no_wrong_file(&self.engine, self.folder.path());
        self.program = serve(self.folder.path(), &self.engine, &self.callbacks).await;
    }

    async fn get(&self, path: &str) -> Value {
        let request = http_client().get(format!("{}{path}", self.program.api));
        Answer::of(request).await.expect(200).json()
    }
}

async fn serve(folder: &Path, engine: &Simulator, callbacks: &str) -> Program {
    let settings = [
        ("CALLBACKS__LISTEN", callbacks.trim_start_matches("http://")),
        ("CALLBACKS__PUBLIC_URL", callbacks),
        ("ENGINE__BASE_URL", &engine.base_url()),
        ("ENGINE__AUTH__TOKEN_URL", &engine.token_url()),
        ("ENGINE__AUTH__CLIENT_ID", "test"),
        ("ENGINE__AUTH__CLIENT_SECRET", "test-secret"),
        ("SPOOL__SIZE", "1MiB"),
        ("MIRROR__STORE", &store_url(folder)),
        ("MIRROR__CONCURRENCY", "8"),
    ];
    Program::serve(folder, &settings).await
}

/// Files that are not marked as half written, each compared with what the Engine made.
fn expect_no_wrong_file(engine: &Simulator, folder: &Path) {
    let of_job: HashMap<String, String> = engine
        .jobs()
        .into_iter()
        .filter_map(|job| {
            let url = job.callback_url?;
            let id = url.split("/callbacks/").nth(1)?.split('/').next()?.to_owned();
            Some((id, job.engine_job_id))
        })
        .collect();
    for file in whole_files(folder) {
        let job = file.parent().and_then(Path::file_name).expect("a job's folder");
        let index: usize = {
            let name = file.file_name().expect("a name").to_string_lossy();
            name.split('-').next().expect("a position").parse().expect("a number")
        };
        let engine_job_id = &of_job[&*job.to_string_lossy()];
        let content = engine.output_content(engine_job_id, "meshes", index).expect("it was made");
        let copy = fs::read(&file).expect("a copy");
        assert!(copy == content.bytes(), "{file:?} looks whole and is not");
    }
}

fn whole_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let files = files_below(&folder.join("files")).into_iter();
    files.filter(|path| !path.to_string_lossy().contains('#')).collect()
}

/// Returns what `look` finds, as soon as it finds it; more patient than the tests of one request.
async fn wait_long<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_outputs_survive_bad_servers_and_five_kills() {
    let mut node = Node::start().await;
    let http = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a client");
    let submit = |_| {
        let request = http.post(format!("{}/v1/jobs", node.program.api));
        let request = request.header("content-type", "application/json");
        Answer::of(request.body(job_of(MESHES).to_string()))
    };
    let submitted = stream::iter(0..JOBS).map(submit).buffer_unordered(8);
    let ids: Vec<String> =
        submitted.map(|answer| text(&answer.expect(201).json()["id"]).to_owned()).collect().await;
    for id in &ids {
        wait_long("the results", async || {
            let job = node.get(&format!("/v1/jobs/{id}")).await;
            (job["status"] == "succeeded").then_some(())
        })
        .await;
    }
    for kill in 1..=KILLS {
        let folder = node.folder.path().to_owned();
        // Each time some more are there, and others are on their way.
        wait_long("some copies", async || (whole_files(&folder).len() >= kill * 120).then_some(()))
            .await;
        node.kill_and_start_again().await;
    }
    let folder = node.folder.path().to_owned();
    let badly_served = async || (whole_files(&folder).len() >= BADLY_SERVED).then_some(());
    wait_long("most copies", badly_served).await;
    node.engine.set(|options| {
        let usual = Options { processing: options.processing, ..Options::default() };
        *options = Options { resign_polls: true, ..usual };
    });
    let mut failures = 0;
    for id in &ids {
        let job = wait_long(&format!("job {id} to be secured"), async || {
            let job = node.get(&format!("/v1/jobs/{id}")).await;
            (job["secured"] == true).then_some(job)
        })
        .await;
        expect_copies(&node.engine, node.folder.path(), &job);
        let events = node.get(&format!("/v1/jobs/{id}/events")).await;
        let events = events["events"].as_array().expect("events");
        failures += events.iter().filter(|one| one["type"] == "output.mirror_failed").count();
    }
    assert!(failures > 0, "the servers behaved");
    assert_eq!(files_below(&node.folder.path().join("files")).len(), JOBS * MESHES);
    let database = format!("sqlite://{}/finishline.db", node.folder.path().display());
    let store = store_url(node.folder.path());
    let environment =
        [("FINISHLINE__DATABASE__URL", &*database), ("FINISHLINE__MIRROR__STORE", &*store)];
    let ended = run_program(node.folder.path(), &["verify-files"], &environment).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("1000 verified"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_midway_leaves_nothing_that_looks_whole() {
    let mut node = Node::start().await;
    node.engine.set(|options| {
        let usual = Options { processing: options.processing, ..Options::default() };
        *options = Options { output_size: 3_000_000, throttle: 2_000_000, ..usual };
    });
    let request = http_client().post(format!("{}/v1/jobs", node.program.api));
    let request = request.header("content-type", "application/json");
    let job = Answer::of(request.body(job_of(1).to_string())).await.expect(201).json();
    let files = node.folder.path().join("files");
    wait_long("half a file", async || files_below(&files).pop()).await;
    node.program.kill();
    let left = files_below(&files);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(whole_files(node.folder.path()).len(), 0);
    node.program = serve(node.folder.path(), &node.engine, &node.callbacks).await;
    let path = format!("/v1/jobs/{}", text(&job["id"]));
    let job = wait_long("the job to be secured", async || {
        let job = node.get(&path).await;
        (job["secured"] == true).then_some(job)
    })
    .await;
    expect_copies(&node.engine, node.folder.path(), &job);
    assert_eq!(files_below(&files).len(), 1);
}
