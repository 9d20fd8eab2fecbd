//! A receiver of relays that verifies signatures with the official crate, and misbehaves on order.

use std::{
    collections::BTreeMap,
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

use crate::support::serve;

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

type Answer = dyn Fn(usize) -> Response + Send + Sync;

#[derive(Clone)]
pub struct Receiver {
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Mutex<Arc<Answer>>>,
}

impl Receiver {
    /// One that takes everything.
    pub async fn start() -> Self {
        let receiver = Self {
            url: String::new(),
            received: Arc::default(),
            answer: Arc::new(Mutex::new(Arc::new(|_| StatusCode::NO_CONTENT.into_response()))),
        };
        let router = Router::new().route("/hook", post(receive)).with_state(receiver.clone());
        Self { url: format!("{}/hook", serve(router).await), ..receiver }
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

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    let webhook = Webhook::new(SECRET).expect("a secret");
    if let Err(error) = webhook.verify(&body, &headers) {
        return (StatusCode::BAD_REQUEST, error.to_string()).into_response();
    }
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    let answer = receiver.answer.lock().unwrap().clone();
    let mut received = receiver.received.lock().unwrap();
    let response = answer(received.len());
    received.push(Received {
        webhook_id: text("webhook-id"),
        job_id: text("finishline-job-id"),
        body,
        status: response.status().as_u16(),
        headers,
    });
    response
}
