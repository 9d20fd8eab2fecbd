//! Bad input: each is refused with a complete problem, and leaves no trace.
//!
//! The invariant of every test: nothing is stored and nothing reaches the Engine.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

/// The limit of a job body.
const MAX_BODY: usize = 1024 * 1024;

async fn assert_nothing_happened(service: &Service) {
    assert!(service.jobs().await.is_empty(), "nothing is stored");
    assert_eq!(service.engine.requests(), Default::default(), "nothing is sent");
}

#[tokio::test]
async fn what_is_not_json_is_malformed() {
    let service = Service::start().await;
    let whole = ready_job().to_string();
    let deep = whole.replacen(
        '{',
        &format!(r#"{{"o":{}{},"#, "[".repeat(100_000), "]".repeat(100_000)),
        1,
    );
    let mut invalid_utf8 = whole.replacen('{', r#"{"o":"?","#, 1).into_bytes();
    let place = invalid_utf8.iter().position(|byte| *byte == b'?').expect("there");
    invalid_utf8[place] = 0xff;
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b" ".to_vec(),
        b"{".to_vec(),
        b"nope".to_vec(),
        b"{'inputFiles':{}}".to_vec(),
        b"\xff\xfe{\0}\0".to_vec(),
        whole[..whole.len() - 1].into(),
        format!("{whole}{whole}").into(),
        format!("{whole},").into(),
        whole.replacen('{', r#"{"o":NaN,"#, 1).into(),
        whole.replacen('{', r#"{"o":Infinity,"#, 1).into(),
        whole.replacen('{', r#"{"o":01,"#, 1).into(),
        whole.replacen('{', r#"{"o":[1,],"#, 1).into(),
        whole.replacen('{', "{\"o\":\"line\nbreak\",", 1).into(),
        whole.replacen('{', "{/* why */", 1).into(),
        "[".repeat(100_000).into(),
        "{\"a\":".repeat(100_000).into(),
        deep.into(),
        invalid_utf8,
    ];
    for body in bodies {
        let start = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = service.post("/v1/jobs", body).await;
        assert_eq!(answer.status, 400, "{start}");
        answer.problem(400, "malformed-json");
    }
    assert_nothing_happened(&service).await;
}

#[tokio::test]
async fn what_is_no_object_is_invalid_as_a_whole() {
    let service = Service::start().await;
    for body in ["[]", "[{}]", "\"text\"", "1", "1e999", "null", "true"] {
        let answer = service.post("/v1/jobs", body).await;
        assert_eq!(answer.invalid_at(), [""], "{body}");
    }
    assert_nothing_happened(&service).await;
}

#[tokio::test]
async fn everything_missing_or_mistyped_is_named_by_its_pointer() {
    let service = Service::start().await;
    let files = "/inputFiles";
    let outputs = "/outputFiles";
    let cases: Vec<(Value, Vec<&str>)> = vec![
        (json!({}), vec![files, outputs]),
        (json!({"inputFiles": {}, "outputFiles": {}}), vec![files, outputs]),
        (json!({"inputFiles": null, "outputFiles": []}), vec![files, outputs]),
        (json!({"inputFiles": "cbct", "outputFiles": 7}), vec![files, outputs]),
        (with_input(json!({})), vec!["/inputFiles/cbct/extension"]),
        (with_input(json!("x")), vec!["/inputFiles/cbct"]),
        (with_input(json!(null)), vec!["/inputFiles/cbct"]),
        (with_input(json!({"extension": "dcm"})), vec!["/inputFiles/cbct/extension"]),
        (with_input(json!({"extension": "."})), vec!["/inputFiles/cbct/extension"]),
        (with_input(json!({"extension": 1})), vec!["/inputFiles/cbct/extension"]),
        (
            with_input(json!({"extension": ".dcm", "downloadUrl": "ftp://a.example/x"})),
            vec!["/inputFiles/cbct/downloadUrl"],
        ),
        (
            with_input(json!({"extension": ".dcm", "downloadUrl": "/scan.dcm"})),
            vec!["/inputFiles/cbct/downloadUrl"],
        ),
        (
            ready_job_with(json!({"outputFiles": {"meshes": [
                {"extension": ".stl"},
                {"extension": ".stl", "uploadUrl": "file:///etc/passwd"},
                {"extension": ".stl", "uploadUrl": ["https://a.example"]},
            ]}})),
            vec!["/outputFiles/meshes/1/uploadUrl", "/outputFiles/meshes/2/uploadUrl"],
        ),
        (ready_job_with(json!({"finishWebhook": 5})), vec!["/finishWebhook"]),
        (ready_job_with(json!({"finishWebhook": ""})), vec!["/finishWebhook"]),
        (ready_job_with(json!({"endUserId": 5})), vec!["/endUserId"]),
        (ready_job_with(json!({"cloudPackage": {}})), vec!["/cloudPackage"]),
        (ready_job_with(json!({"externalJobId": []})), vec!["/externalJobId"]),
        (ready_job_with(json!({"finishline": "case-42"})), vec!["/finishline"]),
        (ready_job_with(json!({"finishline": {"reference": 42}})), vec!["/finishline/reference"]),
        (ready_job_with(json!({"finishline": {"ref": "x"}})), vec!["/finishline/ref"]),
        (
            json!({"inputFiles": {"a/b~c": {"extension": 1}}, "outputFiles": {}}),
            vec!["/inputFiles/a~1b~0c/extension", outputs],
        ),
    ];
    for (body, pointers) in cases {
        assert_eq!(service.submit(&body).await.invalid_at(), pointers, "{body}");
    }
    assert_nothing_happened(&service).await;
}

fn with_input(entry: Value) -> Value {
    ready_job_with(json!({"inputFiles": {"cbct": entry}}))
}

#[tokio::test]
async fn a_name_that_stands_twice_is_refused_wherever_it_stands() {
    let service = Service::start().await;
    let whole = ready_job().to_string();
    for (members, pointer) in [
        (r#""inputFiles":{"x":{"extension":".dcm"}},"#, "/inputFiles"),
        (r#""options":{"a":1,"a":1},"#, "/options/a"),
        (r#""options":[{"deep":[{"a":1,"\u0061":2}]}],"#, "/options/0/deep/0/a"),
        (
            r#""finishWebhook":"https://a.example","finishWebhook":"https://b.example","#,
            "/finishWebhook",
        ),
    ] {
        let body = whole.replacen('{', &format!("{{{members}"), 1);
        let answer = service.post("/v1/jobs", body).await;
        assert_eq!(answer.invalid_at(), [pointer]);
    }
    assert_nothing_happened(&service).await;
}

#[tokio::test]
async fn numbers_beyond_64_bits_and_moderate_depth_are_no_fault() {
    let service = Service::start().await;
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    for options in [
        "123456789012345678901234567890123456789012345678901234567890",
        "-18446744073709551616",
        "1e999",
        "-1E-9999",
        "0.10000000000000000000000000000000000000000000001",
        r#""\ud800""#,
        &deep,
    ] {
        let body = ready_job().to_string().replacen('{', &format!(r#"{{"options":{options},"#), 1);
        service.post("/v1/jobs", body).await.expect(201);
        let sent = service.engine.jobs().pop().expect("a job");
        let sent = String::from_utf8(sent.body.to_vec()).expect("UTF-8");
        assert!(sent.contains(&format!(r#""options":{options}"#)), "{sent}");
    }
}

#[tokio::test]
async fn an_id_that_is_none_is_not_found() {
    let service = Service::start().await;
    let long = "a".repeat(5_000);
    let ids = [
        "x",
        "0",
        "-1",
        "null",
        "01932f5e7c3a7b609d2e3f6a1c8b4e55",
        "%7B01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55%7D",
        "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e5g",
        "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55%20",
        "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55%00",
        "..%2f..%2fetc%2fpasswd",
        "%ff%fe",
        "%F0%9F%92%A5",
        "'%20or%20'1'='1",
        long.as_str(),
        // Well-formed, and nobody's.
        "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55",
        "00000000-0000-0000-0000-000000000000",
    ];
    for id in ids {
        for path in ["", "/result", "/deliveries", "/events"] {
            service.get(&format!("/v1/jobs/{id}{path}")).await.problem(404, "not-found");
        }
        service.delete(&format!("/v1/jobs/{id}")).await.problem(404, "not-found");
        for path in ["", "/body"] {
            service.get(&format!("/v1/deliveries/{id}{path}")).await.problem(404, "not-found");
        }
    }
    assert_nothing_happened(&service).await;
}

#[tokio::test]
async fn a_list_is_refused_what_it_cannot_mean() {
    let service = Service::start().await;
    for (query, pointer) in [
        ("limit=0", "/limit"),
        ("limit=-1", "/limit"),
        ("limit=201", "/limit"),
        ("limit=1000000000000", "/limit"),
        ("limit=99999999999999999999999999", "/limit"),
        ("limit=1.5", "/limit"),
        ("limit=ten", "/limit"),
        ("limit=", "/limit"),
        ("status=done", "/status"),
        ("status=failed&status=", "/status"),
        ("overdue=maybe", "/overdue"),
        ("createdAfter=yesterday", "/createdAfter"),
        ("createdAfter=2026-01-01", "/createdAfter"),
        ("createdBefore=2026-02-30T00:00:00Z", "/createdBefore"),
        ("enduserid=7", "/enduserid"),
        ("cursor=", "/cursor"),
        ("cursor=x", "/cursor"),
        ("cursor=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "/cursor"),
        ("cursor=%F0%9F%92%A5", "/cursor"),
        ("cursor=eyJzZXEiOjF9", "/cursor"),
    ] {
        let answer = service.get(&format!("/v1/jobs?{query}")).await;
        assert_eq!(answer.invalid_at(), [pointer], "{query}");
    }
    for query in ["", "?endUserId=", "?endUserId=a&endUserId=b", "?status=failed", "?reference=x"] {
        let answer = service.delete(&format!("/v1/jobs{query}")).await;
        assert_eq!(answer.invalid_at(), ["/endUserId"], "{query}");
    }
    assert_nothing_happened(&service).await;
}

/// A job body of exactly so many bytes.
fn body_of(bytes: usize) -> String {
    let bare = ready_job_with(json!({"options": ""})).to_string();
    let body = ready_job_with(json!({"options": "x".repeat(bytes - bare.len())})).to_string();
    assert_eq!(body.len(), bytes);
    body
}

fn head(service: &Service, length: &str) -> String {
    let host = service.api.strip_prefix("http://").expect("an address");
    format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\n{length}\r\n\r\n"
    )
}

fn chunked(service: &Service, body: &str) -> Vec<u8> {
    let mut request = head(service, "transfer-encoding: chunked").into_bytes();
    for chunk in body.as_bytes().chunks(100_000) {
        request.extend(format!("{:x}\r\n", chunk.len()).bytes());
        request.extend(chunk);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    request
}

#[tokio::test]
async fn a_body_one_byte_over_the_limit_is_too_large_announced_or_not() {
    let service = Service::start().await;
    let over = body_of(MAX_BODY + 1);
    service.post("/v1/jobs", over.clone()).await.problem(413, "payload-too-large");
    let answer = Answer::of_bytes(&service.api, &chunked(&service, &over)).await;
    answer.problem(413, "payload-too-large");
    // Whoever asks first is told before sending.
    let asking = head(&service, "expect: 100-continue\r\ncontent-length: 1000000000000");
    let answer = Answer::of_bytes(&service.api, asking.as_bytes()).await;
    answer.problem(413, "payload-too-large");
    assert_nothing_happened(&service).await;

    let most = body_of(MAX_BODY);
    service.post("/v1/jobs", most.clone()).await.expect(201);
    Answer::of_bytes(&service.api, &chunked(&service, &most)).await.expect(201);
    assert_eq!(service.engine.jobs().len(), 2);
}

#[tokio::test]
async fn a_body_announced_as_something_else_is_refused() {
    let service = Service::start().await;
    let send = async |kind: &str| {
        let request = service.request(Method::POST, "/v1/jobs").header("content-type", kind);
        Answer::of(request.body(ready_job().to_string())).await
    };
    for kind in [
        "text/plain",
        "text/json",
        "application/xml",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "json",
        "",
    ] {
        send(kind).await.problem(415, "unsupported-media-type");
    }
    assert_nothing_happened(&service).await;
    for kind in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"] {
        send(kind).await.expect(201);
    }
    let request = service.request(Method::POST, "/v1/jobs").body(ready_job().to_string());
    Answer::of(request).await.expect(201);
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let service = Service::start().await;
    let id = "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55";
    let api = &service.api;
    let callbacks = &service.callbacks;
    let routes = [
        (format!("{api}/v1/jobs"), vec!["GET", "HEAD", "POST", "DELETE"]),
        (format!("{api}/v1/jobs/{id}"), vec!["GET", "HEAD", "DELETE"]),
        (format!("{api}/v1/jobs/{id}/result"), vec!["GET", "HEAD"]),
        (format!("{api}/v1/jobs/{id}/deliveries"), vec!["GET", "HEAD"]),
        (format!("{api}/v1/jobs/{id}/events"), vec!["GET", "HEAD"]),
        (format!("{api}/v1/deliveries/{id}"), vec!["GET", "HEAD"]),
        (format!("{api}/v1/deliveries/{id}/body"), vec!["GET", "HEAD"]),
        (format!("{api}/v1/stats"), vec!["GET", "HEAD"]),
        (format!("{api}/metrics"), vec!["GET", "HEAD"]),
        (format!("{api}/healthz"), vec!["GET", "HEAD"]),
        (format!("{api}/readyz"), vec!["GET", "HEAD"]),
        (format!("{api}/openapi.json"), vec!["GET", "HEAD"]),
        (format!("{callbacks}/callbacks/{id}/x"), vec!["GET", "HEAD", "POST"]),
        (format!("{callbacks}/inbox/a-secret"), vec!["POST"]),
        (format!("{callbacks}/healthz"), vec!["GET", "HEAD"]),
        (format!("{callbacks}/readyz"), vec!["GET", "HEAD"]),
    ];
    for (url, right) in routes {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
            if right.contains(&method) {
                continue;
            }
            let method_name = Method::from_bytes(method.as_bytes()).expect("a method");
            let answer = Answer::of(service.request_to(method_name, &url)).await;
            assert_eq!(answer.status, 405, "{method} {url}");
            if method != "HEAD" {
                answer.problem(405, "method-not-allowed");
            }
            let allow = answer.header("allow").unwrap_or_else(|| panic!("{method} {url}: Allow"));
            let mut allowed: Vec<&str> = allow.split(',').map(str::trim).collect();
            allowed.sort_unstable();
            let mut right = right.clone();
            right.sort_unstable();
            assert_eq!(allowed, right, "{method} {url}");
        }
    }
    assert_nothing_happened(&service).await;
}

#[tokio::test]
async fn an_unknown_address_is_not_found() {
    let service = Service::start().await;
    let id = "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55";
    for path in [
        "/v1",
        "/v1/",
        "/v1/jobs/",
        "//v1/jobs",
        "/V1/jobs",
        "/v2/jobs",
        "/v1/nothing",
        &format!("/v1/jobs/{id}/nothing"),
        &format!("/v1/jobs/{id}/result/x"),
        "/%2e%2e/etc/passwd",
        "/.git/config",
        "/finishline.toml",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            Answer::of(service.request(method, path)).await.problem(404, "not-found");
        }
    }
    for path in ["/", "/callbacks", "/callbacks/x", &format!("/callbacks/{id}"), "/inbox"] {
        let url = format!("{}{path}", service.callbacks);
        service.post_to(&url, "{}").await.problem(404, "not-found");
    }
    assert_nothing_happened(&service).await;
}

#[tokio::test]
async fn every_answer_carries_a_request_id_and_a_plain_one_of_the_caller_is_kept() {
    let service = Service::start().await;
    for path in ["/v1/jobs", "/healthz", "/nothing", "/metrics", "/docs/", "/openapi.json"] {
        let answer = service.get(path).await;
        assert!(answer.header("x-request-id").is_some_and(|id| id.len() == 36), "{path}");
        let request = service.request(Method::GET, path).header("x-request-id", "mine-1");
        assert_eq!(Answer::of(request).await.header("x-request-id"), Some("mine-1"), "{path}");
        for odd in ["", "with space", &"x".repeat(500)] {
            let request = service.request(Method::GET, path).header("x-request-id", odd);
            let answer = Answer::of(request).await;
            assert!(answer.header("x-request-id").is_some_and(|id| id.len() == 36), "{odd:?}");
        }
    }
}
