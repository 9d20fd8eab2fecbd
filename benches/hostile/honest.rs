//! The honest sender: genuine callbacks of usual size at an even rate, each to a job of its own.
//!
//! It has a thread to itself, so that it measures the service and not the attackers beside it, and
//! keeps its connections, as HTTP clients do.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use finishline::domain::ids::JobId;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinSet, time::sleep_until};

use super::{load::percentile, seed::Seeded};
use crate::support::http_client;

/// An answer that takes longer is none.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// What a result has beside what it must hold, for a body of some KiB.
const PADDING: usize = 3_000;

/// How long the service may take to come back to itself before a result counts as lost.
const RECOVERY: Duration = Duration::from_secs(30);

/// See the module.
pub struct Honest {
    pub callbacks: String,
    pub api: String,
    /// Reads the results afterwards.
    pub key: &'static str,
    /// Callbacks a second.
    pub rate: usize,
}

/// What became of the callbacks.
#[derive(Default)]
pub struct Outcome {
    pub sent: usize,
    /// Answered 200 `stored`.
    pub stored: usize,
    /// Other answers, or their lack, and how often.
    pub others: BTreeMap<String, usize>,
    /// Not on record, though they were answered 2xx.
    pub lost: usize,
    /// From the time a callback was due to its answer, ascending.
    millis: Vec<f64>,
    /// Job and number of the callbacks that were answered 2xx.
    acknowledged: Vec<(JobId, usize)>,
}

impl Outcome {
    pub fn p99_millis(&self) -> f64 {
        percentile(&self.millis, 99)
    }
}

impl Honest {
    /// Begins to send a callback for each of the jobs.
    pub fn send(&self, jobs: Seeded) -> oneshot::Receiver<Outcome> {
        let (tell, told) = oneshot::channel();
        let (door, rate) = (self.callbacks.clone(), self.rate);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let outcome = runtime.expect("a runtime").block_on(send_all(&door, rate, jobs));
            let _ = tell.send(outcome);
        });
        told
    }

    /// Asks for the result of each callback that was acknowledged.
    pub async fn verify(&self, outcome: &mut Outcome) {
        let client = http_client();
        let begun = Instant::now();
        for (id, number) in &outcome.acknowledged {
            let url = format!("{}/v1/jobs/{id}/result", self.api);
            let is_there = async || {
                let request = client.get(&url).bearer_auth(self.key).send().await.ok()?;
                let is_found = request.status() == 200;
                Some(is_found && request.bytes().await.ok()? == result(*number))
            };
            let mut found = is_there().await;
            while found != Some(true) && begun.elapsed() < RECOVERY {
                tokio::time::sleep(Duration::from_millis(100)).await;
                found = is_there().await;
            }
            outcome.lost += usize::from(found != Some(true));
        }
    }
}

async fn send_all(door: &str, rate: usize, jobs: Seeded) -> Outcome {
    let client = Client::builder().no_proxy().tls_certs_only([]).timeout(ANSWER_TIME).build();
    let client = client.expect("a client");
    let began = Instant::now();
    let mut sending = JoinSet::new();
    for (number, (id, path)) in jobs.ids.into_iter().zip(jobs.paths).enumerate() {
        let due = began + Duration::from_secs_f64(number as f64 / rate as f64);
        sleep_until(due.into()).await;
        let request = client.post(format!("{door}{path}")).body(result(number));
        sending.spawn(async move {
            let outcome = match request.send().await {
                Ok(answer) => answered(answer).await,
                Err(error) if error.is_timeout() => "no answer".to_owned(),
                Err(_) => "no connection".to_owned(),
            };
            (id, number, outcome, due.elapsed().as_secs_f64() * 1000.0)
        });
    }
    let mut all = Outcome::default();
    for (id, number, outcome, millis) in sending.join_all().await {
        all.sent += 1;
        all.millis.push(millis);
        if ["stored", "spooled"].contains(&outcome.as_str()) {
            all.acknowledged.push((id, number));
        }
        match outcome.as_str() {
            "stored" => all.stored += 1,
            _ => *all.others.entry(outcome).or_default() += 1,
        }
    }
    all.millis.sort_by(f64::total_cmp);
    all
}

/// The outcome that an answer tells, or its status.
async fn answered(answer: reqwest::Response) -> String {
    let status = answer.status();
    let body: Value = answer.json().await.unwrap_or_default();
    match body["outcome"].as_str() {
        Some(outcome) if status == 200 => outcome.to_owned(),
        _ => status.as_u16().to_string(),
    }
}

/// The result with this number.
fn result(number: usize) -> Vec<u8> {
    let result = json!({
        "success": true,
        "outputFiles": {"meshes": [{
            "extension": ".stl", "structures": ["mandible"], "status": "Available",
            "url": format!("https://store.example/mesh-{number}.stl"),
        }]},
        "metadata": "m".repeat(PADDING),
    });
    serde_json::to_vec(&result).expect("JSON")
}
