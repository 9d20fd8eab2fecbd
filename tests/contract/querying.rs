//! Reading: lists, results, deliveries, timelines, figures.
//!
//! The invariant: what is shown is what is on record, whole, in order and byte for byte.

use std::{collections::HashSet, time::Duration};

use finishline::clock::Clock;
use futures_util::future::join_all;
use reqwest::{Method, header::IF_NONE_MATCH};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::*;

fn manual() -> Clock {
    Clock::manual("2026-03-01T12:00:00.000Z".parse().expect("a time"))
}

async fn submit_many(service: &Service, count: usize) -> Vec<String> {
    let body = ready_job();
    let mut ids = Vec::new();
    while ids.len() < count {
        let some = (count - ids.len()).min(50);
        let jobs = join_all((0..some).map(|_| service.submitted(&body))).await;
        ids.extend(jobs.iter().map(|job| text(&job["id"]).to_owned()));
    }
    ids
}

fn ids_of(jobs: &Value) -> Vec<String> {
    let jobs = jobs["jobs"].as_array().expect("a list");
    jobs.iter().map(|job| text(&job["id"]).to_owned()).collect()
}

#[tokio::test]
async fn every_filter_finds_its_jobs_and_no_others() {
    let service = Service::start().await;
    let body = |members: Value| ready_job_with(members);
    let a = body(
        json!({"endUserId": "u-1", "cloudPackage": "prod", "finishline": {"reference": "r-1"}}),
    );
    let b = body(json!({"endUserId": "u-1", "cloudPackage": "test", "externalJobId": "x-1"}));
    let c = body(json!({"endUserId": "u-11", "finishline": {"reference": "r & ä"}}));
    let mut jobs = Vec::new();
    for body in [&a, &b, &c] {
        jobs.push(service.submitted(body).await);
    }
    service.engine.set(|options| options.answer = Some(400));
    let rejected = service.submit(&ready_job()).await.problem(422, "engine-rejected");
    jobs.push(json!({"id": rejected["jobId"]}));
    service.finish(&jobs[1]).await;
    let engine_job_id = format!("engineJobId={}", text(&jobs[2]["engineJobId"]));
    // The numbers are those of the jobs in the order they were made.
    for (query, expected) in [
        ("", vec![3, 2, 1, 0]),
        ("endUserId=u-1", vec![1, 0]),
        ("endUserId=u", vec![]),
        ("endUserId=U-1", vec![]),
        ("cloudPackage=prod", vec![0]),
        ("reference=r-1", vec![0]),
        ("reference=r+%26+%C3%A4", vec![2]),
        ("reference=r%25", vec![]),
        (engine_job_id.as_str(), vec![2]),
        ("externalJobId=x-1", vec![1]),
        ("overdue=false", vec![3, 2, 1, 0]),
        ("overdue=true", vec![]),
        ("status=submitted", vec![2, 0]),
        ("status=succeeded", vec![1]),
        ("status=rejected&status=succeeded", vec![3, 1]),
        ("status=rejected&status=rejected", vec![3]),
        ("status=failed&status=partial&status=unsent&status=unconfirmed&status=submitting", vec![]),
        ("endUserId=u-1&status=submitted", vec![0]),
        ("endUserId=u-1&cloudPackage=test&status=submitted", vec![]),
        ("createdAfter=2020-01-01T00:00:00Z&createdBefore=2100-01-01T00:00:00Z", vec![3, 2, 1, 0]),
        ("createdBefore=2020-01-01T00:00:00Z", vec![]),
    ] {
        let found = ids_of(&service.get(&format!("/v1/jobs?{query}")).await.expect(200).json());
        let place = |id: &String| jobs.iter().position(|job| job["id"] == **id).expect("a job");
        let places: Vec<_> = found.iter().map(place).collect();
        assert_eq!(places, expected, "{query}");
    }
}

#[tokio::test]
async fn created_after_is_inclusive_and_created_before_exclusive() {
    let clock = manual();
    let service = Setup::new().clock(&clock).start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(text(&service.submitted(&ready_job()).await["id"]).to_owned());
        clock.advance(Duration::from_secs(1));
    }
    let middle = &service.job(&ids[1]).await["createdAt"];
    assert_eq!(middle, "2026-03-01T12:00:01.000Z");
    for (query, expected) in [
        ("createdAfter=2026-03-01T12:00:01.000Z", vec![2, 1]),
        ("createdAfter=2026-03-01T12:00:01.001Z", vec![2]),
        ("createdAfter=2026-03-01T12:00:01.0000001Z", vec![2]),
        ("createdBefore=2026-03-01T12:00:01.000Z", vec![0]),
        ("createdBefore=2026-03-01T12:00:01.0000001Z", vec![1, 0]),
        ("createdAfter=2026-03-01T12:00:01Z&createdBefore=2026-03-01T12:00:01Z", vec![]),
        ("createdAfter=2026-03-01T12:00:01Z&createdBefore=2026-03-01T12:00:02Z", vec![1]),
        ("createdAfter=2026-03-01T14:00:01%2B02:00", vec![2, 1]),
        ("createdAfter=2026-03-01T07:30:01-04:30", vec![2, 1]),
    ] {
        let found = ids_of(&service.get(&format!("/v1/jobs?{query}")).await.expect(200).json());
        let expected: Vec<_> =
            expected.into_iter().map(|place: usize| ids[place].clone()).collect();
        assert_eq!(found, expected, "{query}");
    }
}

#[tokio::test]
async fn pages_have_no_gap_and_no_repeat_while_jobs_are_added() {
    // The clock stands still between some jobs: many are of the same millisecond.
    let clock = manual();
    let service = Setup::new().clock(&clock).start().await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        for _ in 0..5 {
            ids.push(text(&service.submitted(&ready_job()).await["id"]).to_owned());
        }
        clock.advance(Duration::from_millis(1));
    }
    let mut pages = Vec::new();
    let mut query = "limit=7".to_owned();
    loop {
        let page = service.get(&format!("/v1/jobs?{query}")).await.expect(200).json();
        pages.push(ids_of(&page));
        service.submitted(&ready_job()).await;
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        query = format!("limit=7&cursor={cursor}");
    }
    let sizes: Vec<_> = pages.iter().map(Vec::len).collect();
    assert_eq!(sizes, [7, 7, 7, 7, 2]);
    ids.reverse();
    assert_eq!(pages.concat(), ids, "newest first, each once");
}

#[tokio::test]
async fn a_page_is_as_long_as_asked_for_and_the_last_one_says_so() {
    let service = Service::start().await;
    submit_many(&service, 60).await;
    for (query, jobs, is_last) in [
        ("", 50, false),
        ("?limit=1", 1, false),
        ("?limit=59", 59, false),
        ("?limit=60", 60, true),
        ("?limit=200", 60, true),
        ("?limit=50&status=rejected", 0, true),
    ] {
        let page = service.get(&format!("/v1/jobs{query}")).await.expect(200).json();
        assert_eq!((ids_of(&page).len(), page["nextCursor"].is_null()), (jobs, is_last), "{query}");
    }
}

#[tokio::test]
async fn a_cursor_is_good_for_its_own_list_only() {
    let service = Service::start().await;
    submit_many(&service, 4).await;
    let page = service.get("/v1/jobs?status=submitted&limit=2").await.expect(200).json();
    let cursor = text(&page["nextCursor"]);
    for query in
        ["", "status=submitted&status=failed&", "status=submitted&reference=x&", "overdue=false&"]
    {
        let answer = service.get(&format!("/v1/jobs?{query}cursor={cursor}")).await;
        assert_eq!(answer.invalid_at(), ["/cursor"], "{query}");
    }
    for at in 0..cursor.len() {
        let mut tampered = cursor.as_bytes().to_vec();
        tampered[at] = if tampered[at] == b'A' { b'B' } else { b'A' };
        let tampered = String::from_utf8(tampered).expect("ASCII");
        let answer = service.get(&format!("/v1/jobs?status=submitted&cursor={tampered}")).await;
        assert_eq!(answer.invalid_at(), ["/cursor"], "{tampered}");
    }
    let path = format!("/v1/jobs?limit=200&status=submitted&cursor={cursor}");
    let rest = service.get(&path).await.expect(200).json();
    assert_eq!((ids_of(&rest).len(), rest["nextCursor"].is_null()), (2, true));
}

#[tokio::test]
async fn a_stream_of_lines_holds_every_match() {
    let service = Service::start().await;
    let ids = submit_many(&service, 449).await;
    let marked = service.submitted(&ready_job_with(json!({"endUserId": "u"}))).await;
    for (query, expected) in [("", 450), ("?endUserId=u", 1), ("?endUserId=nobody", 0)] {
        let request = service.request(Method::GET, &format!("/v1/jobs{query}"));
        let request = request.header("accept", "application/x-ndjson");
        let answer = Answer::of(request).await.expect(200);
        assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
        let whole = answer.text();
        assert!(whole.is_empty() || whole.ends_with('\n'));
        let lines: Vec<Value> =
            whole.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), expected, "{query}");
        if let Some(first) = lines.first() {
            assert_eq!(first["id"], marked["id"], "newest first");
            assert_eq!(*first, marked, "a line is a whole job");
        }
        if expected == 450 {
            let listed: HashSet<_> = lines.iter().map(|job| text(&job["id"]).to_owned()).collect();
            assert!(ids.iter().all(|id| listed.contains(id)) && listed.len() == 450);
        }
    }
}

/// JSON that no serializer would write like this.
const ODD_RESULT: &str =
    "\u{feff}{ \"success\" :true ,\r\n\t\"z\":1.10,\"a\":1e400,\"s\":\"\\ud800ä\" }\n";

#[tokio::test]
async fn a_result_is_the_callback_s_body_byte_for_byte() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let path = format!("/v1/jobs/{}/result", text(&job["id"]));
    let before = service.get(&path).await.expect(202);
    assert_eq!(before.json(), job, "the job, while there is no result");
    assert_eq!(before.header("etag"), None);

    service.post_to(&service.callback_url(text(&job["id"])), ODD_RESULT).await.expect(200);
    let result = service.get(&path).await.expect(200);
    assert_eq!(result.body, ODD_RESULT.as_bytes());
    assert_eq!(result.header("content-type"), Some("application/json"));
    let etag = result.header("etag").expect("an ETag").to_owned();
    assert_eq!(etag, format!("\"{}\"", hex(ODD_RESULT.as_bytes())));
    let head = Answer::of(service.request(Method::HEAD, &path)).await.expect(200);
    assert_eq!((head.header("etag"), head.body.len()), (Some(etag.as_str()), 0));
    for (known, status) in [
        (etag.clone(), 304),
        (format!("W/{etag}"), 304),
        (format!("\"other\", {etag}"), 304),
        ("*".to_owned(), 304),
        ("\"other\"".to_owned(), 200),
        (etag.trim_matches('"').to_owned(), 200),
    ] {
        let request = service.request(Method::GET, &path).header(IF_NONE_MATCH, &known);
        let answer = Answer::of(request).await.expect(status);
        assert_eq!(answer.header("etag"), Some(etag.as_str()), "{known}");
        assert_eq!(answer.body.is_empty(), status == 304, "{known}");
    }
}

fn hex(bytes: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    finishline::domain::digest::hex(&digest)
}

#[tokio::test]
async fn what_was_received_is_kept_as_evidence() {
    let clock = manual();
    let service = Setup::new().clock(&clock).start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let url = service.callback_url(id);
    let bodies: [(&str, u16, &str); 4] = [
        ("{half", 400, "malformed"),
        (r#"{"note":1}"#, 200, "unrecognised"),
        (ODD_RESULT, 200, "stored"),
        (r#"{"success":false}"#, 200, "conflict"),
    ];
    for (body, status, _) in bodies {
        let request = service.request_to(Method::POST, &url).header("x-trace", "t-1");
        let request =
            request.header("authorization", "Bearer topsecret").header("cookie", "c=topsecret");
        Answer::of(request.body(body)).await.expect(status);
        clock.advance(Duration::from_secs(1));
    }
    service.post_to(&url, ODD_RESULT).await.expect(200);
    let answer = service.get(&format!("/v1/jobs/{id}/deliveries")).await.expect(200);
    assert!(!answer.text().contains("topsecret"), "credentials are redacted");
    let deliveries = answer.json()["deliveries"].as_array().expect("a list").clone();
    assert_eq!(deliveries.len(), bodies.len());
    for (second, (delivery, (body, _, outcome))) in deliveries.iter().zip(bodies).enumerate() {
        assert_eq!(delivery["outcome"], outcome);
        assert_eq!(delivery["jobId"], *id);
        assert_eq!(delivery["bytes"], body.len());
        assert_eq!(delivery["sha256"], hex(body.as_bytes()));
        assert_eq!(delivery["receivedAt"], format!("2026-03-01T12:00:0{second}.000Z"));
        assert_eq!(delivery["repeats"], if outcome == "stored" { 1 } else { 0 });
        assert!(text(&delivery["source"]).starts_with("127.0.0.1:"), "{delivery}");
        let headers = delivery["headers"].as_array().expect("headers");
        for kept in [json!(["x-trace", "t-1"]), json!(["authorization", "[redacted]"])] {
            assert!(headers.contains(&kept), "{delivery}");
        }
        let path = format!("/v1/deliveries/{}", text(&delivery["id"]));
        assert_eq!(service.get(&path).await.expect(200).json(), *delivery);
        let exact = service.get(&format!("{path}/body")).await.expect(200);
        assert_eq!(exact.body, body.as_bytes());
        assert_eq!(exact.header("content-type"), Some("application/octet-stream"));
        assert_eq!(exact.header("x-content-type-options"), Some("nosniff"));
    }
    let job = service.job(id).await;
    assert_eq!((&job["deliveries"], &job["status"]), (&json!(4), &json!("succeeded")));
}

#[tokio::test]
async fn a_timeline_tells_what_happened_in_order() {
    let clock = manual();
    let service = Setup::new().clock(&clock).start().await;
    let other = service.submitted(&ready_job()).await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    clock.advance(Duration::from_secs(1));
    let job = service.finish(&job).await;
    assert_eq!(job["finishedAt"], "2026-03-01T12:00:01.000Z");
    let result = service.get(&format!("/v1/jobs/{id}/result")).await.body;
    service.post_to(&service.callback_url(id), result).await.expect(200);
    let answer = service.get(&format!("/v1/jobs/{id}/events")).await.expect(200).json();
    let events = answer["events"].as_array().expect("events");
    let told: Vec<_> = events.iter().map(|one| (text(&one["type"]), text(&one["at"]))).collect();
    let (begun, ended) = ("2026-03-01T12:00:00.000Z", "2026-03-01T12:00:01.000Z");
    assert_eq!(
        told,
        [("job.submitted", begun), ("job.finished", ended), ("delivery.duplicate", ended)]
    );
    let numbers: Vec<_> = events.iter().map(|one| one["seq"].as_i64().expect("a number")).collect();
    assert!(numbers.is_sorted_by(|left, right| left < right), "{numbers:?}");
    assert!(events.iter().all(|one| one["jobId"] == *id && one["data"].is_object()));
    assert_eq!(events[0]["data"]["engineJobId"], job["engineJobId"]);
    let of_other = service.get(&format!("/v1/jobs/{}/events", text(&other["id"]))).await.json();
    assert_eq!(of_other["events"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn figures_count_by_status_and_day_and_measure_the_turnaround() {
    let clock = manual();
    let service = Setup::new().clock(&clock).start().await;
    let empty = service.get("/v1/stats").await.expect(200).json();
    assert_eq!((&empty["jobs"], &empty["turnaround"]["p50Seconds"]), (&json!(0), &Value::Null));
    let day = Duration::from_secs(24 * 3600);
    for seconds in [10, 20, 90] {
        let job = service.submitted(&ready_job()).await;
        clock.advance(Duration::from_secs(seconds));
        service.finish(&job).await;
    }
    clock.advance(day);
    service.submitted(&ready_job()).await;
    service.engine.set(|options| options.answer = Some(400));
    service.submit(&ready_job()).await.problem(422, "engine-rejected");
    let stats = service.get("/v1/stats").await.expect(200).json();
    assert_eq!(stats["jobs"], 5);
    assert_eq!(
        stats["byStatus"],
        json!({"submitting": 0, "submitted": 1, "unsent": 0, "rejected": 1, "unconfirmed": 0,
            "succeeded": 3, "partial": 0, "failed": 0})
    );
    assert_eq!(
        stats["days"],
        json!([
            {"day": "2026-03-02", "jobs": 2, "byStatus": {"submitted": 1, "rejected": 1}},
            {"day": "2026-03-01", "jobs": 3, "byStatus": {"succeeded": 3}},
        ])
    );
    assert_eq!(
        stats["turnaround"],
        json!({"jobs": 3, "p50Seconds": 20.0, "p95Seconds": 90.0, "p99Seconds": 90.0})
    );
}
