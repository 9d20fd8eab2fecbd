//! What requests may be written like, and what an answer may be asked for as.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use reqwest::Method;

use crate::support::*;

/// Of a job's body (`http/jobs.rs`).
const MAX_JOB_BODY: usize = 1024 * 1024;

fn packed(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

async fn submit_encoded(service: &Service, encodings: &[&str], body: Vec<u8>) -> Answer {
    let mut request = service.request(Method::POST, "/v1/jobs");
    request = request.header("content-type", "application/json");
    for encoding in encodings {
        request = request.header("content-encoding", *encoding);
    }
    Answer::of(request.body(body)).await
}

#[tokio::test]
async fn a_quoted_idempotency_key_is_the_key_without_its_quotes() {
    let service = Service::start().await;
    let body = ready_job().to_string();
    for (key, spellings) in [
        ("order-1", &["\"order-1\"", "\"order-1\";v=1", " order-1 "][..]),
        ("\"a \\\"b\\\" \\\\c\"", &["a \"b\" \\c"]),
    ] {
        let first = service.submit_once(key, &body).await.expect(201).json();
        for spelling in spellings {
            let again = service.submit_once(spelling, &body).await.expect(200);
            assert_eq!(again.header("idempotency-replayed"), Some("true"), "{spelling}");
            assert_eq!(again.json()["id"], first["id"], "{spelling}");
        }
    }
    assert_eq!(service.engine.jobs().len(), 2);
    for wrong in ["\"\"", "\"order-1", "\"order-1\"x", "\"a\", \"b\"", "\"\\n\""] {
        let refused = service.submit_once(wrong, &body).await;
        assert_eq!(refused.invalid_at(), ["/Idempotency-Key"], "{wrong}");
    }
    assert_eq!(service.engine.jobs().len(), 2);
}

#[tokio::test]
async fn lines_come_to_whoever_would_rather_have_them() {
    let service = Service::start().await;
    service.submitted(&ready_job()).await;
    for (accept, is_lines) in [
        ("application/x-ndjson", true),
        ("APPLICATION/X-NDJSON;q=0.5", true),
        ("application/json;q=0.2, application/x-ndjson;q=0.9", true),
        ("application/x-ndjson, */*;q=0.1", true),
        ("application/x-ndjson;q=0.2, application/json;q=0.9", false),
        ("application/x-ndjson;q=0", false),
        ("application/json, application/x-ndjson", false),
        ("application/*", false),
        ("*/*", false),
    ] {
        let request = service.request(Method::GET, "/v1/jobs").header("accept", accept);
        let answer = Answer::of(request).await.expect(200);
        let expected = if is_lines { "application/x-ndjson" } else { "application/json" };
        assert_eq!(answer.header("content-type"), Some(expected), "{accept}");
        assert_eq!(answer.json()["jobs"].is_array(), !is_lines, "{accept}");
    }
}

#[tokio::test]
async fn a_job_may_come_packed_with_gzip_and_with_nothing_else() {
    let service = Service::start().await;
    let body = ready_job().to_string().into_bytes();
    let plain = service.submitted(&ready_job()).await;
    for encodings in [
        &["gzip"][..],
        &["GZIP"],
        &["x-gzip"],
        &[" gzip "],
        &["identity", "gzip"],
        &["gzip,identity"],
    ] {
        let job = submit_encoded(&service, encodings, packed(&body)).await.expect(201).json();
        assert_eq!(job["request"], plain["request"], "{encodings:?}");
    }
    // Announced, but unpacked on the way; and not encoded at all.
    for encodings in [&["gzip"][..], &["identity"], &[""]] {
        submit_encoded(&service, encodings, body.clone()).await.expect(201);
    }
    let taken = service.engine.jobs().len();
    for encodings in
        [&["br"][..], &["deflate"], &["zstd"], &["gzip, gzip"], &["gzip", "br"], &["aws-chunked"]]
    {
        let refused = submit_encoded(&service, encodings, packed(&body)).await;
        let problem = refused.problem(415, "unsupported-media-type");
        assert!(text(&problem["detail"]).contains("gzip"), "{problem}");
    }
    let broken = packed(&body)[..40].to_vec();
    submit_encoded(&service, &["gzip"], broken).await.problem(400, "malformed-json");
    let mut spaces = vec![b' '; MAX_JOB_BODY];
    spaces.extend(&body);
    let bomb = packed(&spaces);
    assert!(bomb.len() < 8 * 1024, "packed it is within the limit by far");
    submit_encoded(&service, &["gzip"], bomb).await.problem(413, "payload-too-large");
    assert_eq!(service.engine.jobs().len(), taken, "nothing of these was sent");
}

#[tokio::test]
async fn a_browser_that_asks_for_another_origin_is_told_that_there_is_no_cors() {
    let service = Service::start().await;
    for path in ["/v1/jobs", "/v1/jobs/0193a5a0-0000-7000-8000-000000000000/result", "/v1/events"] {
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let request = service
                .request(Method::OPTIONS, path)
                .header("access-control-request-method", method)
                .header("access-control-request-headers", "authorization, content-type");
            let refused = Answer::of(request).await;
            let problem = refused.problem(405, "method-not-allowed");
            assert!(text(&problem["detail"]).contains("no CORS"), "{problem}");
            assert!(refused.header("allow").is_some(), "{path}");
        }
        let plain = Answer::of(service.request(Method::OPTIONS, path)).await;
        let problem = plain.problem(405, "method-not-allowed");
        assert!(!text(&problem["detail"]).contains("CORS"), "{problem}");
    }
    let document = service.get("/openapi.json").await.expect(200).json();
    assert!(text(&document["info"]["description"]).contains("There is no CORS"));
}
