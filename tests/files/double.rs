//! An Engine whose storage is another host than itself, and does as it is told.
//!
//! The invariant: every request that reaches either is kept with its headers, the token included.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{post, put},
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::*;

/// One request that arrived whole.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Clone)]
pub struct Double {
    /// The Engine's origin.
    pub engine: String,
    shared: Arc<Shared>,
}

struct Shared {
    arrived: Mutex<Vec<Arrived>>,
    /// `notifyUrl` of each input; `{engine}` and `{storage}` stand for the origins.
    notify_urls: BTreeMap<&'static str, &'static str>,
    origins: Mutex<(String, String)>,
    /// Bytes of uploads so far, whole or not.
    bytes: watch::Sender<usize>,
    /// Uploads are answered while it is open.
    gate: watch::Sender<bool>,
}

impl Double {
    /// Inputs by name, with the address to be called for each.
    pub async fn start<const N: usize>(inputs: [(&'static str, &'static str); N]) -> Self {
        let shared = Arc::new(Shared {
            arrived: Mutex::default(),
            notify_urls: inputs.into(),
            origins: Mutex::default(),
            bytes: watch::Sender::new(0),
            gate: watch::Sender::new(true),
        });
        let engine = Router::new()
            .route("/oauth/token", post(async || Json(json!({"access_token": "sesame"}))))
            .route("/24.06/job", post(take_job))
            .route("/notify/{name}", post(note))
            .with_state(shared.clone());
        let storage = Router::new()
            .route("/put/{name}", put(store))
            .route("/notify/{name}", post(note))
            .with_state(shared.clone());
        let (engine, storage) = (serve(engine).await, serve(storage).await);
        *shared.origins.lock().unwrap() = (engine.clone(), storage);
        Self { engine, shared }
    }

    /// A service of this Engine that lets its foreign addresses through.
    pub async fn service(&self) -> Service {
        let setup = self.setup().set("OUTBOUND__ALLOW_PRIVATE", true);
        setup.set("OUTBOUND__ALLOW_HTTP", true).start().await
    }

    pub fn setup(&self) -> Setup {
        Setup::new()
            .set("ENGINE__BASE_URL", format!("{}/24.06", self.engine))
            .set("ENGINE__AUTH__TOKEN_URL", format!("{}/oauth/token", self.engine))
    }

    pub fn arrived(&self) -> Vec<Arrived> {
        self.shared.arrived.lock().unwrap().clone()
    }

    /// Returns when so many bytes of uploads have come.
    pub async fn has_bytes(&self, count: usize) {
        let mut bytes = self.shared.bytes.subscribe();
        within(bytes.wait_for(|bytes| *bytes >= count)).await.expect("the storage runs");
    }

    /// From now on uploads are taken, but not answered; or answered again.
    pub fn open_gate(&self, is_open: bool) {
        self.shared.gate.send_replace(is_open);
    }
}

async fn take_job(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let (engine, storage) = shared.origins.lock().unwrap().clone();
    let files = shared.notify_urls.iter().map(|(name, notify_url)| {
        let notify_url = notify_url.replace("{engine}", &engine).replace("{storage}", &storage);
        let upload_url = format!("{storage}/put/{name}?signature=secret-of-{name}");
        ((*name).to_owned(), json!({"uploadUrl": upload_url, "notifyUrl": notify_url}))
    });
    let files: serde_json::Map<String, Value> = files.collect();
    Json(json!({"jobId": "e-1", "inputFiles": files}))
}

async fn store(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let mut pieces = body.into_data_stream();
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else { return StatusCode::BAD_REQUEST.into_response() };
        shared.bytes.send_modify(|bytes| *bytes += piece.len());
        whole.extend_from_slice(&piece);
    }
    let arrived = Arrived { path: format!("/put/{name}"), headers, body: whole.into() };
    shared.arrived.lock().unwrap().push(arrived);
    let mut gate = shared.gate.subscribe();
    let _ = gate.wait_for(|is_open| *is_open).await;
    StatusCode::CREATED.into_response()
}

async fn note(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let arrived = Arrived { path: format!("/notify/{name}"), headers, body };
    shared.arrived.lock().unwrap().push(arrived);
    StatusCode::NO_CONTENT
}
