//! Inputs through the service to the Engine's storage, and the Engine told.

use std::time::{Duration, Instant};

use finishline::simulator::{FaultRate, NotifyPlace};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{double::Double, support::*};

/// A job with inputs of these names, none of which has a download address.
fn job_with(inputs: &[&str]) -> Value {
    let inputs: serde_json::Map<String, Value> =
        inputs.iter().map(|name| ((*name).to_owned(), json!({"extension": ".stl"}))).collect();
    json!({"inputFiles": inputs, "outputFiles": {"meshes": [{"extension": ".stl"}]}})
}

async fn put(service: &Service, id: &str, name: &str, body: Vec<u8>) -> Answer {
    let path = format!("/v1/jobs/{id}/inputs/{name}");
    Answer::of(service.request(Method::PUT, &path).body(body)).await
}

async fn notify(service: &Service, id: &str, name: &str) -> Answer {
    service.post(&format!("/v1/jobs/{id}/inputs/{name}/notify"), "").await
}

/// An upload of `length` bytes of which only `sent` are sent for now.
async fn begin(service: &Service, path: &str, length: usize, sent: usize) -> TcpStream {
    let address = service.api.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("the head is sent");
    stream.write_all(&vec![7; sent]).await.expect("the beginning is sent");
    stream
}

async fn answer_of(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn state(job: &Value, name: &str) -> String {
    let inputs = job["inputs"].as_array().expect("inputs");
    let input = inputs.iter().find(|input| input["name"] == name).expect("the input");
    text(&input["state"]).to_owned()
}

#[tokio::test]
async fn a_file_reaches_the_engine_byte_for_byte_and_the_engine_is_told() {
    let setup = Setup::new().engine(|options| options.require_content_length = true);
    let service = setup.start().await;
    let job = service.submitted(&job_with(&["ios_upper", "ios_lower"])).await;
    let id = text(&job["id"]);
    let scan: Vec<u8> = (0..3_000_000u32).map(|number| (number / 7) as u8).collect();
    let path = format!("/v1/jobs/{id}/inputs/ios_upper");
    let request = service.request(Method::PUT, &path).header("content-type", "model/stl");
    let job = Answer::of(request.body(scan.clone())).await.expect(200).json();
    assert_eq!((&*state(&job, "ios_upper"), &*state(&job, "ios_lower")), ("notified", "awaiting"));

    let at_engine = &service.engine.jobs()[0].inputs;
    let input = at_engine.iter().find(|input| input.name == "ios_upper").expect("the input");
    let upload = input.upload.as_ref().expect("uploaded");
    let digest: String = Sha256::digest(&scan).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((upload.sha256.as_str(), input.notified), (digest.as_str(), true));
    assert_eq!(upload.headers["content-length"], "3000000");
    assert_eq!(upload.headers["content-type"], "model/stl");
    let events = service.get(&format!("/v1/jobs/{id}/events")).await.json();
    let events = events["events"].as_array().expect("events");
    let of_type = |kind| events.iter().find(|event| event["type"] == kind).expect("the event");
    assert_eq!(of_type("input.uploaded")["data"]["bytes"], 3_000_000);
    assert_eq!(of_type("input.notified")["data"]["inputs"], json!(["ios_upper"]));
}

#[tokio::test]
async fn an_address_for_all_inputs_is_called_once_and_only_when_all_are_there() {
    let setup = Setup::new().engine(|options| {
        options.notify_place = NotifyPlace::TopLevel;
        options.refuse_second_notify = true;
    });
    let service = setup.start().await;
    let mut body = job_with(&["ios_upper", "ios_lower"]);
    body["inputFiles"]["cbct"] = ready_job()["inputFiles"]["cbct"].clone();
    let job = service.submitted(&body).await;
    let id = text(&job["id"]);
    let job = put(&service, id, "ios_upper", vec![1; 100_000]).await.expect(200).json();
    assert_eq!(state(&job, "ios_upper"), "uploaded");
    assert_eq!(service.engine.requests().notifies, 0);
    let job = put(&service, id, "ios_lower", vec![2; 100_000]).await.expect(200).json();
    for name in ["ios_upper", "ios_lower"] {
        assert_eq!(state(&job, name), "notified");
    }
    assert_eq!((state(&job, "cbct").as_str(), service.engine.requests().notifies), ("provided", 1));

    // The two may end at the same moment.
    let rounds = 8;
    for _ in 0..rounds {
        let job = service.submitted(&body).await;
        let id = text(&job["id"]);
        let (upper, lower) = tokio::join!(
            put(&service, id, "ios_upper", vec![1; 50_000]),
            put(&service, id, "ios_lower", vec![2; 50_000]),
        );
        let (_, _) = (upper.expect(200), lower.expect(200));
        let job = service.job(id).await;
        assert_eq!(state(&job, "ios_upper") + &state(&job, "ios_lower"), "notifiednotified");
    }
    assert_eq!(service.engine.requests().notifies, 1 + rounds);
}

#[tokio::test]
async fn a_broken_upload_leaves_nothing_and_can_be_repeated() {
    let service = Service::start().await;
    let job = service.submitted(&job_with(&["cbct"])).await;
    let id = text(&job["id"]);
    let path = format!("/v1/jobs/{id}/inputs/cbct");
    let stream = begin(&service, &path, 1_000_000, 400_000).await;
    within(service.engine.wait_until(|engine| engine.requests().uploads == 1)).await;
    drop(stream);
    let job = put(&service, id, "cbct", vec![7; 1_000_000]).await.expect(200).json();
    assert_eq!(state(&job, "cbct"), "notified");
    let upload = service.engine.jobs()[0].inputs[0].upload.clone().expect("uploaded");
    assert_eq!(upload.size_bytes, 1_000_000);
    let events = service.get(&format!("/v1/jobs/{id}/events")).await.text();
    assert_eq!(events.matches("input.uploaded").count(), 1, "only the whole one counts");
}

#[tokio::test]
async fn of_two_uploads_of_one_input_the_later_goes_on() {
    let service = Service::start().await;
    let job = service.submitted(&job_with(&["cbct"])).await;
    let id = text(&job["id"]);
    let path = format!("/v1/jobs/{id}/inputs/cbct");
    let earlier = begin(&service, &path, 1_000_000, 400_000).await;
    within(service.engine.wait_until(|engine| engine.requests().uploads == 1)).await;
    put(&service, id, "cbct", vec![8; 500_000]).await.expect(200);
    let answer = answer_of(earlier).await;
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("upload-failed"), "{answer}");
    let upload = service.engine.jobs()[0].inputs[0].upload.clone().expect("uploaded");
    assert_eq!(upload.size_bytes, 500_000);
}

#[tokio::test]
async fn an_upload_is_recorded_though_its_caller_hung_up_after_the_last_byte() {
    let double = Double::start([("cbct", "{engine}/notify/cbct")]).await;
    let service = double.service().await;
    let job = service.submitted(&job_with(&["cbct"])).await;
    let id = text(&job["id"]);
    double.open_gate(false);
    let stream = begin(&service, &format!("/v1/jobs/{id}/inputs/cbct"), 100_000, 100_000).await;
    double.has_bytes(100_000).await;
    drop(stream);
    double.open_gate(true);
    wait_for("the upload to be on record", async || {
        (state(&service.job(id).await, "cbct") == "notified").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_upload_under_way_is_finished_when_the_service_stops() {
    let double = Double::start([("cbct", "{engine}/notify/cbct")]).await;
    let mut service = double.service().await;
    let job = service.submitted(&job_with(&["cbct"])).await;
    let id = text(&job["id"]).to_owned();
    double.open_gate(false);
    let stream = begin(&service, &format!("/v1/jobs/{id}/inputs/cbct"), 100_000, 100_000).await;
    double.has_bytes(100_000).await;
    let address = service.api.strip_prefix("http://").expect("an address").to_owned();
    let opened = async {
        let is_closed = async || TcpStream::connect(&address).await.is_err().then_some(());
        wait_for("the door to close", is_closed).await;
        double.open_gate(true);
    };
    let (answer, (), ()) = tokio::join!(answer_of(stream), service.stop(), opened);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn the_token_goes_to_the_engine_and_to_nobody_else() {
    let double =
        Double::start([("cbct", "{engine}/notify/cbct"), ("facial", "{storage}/notify/facial")])
            .await;
    let service = double.service().await;
    let job = service.submitted(&job_with(&["cbct", "facial"])).await;
    for name in ["cbct", "facial"] {
        put(&service, text(&job["id"]), name, vec![1; 1000]).await.expect(200);
    }
    let arrived = double.arrived();
    let with_token: Vec<(&str, bool)> = arrived
        .iter()
        .map(|one| (one.path.as_str(), one.headers.contains_key("authorization")))
        .collect();
    let expected = [
        ("/put/cbct", false),
        ("/notify/cbct", true),
        ("/put/facial", false),
        ("/notify/facial", false),
    ];
    assert_eq!(with_token, expected);
    assert_eq!(arrived[1].headers["authorization"], "Bearer sesame");
    assert_eq!(arrived[0].body.len(), 1000);
    for one in &arrived {
        assert!(!one.headers.contains_key("x-ms-blob-type"), "this is not Azure");
        assert!(one.headers.contains_key("content-length"), "{}", one.path);
    }
}

#[tokio::test]
async fn each_way_to_fail_is_its_own_problem_and_names_no_link() {
    let service = Service::start().await;
    let mut body = job_with(&["ios_upper", "ios_lower"]);
    body["inputFiles"]["cbct"] = ready_job()["inputFiles"]["cbct"].clone();
    let job = service.submitted(&body).await;
    let id = text(&job["id"]);
    let scan = || vec![1; 1000];
    put(&service, id, "facial", scan()).await.problem(404, "unknown-input");
    put(&service, id, "cbct", scan()).await.problem(409, "input-provided");
    notify(&service, id, "cbct").await.problem(409, "input-provided");
    put(&service, "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55", "cbct", scan())
        .await
        .problem(404, "not-found");
    assert_eq!(put(&service, id, "ios_upper", Vec::new()).await.invalid_at(), ["/Content-Length"]);
    assert_eq!(service.engine.requests().uploads, 0, "nothing of these reached the storage");

    service.engine.set(|options| options.upload_answer = Some(500));
    let failed = put(&service, id, "ios_upper", scan()).await.problem(502, "upload-failed");
    assert!(text(&failed["detail"]).contains("500"), "{failed}");
    assert!(!failed.to_string().contains("signature"), "{failed}");
    service.engine.set(|options| options.upload_answer = None);

    service.engine.set(|options| options.notify_answer = Some(500));
    let failed = put(&service, id, "ios_upper", scan()).await.problem(502, "notify-failed");
    assert_eq!(failed["engineStatus"], 500);
    assert_eq!(state(&service.job(id).await, "ios_upper"), "uploaded");
    notify(&service, id, "ios_upper").await.problem(502, "notify-failed");
    service.engine.set(|options| options.notify_answer = None);
    let job = notify(&service, id, "ios_upper").await.expect(200).json();
    assert_eq!(state(&job, "ios_upper"), "notified");
    put(&service, id, "ios_upper", scan()).await.problem(409, "input-provided");
    notify(&service, id, "ios_upper").await.expect(200);

    service.engine.set(|options| options.expire_uploads = FaultRate::Always);
    put(&service, id, "ios_lower", scan()).await.problem(409, "link-expired");
    // The storage answers at once and reads nothing of it.
    put(&service, id, "ios_lower", vec![1; 20_000_000]).await.problem(409, "link-expired");

    service.delete(&format!("/v1/jobs/{id}")).await.expect(200);
    put(&service, id, "ios_lower", scan()).await.problem(410, "gone");
}

#[tokio::test]
async fn a_job_that_the_engine_has_not_taken_says_that_there_is_nowhere_to_upload_to() {
    let service = Setup::new().engine(|options| options.answer = Some(429)).start().await;
    let refused = service.submit(&job_with(&["cbct"])).await.problem(503, "engine-busy");
    let id = text(&refused["jobId"]);
    for answer in [put(&service, id, "cbct", vec![1]).await, notify(&service, id, "cbct").await] {
        let problem = answer.problem(422, "validation-failed");
        assert!(text(&problem["detail"]).contains("unsent"), "{problem}");
    }
}

#[tokio::test]
async fn addresses_that_the_guard_refuses_are_not_followed() {
    let double = Double::start([("cbct", "{engine}/notify/cbct")]).await;
    let service = double.setup().start().await;
    let job = service.submitted(&job_with(&["cbct"])).await;
    let answer = put(&service, text(&job["id"]), "cbct", vec![1; 1000]).await;
    let problem = answer.problem(502, "url-refused");
    assert!(!problem.to_string().contains("secret-of"), "{problem}");
    assert!(double.arrived().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn a_caller_that_uploaded_by_itself_has_the_engine_told() {
    let service = Service::start().await;
    let job = service.submitted(&job_with(&["cbct"])).await;
    let id = text(&job["id"]);
    let upload_url = text(&job["inputs"][0]["uploadUrl"]);
    let request = service.request_to(Method::PUT, upload_url).body(vec![1; 1000]);
    Answer::of(request).await.expect(200);
    for _ in 0..2 {
        let job = notify(&service, id, "cbct").await.expect(200).json();
        assert_eq!(state(&job, "cbct"), "notified");
    }
    assert_eq!(service.engine.requests().notifies, 1);
}

#[tokio::test]
async fn an_upload_may_take_long_but_not_fall_silent() {
    let double = Double::start([("cbct", "{engine}/notify/cbct")]).await;
    let setup = double.setup().set("OUTBOUND__ALLOW_PRIVATE", true);
    let setup = setup.set("OUTBOUND__ALLOW_HTTP", true).set("SERVICE__BODY_TIMEOUT", "100ms");
    let service = setup.set("SERVICE__IDLE_TIMEOUT", "1s").start().await;
    let job = service.submitted(&job_with(&["cbct"])).await;
    let path = format!("/v1/jobs/{}/inputs/cbct", text(&job["id"]));
    let silent = begin(&service, &path, 1000, 10).await;
    assert!(answer_of(silent).await.starts_with("HTTP/1.1 408"));

    let began = Instant::now();
    let mut steady = begin(&service, &path, 1000, 500).await;
    double.has_bytes(510).await;
    let twice = Duration::from_millis(200);
    wait_for("twice the time", async || (began.elapsed() > twice).then_some(())).await;
    steady.write_all(&[7; 500]).await.expect("it is taken");
    assert!(answer_of(steady).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_without_a_length_is_refused_before_it_is_read() {
    let service = Service::start().await;
    let job = service.submitted(&job_with(&["cbct"])).await;
    let path = format!("/v1/jobs/{}/inputs/cbct", text(&job["id"]));
    let pieces = futures_util::stream::iter([Ok::<_, std::io::Error>("abc")]);
    let request = service.request(Method::PUT, &path).body(reqwest::Body::wrap_stream(pieces));
    assert_eq!(Answer::of(request).await.invalid_at(), ["/Content-Length"]);
    assert_eq!(service.engine.requests().uploads, 0);
}

/// The storage would keep what arrives: an envelope, a packed file, a part.
#[tokio::test]
async fn an_upload_that_would_be_another_file_at_the_storage_is_refused_unread() {
    let service = Service::start().await;
    let job = service.submitted(&job_with(&["cbct"])).await;
    let path = format!("/v1/jobs/{}/inputs/cbct", text(&job["id"]));
    for (name, value, body) in [
        ("content-encoding", "gzip", "abc"),
        ("content-encoding", "GZIP, identity", "abc"),
        ("content-encoding", "br", "abc"),
        ("content-encoding", "aws-chunked", "abc"),
        ("content-type", "multipart/form-data; boundary=x", "abc"),
        ("content-type", " Multipart/Related", "abc"),
        ("content-range", "bytes 0-2/9", "abc"),
        ("content-length", "0", ""),
    ] {
        let request = service.request(Method::PUT, &path).header(name, value).body(body);
        let pointers = Answer::of(request).await.invalid_at();
        assert!(pointers[0].eq_ignore_ascii_case(&format!("/{name}")), "{name}: {value}");
    }
    let request = service.request(Method::PUT, &path).header("content-encoding", "identity");
    assert_eq!(service.engine.requests().uploads, 0);
    Answer::of(request.body("abc")).await.expect(200);
}

#[tokio::test]
async fn who_asks_first_is_told_to_go_on_and_what_comes_too_much_is_not_the_file_s() {
    let service = Service::start().await;
    let job = service.submitted(&job_with(&["cbct"])).await;
    let path = format!("/v1/jobs/{}/inputs/cbct", text(&job["id"]));
    let address = service.api.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         expect: 100-continue\r\ncontent-length: 4\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("the head is sent");
    let mut told = [0; 12];
    within(stream.read_exact(&mut told)).await.expect("an answer");
    assert_eq!(&told, b"HTTP/1.1 100");
    stream.write_all(b"scanand more").await.expect("the body is sent");
    let answer = answer_of(stream).await;
    assert!(answer.contains("HTTP/1.1 200"), "{answer}");
    let upload = service.engine.jobs()[0].inputs[0].upload.clone().expect("uploaded");
    let digest: String = Sha256::digest(b"scan").iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(upload.sha256, digest);
}

#[tokio::test]
async fn uploading_needs_the_scope_submit() {
    let keys = json!([{"name": "reader", "key": "a-key-that-is-long-enough", "scopes": ["read"]}]);
    let service = Setup::new().set("API__KEYS", keys).start().await;
    for (method, end) in [(Method::PUT, ""), (Method::POST, "/notify")] {
        let path = format!("/v1/jobs/01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55/inputs/cbct{end}");
        let request = service.request(method, &path).bearer_auth("a-key-that-is-long-enough");
        Answer::of(request.body("x")).await.problem(403, "forbidden-scope");
    }
}
