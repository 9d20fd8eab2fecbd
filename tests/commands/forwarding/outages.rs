//! Whatever goes down and comes back, every result arrives.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{http::StatusCode, response::IntoResponse};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{finished, forward, forward_to, in_order, webhook_ids};
use crate::{
    process::{Process, command_in},
    receiver::Receiver,
    support::{Service, dead_port, wait_for},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_was_down_gets_everything_when_it_is_up() {
    let service = Service::start().await;
    let address = dead_port().await;
    let process = forward_to(&service, &format!("http://{address}/hook"), &["--since", "0"]);
    let jobs = finished(&service, 3).await;
    process.says("again in").await;
    let taken: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let seen = taken.clone();
    let hook = axum::routing::post(async move |headers: axum::http::HeaderMap| {
        seen.lock().unwrap().push(headers["finishline-job-id"].to_str().unwrap().to_owned());
    });
    let router = axum::Router::new().route("/hook", hook);
    let listener = TcpListener::bind(address).await.expect("the port is still free");
    tokio::spawn(axum::serve(listener, router).into_future());
    process.shows(3).await;
    assert_eq!(*taken.lock().unwrap(), jobs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_fails_now_and_then_gets_everything_in_order() {
    let (service, receiver) = (Service::start().await, Receiver::start().await);
    receiver.answering(|number| match number % 3 {
        0 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        1 => (StatusCode::FOUND, [("location", "/elsewhere")]).into_response(),
        _ => StatusCode::CREATED.into_response(),
    });
    let process = forward(&service, &receiver, &["--since", "0"]);
    let jobs = finished(&service, 3).await;
    process.shows(3).await;
    assert_eq!(in_order(&receiver), jobs);
    assert!(webhook_ids(&receiver).values().all(|ids| ids.len() == 1), "stable ids");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_restarts_is_followed_on() {
    let (mut service, receiver) = (Service::start().await, Receiver::start().await);
    let process = forward(&service, &receiver, &["--since", "0"]);
    let mut jobs = finished(&service, 2).await;
    process.shows(2).await;
    for _ in 0..3 {
        service.restart().await;
        jobs.extend(finished(&service, 2).await);
    }
    process.shows(jobs.len()).await;
    assert_eq!(in_order(&receiver), jobs);
    assert_eq!(receiver.received().len(), jobs.len(), "and none twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_there_yet_is_waited_for() {
    let (mut service, receiver) = (Service::start().await, Receiver::start().await);
    service.stop().await;
    let process = forward(&service, &receiver, &["--last", "5"]);
    process.says("does not answer; again in").await;
    service.start_again().await;
    let jobs = finished(&service, 1).await;
    process.shows(1).await;
    assert_eq!(in_order(&receiver), jobs);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_it_passes_on_everything_in_order_under_stable_ids() {
    let (service, receiver) = (Service::start().await, Receiver::start().await);
    let first = forward(&service, &receiver, &[]);
    first.says("forwarding to").await;
    first.kill();
    let jobs = finished(&service, 24).await;
    for round in 1..=6 {
        let process = forward(&service, &receiver, &[]);
        // Killed as soon as so many have arrived, wherever it is by then.
        wait_for("some to arrive", async || (in_order(&receiver).len() >= round * 3).then_some(()))
            .await;
        process.kill();
    }
    let last = forward(&service, &receiver, &[]);
    wait_for("all to arrive", async || (in_order(&receiver).len() == jobs.len()).then_some(()))
        .await;
    assert_eq!(in_order(&receiver), jobs);
    let ids = webhook_ids(&receiver);
    assert!(ids.values().all(|ids| ids.len() == 1), "stable: {ids:?}");
    drop(last);
}

/// A laptop that wakes up holds connections that nobody serves any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_fell_silent_is_opened_anew_after_the_last_event() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    let resumed = Arc::new(AtomicUsize::new(0));
    let seen = resumed.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
                seen.fetch_add(
                    usize::from(request.contains("last-event-id: 41\r\n")),
                    Ordering::SeqCst,
                );
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
                     event: caught-up\ndata: {\"seq\":41}\n\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
                // Held open without a word, until the other side has had enough.
                let _ = stream.read(&mut [0; 1]).await;
            });
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let args = ["forward", "--to", "http://127.0.0.1:9", "--silence", "100ms"];
    let _process = Process::of(command_in(folder.path(), &api, &args));
    wait_for("several connections", async || (resumed.load(Ordering::SeqCst) >= 3).then_some(()))
        .await;
}
