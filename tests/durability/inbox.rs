//! The inbox: results of jobs that were submitted elsewhere.
//!
//! The invariant: nobody without the secret learns that there is an inbox.

use serde_json::{Value, json};

use crate::{
    evidence::*,
    failing_store::{FailingStore, Failure, Plan},
    support::*,
};

const SECRET: &str = "a-long-inbox-secret-0123456789";

async fn service_with_inbox() -> (Service, String) {
    let service = Setup::new().set("CALLBACKS__INBOX_SECRET", SECRET).start().await;
    let url = format!("{}/inbox/{SECRET}", service.callbacks);
    (service, url)
}

#[tokio::test]
async fn without_a_secret_there_is_no_inbox() {
    let service = Service::start().await;
    for path in ["/inbox/", "/inbox", "/inbox/x", &format!("/inbox/{SECRET}")] {
        let url = format!("{}{path}", service.callbacks);
        service.post_to(&url, r#"{"success":true}"#).await.problem(404, "not-found");
    }
    assert!(service.jobs().await.is_empty());
}

#[tokio::test]
async fn a_wrong_secret_finds_nothing_and_writes_nothing() {
    let (service, url) = service_with_inbox().await;
    let mut database = connect(&service.database).await;
    let version = data_version(&mut database).await;
    let wrong = [
        SECRET.to_uppercase(),
        SECRET[1..].to_owned(),
        format!("{SECRET}x"),
        format!("{SECRET}%00"),
        format!("{SECRET}/"),
        format!("%20{SECRET}"),
        "x".into(),
        String::new(),
    ];
    for secret in &wrong {
        let answer = service.post_to(&format!("{}/inbox/{secret}", service.callbacks), "{}").await;
        answer.problem(404, "not-found");
    }
    assert_eq!(data_version(&mut database).await, version);
    assert!(service.jobs().await.is_empty());
    assert_eq!(service.outcome(&url, r#"{"success":true}"#).await, "stored");
    assert_ne!(data_version(&mut database).await, version, "a write would have been seen");
}

#[tokio::test]
async fn a_result_makes_its_job_and_finds_it_again_by_the_engine_s_id() {
    let (service, url) = service_with_inbox().await;
    let body = |id: &Value, status: &str, link: &str| {
        json!({"jobId": id, "success": true, "outputFiles": {"meshes": [
            {"extension": ".stl", "structures": ["skull"], "status": status, "url": link}]}})
        .to_string()
    };
    let id = json!("engine-1");
    let first = body(&id, "Available", "https://store.example/1");
    assert_eq!(service.outcome(&url, first.clone()).await, "stored");
    let jobs = service.jobs().await;
    assert_eq!(jobs.len(), 1);
    let job = &jobs[0];
    for (name, expected) in [
        ("origin", json!("inbox")),
        ("status", json!("succeeded")),
        ("engineJobId", json!("engine-1")),
        ("request", Value::Null),
        ("submittedAt", Value::Null),
        ("deliveries", json!(1)),
    ] {
        assert_eq!(job[name], expected, "{name}: {job}");
    }
    let ours = text(&job["id"]);
    assert_eq!(service.get(&format!("/v1/jobs/{ours}/result")).await.body, first);

    assert_eq!(service.outcome(&url, first.clone()).await, "duplicate");
    let renewed = body(&id, "Available", "https://store.example/2");
    assert_eq!(service.outcome(&url, renewed).await, "refreshed");
    assert_eq!(service.outcome(&url, body(&id, "Missing", "")).await, "conflict");
    let job = service.job(ours).await;
    assert_eq!((&job["deliveries"], &job["status"]), (&json!(3), &json!("succeeded")));
    assert_eq!(job["outputs"][0]["url"], "https://store.example/1", "nobody asked for another");
    assert_eq!(service.get(&format!("/v1/jobs/{ours}/result")).await.body, first);
    assert_eq!(service.jobs().await.len(), 1, "all of one job");

    for other in [json!("engine-2"), json!("Engine-1"), json!(7), json!("engine-1 ")] {
        assert_eq!(service.outcome(&url, body(&other, "Missing", "")).await, "stored", "{other}");
    }
    assert_eq!(service.jobs().await.len(), 5, "each of its own");
    let found = service.get("/v1/jobs?engineJobId=engine-1").await.expect(200).json();
    assert_eq!(found["jobs"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn an_inbox_job_stays_open_until_its_result_comes() {
    let (service, url) = service_with_inbox().await;
    assert_eq!(service.outcome(&url, r#"{"id":"e","state":"running"}"#).await, "unrecognised");
    let jobs = service.jobs().await;
    assert_eq!((jobs.len(), &jobs[0]["finishedAt"]), (1, &Value::Null));
    assert_eq!(service.outcome(&url, r#"{"id":"e","success":false}"#).await, "stored");
    let job = service.job(text(&jobs[0]["id"])).await;
    assert_eq!((&job["status"], &job["deliveries"]), (&json!("failed"), &json!(2)));
}

#[tokio::test]
async fn without_an_id_a_body_is_its_own_name() {
    let (service, url) = service_with_inbox().await;
    let (one, two) = (r#"{"success":true}"#, r#"{"success":true }"#);
    assert_eq!(service.outcome(&url, one).await, "stored");
    assert_eq!(service.outcome(&url, one).await, "duplicate");
    assert_eq!(service.jobs().await.len(), 1);
    assert_eq!(service.outcome(&url, two).await, "stored");
    let jobs = service.jobs().await;
    assert_eq!(jobs.len(), 2);
    for job in &jobs {
        assert_eq!((&job["engineJobId"], &job["deliveries"]), (&Value::Null, &json!(1)));
    }
    let first = service.deliveries(text(&jobs[1]["id"])).await;
    assert_eq!(first[0]["repeats"], 1);
}

#[tokio::test]
async fn what_is_not_json_is_kept_in_the_inbox_too() {
    let (service, url) = service_with_inbox().await;
    for _ in 0..2 {
        service.post_to(&url, "not JSON").await.problem(400, "malformed-json");
    }
    let jobs = service.jobs().await;
    assert_eq!(jobs.len(), 1);
    let deliveries = service.deliveries(text(&jobs[0]["id"])).await;
    assert_eq!((deliveries.len(), &deliveries[0]["outcome"]), (1, &json!("malformed")));
    service.holds(&deliveries[0], b"not JSON").await;
}

#[tokio::test]
async fn an_erased_inbox_job_is_not_made_again() {
    let (service, url) = service_with_inbox().await;
    let body = r#"{"jobId":"engine-1","success":true}"#;
    assert_eq!(service.outcome(&url, body).await, "stored");
    let id = text(&service.jobs().await[0]["id"]).to_owned();
    service.delete(&format!("/v1/jobs/{id}")).await.expect(200);
    for late in [body, r#"{"jobId":"engine-1","success":false}"#] {
        service.post_to(&url, late).await.problem(410, "gone");
    }
    assert!(service.jobs().await.is_empty());
    assert_eq!(service.outcome(&url, r#"{"jobId":"engine-2","success":true}"#).await, "stored");
}

#[tokio::test]
async fn many_identical_results_at_once_make_one_inbox_job() {
    let (service, url) = service_with_inbox().await;
    let body = r#"{"jobId":"engine-1","success":true}"#;
    let senders = (0..50).map(|_| service.outcome(&url, body));
    let outcomes = futures_util::future::join_all(senders).await;
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "stored").count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "duplicate").count(), 49);
    let jobs = service.jobs().await;
    assert_eq!((jobs.len(), &jobs[0]["deliveries"]), (1, &json!(1)));
}

#[tokio::test]
async fn an_oversize_body_makes_no_inbox_job() {
    let setup = Setup::new().set("CALLBACKS__INBOX_SECRET", SECRET);
    let service = setup.set("CALLBACKS__MAX_BODY", "1KiB").start().await;
    let url = format!("{}/inbox/{SECRET}", service.callbacks);
    service.post_to(&url, "x".repeat(1_025)).await.problem(413, "payload-too-large");
    assert!(service.jobs().await.is_empty());
}

#[tokio::test]
async fn a_body_with_the_engine_s_id_of_a_submitted_job_belongs_to_that_job() {
    let (service, url) = service_with_inbox().await;
    let job = service.submitted(&ready_job()).await;
    let (id, engine_job_id) = (text(&job["id"]), &job["engineJobId"]);
    let running = json!({"jobId": engine_job_id, "state": "running"}).to_string();
    assert_eq!(service.outcome(&url, running).await, "unrecognised");
    let body = json!({"jobId": engine_job_id, "success": true}).to_string();
    assert_eq!(service.outcome(&url, body.clone()).await, "stored");
    assert_eq!(service.outcome(&url, body.clone()).await, "duplicate");
    assert_eq!(service.jobs().await.len(), 1, "no other job is made");
    let job = service.job(id).await;
    assert_eq!((&job["status"], &job["deliveries"]), (&json!("succeeded"), &json!(2)));
    assert_eq!(service.get(&format!("/v1/jobs/{id}/result")).await.body, body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spooled_body_of_a_submitted_job_belongs_to_it_too() {
    let setup = Setup::new().set("CALLBACKS__INBOX_SECRET", SECRET);
    let (setup, store) = FailingStore::in_setup(setup);
    let (service, store) = (setup.start().await, store());
    let url = format!("{}/inbox/{SECRET}", service.callbacks);
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let body = json!({"jobId": job["engineJobId"], "success": true}).to_string();
    store.fail(Plan::always(Failure::Unavailable));
    assert_eq!(service.outcome(&url, body.clone()).await, "spooled");
    store.heal();
    let job = service.job_with_status(id, "succeeded").await;
    assert_eq!((&job["deliveries"], service.jobs().await.len()), (&json!(1), 1));
    assert_eq!(service.get(&format!("/v1/jobs/{id}/result")).await.body, body);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_the_result_of_a_submitted_job_is_evidence() {
    let (service, url) = service_with_inbox().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let of = |success: bool| json!({"jobId": job["engineJobId"], "success": success}).to_string();
    assert_eq!(service.outcome(&service.callback_url(id), of(true)).await, "stored");
    assert_eq!(service.outcome(&url, of(true)).await, "duplicate");
    assert_eq!(service.outcome(&url, of(false)).await, "conflict");
    let shown = service.job(id).await;
    assert_eq!((&shown["status"], &shown["deliveries"]), (&json!("succeeded"), &json!(2)));
    assert_eq!(service.jobs().await.len(), 1);
    // Erased, it is not made again by way of the inbox.
    service.delete(&format!("/v1/jobs/{id}")).await.expect(200);
    for body in [of(true), of(false)] {
        service.post_to(&url, body).await.problem(410, "gone");
    }
    assert!(service.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_id_that_two_submitted_jobs_have_names_neither() {
    let engine = axum::Router::new().fallback(async || r#"{"jobId":"the-same"}"#);
    let setup = Setup::new().set("CALLBACKS__INBOX_SECRET", SECRET);
    let setup = setup.set("ENGINE__BASE_URL", format!("{}/24.06", serve(engine).await));
    let service = setup.set("ENGINE__AUTH__TOKEN_URL", "").start().await;
    let url = format!("{}/inbox/{SECRET}", service.callbacks);
    let (first, second) =
        (service.submitted(&ready_job()).await, service.submitted(&ready_job()).await);
    let body = r#"{"jobId":"the-same","success":true}"#;
    assert_eq!(service.outcome(&url, body).await, "stored");
    assert_eq!(service.outcome(&url, body).await, "duplicate");
    for job in [first, second] {
        assert_eq!(
            service.job(text(&job["id"])).await["status"],
            "submitted",
            "nothing is guessed"
        );
    }
    let jobs = service.jobs().await;
    assert_eq!((jobs.len(), &jobs[0]["origin"]), (3, &json!("inbox")), "and nothing is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_faster_than_the_engine_s_reply_finishes_its_job_all_the_same() {
    let replies = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let held = replies.clone();
    let engine = axum::Router::new().fallback(async move || {
        held.acquire().await.expect("not closed").forget();
        r#"{"jobId":"engine-1"}"#
    });
    let setup = Setup::new().set("CALLBACKS__INBOX_SECRET", SECRET);
    let setup = setup.set("ENGINE__BASE_URL", format!("{}/24.06", serve(engine).await));
    let service = setup.set("ENGINE__AUTH__TOKEN_URL", "").start().await;
    let url = format!("{}/inbox/{SECRET}", service.callbacks);
    let result = r#"{"jobId":"engine-1","success":true}"#;
    let body = ready_job();
    let (submitted, made) = tokio::join!(service.submitted(&body), async {
        wait_for("the job to be on record", async || service.jobs().await.pop()).await;
        assert_eq!(
            service.outcome(&url, r#"{"jobId":"engine-1","state":"running"}"#).await,
            "unrecognised"
        );
        assert_eq!(service.outcome(&url, result).await, "stored");
        let jobs = service.jobs().await;
        assert_eq!(jobs.len(), 2, "nobody can know yet");
        replies.add_permits(1);
        text(&jobs[0]["id"]).to_owned()
    });
    let id = text(&submitted["id"]);
    assert_eq!(
        (&submitted["status"], &submitted["engineJobId"]),
        (&json!("succeeded"), &json!("engine-1"))
    );
    let job = service.job(id).await;
    assert_eq!((&job["status"], &job["deliveries"]), (&json!("succeeded"), &json!(2)));
    assert_eq!(service.get(&format!("/v1/jobs/{id}/result")).await.body, result);
    assert_eq!(service.jobs().await.len(), 1, "no second job is left");
    service.get(&format!("/v1/jobs/{made}")).await.problem(410, "gone");
    assert_eq!(service.outcome(&url, result).await, "duplicate");
    let (mut database, leftover) =
        (connect(&service.database).await, "select count(*) from deliveries");
    assert_eq!(count(&mut database, leftover).await, 2);
}
