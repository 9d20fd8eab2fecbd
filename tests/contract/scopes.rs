//! What an answer shows to a caller who may do this and that, and not read.
//!
//! The invariant: without the scope `read`, nothing of the request, of the Engine's reply or of the
//! result leaves by any route.

use finishline::simulator::FaultRate;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    doors::{SCOPES, key_of, keys},
    openapi::Stage,
};
use crate::support::*;

/// All that an answer to a caller without `read` is made of.
const SHOWN: [&str; 8] =
    ["id", "status", "warnings", "inputs", "state", "erased", "relays", "dryRun"];

fn with_keys() -> Setup {
    Setup::new().set("API__KEYS", keys()).key(&key_of("all"))
}

async fn ask(service: &Service, method: Method, path: &str, key: &str) -> Answer {
    Answer::of(service.request(method, path).bearer_auth(key)).await
}

#[track_caller]
fn shows_little(answer: &Answer, scope: &str, name: &str) {
    let shown = answer.text();
    for hidden in ["mark-", "mandible", "finishWebhook", "engine", "/outputs/", "job-", "whsec_"] {
        assert!(!shown.contains(hidden), "{name} shows {hidden}: {shown}");
    }
    let object = answer.json();
    for member in object.as_object().expect("an object").keys() {
        assert!(SHOWN.contains(&member.as_str()), "{name} shows {member}: {object}");
        assert!(member != "inputs" || scope == "submit", "{name}: links are the submitter's");
    }
    for input in object["inputs"].as_array().into_iter().flatten() {
        let links = ["uploadUrl", "notifyUrl"].iter().all(|link| input.get(link).is_some());
        assert!(links, "{name} shows the submitter's own links: {input}");
    }
}

#[tokio::test]
async fn no_route_shows_more_than_its_caller_may_read() {
    let document = Service::start().await.get("/openapi.json").await.expect(200).json();
    let shared = Stage::set_with(with_keys()).await;
    let mut seen = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let description = operation["description"].as_str().unwrap_or_default();
            let Some((_, rest)) = description.split_once("Scope: `") else { continue };
            let wanted = rest.split('`').next().expect("a scope");
            for scope in SCOPES {
                let name = format!("{method} {path} with {scope}");
                if scope != wanted {
                    let request = shared.request(path, method, operation).await;
                    let answer = Answer::of(request.bearer_auth(key_of(scope))).await;
                    assert_eq!(answer.status, 403, "{name}");
                    answer.problem(403, "forbidden-scope");
                    continue;
                }
                let stage = Stage::set_with(with_keys()).await;
                let request = stage.request(path, method, operation).await;
                let answer = Answer::of(request.bearer_auth(key_of(scope))).await;
                assert!(answer.status < 300, "{name}: {}", answer.text());
                if scope != "read" {
                    shows_little(&answer, scope, &name);
                    seen += 1;
                }
            }
        }
    }
    assert!(seen >= 9, "the walk found {seen} routes for those who may not read");
}

#[tokio::test]
async fn waiting_repeating_and_failing_show_no_more_than_submitting() {
    let service = with_keys().finishing_at_once().start().await;
    let submit = async |body: &Value, key: &str| {
        let request = service.request(Method::POST, "/v1/jobs").bearer_auth(key);
        let request = request.header("prefer", "wait=20").header("idempotency-key", "once");
        Answer::of(request.header("content-type", "application/json").body(body.to_string())).await
    };
    let body = ready_job_with(json!({"note": "mark-1", "finishline": {"reference": "mark-2"}}));
    for status in [201, 200] {
        let answer = submit(&body, &key_of("submit")).await.expect(status);
        assert_eq!(answer.json()["status"], "succeeded", "it was waited for");
        shows_little(&answer, "submit", "a submission that waits");
        assert_eq!(answer.header("idempotency-replayed"), (status == 200).then_some("true"));
    }
    let full = submit(&body, &key_of("all")).await.expect(201).json();
    assert_eq!(full["request"]["note"], "mark-1", "whoever may read, reads");
    assert!(full["outputs"][0]["url"].is_string(), "{full}");

    service.engine.set(|options| {
        options.answer = Some(422);
        options.answer_rate = FaultRate::First(1);
    });
    let request = service.request(Method::POST, "/v1/jobs").bearer_auth(key_of("submit"));
    let request = request.header("content-type", "application/json").body(ready_job().to_string());
    let problem = Answer::of(request).await.problem(422, "engine-rejected");
    assert!(problem["jobId"].is_string() && !problem["engineBody"].is_null(), "{problem}");
}

#[tokio::test]
async fn a_webhook_is_shown_without_its_query_to_those_who_only_read() {
    let setup = with_keys().set("RELAY__ALLOWED_HOSTS", r#"["*"]"#);
    let setup = setup.set("OUTBOUND__ALLOW_PRIVATE", true).set("OUTBOUND__ALLOW_HTTP", true);
    let service = setup.start().await;
    let webhook = "HTTP://127.0.0.1:9/hook?token=hush#hush";
    let body = ready_job_with(json!({"note": 1.10, "finishWebhook": webhook}));
    let id = text(&service.submitted(&body).await["id"]).to_owned();
    for path in ["/v1/jobs".to_owned(), format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}/result")] {
        for kind in ["application/json", "application/x-ndjson"] {
            let read = async |key: &str| {
                let request = service.request(Method::GET, &path).bearer_auth(key_of(key));
                Answer::of(request.header("accept", kind)).await.text()
            };
            assert!(read("all").await.contains("token=hush"), "{path}: the submitter sees it");
            let shown = read("read").await;
            assert!(!shown.contains("hush") && shown.contains("/hook\""), "{path}: {shown}");
        }
    }
    let shown = ask(&service, Method::GET, &format!("/v1/jobs/{id}"), &key_of("read")).await.json();
    assert_eq!(shown["request"]["finishWebhook"], "http://127.0.0.1:9/hook");
}

#[tokio::test]
async fn the_command_line_works_with_a_key_that_may_submit_and_not_read() {
    let service = with_keys().start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let body = json!({
        "inputFiles": {"cbct": {"extension": ".dcm"}},
        "outputFiles": ready_job()["outputFiles"],
    });
    std::fs::write(folder.path().join("job.json"), body.to_string()).expect("written");
    std::fs::write(folder.path().join("scan.dcm"), "a scan").expect("written");
    let key = key_of("submit");
    let environment = [("FINISHLINE_API", service.api.as_str()), ("FINISHLINE_KEY", &key)];
    let args = ["submit", "job.json", "--input", "cbct=scan.dcm"];
    let ended = run_program(folder.path(), &args, &environment).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("submitted") && ended.stdout.contains("cbct"), "{ended:?}");
    let job = service.jobs().await.remove(0);
    assert_eq!(job["inputs"][0]["state"], "notified");
}
