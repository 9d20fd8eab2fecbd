//! Followers: many open event streams, and how soon each event reaches the last of them.
//!
//! They are read by this process on the same cores, so it does as little as it can: of what comes it
//! only counts the braces that close an event. One witness beside them reads all of it.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep_until, timeout},
};

use super::{
    Rounds, database_of, engine, host_of, judge, load::percentile, memory_of, mib, number_of,
    result_with, seed::Seeded, service,
};
use crate::support::{Program, http_client, text};

/// Unless `SPEED_FOLLOWERS` says otherwise: as many as the service has places for, but one each for
/// the witness and for whatever else a key asks for.
const FOLLOWERS: usize = KEYS * PLACES_OF_A_KEY;

/// A key has 32 places, and all keys together 256.
const KEYS: usize = 8;
const PLACES_OF_A_KEY: usize = 31;

/// Opened at a time.
const OPENING: usize = 64;

/// Each callback makes one event.
const EVENTS: usize = 500;
const EVENTS_PER_SECOND: f64 = 100.0;

/// Of an event as it is sent: those of its data and its own. Comments have none.
const BRACES: usize = 2;

/// Read at a time.
const BUFFER_BYTES: usize = 16 * 1024;

/// After the last callback; what has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);

const WANTED_SECONDS: f64 = 1.0;
const WANTED_KIB: f64 = 20.0;

/// When each event had reached every follower.
struct Arrivals {
    followers: usize,
    events: Vec<(AtomicUsize, OnceLock<Instant>)>,
}

impl Arrivals {
    fn note(&self, event: usize) {
        let (seen_by, at_all) = &self.events[event];
        if seen_by.fetch_add(1, Ordering::Relaxed) + 1 == self.followers {
            at_all.get_or_init(Instant::now);
        }
    }
}

pub async fn measure() {
    let followers = number_of("SPEED_FOLLOWERS", FOLLOWERS);
    println!("followers: {followers}, {EVENTS} events, {EVENTS_PER_SECOND} a second");
    let folder = tempfile::tempdir().expect("a folder");
    let seeded = database_of(folder.path(), EVENTS, false, &[]).await;
    // The witness and those who ask for something else need room, too.
    let connections = (followers + OPENING).max(4096).to_string();
    let keys: Vec<Value> = (0..KEYS)
        .map(|number| json!({"name": format!("key{number}"), "key": key(number)}))
        .collect();
    let keys = json!(keys).to_string();
    let settings = [("SERVICE__MAX_CONNECTIONS", connections.as_str()), ("API__KEYS", &keys)];
    let ours = service(folder.path(), &engine().await, &settings).await;

    let before = memory_of(ours.id(), "VmRSS");
    let began = Instant::now();
    let streams = open(host_of(&ours.api), followers).await;
    println!("  opened within {:.1} s", began.elapsed().as_secs_f64());
    let opened = memory_of(ours.id(), "VmRSS");

    let events = (0..EVENTS).map(|_| Default::default()).collect();
    let arrivals = Arc::new(Arrivals { followers, events });
    let witness = tokio::spawn(witness(follow(host_of(&ours.api), 0).await));
    let mut reading = JoinSet::new();
    for stream in streams {
        reading.spawn(read(stream, arrivals.clone()));
    }
    let answered = post(&ours, seeded).await;
    // Their streams stay open until all have seen everything.
    let all = timeout(PATIENCE, reading.join_all()).await;
    let served = memory_of(ours.id(), "VmRSS");
    let cut = all.as_ref().map(|all| all.iter().filter(|one| one.is_none()).count());
    match cut {
        Ok(0) => println!("  every event reached every follower"),
        Ok(cut) => println!("  FAILED: {cut} followers were cut"),
        Err(_) => println!("  FAILED: not all arrived within {PATIENCE:?}"),
    }
    match timeout(PATIENCE, witness).await {
        Ok(order) => report(&arrivals, &answered, &order.expect("no panic")),
        Err(_) => println!("  FAILED: the witness did not see every event"),
    }
    let each = |memory: f64| (memory - before) / followers as f64;
    let most = each(opened.max(served));
    let found = format!("{:.1} KiB opened, {:.1} KiB served", each(opened), each(served));
    let wanted = format!("<= {WANTED_KIB} KiB");
    judge("resident memory of a follower", &found, &wanted, most <= WANTED_KIB);
    println!("  resident memory: {} before, {} after", mib(before), mib(served));
    drop(all);
    ours.terminate().await;
}

/// Opens streams until there are so many.
async fn open(host: &str, followers: usize) -> Vec<TcpStream> {
    let (mut opening, mut streams) = (JoinSet::new(), Vec::with_capacity(followers));
    for number in 0..followers {
        if opening.len() >= OPENING {
            streams.push(opening.join_next().await.expect("one").expect("no panic"));
        }
        let host = host.to_owned();
        opening.spawn(async move { follow(&host, number).await });
    }
    streams.extend(opening.join_all().await);
    streams
}

/// The key with this number.
fn key(number: usize) -> String {
    format!("a-key-for-followers-{number}-of-many")
}

/// A stream that has caught up: what happens from now on will come.
async fn follow(host: &str, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(host).await.expect("it listens");
    let request = format!(
        "GET /v1/events HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n\
         authorization: Bearer {}\r\n\r\n",
        key(number % KEYS)
    );
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while !head.windows(10).any(|some| some == b"caught up ") || !head.ends_with(b"\n\n\r\n") {
        let read = stream.read(&mut buffer).await.expect("it stays open");
        assert!(read > 0, "a follower was refused: {}", String::from_utf8_lossy(&head));
        head.extend_from_slice(&buffer[..read]);
    }
    stream
}

/// Counts until every event has come; `None` if the stream ended before.
async fn read(stream: TcpStream, arrivals: Arc<Arrivals>) -> Option<TcpStream> {
    let (mut braces, mut seen) = (0, 0);
    while seen < EVENTS {
        stream.readable().await.ok()?;
        // On the stack and across no await: ten thousand of them would be a lot.
        let mut buffer = [0; BUFFER_BYTES];
        match stream.try_read(&mut buffer) {
            Ok(0) => return None,
            Ok(read) => braces += buffer[..read].iter().filter(|byte| **byte == b'}').count(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return None,
        }
        while seen < (braces / BRACES).min(EVENTS) {
            arrivals.note(seen);
            seen += 1;
        }
    }
    Some(stream)
}

/// Reads every event; answers whose they were, in their order.
async fn witness(mut stream: TcpStream) -> Vec<String> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; BUFFER_BYTES]);
    loop {
        let read = stream.read(&mut buffer).await.expect("it stays open");
        assert!(read > 0, "the witness was cut");
        all.extend_from_slice(&buffer[..read]);
        if all.iter().filter(|byte| **byte == b'}').count() >= EVENTS * BRACES {
            break;
        }
    }
    let all = String::from_utf8(all).expect("text");
    let events = all.lines().filter_map(|line| line.strip_prefix("data: "));
    let order: Vec<String> = events
        .map(|event| serde_json::from_str::<Value>(event).expect("an event"))
        .map(|event| text(&event["jobId"]).to_owned())
        .collect();
    assert_eq!(order.len(), EVENTS, "braces tell how many events there are");
    order
}

/// Posts the callbacks at an even rate, whatever their answers do; tells when each was answered.
async fn post(ours: &Program, seeded: Seeded) -> HashMap<String, Instant> {
    let (client, body) = (http_client(), result_with(0));
    let began = Instant::now();
    let mut posting = JoinSet::new();
    for (number, (id, path)) in seeded.ids.iter().zip(seeded.paths).enumerate() {
        let due = began + Duration::from_secs_f64(number as f64 / EVENTS_PER_SECOND);
        sleep_until(due.into()).await;
        let request = client.post(format!("{}{path}", ours.callbacks)).body(body.clone());
        let id = id.to_string();
        posting.spawn(async move {
            let answer = request.send().await.ok()?;
            answer.status().is_success().then(|| (id, due, Instant::now()))
        });
    }
    let answers: Vec<_> = posting.join_all().await.into_iter().flatten().collect();
    if answers.len() < EVENTS {
        println!("  FAILED: {} callbacks found no good answer", EVENTS - answers.len());
    }
    let mut times: Vec<f64> =
        answers.iter().map(|(_, due, at)| (*at - *due).as_secs_f64() * 1000.0).collect();
    times.sort_by(f64::total_cmp);
    let (p50, p99) = (percentile(&times, 50), percentile(&times, 99));
    println!("  callbacks meanwhile, ms: p50 {p50:.1}, p99 {p99:.1}");
    answers.into_iter().map(|(id, _, at)| (id, at)).collect()
}

fn report(arrivals: &Arrivals, answered: &HashMap<String, Instant>, order: &[String]) {
    let mut delays: Vec<f64> = order
        .iter()
        .zip(&arrivals.events)
        // Before its callback's answer is no delay; never is an endless one.
        .map(|(id, (_, at_all))| match (answered.get(id), at_all.get()) {
            (Some(answered), Some(at)) => at.saturating_duration_since(*answered).as_secs_f64(),
            _ => f64::INFINITY,
        })
        .collect();
    delays.sort_by(f64::total_cmp);
    let p99 = percentile(&delays, 99);
    let worst = percentile(&delays, 100);
    let found = format!("{} s, p99 {p99:.2}, worst {worst:.2}", Rounds(delays).show());
    let wanted = format!("<= {WANTED_SECONDS} s");
    judge("an event to all followers", &found, &wanted, worst <= WANTED_SECONDS);
}
