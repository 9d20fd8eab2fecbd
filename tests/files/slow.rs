//! Other sides that trickle: of an upload, a copy, a download.

use std::{
    collections::HashMap,
    convert::Infallible,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    routing::{get, put},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::interval,
};

use super::{
    copies::{Mirroring, store_url},
    double::Double,
};
use crate::support::*;

/// Half a second below this rate is too slow.
const RATE: u64 = 64 * 1024;
const PATIENCE: Duration = Duration::from_millis(500);

/// Between two bytes of whoever trickles: shorter than any limit on silence.
const DRIP: Duration = Duration::from_millis(20);

const MIB: usize = 1024 * 1024;

/// A file that comes byte by byte, and never ends.
fn trickle() -> Body {
    let drips = stream::unfold(interval(DRIP), |mut drips| async move {
        drips.tick().await;
        Some((Ok::<_, Infallible>(Bytes::from_static(b"x")), drips))
    });
    Body::from_stream(drips)
}

/// A store of files: `/slow/…` trickles, all else is there at once.
async fn file_server() -> String {
    let slow = get(async || trickle());
    serve(Router::new().route("/slow/{name}", slow).fallback(get(async || "a whole file"))).await
}

/// A service that mirrors with this many places, and a job of it with these links as its outputs.
async fn copying(places: usize, setup: Setup, links: &[String]) -> (Mirroring, Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = setup.set("MIRROR__STORE", store_url(folder.path()));
    let setup = setup.set("MIRROR__CONCURRENCY", places).set("OUTBOUND__ALLOW_PRIVATE", true);
    let service = setup.set("OUTBOUND__ALLOW_HTTP", true).start().await;
    let job = service.submitted(&ready_job()).await;
    let meshes: Vec<Value> = (0..)
        .zip(links)
        .map(|(number, link)| {
            let part = format!("part{number}");
            json!({"extension": ".stl", "structures": [part], "status": "Available", "url": link})
        })
        .collect();
    let result = json!({"success": true, "outputFiles": {"meshes": meshes}}).to_string();
    service.post_to(&service.callback_url(text(&job["id"])), result).await.expect(200);
    (Mirroring { service, folder }, job)
}

/// Names of the outputs that are copied, once there are as many.
async fn copied(mirroring: &Mirroring, job: &Value, count: usize) -> Vec<Value> {
    wait_for("copies", async || {
        let events = mirroring.events(job, "output.mirrored").await;
        (events.len() >= count).then_some(events)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_trickles_stops_the_copying_of_no_other_host() {
    let server = file_server().await;
    // Another name of the same machine is another host.
    let other = server.replace("127.0.0.1", "localhost");
    let mut links: Vec<String> = (0..6).map(|number| format!("{server}/slow/{number}")).collect();
    links.extend((0..3).map(|number| format!("{other}/fast/{number}")));
    // Nobody is too slow here yet: the places alone make the difference.
    for places in [2, 4] {
        let (mirroring, job) = copying(places, Setup::new(), &links).await;
        copied(&mirroring, &job, 3).await;
        assert!(mirroring.events(&job, "output.mirror_failed").await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_trickles_gives_its_place_up_and_is_tried_again_later() {
    let server = file_server().await;
    let links: Vec<String> = ["slow/1", "slow/2", "slow/3", "slow/4", "fast/1"]
        .map(|path| format!("{server}/{path}"))
        .into();
    let setup = Setup::new().least_rate(RATE, PATIENCE);
    let (mirroring, job) = copying(1, setup, &links).await;
    copied(&mirroring, &job, 1).await;
    let failed = mirroring.events(&job, "output.mirror_failed").await;
    assert!(!failed.is_empty());
    for event in failed {
        assert_eq!(event["data"]["reason"], "the server sends too slowly", "{event}");
        assert_eq!(event["data"]["final"], false, "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_trickles_is_too_slow_as_well() {
    let listener = free_port().await;
    let server = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut drips = interval(DRIP);
                // An answer before its request would not be one.
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx-long: ").await;
                while stream.write_all(b"x").await.is_ok() {
                    drips.tick().await;
                }
            });
        }
    });
    let setup = Setup::new().least_rate(RATE, PATIENCE);
    let (mirroring, job) = copying(1, setup, &[server]).await;
    let failed = wait_for("the attempt to fail", async || {
        mirroring.events(&job, "output.mirror_failed").await.pop()
    })
    .await;
    assert_eq!(failed["data"]["reason"], "the server sends too slowly");
}

/// An upload in flight: its sender's connection, with the head sent.
async fn upload(service: &Service, length: usize) -> TcpStream {
    let inputs = json!({"cbct": {"extension": ".dcm"}});
    let body = json!({"inputFiles": inputs, "outputFiles": {"meshes": [{"extension": ".stl"}]}});
    let job = service.submitted(&body).await;
    let address = service.api.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "PUT /v1/jobs/{}/inputs/cbct HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n",
        text(&job["id"])
    );
    stream.write_all(head.as_bytes()).await.expect("the head is sent");
    stream
}

async fn answer_of(mut stream: impl AsyncReadExt + Unpin) -> String {
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_sender_trickles_is_given_up() {
    let double = Double::start([("cbct", "{engine}/notify/cbct")]).await;
    let setup = double.setup().set("OUTBOUND__ALLOW_PRIVATE", true);
    let setup = setup.set("OUTBOUND__ALLOW_HTTP", true).least_rate(RATE, PATIENCE);
    let service = setup.start().await;
    let (reading, mut writing) = upload(&service, MIB).await.into_split();
    let dripping = tokio::spawn(async move {
        let mut drips = interval(DRIP);
        while writing.write_all(b"x").await.is_ok() {
            drips.tick().await;
        }
    });
    let answer = answer_of(reading).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    dripping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_storage_takes_it_too_slowly_is_given_up() {
    let storage = serve(Router::new().route("/put", put(take_slowly))).await;
    let upload_url = format!("{storage}/put");
    let reply = json!({"jobId": "e-1", "inputFiles": {"cbct": {"uploadUrl": upload_url}}});
    let engine = Router::new()
        .route(
            "/oauth/token",
            axum::routing::post(async || axum::Json(json!({"access_token": "t"}))),
        )
        .route("/24.06/job", axum::routing::post(async move || axum::Json(reply.clone())));
    let engine = serve(engine).await;
    let setup = Setup::new()
        .set("ENGINE__BASE_URL", format!("{engine}/24.06"))
        .set("ENGINE__AUTH__TOKEN_URL", format!("{engine}/oauth/token"))
        .set("OUTBOUND__ALLOW_PRIVATE", true)
        .set("OUTBOUND__ALLOW_HTTP", true);
    // More is not taken in half a second by whoever takes a piece in 20 ms.
    let service = setup.least_rate(64 * MIB as u64, PATIENCE).start().await;
    // More than all the buffers on the way hold.
    let length = 256 * MIB;
    let (reading, mut writing) = upload(&service, length).await.into_split();
    let sending = tokio::spawn(async move {
        let piece = vec![7; MIB];
        for _ in 0..length / MIB {
            if writing.write_all(&piece).await.is_err() {
                break;
            }
        }
    });
    let answer = answer_of(reading).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.contains("too slowly") || answer.contains("stopped taking"), "{answer}");
    sending.abort();
}

/// A storage that takes a piece now and then.
async fn take_slowly(body: Body) {
    let mut drips = interval(DRIP);
    let mut pieces = body.into_data_stream();
    while let Some(Ok(_)) = pieces.next().await {
        drips.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_trickles_is_cut_and_one_that_keeps_up_is_not() {
    // More than the buffers of two sockets hold.
    const LARGE: u64 = 32 * MIB as u64;
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new().finishing_at_once().engine(|options| options.output_size = LARGE);
    let setup = setup.set("MIRROR__STORE", store_url(folder.path()));
    let service = setup.least_rate(MIB as u64, PATIENCE).start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let job = wait_for("the copy", async || {
        Some(service.job(id).await).filter(|job| job["secured"] == true)
    })
    .await;
    let name = text(&job["outputs"][0]["name"]);
    let addresses = HashMap::from([
        ("a file", format!("/v1/jobs/{id}/outputs/{name}")),
        ("a bundle", format!("/v1/jobs/{id}/outputs?bundle=zip")),
    ]);
    for (what, path) in addresses {
        let whole = Answer::of(service.request(Method::GET, &path)).await.expect(200);
        assert!(whole.body.len() as u64 >= LARGE, "{what}");

        let address = service.api.strip_prefix("http://").expect("an address");
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 * 1024).expect("a setting of the socket");
        let mut reader =
            socket.connect(address.parse().expect("an address")).await.expect("a connection");
        let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        reader.write_all(head.as_bytes()).await.expect("it is sent");
        let (mut taken, mut piece, mut drips) = (0, [0; 4096], interval(DRIP));
        let began = Instant::now();
        let end = within(async {
            loop {
                // What is in the buffers by then comes in any case.
                if began.elapsed() < PATIENCE * 6 {
                    drips.tick().await;
                }
                match reader.read(&mut piece).await {
                    Ok(0) | Err(_) => break taken,
                    Ok(bytes) => taken += bytes,
                }
            }
        })
        .await;
        assert!(end < whole.body.len(), "{what} was read to its end");
    }
}
