//! Storages of every make that refuse a link, and the links that sign headers: what the storage says
//! reaches the caller, the timeline and the log, without a signature.

use std::sync::{Arc, Mutex};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{post, put},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

/// A storage's answer: status, headers, body.
type Told = (u16, Vec<(&'static str, &'static str)>, String);

/// An Engine whose upload links have this query, and whose storage answers as it is told.
#[derive(Clone)]
struct Storage {
    shared: Arc<Shared>,
}

struct Shared {
    query: String,
    told: Mutex<Told>,
    arrived: Mutex<Vec<HeaderMap>>,
    origin: Mutex<String>,
    /// Where its upload links lead.
    path: Mutex<String>,
}

impl Storage {
    async fn start(query: &str) -> (Self, Service) {
        let shared = Arc::new(Shared {
            query: query.to_owned(),
            told: Mutex::new((200, Vec::new(), String::new())),
            arrived: Mutex::default(),
            origin: Mutex::default(),
            path: Mutex::new("put".to_owned()),
        });
        let router = Router::new()
            .route("/oauth/token", post(async || Json(json!({"access_token": "sesame"}))))
            .route("/24.06/job", post(take_job))
            .route("/put", put(store))
            .route("/early", put(async || StatusCode::OK))
            .with_state(shared.clone());
        let origin = serve(router).await;
        shared.origin.lock().unwrap().clone_from(&origin);
        let setup = Setup::new()
            .set("ENGINE__BASE_URL", format!("{origin}/24.06"))
            .set("ENGINE__AUTH__TOKEN_URL", format!("{origin}/oauth/token"));
        (Self { shared }, setup.start().await)
    }

    fn tell(&self, status: u16, headers: Vec<(&'static str, &'static str)>, body: &str) {
        *self.shared.told.lock().unwrap() = (status, headers, body.to_owned());
    }

    fn arrived(&self) -> Vec<HeaderMap> {
        self.shared.arrived.lock().unwrap().clone()
    }
}

async fn take_job(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let (origin, path) = (shared.origin.lock().unwrap(), shared.path.lock().unwrap());
    let upload_url = format!("{origin}/{path}?{}", shared.query);
    Json(json!({"jobId": "e-1", "inputFiles": {"cbct": {"uploadUrl": upload_url}}}))
}

async fn store(State(shared): State<Arc<Shared>>, headers: HeaderMap, _: Bytes) -> Response {
    shared.arrived.lock().unwrap().push(headers);
    let (status, named, body) = shared.told.lock().unwrap().clone();
    let mut headers = HeaderMap::new();
    for (name, value) in named {
        headers.insert(name, value.parse().expect("a header"));
    }
    (StatusCode::from_u16(status).expect("a status"), headers, body).into_response()
}

async fn submitted(service: &Service) -> String {
    let job = json!({"inputFiles": {"cbct": {"extension": ".dcm"}},
        "outputFiles": {"meshes": [{"extension": ".stl"}]}});
    text(&service.submitted(&job).await["id"]).to_owned()
}

async fn upload(service: &Service, id: &str, headers: &[(&str, &str)]) -> Answer {
    let path = format!("/v1/jobs/{id}/inputs/cbct");
    let mut request = service.request(Method::PUT, &path).body(vec![7; 1000]);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request).await
}

const S3: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>CODE</Code><Message>WORDS\
    </Message><AWSAccessKeyId>AKIAIOSFODNN7EXAMPLE</AWSAccessKeyId><StringToSign>AWS4-HMAC-SHA256 x\
    </StringToSign><SignatureProvided>c2lnbmF0dXJl</SignatureProvided></Error>";

fn s3(code: &str, words: &str) -> String {
    S3.replace("CODE", code).replace("WORDS", words)
}

const AZURE_FRAME: &str = "<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code><Message>\
    Server failed to authenticate the request.</Message><AuthenticationErrorDetail>Signature not \
    valid in the specified time frame: Start [Sun, 01 Mar 2026 12:00:00 GMT] - Expiry [Sun, 01 Mar \
    2026 13:00:00 GMT] - Current [Sun, 01 Mar 2026 13:20:00 GMT]</AuthenticationErrorDetail></Error>";

#[tokio::test]
async fn a_refusal_is_told_in_the_storage_s_words_and_a_link_is_expired_only_if_it_says_so() {
    let (storage, service) = Storage::start("X-Amz-Signature=c2lnbmF0dXJl").await;
    let azure = |detail: &str| {
        format!(
            "<Error><Code>AuthenticationFailed</Code><Message>Server failed.</Message>\
            <AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail></Error>"
        )
    };
    // The answer; whether the link has expired; the code; whether it helps to repeat.
    let cases = [
        (403, s3("AccessDenied", "Request has expired"), true, json!("AccessDenied"), false),
        (403, s3("AccessDenied", "Access Denied"), false, json!("AccessDenied"), false),
        (
            400,
            s3("ExpiredToken", "The provided token has expired."),
            true,
            json!("ExpiredToken"),
            false,
        ),
        (
            403,
            s3("SignatureDoesNotMatch", "for AKIAIOSFODNN7EXAMPLE"),
            false,
            json!("SignatureDoesNotMatch"),
            false,
        ),
        (404, s3("NoSuchBucket", "The bucket does not exist"), false, json!("NoSuchBucket"), false),
        (503, s3("SlowDown", "Reduce your rate"), false, json!("SlowDown"), true),
        (400, s3("RequestTimeout", "Your socket was idle"), false, json!("RequestTimeout"), true),
        (403, AZURE_FRAME.to_owned(), true, json!("AuthenticationFailed"), false),
        (
            403,
            azure("Signature did not match. String to sign used was c2lnbmF0dXJl"),
            false,
            json!("AuthenticationFailed"),
            false,
        ),
        (
            401,
            r#"{"error":{"code":401,"message":"no","status":"UNAUTHENTICATED"}}"#.to_owned(),
            false,
            json!("UNAUTHENTICATED"),
            false,
        ),
        (403, "<html><title>Forbidden</title></html>".to_owned(), false, Value::Null, false),
        (404, String::new(), false, Value::Null, false),
        (500, String::new(), false, Value::Null, true),
    ];
    for (status, body, is_expired, code, is_repeatable) in cases {
        let id = submitted(&service).await;
        storage.tell(status, Vec::new(), &body);
        let answer = upload(&service, &id, &[]).await;
        let problem = match is_expired {
            true => answer.problem(409, "link-expired"),
            false => answer.problem(502, "upload-failed"),
        };
        let detail = text(&problem["detail"]);
        assert_eq!(problem["storageStatus"], status, "{problem}");
        assert_eq!(problem["storageCode"], code, "{problem}");
        assert_eq!(detail.contains("can be repeated"), is_repeatable, "{detail}");
        assert_eq!(detail.contains("only a new job"), is_expired, "{detail}");
        let events = service.get(&format!("/v1/jobs/{id}/events")).await.text();
        assert!(events.contains("input.upload_failed"), "{events}");
        for shown in [problem.to_string(), events] {
            assert!(code.is_null() || shown.contains(text(&code)), "{shown}");
            for secret in ["AKIA", "c2ln", "AWS4", "StringToSign"] {
                assert!(!shown.contains(secret), "{secret}: {shown}");
            }
        }
        storage.tell(200, Vec::new(), "");
        upload(&service, &id, &[]).await.expect(200);
    }
    storage.tell(403, vec![("x-ms-error-code", "AuthorizationFailure")], "");
    let id = submitted(&service).await;
    let problem = upload(&service, &id, &[]).await.problem(502, "upload-failed");
    assert_eq!(problem["storageCode"], "AuthorizationFailure");
}

#[tokio::test]
async fn a_link_past_its_own_time_is_expired_whatever_the_storage_says() {
    for query in [
        "X-Amz-Date=20200101T000000Z&X-Amz-Expires=600",
        "X-Goog-Date=20200101T000000Z&X-Goog-Expires=600",
        "Expires=1577836800&Signature=a",
        "sv=2024-11-04&se=2020-01-01T00%3A00Z&sig=a",
    ] {
        let (storage, service) = Storage::start(query).await;
        let id = submitted(&service).await;
        storage.tell(403, Vec::new(), "");
        upload(&service, &id, &[]).await.problem(409, "link-expired");
        // The storage's clock is the one that counts.
        storage.tell(200, Vec::new(), "");
        upload(&service, &id, &[]).await.expect(200);
    }
}

#[tokio::test]
async fn headers_that_a_link_signs_are_sent_as_given_and_missing_ones_are_named() {
    for query in [
        "X-Amz-SignedHeaders=content-type%3Bhost%3Bx-amz-acl&X-Amz-Signature=a",
        "X-Goog-SignedHeaders=content-type%3Bhost%3Bx-amz-acl&X-Goog-Signature=a",
    ] {
        let (storage, service) = Storage::start(query).await;
        let id = submitted(&service).await;
        let missing = upload(&service, &id, &[("content-type", "model/stl")]).await;
        assert_eq!(missing.invalid_at(), ["/x-amz-acl"]);
        assert_eq!(upload(&service, &id, &[]).await.invalid_at(), ["/content-type", "/x-amz-acl"]);
        assert!(storage.arrived().is_empty(), "nothing was sent");
        let form = "application/x-www-form-urlencoded";
        let given = [
            ("content-type", form),
            ("x-amz-acl", "private"),
            ("x-goog-meta-a", "1"),
            ("x-ms-meta-a", "2"),
            ("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg=="),
            ("cookie", "a=b"),
            ("x-other", "3"),
        ];
        upload(&service, &id, &given).await.expect(200);
        let arrived = storage.arrived().remove(0);
        for (name, value) in &given[..5] {
            assert_eq!(arrived[*name], *value, "{name}");
        }
        for name in ["cookie", "x-other", "authorization", "x-ms-blob-type"] {
            assert!(!arrived.contains_key(name), "{name}");
        }
    }
}

#[tokio::test]
async fn a_shared_access_signature_gets_its_blob_type_under_any_host() {
    let (storage, service) = Storage::start("sv=2024-11-04&se=2099-01-01&sr=b&sig=abc").await;
    let id = submitted(&service).await;
    upload(&service, &id, &[]).await.expect(200);
    upload(&service, &id, &[("x-ms-blob-type", "PageBlob")]).await.expect(200);
    let types: Vec<_> =
        storage.arrived().iter().map(|headers| headers["x-ms-blob-type"].clone()).collect();
    assert_eq!(types, ["BlockBlob", "PageBlob"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_sends_no_content_type_unless_told() {
    let (storage, service) = Storage::start("X-Amz-Signature=a").await;
    let folder = service.folder().to_owned();
    std::fs::write(folder.join("scan.dcm"), [7; 1000]).expect("a file");
    for (flags, expected) in
        [(&[][..], None), (&["--content-type", "application/dicom"][..], Some("application/dicom"))]
    {
        let id = submitted(&service).await;
        let args = ["jobs", "upload", &id, "--api", &service.api, "--input", "cbct=scan.dcm"];
        let ended = run_program(&folder, &[&args[..], flags].concat(), &[]).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let arrived = storage.arrived().pop().expect("an upload");
        let kind = arrived.get("content-type").map(|kind| kind.to_str().expect("text").to_owned());
        assert_eq!(kind.as_deref(), expected);
    }
    let id = submitted(&service).await;
    storage.tell(403, Vec::new(), &s3("SignatureDoesNotMatch", "no"));
    let before = storage.arrived().len();
    let args = ["jobs", "upload", &id, "--api", &service.api, "--input", "cbct=scan.dcm"];
    let ended = run_program(&folder, &args, &[]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("SignatureDoesNotMatch"), "{ended:?}");
    assert!(!ended.stderr.contains("again with"), "{ended:?}");
    assert_eq!(storage.arrived().len(), before + 1, "it is not tried in vain");
}

#[tokio::test]
async fn a_success_before_the_whole_file_has_come_is_none() {
    let (storage, service) = Storage::start("a=b").await;
    storage.shared.path.lock().unwrap().replace_range(.., "early");
    let id = submitted(&service).await;
    let path = format!("/v1/jobs/{id}/inputs/cbct");
    // More than the sockets between can hold, and its end is held back.
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    sender.send(Ok(Bytes::from(vec![7; 1000]))).await.expect("room");
    let request = service.request(Method::PUT, &path).header("content-length", 2000);
    let answer = Answer::of(request.body(reqwest::Body::wrap_stream(pieces))).await;
    assert_eq!((answer.status, text(&answer.json()["code"])), (502, "upload-failed"));
    assert!(text(&answer.json()["detail"]).contains("before it has the whole file"));
    let job = service.get(&format!("/v1/jobs/{id}")).await.json();
    assert_eq!(job["inputs"][0]["state"], "awaiting");
    drop(sender);
}
