//! Requests that last have places, of which no key gets more than its share.

use finishline::domain::ids::JobId;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::support::{Answer, Service, Setup, ready_job, text, wait_for, within};

/// What the contract gives to one key, and to all.
const OF_A_KEY: usize = 32;
const OF_ALL: usize = 256;

/// The key with this number.
fn key(number: usize) -> String {
    format!("a-key-for-places-number-{number}")
}

/// A service with so many keys.
async fn service(keys: usize) -> Service {
    let keys: Vec<Value> = (0..keys)
        .map(|number| json!({"name": format!("key{number}"), "key": key(number)}))
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let files = format!("file://{}", folder.keep().display());
    Setup::new().set("API__KEYS", json!(keys)).set("MIRROR__STORE", files).start().await
}

fn by(service: &Service, number: usize, path: &str) -> RequestBuilder {
    service.request(Method::GET, path).bearer_auth(key(number))
}

/// Streams of events by one key, all open.
async fn followers(service: &Service, number: usize, count: usize) -> Vec<Response> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let answer = within(by(service, number, "/v1/events").send()).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        streams.push(answer);
    }
    streams
}

async fn submitted(service: &Service, number: usize) -> Value {
    let request = service.request(Method::POST, "/v1/jobs").bearer_auth(key(number));
    Answer::of(request.json(&ready_job())).await.expect(201).json()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_lasts_is_refused_to_a_key_that_has_its_share_and_to_no_other() {
    let service = service(2).await;
    let job = submitted(&service, 0).await;
    let id = text(&job["id"]);
    let lasting: Vec<(Method, String)> = [
        (Method::GET, "/v1/events".to_owned()),
        (Method::GET, format!("/v1/events?jobId={id}")),
        (Method::GET, "/v1/jobs".to_owned()),
        (Method::GET, format!("/v1/jobs/{id}?wait=1")),
        (Method::GET, format!("/v1/jobs/{id}/result?wait=1")),
        (Method::GET, format!("/v1/jobs/{id}/outputs?bundle=zip")),
        (Method::PUT, format!("/v1/jobs/{id}/inputs/cbct")),
        (Method::POST, "/v1/jobs".to_owned()),
    ]
    .into();
    let ask = async |number: usize, (method, path): &(Method, String)| {
        let request = service.request(method.clone(), path).bearer_auth(key(number));
        let request = request.header("accept", "application/x-ndjson").header("prefer", "wait=1");
        let answer = within(request.json(&ready_job()).send()).await.expect("an answer");
        (answer.status().as_u16(), answer.headers().contains_key("retry-after"))
    };
    let streams = followers(&service, 0, OF_A_KEY).await;
    let jobs_before = service.engine.jobs().len();
    for request in &lasting {
        assert_eq!(ask(0, request).await, (503, true), "{request:?}");
    }
    assert_eq!(service.engine.jobs().len(), jobs_before, "a job that was refused is not made");
    let refused = Answer::of(by(&service, 0, "/v1/events")).await;
    refused.problem(503, "overloaded");
    for request in &lasting {
        assert_ne!(ask(1, request).await.0, 503, "{request:?}");
    }
    // What does not last needs no place.
    Answer::of(by(&service, 0, &format!("/v1/jobs/{id}"))).await.expect(200);
    Answer::of(by(&service, 0, "/v1/jobs")).await.expect(200);
    submitted(&service, 0).await;

    // Followers of a silent stream are noticed leaving.
    drop(streams);
    wait_for("the places to be free again", async || {
        (ask(0, &lasting[3]).await.0 == 200).then_some(())
    })
    .await;
    drop(followers(&service, 0, OF_A_KEY).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_call_has_a_place_until_its_caller_hangs_up() {
    let service = service(1).await;
    let job = submitted(&service, 0).await;
    let path = format!("/v1/jobs/{}?wait=60", text(&job["id"]));
    let waiter = || {
        let request = by(&service, 0, &path);
        tokio::spawn(async move {
            // One that finds the places taken by a look at them comes again.
            loop {
                let again = request.try_clone().expect("no body");
                if again.send().await.is_ok_and(|answer| answer.status() != 503) {
                    break;
                }
            }
        })
    };
    let waiters: Vec<_> = (0..OF_A_KEY).map(|_| waiter()).collect();
    let is_full = async || Answer::of(by(&service, 0, "/v1/events")).await.status == 503;
    wait_for("all places to be taken", async || is_full().await.then_some(())).await;
    Answer::of(by(&service, 0, &path)).await.problem(503, "overloaded");
    // Nobody waits for a job that is not there.
    let unknown = format!("/v1/jobs/{}?wait=60", JobId::new(service.clock.now()));
    Answer::of(by(&service, 0, &unknown)).await.problem(404, "not-found");
    waiters.iter().for_each(|waiter| waiter.abort());
    wait_for("a place to be free", async || (!is_full().await).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_keys_together_have_their_share_too_and_other_calls_are_answered() {
    let keys = OF_ALL / OF_A_KEY;
    let service = service(keys + 1).await;
    let mut streams = Vec::new();
    for number in 0..keys {
        streams.extend(followers(&service, number, OF_A_KEY).await);
    }
    Answer::of(by(&service, keys, "/v1/events")).await.problem(503, "overloaded");
    Answer::of(by(&service, keys, "/v1/jobs")).await.expect(200);
    streams.pop();
    wait_for("the place to be free", async || {
        let answer = within(by(&service, keys, "/v1/events").send()).await.expect("an answer");
        (answer.status() == 200).then_some(())
    })
    .await;
}
