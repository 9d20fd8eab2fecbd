//! Reading: an exact result beside an answer that is always the same, and a large database beside a
//! small one.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use finishline::domain::ids::JobId;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    ROUNDS, Rounds, body,
    contenders::Contender,
    database_of, engine, host_of, judge,
    load::{Load, Make},
    memory_of, mib, number_of, result_with,
    seed::{self, Seeded},
    service,
};
use crate::support::{Program, http_client};

/// Turns of an exact result.
const EXACT_CONNECTIONS: usize = 64;
const EXACT_TIME: Duration = Duration::from_millis(500);

/// Turns of everything else.
const CONNECTIONS: usize = 8;
const TURN_TIME: Duration = Duration::from_millis(200);

/// Jobs of the small database, and of the large one unless `SPEED_JOBS` says otherwise.
const SMALL: usize = 1_000;
const LARGE: usize = 1_000_000;

/// Jobs of a page, and the pages before the deepest one that is read.
const PAGE: usize = 20;
const PAGES_BEFORE: usize = 9_999;

/// Jobs of a page on the way there.
const STRIDE: usize = 200;

/// Further than any turn counts: each begins at other jobs.
const APART: usize = 100_000;

const STARTS: usize = 9;

pub async fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    exact(&folder.path().join("exact")).await;
    sizes(folder.path()).await;
}

/// A result as it came, and the answer that it has not changed.
async fn exact(folder: &Path) {
    println!("reading a result of 4 KiB: {ROUNDS} turns each, {EXACT_CONNECTIONS} connections");
    let seeded = database_of(folder, SMALL, true, &body()).await;
    let no_op = Contender::own("no-op", None, "");
    let ours = service(folder, &engine().await, &[]).await;
    let host = host_of(&ours.api).to_owned();
    let address = host.parse().expect("an address");
    let url = format!("{}/v1/jobs/{}/result", ours.api, seeded.ids[0]);
    let answer = http_client().get(url).send().await.expect("an answer");
    // The bodies are all the same, and so are their tags.
    let tag = answer.headers()["etag"].to_str().expect("text").to_owned();
    let result = {
        let (ids, host) = (seeded.ids.clone(), host.clone());
        get(host, move |number| format!("/v1/jobs/{}/result", any(&ids, number)))
    };
    let unchanged: Make = {
        let result = result.clone();
        Arc::new(move |number| {
            let mut request = result(number);
            request.truncate(request.len() - 2);
            request.extend_from_slice(format!("if-none-match: {tag}\r\n\r\n").as_bytes());
            request
        })
    };
    let same = get(no_op.address.to_string(), |_| "/result".to_owned());
    let turns = [(address, result), (address, unchanged), (no_op.address, same)];
    let mut rates = [const { Rounds(Vec::new()) }; 3];
    for round in 0..ROUNDS {
        for place in 0..turns.len() {
            let place = (round + place) % turns.len();
            let (address, make) = &turns[place];
            let rate = turn(*address, EXACT_CONNECTIONS, EXACT_TIME, (round * APART, make)).await;
            rates[place].0.push(rate);
        }
    }
    ours.terminate().await;
    for (rates, name) in rates.iter().zip(["result", "304", "no-op"]) {
        println!("  {name}, per second: {}", rates.show());
    }
    let ratio = rates[0].over(&rates[2]);
    judge("exact result, by a no-op", &ratio.show(), ">= 0.35", ratio.median() >= 0.35);
    let ratio = rates[1].over(&rates[0]);
    judge("304, by the result", &ratio.show(), ">= 1", ratio.median() >= 1.0);
}

/// A million jobs beside a thousand.
async fn sizes(folder: &Path) {
    let jobs = number_of("SPEED_JOBS", LARGE);
    println!("reading at {jobs} jobs and at {SMALL}: {ROUNDS} turns, {CONNECTIONS} connections");
    let result = result_with(0);
    let (large_folder, small_folder) = (folder.join("large"), folder.join("small"));
    let large = database_of(&large_folder, jobs, true, &result).await;
    let small = database_of(&small_folder, SMALL, true, &result).await;
    let sizes = seed::sizes(&large_folder.join("finishline.db"));
    let beyond = (sizes["file"] - sizes["bodies"]) as f64 / sizes["jobs"] as f64 / 1024.0;
    let is_met = beyond <= 1.5;
    judge("of a job beyond its bodies", &format!("{beyond:.2} KiB"), "<= 1.5 KiB", is_met);
    starts(&large_folder).await;

    let engine = engine().await;
    let large = Side::open(service(&large_folder, &engine, &[]).await, large).await;
    let small = Side::open(service(&small_folder, &engine, &[]).await, small).await;
    compare(&large, &small).await;
    let (at_large, at_small) = (large.memory(), small.memory());
    let growth = at_large - at_small;
    let found = format!("{} ({} and {})", mib(growth), mib(at_large), mib(at_small));
    judge("resident memory, growth", &found, "<= 32 MiB", growth <= 32.0 * 1024.0);
    for (side, name) in [(large, "large"), (small, "small")] {
        let is_met = side.idle <= 20.0 * 1024.0;
        judge(&format!("{name}, idle"), &mib(side.idle), "<= 20 MiB", is_met);
        side.service.terminate().await;
    }
}

/// Milliseconds from the start of a process to its word that it is ready. Its output is looked at
/// every 3 ms, so each is up to that much too long.
async fn starts(folder: &Path) {
    let engine = engine().await;
    let mut times = Rounds::default();
    for _ in 0..STARTS {
        let began = std::time::Instant::now();
        let service = service(folder, &engine, &[]).await;
        times.0.push(began.elapsed().as_secs_f64() * 1000.0);
        service.terminate().await;
    }
    let is_met = times.median() <= 100.0;
    judge("start to ready, ms", &times.show(), "<= 100", is_met);
}

/// A service, and what is in its database.
struct Side {
    service: Program,
    seeded: Seeded,
    host: String,
    /// KiB right after its start.
    idle: f64,
    /// Where the deepest page begins.
    cursor: String,
}

impl Side {
    async fn open(service: Program, seeded: Seeded) -> Self {
        let idle = memory_of(service.id(), "VmRSS");
        let before = (PAGES_BEFORE * PAGE).min(seeded.ids.len() - PAGE);
        let cursor = cursor_after(&service.api, before).await;
        Self { host: host_of(&service.api).to_owned(), service, seeded, idle, cursor }
    }

    fn memory(&self) -> f64 {
        memory_of(self.service.id(), "VmRSS")
    }

    /// What is read, by name.
    fn reads(&self) -> Vec<(String, Make)> {
        let mut reads = vec![
            ("a job".to_owned(), self.of_jobs("")),
            ("a result".to_owned(), self.of_jobs("/result")),
            ("first page".to_owned(), self.list(|_| String::new())),
            ("last page or 10,000".to_owned(), {
                let cursor = self.cursor.clone();
                self.list(move |_| format!("&cursor={cursor}"))
            }),
            ("status".to_owned(), self.list(|_| "&status=succeeded".to_owned())),
        ];
        // The first and the last value may be shared by fewer.
        let values = self.seeded.ids.len() / seed::SHARED_BY as usize - 1;
        let jobs = self.seeded.ids.len();
        let middle = time_of(self.seeded.ids[jobs / 2]);
        for status in ["", "&status=succeeded"] {
            let mut add = |name: &str, make: Make| {
                let with = if status.is_empty() { "" } else { " with status" };
                reads.push((format!("{name}{with}"), make));
            };
            for (name, column) in [
                ("reference", "reference"),
                ("endUserId", "end_user_id"),
                ("cloudPackage", "cloud_package"),
                ("externalJobId", "external_job_id"),
            ] {
                let make = self.list(move |number| {
                    format!("&{name}={column}-{}{status}", 1 + scatter(number) % values)
                });
                add(name, make);
            }
            let engine =
                move |number| format!("&engineJobId=engine-{}{status}", 1 + scatter(number) % jobs);
            add("engineJobId", self.list(engine));
            for filter in [
                format!("createdAfter={middle}"),
                format!("createdBefore={middle}"),
                "overdue=true".to_owned(),
                "overdue=false".to_owned(),
                "staleCallback=true".to_owned(),
                "staleCallback=false".to_owned(),
            ] {
                let name = if filter.starts_with("created") { &filter[..13] } else { &filter };
                add(
                    name.trim_end_matches('='),
                    self.list({
                        let filter = filter.clone();
                        move |_| format!("&{filter}{status}")
                    }),
                );
            }
        }
        reads
    }

    fn of_jobs(&self, below: &'static str) -> Make {
        let ids = self.seeded.ids.clone();
        get(self.host.clone(), move |number| format!("/v1/jobs/{}{below}", any(&ids, number)))
    }

    fn list(&self, more: impl Fn(usize) -> String + Send + Sync + 'static) -> Make {
        get(self.host.clone(), move |number| format!("/v1/jobs?limit={PAGE}{}", more(number)))
    }
}

async fn compare(large: &Side, small: &Side) {
    let sides = [large, small].map(|side| side.host.parse().expect("an address"));
    for ((name, at_large), (_, at_small)) in large.reads().into_iter().zip(small.reads()) {
        let (makes, mut rates) = ([at_large, at_small], [const { Rounds(Vec::new()) }; 2]);
        for round in 0..ROUNDS {
            for place in 0..sides.len() {
                let place = (round + place) % sides.len();
                let what = (round * APART, &makes[place]);
                rates[place].0.push(turn(sides[place], CONNECTIONS, TURN_TIME, what).await);
            }
        }
        let ratio = rates[0].over(&rates[1]);
        let found = format!("{}; {} per second", ratio.show(), rates[0].show());
        judge(&name, &found, ">= 0.8", ratio.median() >= 0.8);
    }
}

/// One turn of requests from this number on; answers how many a second.
async fn turn(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    (first, make): (usize, &Make),
) -> f64 {
    let load = Load { address, connections, first, most: APART, time, rate: None };
    let outcome = load.run(make.clone()).await;
    assert_eq!(outcome.refused, 0, "every request is answered well");
    outcome.rate()
}

fn get(host: String, path: impl Fn(usize) -> String + Send + Sync + 'static) -> Make {
    Arc::new(move |number| {
        format!("GET {} HTTP/1.1\r\nhost: {host}\r\n\r\n", path(number)).into_bytes()
    })
}

/// Spreads numbers that follow each other (Knuth's multiplicative hash).
fn scatter(number: usize) -> usize {
    number.wrapping_mul(2_654_435_761) >> 4
}

fn any(ids: &[JobId], number: usize) -> JobId {
    ids[scatter(number) % ids.len()]
}

/// A job's age is in its id.
fn time_of(id: JobId) -> Timestamp {
    let (seconds, nanos) = id.0.get_timestamp().expect("it is a v7").to_unix();
    Timestamp::new(seconds as i64, nanos as i32).expect("a time")
}

/// The cursor after so many jobs.
async fn cursor_after(api: &str, jobs: usize) -> String {
    let (mut cursor, mut passed) = (None, 0);
    while passed < jobs {
        let limit = STRIDE.min(jobs - passed).to_string();
        let mut request = http_client().get(format!("{api}/v1/jobs")).query(&[("limit", limit)]);
        if let Some(cursor) = &cursor {
            request = request.query(&[("cursor", cursor)]);
        }
        let page: Value = request.send().await.expect("an answer").json().await.expect("a page");
        passed += page["jobs"].as_array().expect("jobs").len();
        cursor = Some(page["nextCursor"].as_str().expect("not the last page").to_owned());
    }
    cursor.expect("there is a page before")
}
