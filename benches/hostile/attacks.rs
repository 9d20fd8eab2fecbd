//! The attacks. None ends by itself: each goes on until it is cut off.

use std::{
    future::Future,
    io::Write,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use finishline::domain::ids::JobId;
use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use rustix::process::{Resource, getrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{READ_KEY, SUBMIT_KEY, Target, load::exchange};

/// Runs until it is dropped.
pub type Attack = fn(Arc<Target>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// By name.
pub const ATTACKS: &[(&str, Attack)] = &[
    ("none, for comparison", |_| Box::pin(std::future::pending())),
    ("made-up methods, paths and hosts", |target| Box::pin(made_up(target))),
    ("bodies with 500,000 outputs", |target| Box::pin(many_outputs(target))),
    ("deeply nested bodies", |target| Box::pin(deep_nesting(target))),
    ("gzip bombs", |target| Box::pin(gzip_bombs(target))),
    ("bodies of 16 MiB", |target| Box::pin(large_bodies(target))),
    ("a flood of one genuine address", |target| Box::pin(one_address(target))),
    ("a flood of forged callbacks and readyz", |target| Box::pin(forged(target))),
    ("a flood of wrong keys", |target| Box::pin(wrong_keys(target))),
    ("submissions of 1 MiB, and lists of them", |target| Box::pin(submissions_and_lists(target))),
    ("silent sockets", |target| Box::pin(silent_sockets(target))),
    ("trickled heads", |target| Box::pin(trickled_heads(target))),
    ("trickled bodies", |target| Box::pin(trickled_bodies(target))),
    ("streams and waiting calls by one key", |target| Box::pin(streams(target))),
];

const MIB: usize = 1024 * 1024;

/// Connections of a flood.
const FLOOD: usize = 32;

/// Connections that send large bodies.
const HEAVY: usize = 16;

/// Connections of a trickle.
const TRICKLES: usize = 6_000;

/// Files that this process needs beside an attack's sockets.
const OTHER_FILES: usize = 1_000;

/// What an attacker waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two connections that were refused.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a stream is kept open and not read.
const UNREAD: Duration = Duration::from_secs(60);

/// Room for an answer.
const BUFFER_BYTES: usize = 16 * 1024;

/// Makes the request with this number: its head, and a body that may be shared.
type Make = Arc<dyn Fn(usize) -> (Vec<u8>, Bytes) + Send + Sync>;

/// Sends requests over this many connections, each as soon as the one before is answered.
async fn flood(target: Arc<Target>, door: SocketAddr, connections: usize, make: Make) {
    let mut flooding = JoinSet::new();
    for connection in 0..connections {
        let (target, make) = (target.clone(), make.clone());
        flooding.spawn(async move {
            let mut buffer = vec![0; BUFFER_BYTES];
            // Each connection has numbers of its own.
            let mut number = connection;
            loop {
                let Ok(Ok(mut stream)) = timeout(PATIENCE, TcpStream::connect(door)).await else {
                    sleep(PAUSE).await;
                    continue;
                };
                // Head and body are written one after the other.
                let _ = stream.set_nodelay(true);
                loop {
                    let (head, body) = make(number);
                    number += connections;
                    target.begun.fetch_add(1, Ordering::Relaxed);
                    let answer = async {
                        stream.write_all(&head).await?;
                        exchange(&mut stream, &body, &mut buffer).await
                    };
                    match timeout(PATIENCE, answer).await {
                        Ok(Ok(status)) => target.note(status),
                        Ok(Err(_)) | Err(_) => break,
                    }
                }
            }
        });
    }
    flooding.join_all().await;
}

fn post(path: &str, headers: &str, body: Bytes) -> (Vec<u8>, Bytes) {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}content-length: {length}\r\n\r\n"
    );
    (head.into_bytes(), body)
}

/// A request without a body.
fn get(head: String) -> (Vec<u8>, Bytes) {
    (head.into_bytes(), Bytes::new())
}

async fn made_up(target: Arc<Target>) {
    let make: Make = Arc::new(|number| {
        // Short ones, usual ones, and ones that fill the head.
        let method = format!("M{}", "ABCDEFGHIJKLMNOPQRSTUVWXYZ".repeat(number % 3));
        let method = format!("{method}{number}");
        get(format!(
            "{method} /{number}/{} HTTP/1.1\r\nhost: h{number}.example\r\nx-request-id: r{number}\r\n\
             user-agent: a{number}\r\ncontent-length: 0\r\n\r\n",
            "p".repeat(number % 200)
        ))
    });
    tokio::join!(
        flood(target.clone(), target.callbacks, FLOOD / 2, make.clone()),
        flood(target.clone(), target.api, FLOOD / 2, make),
    );
}

/// Posts one body to every genuine address that is known.
async fn genuine(target: Arc<Target>, headers: &'static str, body: Vec<u8>) {
    let (known, body) = (target.known.clone(), Bytes::from(body));
    let make: Make =
        Arc::new(move |number| post(&known[number % known.len()], headers, body.clone()));
    flood(target.clone(), target.callbacks, HEAVY, make).await;
}

async fn many_outputs(target: Arc<Target>) {
    let outputs = vec![r#"{"url":"u"}"#; 500_000].join(",");
    let body = format!(r#"{{"success":true,"outputFiles":{{"meshes":[{outputs}]}}}}"#);
    genuine(target, "", body.into_bytes()).await;
}

async fn deep_nesting(target: Arc<Target>) {
    let depth = 7 * MIB;
    let body =
        format!(r#"{{"success":true,"outputFiles":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    genuine(target, "", body.into_bytes()).await;
}

async fn gzip_bombs(target: Arc<Target>) {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    for _ in 0..256 {
        packed.write_all(&[b' '; MIB]).expect("memory");
    }
    let body = packed.finish().expect("memory");
    genuine(target, "content-encoding: gzip\r\n", body).await;
}

async fn large_bodies(target: Arc<Target>) {
    let mut body = br#"{"success":true,"outputFiles":{},"padding":""#.to_vec();
    body.resize(16 * MIB - 2, b'x');
    body.extend(br#""}"#);
    genuine(target, "", body).await;
}

async fn one_address(target: Arc<Target>) {
    let path = target.known[0].clone();
    let make: Make = Arc::new(move |number| {
        // Each is another delivery, and says something else.
        let body = format!(
            r#"{{"success":true,"outputFiles":{{"meshes":[{{"url":"https://x.example/{number}"}}]}}}}"#
        );
        post(&path, "", body.into())
    });
    flood(target.clone(), target.callbacks, FLOOD, make).await;
}

async fn forged(target: Arc<Target>) {
    let make: Make = Arc::new(|number| match number % 3 {
        0 => get("GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".to_owned()),
        _ => {
            let id = JobId::new(Timestamp::now());
            post(
                &format!("/callbacks/{id}/{number:043}"),
                "",
                Bytes::from_static(br#"{"success":true}"#),
            )
        }
    });
    tokio::join!(
        flood(target.clone(), target.callbacks, FLOOD / 2, make.clone()),
        flood(target.clone(), target.api, FLOOD / 2, make),
    );
}

async fn wrong_keys(target: Arc<Target>) {
    let make: Make = Arc::new(|number| {
        get(format!(
            "GET /v1/jobs HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer wrong-key-{number:016}\r\n\r\n"
        ))
    });
    flood(target.clone(), target.api, FLOOD, make).await;
}

/// Submissions that announce as many outputs as fit, and lists that would show them all.
async fn submissions_and_lists(target: Arc<Target>) {
    let mesh = r#"{"extension":".stl","structures":["a"]}"#;
    let meshes = vec![mesh; (MIB - 1024) / (mesh.len() + 1)].join(",");
    let body = format!(
        r#"{{"inputFiles":{{"cbct":{{"extension":".dcm","downloadUrl":"https://x.example/a"}}}},"outputFiles":{{"meshes":[{meshes}]}}}}"#
    );
    let headers =
        format!("content-type: application/json\r\nauthorization: Bearer {SUBMIT_KEY}\r\n");
    let submission = post("/v1/jobs", &headers, body.into());
    let make: Make = Arc::new(move |number| match number % 4 {
        0 => submission.clone(),
        other => {
            let more = if other == 1 { "accept: application/x-ndjson\r\n" } else { "" };
            get(format!(
                "GET /v1/jobs?limit=200 HTTP/1.1\r\nhost: 127.0.0.1\r\n{more}\
                 authorization: Bearer {SUBMIT_KEY}\r\n\r\n"
            ))
        }
    });
    flood(target.clone(), target.api, HEAVY, make).await;
}

/// Keeps this many connections open, half of them at each door; each does what `live` says until it
/// ends, and is opened again.
async fn crowd<F>(target: Arc<Target>, count: usize, live: impl Fn(usize, TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut living = JoinSet::new();
    let (ended, mut free) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..count {
        ended.send(number).expect("it is read below");
    }
    while let Some(number) = free.recv().await {
        while living.try_join_next().is_some() {}
        let door = if number % 2 == 0 { target.callbacks } else { target.api };
        target.begun.fetch_add(1, Ordering::Relaxed);
        // The system's own queue may be full: then it waits there.
        let opened = timeout(PAUSE, TcpStream::connect(door)).await;
        let ended = ended.clone();
        match opened {
            Ok(Ok(stream)) => {
                let life = live(number, stream);
                living.spawn(async move {
                    life.await;
                    let _ = ended.send(number);
                });
            }
            _ => {
                let _ = ended.send(number);
                sleep(PAUSE).await;
            }
        }
    }
}

async fn silent_sockets(target: Arc<Target>) {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES);
    crowd(target, count.min(20_000), |_, mut stream| async move {
        let _ = stream.read(&mut [0; 512]).await;
    })
    .await;
}

/// Sends a byte a second after a beginning, until the connection ends.
async fn trickle(mut stream: TcpStream, beginning: String) {
    if stream.write_all(beginning.as_bytes()).await.is_err() {
        return;
    }
    let mut answer = [0; 512];
    while let Err(_silence) = timeout(Duration::from_secs(1), stream.read(&mut answer)).await {
        if stream.write_all(b"x").await.is_err() {
            return;
        }
    }
}

async fn trickled_heads(target: Arc<Target>) {
    crowd(target, TRICKLES, |_, stream| trickle(stream, "POST /callbacks/".to_owned())).await;
}

async fn trickled_bodies(target: Arc<Target>) {
    let known = target.known.clone();
    crowd(target, TRICKLES, move |number, stream| {
        let path = match number % 2 {
            0 => known[number / 2 % known.len()].as_str(),
            _ => "/v1/jobs",
        };
        let beginning = format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
             authorization: Bearer {SUBMIT_KEY}\r\ncontent-length: 1000000\r\n\r\n{{"
        );
        trickle(stream, beginning)
    })
    .await;
}

/// Streams and waiting calls that one key opens and never reads, far beyond its places.
async fn streams(target: Arc<Target>) {
    let job = target.known[0].split('/').nth(2).expect("a job").to_owned();
    let waiting = format!("/v1/jobs/{job}?wait=60");
    let mut open = JoinSet::new();
    for number in 0..TRICKLES {
        let (target, waiting) = (target.clone(), waiting.clone());
        open.spawn(async move {
            let (path, accept) = match number % 4 {
                0 => ("/v1/events?after=0", "text/event-stream"),
                1 => ("/v1/jobs", "application/x-ndjson"),
                2 => (waiting.as_str(), "application/json"),
                _ => ("/v1/events", "text/event-stream"),
            };
            let request = format!(
                "GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: {accept}\r\n\
                 authorization: Bearer {READ_KEY}\r\n\r\n"
            );
            loop {
                target.begun.fetch_add(1, Ordering::Relaxed);
                if let Ok(Ok(mut stream)) = timeout(PATIENCE, TcpStream::connect(target.api)).await
                {
                    let mut head = [0; 12];
                    let is_sent = stream.write_all(request.as_bytes()).await.is_ok();
                    let read = timeout(PATIENCE, stream.read_exact(&mut head)).await;
                    if is_sent && matches!(read, Ok(Ok(_))) {
                        let status = String::from_utf8_lossy(&head[9..]).parse().unwrap_or(0);
                        target.note(status);
                        if status == 200 {
                            sleep(UNREAD).await;
                        }
                    }
                }
                sleep(PAUSE * 20).await;
            }
        });
    }
    open.join_all().await;
}
