//! What the Engine simulator promises: the Engine's stated behaviour, and each fault as it is named.
//! Run by `cargo test`; everything goes through real sockets.
//! Invariant: no test waits by sleeping; it waits for a condition, with a deadline.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

use std::{
    io::Read,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode};
use clap::Parser;
use finishline::{
    clock::Stopwatch,
    simulator::{Conflict, FaultRate, JobState, Options, Processing, Simulator},
};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

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

/// Sends a submission on a raw socket and returns every byte of the answer until the connection ends.
async fn raw_submission(simulator: &Simulator) -> Vec<u8> {
    let mut stream = send_raw_submission(simulator).await;
    let mut answer = Vec::new();
    // A reset is an end as well.
    within(stream.read_to_end(&mut answer)).await.ok();
    answer
}

async fn send_raw_submission(simulator: &Simulator) -> TcpStream {
    let (token, body) = (token(simulator).await, ready_job("http://127.0.0.1:9/").to_string());
    let address = simulator.origin().replace("http://", "");
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST /24.06/job HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn an_uploaded_scan_comes_back_as_a_result_and_its_poll_equals_its_callback() {
    let simulator = start(|options| {
        options.missing = vec!["tooth18".into()];
        options.check_uploads = true;
        options.processing = Processing::Manual;
    })
    .await;
    let receiver = Receiver::start().await;
    let token = token(&simulator).await;
    let job = json!({
        "inputFiles": {"cbct": {"extension": ".dcm"}},
        "outputFiles": {"meshes": [
            {"extension": ".stl", "structures": ["mandible"]},
            {"extension": ".stl", "structures": ["tooth18"]},
            {"extension": ".ply", "structures": ["mandible", "skull"]},
        ]},
        "finishWebhook": receiver.url,
    });
    let reply = json_of(submit(&simulator, &job).await).await;
    let engine_job_id = reply["jobId"].as_str().unwrap();
    let file = &reply["inputFiles"]["cbct"];
    let (upload_url, notify_url) =
        (file["uploadUrl"].as_str().unwrap(), file["notifyUrl"].as_str().unwrap());

    assert_eq!(call(Method::POST, notify_url, "", "").await.status(), 409, "nothing is uploaded");
    assert_eq!(call(Method::PUT, upload_url, "", "no scan").await.status(), 400);
    let mut scan = vec![0; 128];
    scan.extend(b"DICM and the rest");
    assert_eq!(call(Method::PUT, upload_url, "", scan.clone()).await.status(), 200);
    let poll_url = format!("{}/job/{engine_job_id}", simulator.base_url());
    assert_eq!(simulator.jobs()[0].state, JobState::Waiting);
    assert_eq!(call(Method::POST, notify_url, "", "").await.status(), 200);
    assert_eq!(simulator.jobs()[0].state, JobState::Processing);
    assert_eq!(call(Method::GET, &poll_url, &token, "").await.status(), 202);
    assert!(simulator.finish(engine_job_id));
    assert!(!simulator.finish(engine_job_id), "a job finishes once");

    within(simulator.wait_until(|simulator| simulator.answered_callbacks().len() == 1)).await;
    let polled = call(Method::GET, &poll_url, &token, "").await.bytes().await.unwrap();
    assert_eq!(receiver.bodies(), std::slice::from_ref(&polled));
    let accepted = &simulator.jobs()[0];
    assert_eq!(accepted.body, job.to_string());
    assert_eq!(accepted.inputs[0].upload.as_ref().unwrap().content, scan);
    assert_eq!((accepted.notified, accepted.polls), (1, 2));

    let result: Value = serde_json::from_slice(&polled).unwrap();
    assert_eq!(result["success"], true);
    let meshes = &result["outputFiles"]["meshes"];
    assert_eq!(meshes[1]["status"], "Missing");
    assert_eq!(meshes[1]["url"], Value::Null);
    let stl =
        call(Method::GET, meshes[0]["url"].as_str().unwrap(), "", "").await.bytes().await.unwrap();
    let triangles = u32::from_le_bytes(stl[80..84].try_into().unwrap()) as usize;
    assert!(triangles > 100);
    assert_eq!(stl.len(), 84 + 50 * triangles);
    assert!(is_closed(&stl));
    let ply =
        call(Method::GET, meshes[2]["url"].as_str().unwrap(), "", "").await.text().await.unwrap();
    let header = ply.split("end_header\n").next().unwrap();
    let count = |word: &str| -> usize {
        header.lines().find_map(|line| line.strip_prefix(word)).unwrap().trim().parse().unwrap()
    };
    let lines = ply.lines().count() - header.lines().count() - 1;
    assert_eq!(lines, count("element vertex") + count("element face"));
    simulator.stop().await;
}

/// Every edge of a closed surface is walked once in each direction.
fn is_closed(stl: &[u8]) -> bool {
    let mut edges = std::collections::HashSet::new();
    for triangle in stl[84..].chunks(50) {
        let corners: Vec<&[u8]> = triangle[12..48].chunks(12).collect();
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            if !edges.insert((corners[from], corners[to])) {
                return false;
            }
        }
    }
    edges.iter().all(|(from, to)| edges.contains(&(*to, *from)))
}

#[tokio::test]
async fn a_job_with_addresses_of_its_own_starts_at_once_and_its_files_go_there() {
    let simulator = start(|_| {}).await;
    let receiver = Receiver::start().await;
    let mut job = ready_job(&receiver.url);
    job["outputFiles"] = json!({"meshes": {"extension": ".obj", "uploadUrl": receiver.url}});
    let url = format!("{}/generic-job", simulator.base_url_of("v2"));
    let token = token(&simulator).await;
    assert_eq!(call(Method::POST, &url, &token, job.to_string()).await.status(), 200);
    let wrong = format!("{}/job", simulator.base_url_of("v2"));
    assert_eq!(call(Method::POST, &wrong, &token, job.to_string()).await.status(), 404);

    within(simulator.wait_until(|simulator| simulator.answered_callbacks().len() == 1)).await;
    let [file, callback] = &receiver.bodies()[..] else { panic!("a file and a callback") };
    assert!(file.starts_with(b"# engine-simulator\nv "));
    let result: Value = serde_json::from_slice(callback).unwrap();
    assert_eq!(
        result["outputFiles"]["meshes"],
        json!([{"extension": ".obj", "status": "Available"}])
    );
}

#[tokio::test]
async fn a_wrong_body_is_refused_and_never_accepted() {
    let simulator = start(|_| {}).await;
    let wrong = [
        json!([]),
        json!({"inputFiles": {}, "outputFiles": {"meshes": [{"extension": ".stl"}]}}),
        json!({"inputFiles": {"cbct": {}}, "outputFiles": {"meshes": [{"extension": ".stl"}]}}),
        json!({"inputFiles": {"cbct": {"extension": "dcm"}}, "outputFiles": {"meshes": [{"extension": ".stl"}]}}),
        json!({"inputFiles": {"cbct": {"extension": ".dcm"}}, "outputFiles": {"meshes": [{"extension": ".stl"}]}, "finishWebhook": "here"}),
    ];
    for body in wrong {
        let reply = submit(&simulator, &body).await;
        assert_eq!(reply.status(), 400, "{body}");
        assert!(json_of(reply).await["error"].is_string());
    }
    assert!(simulator.jobs().is_empty());
    assert_eq!(simulator.requests().submissions, 5);
}

#[tokio::test]
async fn a_token_is_good_until_its_life_ends_or_it_is_revoked() {
    let simulator = start(|options| options.token_life = Duration::from_secs(2)).await;
    let url = format!("{}/job/unknown", simulator.base_url());
    assert_eq!(call(Method::GET, &url, "made up", "").await.status(), 401);
    let first = token(&simulator).await;
    assert_eq!(call(Method::GET, &url, &first, "").await.status(), 404);
    within(async { while call(Method::GET, &url, &first, "").await.status() != 401 {} }).await;

    simulator.set(|options| {
        options.token_life = Duration::from_secs(3600);
        options.revoke_tokens = FaultRate::First(1);
    });
    let second = token(&simulator).await;
    let statuses =
        [call(Method::GET, &url, &second, "").await, call(Method::GET, &url, &second, "").await];
    assert_eq!(statuses.map(|reply| reply.status().as_u16()), [401, 401]);
    assert_eq!(call(Method::GET, &url, &token(&simulator).await, "").await.status(), 404);
    assert_eq!(simulator.tokens_issued(), 3);
}

#[tokio::test]
async fn a_link_is_good_until_its_life_ends_and_only_as_it_was_signed() {
    let simulator = start(|options| options.link_life = Duration::from_secs(2)).await;
    let mut job = ready_job("http://127.0.0.1:9/");
    job["inputFiles"] = json!({"cbct": {"extension": ".dcm"}});
    let reply = json_of(submit(&simulator, &job).await).await;
    let link = reply["inputFiles"]["cbct"]["uploadUrl"].as_str().unwrap();
    assert_eq!(call(Method::PUT, link, "", "scan").await.status(), 200);
    let forged = link.replace("expires=", "expires=9");
    assert_eq!(call(Method::PUT, &forged, "", "scan").await.status(), 403);
    within(async { while call(Method::PUT, link, "", "scan").await.status() != 403 {} }).await;
}

#[tokio::test]
async fn a_lost_reply_leaves_an_accepted_job_and_not_one_byte() {
    let simulator = start(|options| options.lose_reply = FaultRate::First(1)).await;
    assert_eq!(raw_submission(&simulator).await, b"");
    assert_eq!(simulator.jobs().len(), 1);
    assert_eq!(submit(&simulator, &ready_job("http://127.0.0.1:9/")).await.status(), 200);
}

#[tokio::test]
async fn a_connection_closed_before_accepting_leaves_no_job() {
    let simulator = start(|options| options.close_before_accept = FaultRate::First(1)).await;
    assert_eq!(raw_submission(&simulator).await, b"");
    assert!(simulator.jobs().is_empty());
    assert_eq!(simulator.requests().submissions, 1);
}

#[tokio::test]
async fn half_a_reply_ends_before_its_announced_length() {
    let simulator = start(|options| options.half_reply = FaultRate::Always).await;
    let answer = String::from_utf8(raw_submission(&simulator).await).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"));
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert_eq!(body.len(), length.parse::<usize>().unwrap() / 2);
    assert_eq!(simulator.jobs().len(), 1);
}

#[tokio::test]
async fn a_hanging_submission_is_never_answered_and_ends_with_the_simulator() {
    let simulator = start(|options| options.hang = FaultRate::Always).await;
    let mut stream = send_raw_submission(&simulator).await;
    within(simulator.wait_until(|simulator| simulator.requests().submissions == 1)).await;
    assert!(
        stream
            .try_read(&mut [0; 1])
            .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    );
    within(simulator.clone().stop()).await;
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.ok();
    assert_eq!(answer, b"");
    assert!(simulator.jobs().is_empty());
}

#[tokio::test]
async fn an_answer_by_option_is_given_as_often_as_told() {
    let simulator = start(|options| {
        options.answer = Some(503);
        options.answer_rate = FaultRate::First(2);
        options.retry_after = Some(7);
    })
    .await;
    let job = ready_job("http://127.0.0.1:9/");
    for _ in 0..2 {
        let reply = submit(&simulator, &job).await;
        assert_eq!(reply.status(), 503);
        assert_eq!(reply.headers()["retry-after"], "7");
    }
    assert!(simulator.jobs().is_empty());
    assert_eq!(submit(&simulator, &job).await.status(), 200);

    simulator.set(|options| {
        options.answer = None;
        options.redirect_to = Some("http://127.0.0.1:9/elsewhere".into());
        options.answer_rate = FaultRate::First(1);
        options.answer_after_accept = true;
    });
    let reply = submit(&simulator, &job).await;
    assert_eq!(reply.status(), 307);
    assert_eq!(reply.headers()["location"], "http://127.0.0.1:9/elsewhere");
    assert_eq!(simulator.jobs().len(), 2);
}

#[tokio::test]
async fn callbacks_are_retried_repeated_resigned_and_contradicted_as_told() {
    let simulator = start(|options| {
        options.callback_retries = 1;
        options.callback_retry_wait = Duration::ZERO;
        options.repeat_callbacks = 1;
        options.resign_repeats = true;
        options.conflicting_repeat = Conflict::Success;
    })
    .await;
    let receiver = Receiver::start().await;
    *receiver.refusals.lock().unwrap() = 1;
    submit(&simulator, &ready_job(&receiver.url)).await;
    within(simulator.wait_until(|simulator| simulator.callbacks().len() == 4)).await;
    let bodies = receiver.bodies();
    let readings: Vec<Value> =
        bodies.iter().map(|body| serde_json::from_slice(body).unwrap()).collect();
    assert_eq!(bodies[0], bodies[1], "a retry sends the same bytes");
    assert_ne!(bodies[1], bodies[2], "a repeat is signed again");
    assert_eq!(readings[1]["success"], readings[2]["success"]);
    assert_eq!(readings[3]["success"], false);
    let statuses: Vec<_> = simulator.callbacks().iter().map(|callback| callback.status).collect();
    assert_eq!(statuses, [Some(503), Some(200), Some(200), Some(200)]);
}

#[tokio::test]
async fn callback_bodies_are_spoiled_as_told() {
    let simulator = start(|options| {
        options.empty_callbacks = FaultRate::First(1);
        options.malformed_callbacks = FaultRate::First(1);
        options.callbacks_without_success = FaultRate::First(1);
        options.invalid_utf8_callbacks = FaultRate::First(1);
        options.repeat_callbacks = 4;
        options.chunked_callbacks = true;
        options.result_padding = 100_000;
        options.result_nesting = 200;
    })
    .await;
    let receiver = Receiver::start().await;
    submit(&simulator, &ready_job(&receiver.url)).await;
    within(simulator.wait_until(|simulator| simulator.answered_callbacks().len() == 5)).await;
    let bodies = receiver.bodies();
    assert_eq!(bodies[0], "");
    assert_eq!(bodies[1].len(), bodies[4].len() / 2);
    assert!(!String::from_utf8_lossy(&bodies[2]).contains("success"));
    assert!(std::str::from_utf8(&bodies[3]).is_err());
    assert!(bodies[4].len() > 100_000);
    assert_eq!(bodies[4].iter().filter(|byte| **byte == b'[').count(), 203);
    assert!(!receiver.received.lock().unwrap()[4].0.contains_key("content-length"));
    let sent: Vec<Bytes> =
        simulator.callbacks().into_iter().map(|callback| callback.body).collect();
    assert_eq!(sent, bodies);
}

#[tokio::test]
async fn callbacks_are_dropped_reordered_and_sent_before_the_reply_as_told() {
    let simulator = start(|options| {
        options.drop_callbacks = FaultRate::First(1);
        options.reorder_callbacks = FaultRate::First(1);
        options.callback_before_reply = FaultRate::Always;
    })
    .await;
    let receiver = Receiver::start().await;
    let mut ids = Vec::new();
    for taken in [0, 0, 2] {
        let reply = json_of(submit(&simulator, &ready_job(&receiver.url)).await).await;
        ids.push(reply["jobId"].as_str().unwrap().to_owned());
        assert_eq!(receiver.bodies().len(), taken);
    }
    let order: Vec<String> =
        simulator.callbacks().into_iter().map(|callback| callback.engine_job_id).collect();
    assert_eq!(order, [ids[2].clone(), ids[1].clone()]);
    assert_eq!(simulator.send_callback(&ids[0]).await, Some(200));
}

#[tokio::test]
async fn downloads_honour_ranges_and_break_as_told() {
    let simulator = start(|options| options.output_size = 1_000_000).await;
    let receiver = Receiver::start().await;
    submit(&simulator, &ready_job(&receiver.url)).await;
    within(simulator.wait_until(|simulator| simulator.answered_callbacks().len() == 1)).await;
    let result: Value = serde_json::from_slice(&receiver.bodies()[0]).unwrap();
    let link = result["outputFiles"]["meshes"][0]["url"].as_str().unwrap();
    let whole = call(Method::GET, link, "", "").await.bytes().await.unwrap();
    assert!(whole.len() >= 1_000_000);

    let client = reqwest::Client::new();
    let part = client.get(link).header("range", "bytes=1000-").send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(
        part.headers()["content-range"],
        format!("bytes 1000-{}/{}", whole.len() - 1, whole.len())
    );
    assert_eq!(part.bytes().await.unwrap(), whole.slice(1000..));
    let beyond = client.get(link).header("range", "bytes=9000000-").send().await.unwrap();
    assert_eq!(beyond.status(), 416);

    simulator.set(|options| options.cut_downloads = FaultRate::First(1));
    let cut = client.get(link).send().await.unwrap();
    assert_eq!(cut.content_length(), Some(whole.len() as u64));
    assert!(cut.bytes().await.is_err());
    simulator.set(|options| options.lie_length = -10);
    assert_eq!(
        client.get(link).send().await.unwrap().bytes().await.unwrap(),
        whole.slice(..whole.len() - 10)
    );
    simulator.set(|options| options.lie_length = 10);
    assert!(client.get(link).send().await.unwrap().bytes().await.is_err());
    simulator.set(|options| {
        options.lie_length = 0;
        options.throttle = 5_000_000;
    });
    let begun = Stopwatch::start();
    assert_eq!(client.get(link).send().await.unwrap().bytes().await.unwrap(), whole);
    assert!(begun.elapsed() >= Duration::from_millis(200));
    simulator.set(|options| options.expire_downloads = FaultRate::Always);
    assert_eq!(client.get(link).send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn another_process_can_drive_it_and_read_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.jsonl");
    let simulator = start(|options| {
        options.log = Some(path.clone());
        options.processing = Processing::Manual;
    })
    .await;
    let receiver = Receiver::start().await;
    let control = |path: &str| format!("{}/_simulator/{path}", simulator.origin());
    let client = reqwest::Client::new();
    let patch = json!({"fail_job": true, "token_life": "1m", "id_field": "externalJobId"});
    let options =
        json_of(client.patch(control("options")).json(&patch).send().await.unwrap()).await;
    assert_eq!(options["fail_job"], "always");
    assert_eq!(simulator.options().token_life, Duration::from_secs(60));
    let wrong =
        client.patch(control("options")).json(&json!({"unheard_of": 1})).send().await.unwrap();
    assert_eq!(wrong.status(), 400);

    let reply = json_of(submit(&simulator, &ready_job(&receiver.url)).await).await;
    let engine_job_id = reply["externalJobId"].as_str().unwrap();
    let finish = control(&format!("jobs/{engine_job_id}/finish"));
    assert_eq!(client.post(&finish).send().await.unwrap().status(), 200);
    within(simulator.wait_until(|simulator| simulator.answered_callbacks().len() == 1)).await;
    let again =
        client.post(control(&format!("jobs/{engine_job_id}/callback"))).send().await.unwrap();
    assert_eq!(json_of(again).await, json!({"status": 200}));

    let jobs = json_of(client.get(control("jobs")).send().await.unwrap()).await;
    assert_eq!(jobs[0]["success"], false);
    assert!(!jobs.to_string().contains("Bearer "), "tokens are never shown");
    let callbacks = json_of(client.get(control("callbacks")).send().await.unwrap()).await;
    assert_eq!(callbacks[1]["body"].as_str().unwrap().as_bytes(), receiver.bodies()[1]);
    let stats = json_of(client.get(control("stats")).send().await.unwrap()).await;
    assert_eq!(stats["callbacks"], json!({"sent": 2, "answered": 2, "held": 0}));
    let log = std::fs::read_to_string(path).unwrap();
    let types: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].clone())
        .collect();
    assert_eq!(types, ["job", "callback", "callback"]);
}

#[tokio::test]
async fn callbacks_are_repeated_at_once_and_gzip_encoded_as_told() {
    let simulator = start(|options| {
        options.repeat_callbacks = 4;
        options.repeat_concurrently = true;
        options.gzip_callbacks = true;
    })
    .await;
    let receiver = Receiver::start().await;
    submit(&simulator, &ready_job(&receiver.url)).await;
    within(simulator.wait_until(|simulator| simulator.answered_callbacks().len() == 5)).await;
    let result = simulator.jobs()[0].result.clone().unwrap();
    for (headers, body) in receiver.received.lock().unwrap().iter() {
        assert_eq!(headers["content-encoding"], "gzip");
        let mut decoded = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut decoded).unwrap();
        assert_eq!(decoded, result);
    }
}

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    options: Options,
}

#[test]
fn every_option_is_a_flag() {
    let arguments = "simulate-engine --fail-job --lose-reply first:2 --drop-callbacks 0.5 --missing a,b \
        --write-uploads=false --lie-length -5 --id-field none --url-field downloadUrl --running 404 \
        --processing manual --token-life 60s --answer 429 --retry-after 3 --cut-downloads";
    let options = CommandLine::try_parse_from(arguments.split_whitespace()).unwrap().options;
    assert_eq!(options.fail_job, FaultRate::Always);
    assert_eq!(options.lose_reply, FaultRate::First(2));
    assert_eq!(options.drop_callbacks, FaultRate::Probability(0.5));
    assert_eq!(options.missing, ["a", "b"]);
    assert!(!options.write_uploads);
    assert_eq!((options.lie_length, options.answer), (-5, Some(429)));
    assert_eq!(options.processing, Processing::Manual);
    let json = serde_json::to_value(&options).unwrap();
    assert_eq!(json["running"], "404");
    assert_eq!(json["url_field"], "downloadUrl");
    assert_eq!(serde_json::from_value::<Options>(json).unwrap(), options);
}

#[test]
fn options_default_to_an_engine_that_behaves() {
    let options = Options::default();
    assert_eq!(options, CommandLine::parse_from(["simulate-engine"]).options);
    assert_eq!(options.link_life, Duration::from_secs(15 * 60));
    assert!(options.write_uploads && options.require_token);
    assert_eq!("0.25".parse(), Ok(FaultRate::Probability(0.25)));
    assert!("1.5".parse::<FaultRate>().is_err());
}
