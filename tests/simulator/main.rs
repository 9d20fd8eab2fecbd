//! What the Engine simulator promises: the Engine's stated behaviour, and each fault as it is named.
//! Run by `cargo test`; everything goes through real sockets.
//! Invariant: no test waits by sleeping; it waits for a condition, with a deadline.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

mod callbacks;
mod control;
mod downloads;
mod jobs;
mod replies;
mod uploads;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode};
use finishline::simulator::{Options, Processing, Simulator};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};

const DEADLINE: Duration = Duration::from_secs(10);

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work).await.expect("it happens before the deadline")
}

async fn start(change: impl FnOnce(&mut Options)) -> Simulator {
    let mut options =
        Options { processing: Processing::After(Duration::ZERO), ..Options::default() };
    change(&mut options);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Simulator::start(listener, options).await.unwrap()
}

async fn token(simulator: &Simulator) -> String {
    let body = json!({
        "grant_type": "client_credentials", "audience": "virtualpatientengine.com",
        "client_id": "id", "client_secret": "secret",
    });
    let reply =
        reqwest::Client::new().post(simulator.token_url()).json(&body).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    json_of(reply).await["access_token"].as_str().unwrap().to_owned()
}

async fn json_of(reply: Response) -> Value {
    serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap()
}

async fn call(method: Method, url: &str, token: &str, body: impl Into<reqwest::Body>) -> Response {
    // The first caller may come before a simulator has chosen the provider of TLS.
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let request = client.build().unwrap().request(method, url).bearer_auth(token);
    within(request.body(body).send()).await.unwrap()
}

async fn submit(simulator: &Simulator, body: &Value) -> Response {
    let url = format!("{}/job", simulator.base_url());
    call(Method::POST, &url, &token(simulator).await, body.to_string()).await
}

/// A job whose input has a download URL, so that it starts at once.
fn ready_job(callback_url: &str) -> Value {
    json!({
        "inputFiles": {"cbct": {"extension": ".dcm", "downloadUrl": "https://store.example/scan.dcm"}},
        "outputFiles": {"meshes": [
            {"extension": ".stl", "structures": ["mandible"]},
            {"extension": ".stl", "structures": ["tooth18"]},
        ]},
        "finishWebhook": callback_url,
    })
}

/// Keeps every body it receives.
#[derive(Clone, Default)]
struct Receiver {
    url: String,
    received: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    refusals: Arc<Mutex<usize>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/callback", listener.local_addr().unwrap());
        let receiver = Self { url, ..Self::default() };
        let app = Router::new().fallback(Self::receive).with_state(receiver.clone());
        tokio::spawn(axum::serve(listener, app).into_future());
        receiver
    }

    async fn receive(State(receiver): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        receiver.received.lock().unwrap().push((headers, body));
        let mut refusals = receiver.refusals.lock().unwrap();
        if *refusals > 0 {
            *refusals -= 1;
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        StatusCode::OK
    }

    fn bodies(&self) -> Vec<Bytes> {
        self.received.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }
}
