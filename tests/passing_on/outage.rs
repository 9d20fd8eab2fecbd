//! A target that is dead for hours, with everything that waits for it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use finishline::{
    clock::Clock,
    domain::{
        ids::JobId,
        relay::{FAILURES_BEFORE_PAUSE, PAUSE},
        signature,
    },
    store::{Arrival, Store},
    workers::{Step, Worker, relay::Relayer},
};
use jiff::Timestamp;
use serde_json::json;
use standardwebhooks::Webhook;
use tokio::sync::Barrier;

use super::receiver::SECRET;
use crate::{
    failing_store::{FailingStore, Failure, Plan},
    support::{Service, Setup, serve, within},
};

const WAITING: usize = 50_000;
const HOURS: usize = 8;
const CONCURRENCY: usize = 8;

/// One turn of the worker for each second, as it turns by itself.
const TURNS: usize = HOURS * 60 * 60;

/// What the process may take more over the hours. The orders alone would be more, were they read.
const MOST_GROWTH_BYTES: u64 = 16 * 1024 * 1024;

/// A turn that finds its target paused. Going through all that waits takes many times as long.
const MOST_FOR_A_TURN: Duration = Duration::from_millis(5);

/// Arrivals put on record at a time: fewer than the writer's queue takes.
const AT_A_TIME: usize = 512;

/// The target: dead until it is told to be well.
#[derive(Clone)]
struct Target {
    url: String,
    is_well: Arc<AtomicBool>,
    /// Requests that were refused.
    refused: Arc<AtomicUsize>,
    under_way: Arc<AtomicUsize>,
    most_under_way: Arc<AtomicUsize>,
    taken: Arc<AtomicUsize>,
    /// The first after the probe wait here for each other: so many do come at a time.
    together: Arc<Barrier>,
    /// By job: the ids it came under, and how often it was taken.
    came: Arc<Mutex<BTreeMap<String, Came>>>,
}

#[derive(Default)]
struct Came {
    ids: Vec<String>,
    taken: usize,
}

impl Target {
    async fn start() -> Self {
        let target = Self {
            url: String::new(),
            is_well: Arc::default(),
            refused: Arc::default(),
            under_way: Arc::default(),
            most_under_way: Arc::default(),
            taken: Arc::default(),
            together: Arc::new(Barrier::new(CONCURRENCY)),
            came: Arc::default(),
        };
        let router = Router::new().route("/hook", post(take)).with_state(target.clone());
        Self { url: format!("{}/hook", serve(router).await), ..target }
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

async fn take(State(target): State<Target>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let now = target.under_way.fetch_add(1, Ordering::SeqCst) + 1;
    target.most_under_way.fetch_max(now, Ordering::SeqCst);
    let text = |name: &str| headers[name].to_str().expect("text").to_owned();
    let (id, timestamp) = (text("webhook-id"), text("webhook-timestamp"));
    // The clock is moved by hand, so the time is not compared with that of this machine.
    let webhook = Webhook::new(SECRET).expect("a secret");
    let signature = webhook.sign(&id, timestamp.parse().expect("a number"), &body);
    assert_eq!(text("webhook-signature"), signature.expect("a signature"));
    let is_well = target.is_well.load(Ordering::SeqCst);
    {
        let mut came = target.came.lock().expect("no panic");
        let came = came.entry(text("finishline-job-id")).or_default();
        if !came.ids.contains(&id) {
            came.ids.push(id);
        }
        came.taken += usize::from(is_well);
    }
    if is_well {
        let earlier = target.taken.fetch_add(1, Ordering::SeqCst);
        if (1..=CONCURRENCY).contains(&earlier) {
            target.together.wait().await;
        }
    } else {
        target.refused.fetch_add(1, Ordering::SeqCst);
    }
    target.under_way.fetch_sub(1, Ordering::SeqCst);
    if is_well { StatusCode::NO_CONTENT } else { StatusCode::INTERNAL_SERVER_ERROR }
}

/// A service whose own relay is held up, and one beside it that is stepped by hand.
async fn service_with(target: &Target, clock: &Clock) -> (Service, Arc<dyn Store>, Relayer) {
    let targets = json!([{ "name": "app", "url": target.url, "secret": SECRET }]);
    let inner: Arc<OnceLock<Arc<dyn Store>>> = Arc::default();
    let found = inner.clone();
    let service = Setup::new()
        .set("RELAY__TARGETS", targets)
        .set("RELAY__CONCURRENCY", CONCURRENCY)
        .clock(clock)
        .wrap(Arc::new(move |store| {
            assert!(found.set(store.clone()).is_ok(), "started once");
            let failing = FailingStore::around(store);
            failing.fail(Plan::always(Failure::Unavailable).only("claim_relays"));
            failing
        }))
        .start()
        .await;
    let store = inner.get().expect("it has started").clone();
    let relayer = service.relayer(store.clone());
    // It may be waited for whenever nothing is under way.
    relayer.attempts.close();
    (service, store, relayer)
}

fn body(number: usize) -> Bytes {
    let outputs = json!({ "meshes": [{ "extension": ".stl", "status": "Available",
        "url": "https://store.example/mandible.stl" }] });
    let body = json!({ "jobId": format!("e-{number}"), "success": true, "outputFiles": outputs });
    body.to_string().into()
}

/// Puts results on record as the callbacks door does, many at a time.
async fn put_on_record(store: &Arc<dyn Store>, now: Timestamp) {
    for first in (0..WAITING).step_by(AT_A_TIME) {
        let numbers = first..WAITING.min(first + AT_A_TIME);
        let arrivals = numbers.map(|number| {
            store.receive(Arrival::of_engine(JobId::new(now), body(number), now, &[]))
        });
        for receipt in futures_util::future::join_all(arrivals).await {
            receipt.expect("it is put on record");
        }
    }
}

/// What of this process is in memory.
fn memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("resident");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_may_be_dead_for_eight_hours_with_fifty_thousand_results_waiting() {
    let target = Target::start().await;
    let start = "2026-03-02T06:00:00Z".parse().expect("an instant");
    let clock = Clock::manual(start);
    let (service, store, relayer) = service_with(&target, &clock).await;
    let key = store.signing_key();
    let stopwatch = Instant::now();
    put_on_record(&store, clock.now()).await;
    println!("{WAITING} on record after {:?}", stopwatch.elapsed());

    let stopwatch = Instant::now();
    let mut during = 0;
    let mut memory = Vec::new();
    let mut idle = Duration::ZERO;
    for turn in 0..TURNS {
        clock.advance(Duration::from_secs(1));
        let begun = Instant::now();
        if relayer.step().await.expect("a step") == Step::Idle {
            idle += begun.elapsed();
        }
        within(relayer.attempts.wait()).await;
        if turn % 300 == 0 {
            let id = JobId::new(clock.now());
            let url = format!("{}/callbacks/{id}/{}", service.callbacks, signature::sign(&key, id));
            let answer = service.post_to(&url, body(WAITING + during)).await.expect(200);
            assert_eq!(answer.json()["outcome"], "stored");
            during += 1;
        }
        if turn % 1800 == 1799 {
            memory.push(memory_bytes());
        }
    }
    println!("{HOURS} hours after {:?}, idle turns {idle:?}, {memory:?}", stopwatch.elapsed());
    let paused = service.get("/v1/relays?state=paused&limit=1").await.expect(200).json();
    assert_eq!(paused["relays"].as_array().expect("relays").len(), 1, "it is shown");
    let probes = HOURS * 60 * 60 / PAUSE.as_secs() as usize;
    let before_the_pause = FAILURES_BEFORE_PAUSE as usize + CONCURRENCY;
    let refused = target.refused();
    assert!((probes - 10..=before_the_pause + probes).contains(&refused), "{refused} attempts");
    assert!(idle / TURNS as u32 <= MOST_FOR_A_TURN, "{TURNS} turns took {idle:?}");
    let growth = memory.iter().max().expect("hours").saturating_sub(memory[0]);
    assert!(growth <= MOST_GROWTH_BYTES, "grown by {growth} bytes: {memory:?}");

    let stopwatch = Instant::now();
    target.is_well.store(true, Ordering::SeqCst);
    let everything = WAITING + during;
    let mut moved = 0;
    while target.taken() < everything || target.under_way.load(Ordering::SeqCst) > 0 {
        let found = relayer.step().await.expect("a step");
        tokio::select! {
            () = std::future::ready(()), if found == Step::Busy => {}
            () = relayer.woken(), if found == Step::Idle => {}
            () = relayer.attempts.wait(), if found == Step::Idle => {
                // What was tried before waits for its next try.
                clock.advance(PAUSE);
                moved += 1;
                assert!(moved < 60, "{} of {everything} were taken", target.taken());
            }
        }
    }
    within(relayer.attempts.wait()).await;
    println!("drained after {:?}, moved {moved}", stopwatch.elapsed());
    assert_eq!(target.most_under_way.load(Ordering::SeqCst), CONCURRENCY, "the set rate");
    {
        let came = target.came.lock().expect("no panic");
        assert_eq!(came.len(), everything);
        for (job_id, came) in came.iter() {
            assert_eq!((came.ids.len(), came.taken > 0), (1, true), "{job_id}: {:?}", came.ids);
        }
    }
    for state in ["pending", "paused", "dead"] {
        let left = service.get(&format!("/v1/relays?state={state}")).await.expect(200).json();
        assert_eq!(left["relays"], json!([]), "none is left {state}");
    }
}
