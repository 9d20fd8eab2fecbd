//! `Idempotency-Key`: one key is one job at the Engine, whatever happens in between.
//!
//! The invariant of every test: the Engine never has a second job for one key.

use std::time::Duration;

use finishline::{clock::Clock, simulator::FaultRate};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

const KEY: &str = "order-4711";

#[track_caller]
fn assert_replay(answer: &Answer, id: &Value) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("idempotency-replayed"), Some("true"));
    let job = answer.json();
    assert_eq!(&job["id"], id);
    job
}

fn assert_first(answer: &Answer) -> Value {
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.header("idempotency-replayed"), None);
    answer.json()["id"].clone()
}

#[tokio::test]
async fn the_same_key_answers_the_first_job_again() {
    let clock = Clock::manual("2026-03-01T00:00:00Z".parse().expect("a time"));
    let mut service = Setup::new().clock(&clock).start().await;
    let body = ready_job().to_string();
    let id = assert_first(&service.submit_once(KEY, &body).await);
    assert_eq!(assert_replay(&service.submit_once(KEY, &body).await, &id)["status"], "submitted");
    let job = service.job(text(&id)).await;
    service.finish(&job).await;
    assert_eq!(assert_replay(&service.submit_once(KEY, &body).await, &id)["status"], "succeeded");
    service.restart().await;
    clock.advance(Duration::from_secs(30 * 24 * 3600));
    assert_replay(&service.submit_once(KEY, &body).await, &id);
    assert_eq!((service.engine.jobs().len(), service.jobs().await.len()), (1, 1));
}

#[tokio::test]
async fn other_keys_and_no_key_are_other_jobs() {
    let service = Service::start().await;
    let body = ready_job().to_string();
    assert_first(&service.submit_once(KEY, &body).await);
    assert_first(&service.submit_once("order-4712", &body).await);
    for _ in 0..2 {
        service.post("/v1/jobs", body.clone()).await.expect(201);
    }
    assert_eq!(service.engine.jobs().len(), 4);
}

#[tokio::test]
async fn the_same_value_in_another_spelling_is_the_same_body() {
    let service = Service::start().await;
    let id =
        assert_first(&service.submit_once(KEY, &body_with(r#"{"a":1.0,"b":["A",null]}"#)).await);
    for same in
        ["{ \"b\" : [ \"A\" ,\tnull ] ,\n \"a\" : 1.0 }", r#"{"\u0062":["\u0041",null],"a":1.0}"#]
    {
        assert_replay(&service.submit_once(KEY, &body_with(same)).await, &id);
    }
    let reordered = r#"{"outputFiles":{"m":[{"extension":".stl"}]},"options":{"a":1.0,"b":["A",null]},
        "inputFiles":{"cbct":{"extension":".dcm"}}}"#;
    assert_replay(&service.submit_once(KEY, reordered).await, &id);
    assert_eq!(service.engine.jobs().len(), 1);
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused() {
    let service = Service::start().await;
    let id = assert_first(&service.submit_once(KEY, &body_with(r#"{"a":1.0,"b":[1,2]}"#)).await);
    for other in [
        r#"{"a":1,"b":[1,2]}"#,
        r#"{"a":1.00,"b":[1,2]}"#,
        r#"{"a":1.0,"b":[2,1]}"#,
        r#"{"a":"1.0","b":[1,2]}"#,
        r#"{"a":1.0,"b":[1,2],"c":null}"#,
        r#"{"a":1.0}"#,
        "null",
    ] {
        let answer = service.submit_once(KEY, &body_with(other)).await;
        answer.problem(422, "idempotency-mismatch");
    }
    let label = ready_job_with(json!({"finishline": {"reference": "x"}})).to_string();
    service.submit_once(KEY, &label).await.problem(422, "idempotency-mismatch");
    assert_replay(&service.submit_once(KEY, &body_with(r#"{"a":1.0,"b":[1,2]}"#)).await, &id);
    assert_eq!((service.engine.jobs().len(), service.jobs().await.len()), (1, 1));
}

fn body_with(options: &str) -> String {
    format!(
        r#"{{"inputFiles":{{"cbct":{{"extension":".dcm"}}}},"outputFiles":{{"m":[{{"extension":".stl"}}]}},"options":{options}}}"#
    )
}

#[tokio::test]
async fn an_unsent_job_is_sent_again_under_its_own_id() {
    let setup = Setup::new().engine(|options| options.answer = Some(429));
    let service = setup.set("RELAY__ALLOWED_HOSTS", r#"["app.example.com"]"#).start().await;
    let own = "https://app.example.com/hook";
    let body = ready_job_with(json!({"options": {"n": 1.5}, "finishWebhook": own})).to_string();
    let refused = service.submit_once(KEY, &body).await.problem(503, "engine-busy");
    let again = service.submit_once(KEY, &body).await.problem(503, "engine-busy");
    assert_eq!(refused["jobId"], again["jobId"]);
    service.engine.set(|options| options.answer = None);
    let id = assert_first(&service.submit_once(KEY, &body).await);
    assert_eq!(id, refused["jobId"]);
    assert_eq!((service.engine.jobs().len(), service.jobs().await.len()), (1, 1));

    let sent: Value = serde_json::from_slice(&service.engine.jobs()[0].body).expect("JSON");
    assert_eq!(sent["options"], json!({"n": 1.5}));
    assert!(text(&sent["finishWebhook"]).contains(text(&id)), "{sent}");
    let job = service.job(text(&id)).await;
    assert_eq!(
        (&job["status"], &job["request"]["finishWebhook"]),
        (&json!("submitted"), &json!(own))
    );
    service.finish(&job).await;
    let events = service.get(&format!("/v1/jobs/{}/events", text(&id))).await.json();
    let events = events["events"].as_array().expect("events");
    // Whether its own webhook was called by now is another matter.
    let kinds = events.iter().map(|event| text(&event["type"]));
    let kinds: Vec<_> = kinds.filter(|kind| kind.starts_with("job.")).collect();
    assert_eq!(kinds, ["job.unsent", "job.unsent", "job.submitted", "job.finished"]);
    assert_replay(&service.submit_once(KEY, &body).await, &id);
}

#[tokio::test]
async fn a_rejected_job_answers_its_problem_again_without_asking_the_engine() {
    let service = Setup::new().engine(|options| options.answer = Some(409)).start().await;
    let body = ready_job().to_string();
    let first = service.submit_once(KEY, &body).await.problem(422, "engine-rejected");
    service.engine.set(|options| options.answer = None);
    let again = service.submit_once(KEY, &body).await.problem(422, "engine-rejected");
    assert_eq!(first, again);
    assert_eq!(again["engineStatus"], 409);
    assert_eq!((service.engine.requests().submissions, service.jobs().await.len()), (1, 1));
}

#[tokio::test]
async fn an_unconfirmed_job_is_answered_and_never_sent_again() {
    let service = Setup::new().engine(|options| options.answer = Some(500)).start().await;
    let body = ready_job().to_string();
    let first = service.submit_once(KEY, &body).await.problem(502, "engine-unavailable");
    service.engine.set(|options| options.answer = None);
    let job = assert_replay(&service.submit_once(KEY, &body).await, &first["jobId"]);
    assert_eq!(job["status"], "unconfirmed");
    assert_eq!(service.engine.requests().submissions, 1);
}

#[tokio::test]
async fn a_key_whose_job_is_in_flight_is_refused_for_the_moment() {
    let setup = Setup::new().engine(|options| options.reply_delay = Duration::from_secs(1));
    let service = setup.start().await;
    let body = ready_job().to_string();
    let request = service.request(Method::POST, "/v1/jobs").header("idempotency-key", KEY);
    let first = tokio::spawn(Answer::of(request.body(body.clone())));
    within(service.engine.wait_until(|engine| engine.jobs().len() == 1)).await;
    let answer = service.submit_once(KEY, &body).await;
    answer.problem(409, "idempotency-in-flight");
    assert!(answer.header("retry-after").is_some());
    let other = service.submit_once(KEY, &body_with("1")).await;
    other.problem(422, "idempotency-mismatch");
    let id = assert_first(&first.await.expect("an answer"));
    assert_replay(&service.submit_once(KEY, &body).await, &id);
    assert_eq!(service.engine.requests().submissions, 1);
}

#[tokio::test]
async fn a_job_in_flight_when_the_process_died_may_be_running_and_is_not_sent_again() {
    let setup = Setup::new().engine(|options| options.hang = FaultRate::Always);
    let stage = setup.start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (base, token) = (stage.engine.base_url(), stage.engine.token_url());
    let settings = [
        ("ENGINE__BASE_URL", base.as_str()),
        ("ENGINE__AUTH__TOKEN_URL", token.as_str()),
        ("ENGINE__AUTH__CLIENT_SECRET", "test-secret"),
        ("CALLBACKS__PUBLIC_URL", "https://hooks.example.com"),
    ];
    let submit = |program: &Program| {
        let request = stage.request_to(Method::POST, &format!("{}/v1/jobs", program.api));
        request.header("idempotency-key", KEY).body(ready_job().to_string())
    };
    let mut program = Program::serve(folder.path(), &settings).await;
    let first = tokio::spawn(submit(&program).send());
    within(stage.engine.wait_until(|engine| engine.requests().submissions == 1)).await;
    program.kill();
    assert!(first.await.expect("no panic").is_err(), "the first caller had no answer");

    let program = Program::serve(folder.path(), &settings).await;
    let answer = Answer::of(submit(&program)).await.expect(200);
    let id = answer.json()["id"].clone();
    assert_eq!(assert_replay(&answer, &id)["status"], "unconfirmed");
    assert_eq!(stage.engine.requests().submissions, 1);
}

#[tokio::test]
async fn the_key_of_an_erased_job_stays_used() {
    let service = Service::start().await;
    let body = ready_job().to_string();
    let id = assert_first(&service.submit_once(KEY, &body).await);
    service.delete(&format!("/v1/jobs/{}", text(&id))).await.expect(200);
    service.submit_once(KEY, &body).await.problem(410, "gone");
    service.submit_once(KEY, &body_with("1")).await.problem(422, "idempotency-mismatch");
    assert_eq!((service.engine.jobs().len(), service.jobs().await.len()), (1, 0));
}

#[tokio::test]
async fn each_api_key_has_its_own_idempotency_keys() {
    let (one, two) = ("the-first-key-of-a-test", "the-second-key-of-a-test");
    let keys = json!([{"name": "one", "key": one}, {"name": "two", "key": two}]);
    let service = Setup::new().set("API__KEYS", keys).start().await;
    let mut ids = Vec::new();
    for (key, expected) in [(one, 201), (two, 201), (one, 200), (two, 200)] {
        let request = service.request(Method::POST, "/v1/jobs").header("idempotency-key", KEY);
        let request = request.bearer_auth(key).body(ready_job().to_string());
        ids.push(Answer::of(request).await.expect(expected).json()["id"].clone());
    }
    assert_eq!((&ids[0], &ids[1]), (&ids[2], &ids[3]));
    assert_ne!(ids[0], ids[1]);
    assert_eq!(service.engine.jobs().len(), 2);
}

#[tokio::test]
async fn twenty_requests_at_once_with_one_key_make_one_job() {
    let setup = Setup::new().engine(|options| options.reply_delay = Duration::from_millis(50));
    let service = setup.start().await;
    let body = ready_job().to_string();
    let requests = (0..20).map(|_| service.submit_once(KEY, &body));
    let answers = futures_util::future::join_all(requests).await;
    let created: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert_eq!(created.len(), 1, "one of them submits it");
    let id = assert_first(created[0]);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        match answer.status {
            200 => _ = assert_replay(answer, &id),
            _ => _ = answer.problem(409, "idempotency-in-flight"),
        }
    }
    assert_eq!(service.engine.requests().submissions, 1);
    assert_eq!((service.engine.jobs().len(), service.jobs().await.len()), (1, 1));
}

#[tokio::test]
async fn a_key_that_cannot_be_one_is_refused() {
    let service = Service::start().await;
    let body = ready_job().to_string();
    for key in ["", &"x".repeat(256), "ä"] {
        let request = service.request(Method::POST, "/v1/jobs").header("idempotency-key", key);
        let answer = Answer::of(request.body(body.clone())).await;
        assert_eq!(answer.invalid_at(), ["/Idempotency-Key"], "{key:?}");
    }
    let request = service.request(Method::POST, "/v1/jobs").header("idempotency-key", "a");
    let request = request.header("idempotency-key", "b").body(body.clone());
    assert_eq!(Answer::of(request).await.invalid_at(), ["/Idempotency-Key"]);
    assert!(service.jobs().await.is_empty());
    assert_eq!(service.engine.requests(), Default::default(), "nothing was sent");
    assert_first(&service.submit_once(&"x".repeat(255), &body).await);
}
