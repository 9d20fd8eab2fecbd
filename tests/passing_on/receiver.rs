//! A receiver of relays that verifies signatures with the official crate, and misbehaves on order.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use standardwebhooks::Webhook;
use tokio::runtime::{self, Runtime};

pub const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub webhook_id: String,
    pub job_id: String,
    pub body: Bytes,
    pub headers: HeaderMap,
    /// What it was answered.
    pub status: u16,
}

/// A request that is answered so is not answered at all: it hangs.
pub const HANG: StatusCode = StatusCode::IM_A_TEAPOT;

type Answer = dyn Fn(usize) -> Response + Send + Sync;

#[derive(Clone)]
pub struct Receiver {
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Mutex<Arc<Answer>>>,
    webhook: Arc<Webhook>,
    life: Arc<Life>,
}

/// What a restart takes down: all that serves, and every connection with it. The port stays.
struct Life {
    listener: TcpListener,
    runtime: Mutex<Option<Runtime>>,
}

impl Drop for Life {
    fn drop(&mut self) {
        let runtime = self.runtime.get_mut().expect("no panic").take();
        runtime.expect("it lives").shutdown_background();
    }
}

impl Receiver {
    /// One that takes everything.
    pub async fn start() -> Self {
        Self::holding(SECRET).await
    }

    /// The same with a secret of its own.
    pub async fn holding(secret: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket for tokio");
        let receiver = Self {
            url: format!("http://{}/hook", listener.local_addr().expect("an address")),
            received: Arc::default(),
            answer: Arc::new(Mutex::new(Arc::new(|_| StatusCode::NO_CONTENT.into_response()))),
            webhook: Arc::new(Webhook::new(secret).expect("a secret")),
            life: Arc::new(Life { listener, runtime: Mutex::default() }),
        };
        receiver.restart();
        receiver
    }

    /// Drops every connection as it stands, and serves anew.
    pub fn restart(&self) {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread");
        let listener = self.life.listener.try_clone().expect("the same socket");
        let state = (self.received.clone(), self.answer.clone(), self.webhook.clone());
        let router = Router::new().route("/hook", post(receive)).with_state(state);
        runtime.spawn(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, router).await
        });
        if let Some(earlier) = self.life.runtime.lock().unwrap().replace(runtime) {
            earlier.shutdown_background();
        }
    }

    /// From now on, request `n` (from 0, over the receiver's life) is answered so.
    pub fn answering(&self, answer: impl Fn(usize) -> Response + Send + Sync + 'static) {
        *self.answer.lock().unwrap() = Arc::new(answer);
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The ids under which a job's result was taken (2xx).
    pub fn taken(&self) -> BTreeMap<String, Vec<String>> {
        let mut taken: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for one in self.received() {
            if (200..300).contains(&one.status) {
                taken.entry(one.job_id).or_default().push(one.webhook_id);
            }
        }
        taken
    }
}

type Shared = (Arc<Mutex<Vec<Received>>>, Arc<Mutex<Arc<Answer>>>, Arc<Webhook>);

async fn receive(
    State((received, answer, webhook)): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(error) = webhook.verify(&body, &headers) {
        return (StatusCode::BAD_REQUEST, error.to_string()).into_response();
    }
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    let response = {
        let answer = answer.lock().unwrap().clone();
        let mut received = received.lock().unwrap();
        let response = answer(received.len());
        received.push(Received {
            webhook_id: text("webhook-id"),
            job_id: text("finishline-job-id"),
            body,
            status: response.status().as_u16(),
            headers,
        });
        response
    };
    if response.status() == HANG {
        std::future::pending::<()>().await;
    }
    response
}
