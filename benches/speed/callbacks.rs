//! Callbacks: stored durably and acknowledged, by the service and by others.

use std::{collections::HashSet, fs, path::Path, sync::Arc, time::Duration};

use finishline::domain::ids::JobId;
use rusqlite::Connection;

use super::{
    ROUNDS, Rounds, body,
    contenders::Contender,
    database_of, engine, judge,
    load::{Load, Make, Outcome, percentile},
    memory_of, mib,
    raw::Raw,
    seed::Seeded,
    service,
};
use crate::support::Program;

const CONNECTIONS: [usize; 2] = [64, 256];

/// Of one turn at most, whichever comes first.
const TURN_CALLBACKS: usize = 4_000;
const TURN_TIME: Duration = Duration::from_millis(1_000);

/// Before the first turn: statements are prepared, pages are in memory, what a service does first
/// with jobs that it finds open is done.
const WARM_CALLBACKS: usize = 2_000;

/// Of a turn over one connection.
const SINGLE_CALLBACKS: usize = 200;

/// Of the open loop at most.
const OPEN_CALLBACKS: usize = 24_000;
const OPEN_TIME: Duration = Duration::from_secs(4);

/// What one contender reached.
struct Standing {
    name: &'static str,
    address: std::net::SocketAddr,
    /// Callbacks a second and p99 in milliseconds, for each number of connections.
    rates: [Rounds; 2],
    tails: [Rounds; 2],
    accepted: HashSet<usize>,
    refused: usize,
}

pub async fn measure() {
    println!("callbacks: {ROUNDS} turns each, 4 KiB, every one to an address of its own");
    let folder = tempfile::tempdir().expect("a folder");
    let jobs = WARM_CALLBACKS + ROUNDS * (2 * TURN_CALLBACKS + SINGLE_CALLBACKS) + OPEN_CALLBACKS;
    let seeded = database_of(&folder.path().join("service"), jobs, false, &[]).await;
    let copy = |name: &str| {
        let file = folder.path().join(name);
        fs::copy(folder.path().join("service/finishline.db"), &file).expect("a copy");
        // Or the disk is busy with it while others are measured.
        fs::File::open(&file).and_then(|file| file.sync_all()).expect("it is on disk");
        file
    };
    let mut raw = Raw::open(&copy("raw.db"));
    let contenders: Vec<Contender> = [
        Some(Contender::own("no-op", None, "")),
        Some(Contender::own("naive axum", Some(&copy("naive.db")), "")),
        Contender::fastify("Fastify", &copy("fastify.db"), false),
        Contender::fastify("Fastify, group commit", &copy("group.db"), true),
        Contender::fastapi("FastAPI", &copy("fastapi.db")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let ours = service(&folder.path().join("service"), &engine().await, &[]).await;
    let make = requests(&seeded);
    let idle = memory_of(ours.id(), "VmRSS");

    let mut all: Vec<Standing> = [("finishline", address_of(&ours))]
        .into_iter()
        .chain(contenders.iter().map(|one| (one.name, one.address)))
        .map(|(name, address)| Standing {
            name,
            address,
            rates: Default::default(),
            tails: Default::default(),
            accepted: HashSet::new(),
            refused: 0,
        })
        .collect();
    let (mut raw_rates, mut raw_tails) = ([const { Rounds(Vec::new()) }; 2], Rounds::default());
    for one in &mut all {
        one.warm(&make).await;
    }
    for round in 0..ROUNDS {
        for (kind, connections) in CONNECTIONS.into_iter().enumerate() {
            let first = WARM_CALLBACKS + (2 * round + kind) * TURN_CALLBACKS;
            // Whoever begins has the quietest disk: each begins in turn.
            let start = round % all.len();
            for place in 0..all.len() {
                let place = (start + place) % all.len();
                all[place].turn(kind, connections, first, &make).await;
            }
            let body = body();
            let ids = &seeded.ids[first..first + TURN_CALLBACKS];
            let mut seconds = raw.write(ids, &body, 64);
            raw_rates[kind].0.push(TURN_CALLBACKS as f64 / seconds.iter().sum::<f64>());
            if kind == 0 {
                seconds.sort_by(f64::total_cmp);
                raw_tails.0.push(percentile(&seconds, 99) * 1000.0);
            }
        }
    }
    report(&all, &raw_rates, &raw_tails);

    let first = WARM_CALLBACKS + ROUNDS * 2 * TURN_CALLBACKS;
    single(&mut all, &mut raw, (folder.path(), &seeded), first, &make).await;
    let rate = all[0].rates[0].median() / 2.0;
    let first = first + ROUNDS * SINGLE_CALLBACKS;
    let most = OPEN_CALLBACKS.min((rate * OPEN_TIME.as_secs_f64()) as usize);
    open(&mut all[0], rate, first, most, &make).await;
    let peak = memory_of(ours.id(), "VmHWM");
    judge("resident memory, idle", &mib(idle), "<= 20 MiB", idle <= 20.0 * 1024.0);
    judge("resident memory, at most", &mib(peak), "<= 64 MiB", peak <= 64.0 * 1024.0);

    ours.terminate().await;
    verify(&all[0], &folder.path().join("service/finishline.db"), &seeded);
    for contender in &contenders {
        let standing = all.iter().find(|one| one.name == contender.name).expect("it ran");
        if let Some(database) = &contender.database {
            verify(standing, database, &seeded);
        }
    }
}

fn address_of(service: &Program) -> std::net::SocketAddr {
    service.callbacks.trim_start_matches("http://").parse().expect("an address")
}

/// The request for each job.
fn requests(seeded: &Seeded) -> Make {
    let (paths, body) = (seeded.paths.clone(), body());
    Arc::new(move |number| {
        let mut request = format!(
            "POST {} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            paths[number],
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(&body);
        request
    })
}

impl Standing {
    async fn warm(&mut self, make: &Make) {
        let load = Load {
            address: self.address,
            connections: CONNECTIONS[1],
            first: 0,
            most: WARM_CALLBACKS,
            time: 3 * TURN_TIME,
            rate: None,
        };
        self.note(&load.run(make.clone()).await);
    }

    async fn turn(&mut self, kind: usize, connections: usize, first: usize, make: &Make) {
        let load = Load {
            address: self.address,
            connections,
            first,
            most: TURN_CALLBACKS,
            time: TURN_TIME,
            rate: None,
        };
        let outcome = load.run(make.clone()).await;
        self.rates[kind].0.push(outcome.rate());
        self.tails[kind].0.push(outcome.percentile(99));
        self.note(&outcome);
    }

    fn note(&mut self, outcome: &Outcome) {
        self.accepted.extend(&outcome.accepted);
        self.refused += outcome.refused;
    }
}

fn report(all: &[Standing], raw_rates: &[Rounds; 2], raw_tails: &Rounds) {
    println!("| contender | per second at 64 | p99, ms | per second at 256 | p99, ms | refused |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for one in all {
        println!(
            "| {} | {} | {} | {} | {} | {} |",
            one.name,
            one.rates[0].show(),
            one.tails[0].show(),
            one.rates[1].show(),
            one.tails[1].show(),
            one.refused
        );
    }
    println!(
        "| raw rusqlite, 64 a transaction | {} | {} | {} | | |",
        raw_rates[0].show(),
        raw_tails.show(),
        raw_rates[1].show()
    );
    let ours = &all[0];
    for (kind, connections) in CONNECTIONS.into_iter().enumerate() {
        let compare = |name: &str, other: &Rounds, wanted: f64| {
            let ratio = ours.rates[kind].over(other);
            let figure = format!("{connections} connections, by {name}");
            let is_met = ratio.median() >= wanted;
            judge(&figure, &ratio.show(), &format!(">= {wanted}"), is_met);
        };
        compare("raw", &raw_rates[kind], 0.6);
        for (name, wanted) in
            [("Fastify, group commit", 1.2), ("naive axum", 5.0), ("FastAPI", 12.0)]
        {
            if let Some(other) = all.iter().find(|one| one.name == name) {
                compare(name, &other.rates[kind], wanted);
            }
        }
    }
    let tail = ours.tails[0].over(raw_tails);
    let is_met = tail.median() <= 2.0;
    judge("p99 at 64 by that of a raw transaction", &tail.show(), "<= 2", is_met);
}

/// One connection: what a callback takes when nobody shares its fsync.
async fn single(
    all: &mut [Standing],
    raw: &mut Raw,
    (folder, seeded): (&Path, &Seeded),
    first: usize,
    make: &Make,
) {
    let (mut ours, mut no_op, mut disk) = (Rounds::default(), Rounds::default(), Rounds::default());
    let mut alone = Rounds::default();
    for round in 0..ROUNDS {
        for (place, medians) in [(0, &mut ours), (1, &mut no_op)] {
            let load = Load {
                address: all[place].address,
                connections: 1,
                first: first + round * SINGLE_CALLBACKS,
                most: SINGLE_CALLBACKS,
                time: TURN_TIME,
                rate: None,
            };
            let outcome = load.run(make.clone()).await;
            medians.0.push(outcome.percentile(50));
            all[place].note(&outcome);
        }
        disk.0.push(fsync_median(folder));
        let first = first + round * SINGLE_CALLBACKS;
        let ids = &seeded.ids[first..first + SINGLE_CALLBACKS];
        let mut seconds = raw.write(ids, &body(), 1);
        seconds.sort_by(f64::total_cmp);
        alone.0.push(percentile(&seconds, 50) * 1000.0);
    }
    println!(
        "  one connection, p50 in ms: {}; no-op {}; raw, one a transaction {}; fsync of 4 KiB {}",
        ours.show(),
        no_op.show(),
        alone.show(),
        disk.show()
    );
    let most = 2.0 * disk.median() + no_op.median();
    let wanted = format!("<= {most:.2} ms: 2 x fsync + no-op");
    judge("one connection, p50", &ours.show(), &wanted, ours.median() <= most);
}

/// Milliseconds to append 4 KiB and bring them to the disk.
fn fsync_median(folder: &Path) -> f64 {
    use std::io::Write;
    let mut file = fs::File::create(folder.join("fsync")).expect("a file");
    let mut times: Vec<f64> = (0..SINGLE_CALLBACKS)
        .map(|_| {
            let began = std::time::Instant::now();
            file.write_all(&[1; 4096]).expect("it is written");
            file.sync_data().expect("it is on disk");
            began.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    percentile(&times, 50)
}

/// Half of what it can take, at an even rate.
async fn open(ours: &mut Standing, rate: f64, first: usize, most: usize, make: &Make) {
    let time = OPEN_TIME;
    let load =
        Load { address: ours.address, connections: 256, first, most, time, rate: Some(rate) };
    let outcome = load.run(make.clone()).await;
    let (p50, p99) = (outcome.percentile(50), outcome.percentile(99));
    let refused = outcome.refused;
    let found = format!("{refused} refused, p50 {p50:.1} ms, p99 {p99:.1} ms at {rate:.0}/s");
    let is_met = refused == 0 && p50 <= 3.0 && p99 <= 25.0;
    judge("open loop at half the rate", &found, "0, <= 3 ms, <= 25 ms", is_met);
    ours.note(&outcome);
}

/// Every acknowledged callback is on record, or this run is worth nothing.
fn verify(standing: &Standing, database: &Path, seeded: &Seeded) {
    let connection = Connection::open(database).expect("the database");
    let mut query = connection
        .prepare(
            "select jobs.id from jobs join deliveries on deliveries.job_seq = jobs.seq
             join delivery_bodies on delivery_bodies.delivery_seq = deliveries.seq
             where jobs.result_delivery = deliveries.seq and length(body) = size_bytes",
        )
        .expect("a query");
    let stored: HashSet<JobId> = query
        .query_map([], |row| row.get::<_, [u8; 16]>(0))
        .expect("rows")
        .map(|id| JobId(uuid::Uuid::from_bytes(id.expect("an id"))))
        .collect();
    let lost = standing.accepted.iter().filter(|one| !stored.contains(&seeded.ids[**one])).count();
    println!("  {}: {} acknowledged, {lost} lost", standing.name, standing.accepted.len());
    assert_eq!(lost, 0, "{} acknowledged what it did not store", standing.name);
}
