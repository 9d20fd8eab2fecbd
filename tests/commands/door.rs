//! A door before the service that passes everything on, and misbehaves on order.
//!
//! The invariant: whatever it is not told about is answered by the real service.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use serde_json::{Value, json};

use crate::support::{Service, http_client, serve, text};

type Answer = dyn Fn(&HeaderMap) -> Response + Send + Sync;

#[derive(Clone)]
pub struct Door {
    pub url: String,
    api: String,
    /// Status and code of the problems that the next uploads are answered.
    refusals: Arc<Mutex<VecDeque<(u16, &'static str)>>>,
    uploads: Arc<Mutex<Vec<String>>>,
    ranges: Arc<Mutex<Vec<Option<String>>>>,
    outputs: Arc<Mutex<Option<Arc<Answer>>>>,
}

impl Door {
    pub async fn before(service: &Service) -> Self {
        let door = Self {
            url: String::new(),
            api: service.api.clone(),
            refusals: Arc::default(),
            uploads: Arc::default(),
            ranges: Arc::default(),
            outputs: Arc::default(),
        };
        let router = Router::new()
            .route("/v1/jobs/{id}/inputs/{name}", put(upload))
            .route("/v1/jobs/{id}/outputs/{name}", get(output))
            .fallback(pass_on)
            .with_state(door.clone());
        Self { url: serve(router).await, ..door }
    }

    /// The next uploads fail with these problems.
    pub fn refuse_uploads(&self, problems: &[(u16, &'static str)]) {
        self.refusals.lock().unwrap().extend(problems);
    }

    /// Names of the inputs that were uploaded, or were to be.
    pub fn uploads(&self) -> Vec<String> {
        self.uploads.lock().unwrap().clone()
    }

    /// `Range` of every request for an output.
    pub fn ranges(&self) -> Vec<Option<String>> {
        self.ranges.lock().unwrap().clone()
    }

    /// From now on outputs are answered so, and not with a way to the Engine's storage.
    pub fn serve_outputs(&self, answer: impl Fn(&HeaderMap) -> Response + Send + Sync + 'static) {
        *self.outputs.lock().unwrap() = Some(Arc::new(answer));
    }
}

async fn upload(
    State(door): State<Door>,
    Path((_, name)): Path<(String, String)>,
    request: Request,
) -> Response {
    door.uploads.lock().unwrap().push(name);
    let refusal = door.refusals.lock().unwrap().pop_front();
    match refusal {
        Some((status, code)) => {
            let problem = json!({
                "type": format!("urn:finishline:problem:{code}"), "title": "No", "detail": "no",
                "status": status, "code": code,
            });
            let status = StatusCode::from_u16(status).unwrap();
            (status, problem.to_string()).into_response()
        }
        None => pass_on(State(door), request).await,
    }
}

async fn output(
    State(door): State<Door>,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let range = headers.get("range").map(|range| range.to_str().unwrap().to_owned());
    door.ranges.lock().unwrap().push(range);
    let answer = door.outputs.lock().unwrap().clone();
    if let Some(answer) = answer {
        return answer(&headers);
    }
    let mut request = http_client().get(format!("{}/v1/jobs/{id}", door.api));
    if let Some(key) = headers.get("authorization") {
        request = request.header("authorization", key);
    }
    let job: Value = request.send().await.unwrap().json().await.unwrap();
    let outputs = job["outputs"].as_array().unwrap();
    let output = outputs.iter().find(|output| output["name"] == name.as_str()).unwrap();
    redirect(text(&output["url"]))
}

pub fn redirect(url: &str) -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [("location", url)]).into_response()
}

async fn pass_on(State(door): State<Door>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let url = format!("{}{}", door.api, parts.uri);
    let mut request = http_client().request(parts.method, url).body(body);
    for name in ["authorization", "content-type", "idempotency-key"] {
        if let Some(value) = parts.headers.get(name) {
            request = request.header(name, value);
        }
    }
    let Ok(answer) = request.send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let status = answer.status();
    (status, Body::from(answer.bytes().await.unwrap())).into_response()
}
