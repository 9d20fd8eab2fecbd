//! The table of design 4.2: for each kind of body its answer, its outcome, its trace.
//!
//! The invariant: the first result stands, and everything else that came is evidence beside it.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{evidence::*, support::*};

const LIMIT: usize = 4096;

/// A service that takes bodies of up to [`LIMIT`] bytes.
async fn narrow_service() -> Service {
    Setup::new().set("CALLBACKS__MAX_BODY", LIMIT).start().await
}

/// A result of exactly so many bytes.
fn result_of_bytes(bytes: usize) -> String {
    let frame = r#"{"success":true,"padding":""}"#.len();
    let padded = format!(r#"{{"success":true,"padding":"{}"}}"#, "x".repeat(bytes - frame));
    assert_eq!(padded.len(), bytes);
    padded
}

#[tokio::test]
async fn the_first_result_is_stored_and_finishes_the_job() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    let body = result("Available", "https://store.example/1?sig=a");
    assert_eq!(service.outcome(&url, body.clone()).await, "stored");
    let job = service.job(&id).await;
    assert_eq!((&job["status"], &job["success"]), (&json!("succeeded"), &json!(true)));
    assert_eq!((&job["deliveries"], &job["warnings"]), (&json!(1), &json!([])));
    let deliveries = service.deliveries(&id).await;
    assert_eq!(deliveries.len(), 1);
    let delivery = &deliveries[0];
    for (name, expected) in
        [("jobId", json!(id)), ("outcome", json!("stored")), ("repeats", json!(0))]
    {
        assert_eq!(delivery[name], expected, "{name}");
    }
    assert_eq!(delivery["receivedAt"], job["finishedAt"]);
    service.holds(delivery, body.as_bytes()).await;
    let shown = service.get(&format!("/v1/jobs/{id}/result")).await.expect(200);
    assert_eq!(shown.body, body);
    assert!(shown.header("etag").is_some_and(|etag| etag.contains(&sha256(body.as_bytes()))));
    assert_eq!(service.event_types(&id).await, ["job.submitted", "job.finished"]);
    let alone = service.get(&format!("/v1/deliveries/{}", text(&delivery["id"]))).await;
    assert_eq!(&alone.expect(200).json(), delivery);
}

#[tokio::test]
async fn a_byte_identical_body_is_counted_and_not_stored_again() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    let body = result("Available", "https://store.example/1");
    assert_eq!(service.outcome(&url, body.clone()).await, "stored");
    let before = service.job(&id).await;
    for _ in 0..3 {
        assert_eq!(service.outcome(&url, body.clone()).await, "duplicate");
    }
    assert_eq!(service.job(&id).await, before);
    let deliveries = service.deliveries(&id).await;
    assert_eq!((deliveries.len(), &deliveries[0]["repeats"]), (1, &json!(3)));
    assert_eq!(deliveries[0]["outcome"], "stored");
    let events = service.event_types(&id).await;
    assert_eq!(events[2..], ["delivery.duplicate"; 3]);
}

#[tokio::test]
async fn links_that_nobody_asked_for_are_evidence_and_the_result_stands() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    let first = result("Available", "https://store.example/1?sig=a");
    let renewed = result("Available", "https://store.example/1?sig=b");
    assert_eq!(service.outcome(&url, first.clone()).await, "stored");
    let before = service.job(&id).await;
    assert_eq!(service.outcome(&url, renewed.clone()).await, "refreshed");
    let job = service.job(&id).await;
    for name in ["status", "success", "finishedAt", "warnings", "engineJobId", "outputs"] {
        assert_eq!(job[name], before[name], "{name}");
    }
    assert_eq!(job["deliveries"], 2);
    assert_eq!(service.get(&format!("/v1/jobs/{id}/result")).await.body, first);
    let deliveries = service.deliveries(&id).await;
    assert_eq!(deliveries[1]["outcome"], "refreshed");
    service.holds(&deliveries[1], renewed.as_bytes()).await;
    assert_eq!(service.event_types(&id).await[2..], ["delivery.refreshed"]);
    // Without links nothing is taken away.
    let silent = first.replace(r#""url":"https://store.example/1?sig=a""#, r#""note":1"#);
    assert_ne!(silent, first);
    assert_eq!(service.outcome(&url, silent).await, "refreshed");
    assert_eq!(service.job(&id).await["outputs"][0]["url"], "https://store.example/1?sig=a");
    // A repeat of either is one that came before.
    assert_eq!(service.outcome(&url, renewed).await, "duplicate");
    assert_eq!(service.outcome(&url, first).await, "duplicate");
}

#[tokio::test]
async fn a_different_reading_is_kept_as_evidence_and_the_first_result_stands() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    let first = result("Available", "https://store.example/1");
    assert_eq!(service.outcome(&url, first.clone()).await, "stored");
    let before = service.job(&id).await;
    let others = [
        result("Failed", "https://store.example/2"),
        result("Missing", "https://store.example/2"),
        result("available", "https://store.example/2"),
        r#"{"success":false}"#.to_owned(),
        r#"{"success":true}"#.to_owned(),
    ];
    for (position, other) in others.iter().enumerate() {
        assert_eq!(service.outcome(&url, other.clone()).await, "conflict", "{other}");
        let deliveries = service.deliveries(&id).await;
        assert_eq!(deliveries.len(), position + 2);
        service.holds(&deliveries[position + 1], other.as_bytes()).await;
    }
    let job = service.job(&id).await;
    for name in ["status", "success", "finishedAt", "outputs", "warnings"] {
        assert_eq!(job[name], before[name], "{name}");
    }
    let flags = service.event_types(&id).await;
    assert_eq!(flags.iter().filter(|kind| *kind == "delivery.conflict").count(), others.len());
    assert_eq!(service.get(&format!("/v1/jobs/{id}/result")).await.body, first);
    assert_eq!(service.event_types(&id).await[2..], ["delivery.conflict"; 5]);
    assert_eq!(service.outcome(&url, others[0].clone()).await, "duplicate");
}

#[tokio::test]
async fn json_that_is_no_result_is_flagged_and_the_job_stays_open() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    let bodies = [
        "{}",
        "[]",
        "null",
        "true",
        "7",
        r#""success""#,
        r#"{"success":null}"#,
        r#"{"success":1}"#,
    ]
    .into_iter()
    .chain([r#"{"success":"true"}"#, r#"{"Success":true}"#, r#"[{"success":true}]"#]);
    let bodies: Vec<&str> = bodies.collect();
    for (position, body) in bodies.iter().enumerate() {
        assert_eq!(service.outcome(&url, *body).await, "unrecognised", "{body}");
        let deliveries = service.deliveries(&id).await;
        assert_eq!(deliveries.len(), position + 1);
        service.holds(&deliveries[position], body.as_bytes()).await;
    }
    let job = service.job(&id).await;
    assert_eq!((&job["status"], &job["success"]), (&json!("submitted"), &Value::Null));
    assert!(!job["warnings"].as_array().expect("a list").is_empty(), "flagged");
    service.get(&format!("/v1/jobs/{id}/result")).await.expect(202);
    assert_eq!(service.event_types(&id).await[1..], vec!["delivery.unrecognised"; bodies.len()]);
    assert_eq!(service.outcome(&url, "{}").await, "duplicate");
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
    assert_eq!(service.job(&id).await["status"], "succeeded");
    assert_eq!(service.outcome(&url, "[1]").await, "unrecognised", "after the result too");
    assert_eq!(service.job(&id).await["status"], "succeeded");
}

#[tokio::test]
async fn what_is_not_json_is_refused_each_time_and_a_few_are_kept() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    for number in 0..10 {
        let body = format!("not JSON {number}");
        for _ in 0..2 {
            service.post_to(&url, body.clone()).await.problem(400, "malformed-json");
        }
    }
    let deliveries = service.deliveries(&id).await;
    assert!((1..10).contains(&deliveries.len()), "a few: {}", deliveries.len());
    for (number, delivery) in deliveries.iter().enumerate() {
        assert_eq!((&delivery["outcome"], &delivery["repeats"]), (&json!("malformed"), &json!(1)));
        service.holds(delivery, format!("not JSON {number}").as_bytes()).await;
    }
    let job = service.job(&id).await;
    assert_eq!(
        (&job["status"], &job["deliveries"]),
        (&json!("submitted"), &json!(deliveries.len()))
    );
    assert_eq!(service.event_types(&id).await[1..], vec!["delivery.malformed"; deliveries.len()]);
    // Rubbish has filled nothing up: the result still finds its place.
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
    service.post_to(&url, "not JSON 9").await.problem(400, "malformed-json");
    assert_eq!(service.job(&id).await["status"], "succeeded");
}

#[tokio::test]
async fn a_body_over_the_limit_leaves_an_event_and_nothing_else() {
    let service = narrow_service().await;
    let (id, url) = running_job(&service).await;
    let path = url.trim_start_matches(&service.callbacks);
    let long = result_of_bytes(LIMIT + 1);
    service.post_to(&url, long.clone()).await.problem(413, "payload-too-large");
    let pieces = long.as_bytes().chunks(1000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
    let chunked =
        reqwest::Body::wrap_stream(futures_util::stream::iter(pieces.collect::<Vec<_>>()));
    service.post_to(&url, chunked).await.problem(413, "payload-too-large");
    // One that asks before it sends is told before it sends.
    let head = format!("content-length: {}\r\nexpect: 100-continue\r\n", 1u64 << 40);
    let asked = Answer::of_bytes(&service.callbacks, post_head(&url, &head).as_bytes()).await;
    asked.problem(413, "payload-too-large");
    assert!(path.starts_with("/callbacks/"));

    assert!(service.deliveries(&id).await.is_empty());
    let job = service.job(&id).await;
    assert_eq!((&job["status"], &job["deliveries"]), (&json!("submitted"), &json!(0)));
    assert_eq!(service.event_types(&id).await[1..], ["delivery.oversize"; 3]);
    assert_eq!(service.events(&id).await[1]["data"]["limitBytes"], LIMIT);
    let mut database = connect(&service.database).await;
    assert_eq!(count(&mut database, "select count(*) from delivery_bodies").await, 0);
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_stored_announced_or_not() {
    let service = narrow_service().await;
    for is_announced in [true, false] {
        let (id, url) = running_job(&service).await;
        let body = result_of_bytes(LIMIT);
        let pieces: Vec<_> = body
            .as_bytes()
            .chunks(7)
            .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
            .collect();
        let sent = match is_announced {
            true => reqwest::Body::from(body.clone()),
            false => reqwest::Body::wrap_stream(futures_util::stream::iter(pieces)),
        };
        assert_eq!(service.outcome(&url, sent).await, "stored");
        let delivery = &service.deliveries(&id).await[0];
        let is_chunked =
            delivery["headers"].to_string().contains(r#"["transfer-encoding","chunked"]"#);
        assert_eq!(is_chunked, !is_announced, "{delivery}");
        service.holds(delivery, body.as_bytes()).await;
    }
}

#[tokio::test]
async fn looking_at_a_callback_address_changes_nothing() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    let (before, events) = (service.job(&id).await, service.event_types(&id).await);
    let mut database = connect(&service.database).await;
    let version = data_version(&mut database).await;
    for method in [Method::GET, Method::HEAD] {
        for _ in 0..3 {
            let answer = Answer::of(service.request_to(method.clone(), &url)).await.expect(204);
            assert!(answer.body.is_empty());
        }
    }
    assert_eq!(data_version(&mut database).await, version, "nothing was written");
    assert_eq!(service.job(&id).await, before);
    assert_eq!(service.event_types(&id).await, events);
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
    assert_ne!(data_version(&mut database).await, version, "a write would have been seen");
    Answer::of(service.request_to(Method::GET, &url)).await.expect(204);
}

#[tokio::test]
async fn a_callback_address_takes_no_other_method_and_redirects_nobody() {
    let service = Service::start().await;
    let (id, url) = running_job(&service).await;
    for method in ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let answer = Answer::of(service.request_to(method, &url)).await;
        answer.problem(405, "method-not-allowed");
        let allowed = answer.header("allow").unwrap_or_default().to_owned();
        assert!(allowed.contains("POST") && allowed.contains("GET"), "{allowed}");
    }
    for bent in [
        format!("{url}/"),
        url.replace("/callbacks/", "//callbacks/"),
        url.replace("/callbacks/", "/Callbacks/"),
        url.replace(&format!("{id}/"), &format!("{id}//")),
        url.replace("/callbacks/", "/callbacks/./x/"),
    ] {
        let answer = service.post_to(&bent, r#"{"success":true}"#).await;
        answer.problem(404, "not-found");
        assert_eq!(answer.header("location"), None);
    }
    assert_eq!(service.job(&id).await["deliveries"], 0);
    assert_eq!(service.outcome(&format!("{url}?probe=1"), r#"{"success":true}"#).await, "stored");
}

#[tokio::test]
async fn a_callback_that_overtakes_the_reply_finishes_the_job() {
    let setup =
        Setup::new().engine(|options| options.callback_before_reply = "always".parse().unwrap());
    let service = setup.start().await;
    let answer = service.submit(&ready_job()).await.expect(201).json();
    assert_eq!(answer["status"], "succeeded", "the answer tells what is known: {answer}");
    let id = text(&answer["id"]);
    let job = service.job(id).await;
    assert_eq!((&job["status"], &job["success"]), (&json!("succeeded"), &json!(true)));
    assert_eq!(job["engineJobId"], service.engine.jobs()[0].engine_job_id);
    for name in ["submittedAt", "finishedAt"] {
        assert!(job[name].is_string(), "{name}: {job}");
    }
    assert!(job["engineResponse"].is_object(), "the reply is on record too");
    let sent = service.engine.callbacks();
    assert_eq!((sent.len(), sent[0].status), (1, Some(200)));
    assert_eq!(service.get(&format!("/v1/jobs/{id}/result")).await.body, sent[0].body);
    assert_eq!(service.event_types(id).await, ["job.finished", "job.submitted"]);
}
