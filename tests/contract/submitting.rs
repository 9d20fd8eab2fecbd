//! A submission that goes well: what reaches the Engine, what is kept, what is answered, in every
//! dialect of the reply.
//!
//! The invariant: what the caller wrote reaches the Engine as the same text.

use std::time::Duration;

use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use finishline::{
    clock::Clock,
    simulator::{FaultRate, IdField, JobState, NotifyPlace},
};
use reqwest::Method;
use serde_json::{Value, json, value::RawValue};

use crate::support::*;

/// The body of the only job at the Engine.
fn body_at_engine(service: &Service) -> Value {
    let jobs = service.engine.jobs();
    assert_eq!(jobs.len(), 1, "jobs at the Engine");
    serde_json::from_slice(&jobs[0].body).expect("JSON")
}

#[tokio::test]
async fn a_job_that_was_taken_is_answered_as_the_contract_shows_it() {
    let service = Service::start().await;
    let body = json!({
        "inputFiles": {
            "cbct": {"extension": ".dcm"},
            "facial": {"extension": ".obj", "downloadUrl": "https://store.example/face.obj"},
        },
        "outputFiles": {"meshes": [
            {"extension": ".stl", "structures": ["mandible", "skull"]},
            {"extension": ".ply", "structures": ["tooth11"]},
        ]},
        "finishline": {"reference": "case-42"},
    });
    let answer = service.submit(&body).await.expect(201);
    let job = answer.json();
    let id = text(&job["id"]);
    assert_eq!(uuid::Uuid::parse_str(id).expect("a UUID").get_version_num(), 7);
    assert_eq!(answer.header("location"), Some(format!("/v1/jobs/{id}").as_str()));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("x-request-id").is_some());

    let mut request = body.clone();
    request.as_object_mut().expect("an object").remove("finishline");
    for (name, expected) in [
        ("reference", json!("case-42")),
        ("status", json!("submitted")),
        ("success", Value::Null),
        ("overdue", json!(false)),
        ("origin", json!("submitted")),
        ("secured", Value::Null),
        ("engineJobId", json!(service.engine.jobs()[0].engine_job_id)),
        ("endUserId", Value::Null),
        ("cloudPackage", Value::Null),
        ("externalJobId", Value::Null),
        ("finishedAt", Value::Null),
        ("request", request),
        ("deliveries", json!(0)),
        ("warnings", json!([])),
    ] {
        assert_eq!(job[name], expected, "{name}");
    }
    for name in ["createdAt", "submittedAt"] {
        let time = text(&job[name]);
        assert!(time.len() == 24 && time.ends_with('Z'), "{time} has milliseconds and is UTC");
    }
    let inputs = job["inputs"].as_array().expect("inputs");
    let of = |name: &str| inputs.iter().find(|input| input["name"] == name).expect("the input");
    assert_eq!(
        (&of("cbct")["state"], &of("cbct")["extension"]),
        (&json!("awaiting"), &json!(".dcm"))
    );
    assert!(text(&of("cbct")["uploadUrl"]).starts_with(&service.engine.origin()));
    assert!(text(&of("cbct")["notifyUrl"]).starts_with(&service.engine.origin()));
    assert_eq!(
        (&of("facial")["state"], &of("facial")["uploadUrl"]),
        (&json!("provided"), &Value::Null)
    );
    let output = json!({"name": "meshes-1", "kind": "meshes", "index": 1, "extension": ".ply",
        "structures": ["tooth11"], "status": null, "url": null, "file": null});
    assert_eq!(job["outputs"][1], output);
    assert_eq!(job["outputs"].as_array().map(Vec::len), Some(2));
    assert_eq!(job["engineResponse"]["inputFiles"]["cbct"]["uploadUrl"], of("cbct")["uploadUrl"]);
    assert_eq!(service.job(id).await, job, "what is answered is what is on record");
}

#[tokio::test]
async fn the_engine_s_id_is_found_in_every_field_it_may_stand_in() {
    let service = Service::start().await;
    for field in [IdField::JobId, IdField::Id, IdField::ExternalJobId] {
        service.engine.set(|options| options.id_field = field);
        let job = service.submitted(&ready_job()).await;
        let last = service.engine.jobs().pop().expect("a job");
        assert_eq!(job["engineJobId"], last.engine_job_id, "{field:?}");
        assert_eq!(job["warnings"], json!([]));
    }
}

#[tokio::test]
async fn a_reply_without_an_id_is_a_warning_and_the_callback_does_not_need_it() {
    let elsewhere = Setup::new().set("ENGINE__JOB_ID_POINTERS", r#"["/other"]"#).start().await;
    let service = Setup::new().engine(|options| options.id_field = IdField::None).start().await;
    let without_json =
        Setup::new().engine(|options| options.reply_without_json = true).start().await;
    for service in [elsewhere, service, without_json] {
        let job = service.submitted(&ready_job()).await;
        assert_eq!((&job["status"], &job["engineJobId"]), (&json!("submitted"), &Value::Null));
        assert_eq!(job["warnings"].as_array().map(Vec::len), Some(1), "{job}");
        assert!(service.engine.finish(&service.engine.jobs()[0].engine_job_id));
        service.job_with_status(text(&job["id"]), "succeeded").await;
    }
}

#[tokio::test]
async fn a_reply_that_is_not_json_is_kept_as_text() {
    let service = Setup::new().engine(|options| options.reply_without_json = true).start().await;
    let job = service.submitted(&ready_job()).await;
    assert_eq!(job["engineResponse"], "job accepted");
}

#[tokio::test]
async fn every_2xx_of_the_engine_is_a_yes() {
    let service = Service::start().await;
    for status in [200, 201, 202, 203] {
        service.engine.set(|options| options.reply_status = status);
        let job = service.submitted(&ready_job()).await;
        assert_eq!(job["status"], "submitted");
        assert!(!job["engineJobId"].is_null(), "{status}");
    }
}

#[tokio::test]
async fn both_places_of_the_notify_address_start_the_job() {
    for place in [NotifyPlace::PerFile, NotifyPlace::TopLevel] {
        let service = Setup::new().engine(|options| options.notify_place = place).start().await;
        let mut body = ready_job();
        body["inputFiles"] =
            json!({"cbct": {"extension": ".dcm"}, "ios_upper": {"extension": ".stl"}});
        let job = service.submitted(&body).await;
        let inputs = job["inputs"].as_array().expect("inputs");
        for input in inputs {
            let upload = service.request_to(Method::PUT, text(&input["uploadUrl"])).body("scan");
            assert!(Answer::of(upload).await.status < 300);
        }
        assert_eq!(service.engine.jobs()[0].state, JobState::Waiting);
        for input in inputs {
            assert_eq!(service.post_to(text(&input["notifyUrl"]), "").await.status, 200);
        }
        assert_eq!(service.engine.jobs()[0].state, JobState::Processing, "{place:?}");
    }
}

#[tokio::test]
async fn version_v2_and_older_are_asked_at_their_own_route() {
    for version in ["v1", "v2", "24.06", "v3"] {
        let setup = Setup::new().set("ENGINE__BASE_URL", format!("{{engine}}/{version}"));
        let service = setup.start().await;
        // The simulator serves `generic-job` on v2 and older, `job` elsewhere, and not both.
        service.submitted(&ready_job()).await;
        assert_eq!(service.engine.jobs()[0].version, version);
    }
}

#[tokio::test]
async fn what_the_caller_wrote_reaches_the_engine_as_the_same_text() {
    let service = Service::start().await;
    let values = [
        (
            "options",
            r#"{ "n" : 1.10, "big":123456789012345678901234567890, "e": 1e999,"-": -0.0 }"#,
        ),
        (
            "aNewField",
            r#"[ 1.0,	2E+3 , "ä\u00e4\ud800", null ,{"finishWebhook":"kept","finishline":1}]"#,
        ),
        (
            "inputFiles",
            r#"{"future" : {"extension":".xyz","downloadUrl":"https://a.example/x","zoom":1.50}}"#,
        ),
        ("outputFiles", r#"{"meshes":[{"extension":".stl","structures":["a_new_one"],"lod" :3}]}"#),
    ];
    let members: Vec<String> =
        values.iter().map(|(name, value)| format!("\n \"{name}\" :  {value}")).collect();
    let body = format!("{{{}}}", members.join(","));
    let answer = service.post("/v1/jobs", body).await.expect(201);
    let sent = service.engine.jobs()[0].body.clone();
    let shown_again = service.get(answer.header("location").expect("the job's address")).await;
    let request = raw_member(&raw_member(&shown_again.body, "request"), "options");
    assert_eq!(request, values[0].1.as_bytes(), "numbers keep their digits on record too");
    for (name, value) in values {
        let got = raw_member(&sent, name);
        assert_eq!(String::from_utf8(got).expect("UTF-8"), value, "{name}");
    }
}

/// The text of one member of an object.
fn raw_member(object: &[u8], name: &str) -> Vec<u8> {
    let members: std::collections::HashMap<String, &RawValue> =
        serde_json::from_slice(object).expect("an object");
    members[name].get().as_bytes().to_vec()
}

#[tokio::test]
async fn the_label_is_kept_here_and_never_sent() {
    let service = Service::start().await;
    let body = ready_job_with(json!({"finishline": {"reference": "case-42 ✓"}}));
    let job = service.submitted(&body).await;
    assert_eq!(job["reference"], "case-42 ✓");
    assert_eq!(job["request"].get("finishline"), None);
    assert_eq!(body_at_engine(&service).get("finishline"), None);
    let sent = String::from_utf8(service.engine.jobs()[0].body.to_vec()).expect("UTF-8");
    assert!(!sent.contains("case-42"));
    assert!(service.submitted(&ready_job()).await["reference"].is_null());
}

#[tokio::test]
async fn defaults_fill_what_the_caller_left_out_and_nothing_else() {
    let setup = Setup::new().set("ENGINE__DEFAULT_CLOUD_PACKAGE", "production");
    let service = setup.set("ENGINE__DEFAULT_END_USER_ID", "clinic-7").start().await;
    let job = service.submitted(&ready_job_with(json!({"endUserId": "mine"}))).await;
    assert_eq!((&job["cloudPackage"], &job["endUserId"]), (&json!("production"), &json!("mine")));
    let sent = body_at_engine(&service);
    assert_eq!((&sent["cloudPackage"], &sent["endUserId"]), (&json!("production"), &json!("mine")));

    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    assert_eq!((&job["cloudPackage"], &job["endUserId"]), (&Value::Null, &Value::Null));
    let sent = body_at_engine(&service);
    assert_eq!((sent.get("cloudPackage"), sent.get("endUserId")), (None, None));
}

#[tokio::test]
async fn the_deprecated_external_job_id_is_passed_on_with_a_warning() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job_with(json!({"externalJobId": "x-1"}))).await;
    assert_eq!(job["externalJobId"], "x-1");
    assert_eq!(body_at_engine(&service)["externalJobId"], "x-1");
    let warnings = job["warnings"].as_array().expect("warnings");
    assert!(warnings.len() == 1 && text(&warnings[0]).contains("externalJobId"), "{warnings:?}");
}

#[tokio::test]
async fn the_engine_is_given_our_callback_address_and_the_caller_s_own_is_kept() {
    let setup =
        Setup::new().set("RELAY__ALLOWED_HOSTS", r#"["app.example.com", "b.example.com:8443"]"#);
    let service = setup.start().await;
    for own in ["https://app.example.com/hook?case=1", "https://b.example.com:8443/hook"] {
        let job = service.submitted(&ready_job_with(json!({"finishWebhook": own}))).await;
        assert_eq!(job["request"]["finishWebhook"], own);
        let sent = service.engine.jobs().pop().expect("a job");
        let webhook = sent.callback_url.expect("a callback address");
        let address = format!("{}/callbacks/{}/", service.callbacks, text(&job["id"]));
        let signature = webhook.strip_prefix(&address).expect("our own address for this job");
        assert_eq!(signature.len(), 43, "base64url of 32 bytes");
        assert!(!String::from_utf8_lossy(&sent.body).contains("example.com/hook"));
    }
    let job = service.submitted(&ready_job()).await;
    assert_eq!(job["request"].get("finishWebhook"), None);
    assert!(service.callback_url(text(&job["id"])).starts_with(&service.callbacks));
}

#[tokio::test]
async fn a_webhook_that_a_relay_may_not_reach_is_refused_before_anything_is_stored() {
    let any = Setup::new().set("RELAY__ALLOWED_HOSTS", r#"["*"]"#).start().await;
    let one = Setup::new()
        .set("RELAY__ALLOWED_HOSTS", r#"["app.example.com", "10.0.0.1"]"#)
        .start()
        .await;
    let none = Service::start().await;
    for (service, webhook) in [
        (&none, "https://app.example.com/hook"),
        (&one, "https://other.example.com/hook"),
        (&one, "https://app.example.com.evil.example/hook"),
        (&one, "http://app.example.com/hook"),
        (&one, "https://10.0.0.1/hook"),
        (&any, "http://app.example.com/hook"),
        (&any, "https://127.0.0.1/hook"),
        (&any, "https://2130706433/hook"),
        (&any, "https://[::1]/hook"),
        (&any, "https://[::ffff:10.0.0.1]/hook"),
        (&any, "https://169.254.169.254/latest/meta-data"),
        (&any, "https://192.168.1.1/hook"),
        (&any, "https://localhost/hook"),
        (&any, "https://user:password@app.example.com/hook"),
        (&any, "ftp://app.example.com/hook"),
        (&any, "app.example.com/hook"),
    ] {
        let answer = service.submit(&ready_job_with(json!({"finishWebhook": webhook}))).await;
        assert_eq!(answer.invalid_at(), ["/finishWebhook"], "{webhook}");
    }
    for service in [any, one, none] {
        assert!(service.jobs().await.is_empty());
        assert_eq!(service.engine.requests(), Default::default(), "nothing was sent");
    }
}

#[tokio::test]
async fn a_callback_signature_is_shown_by_no_answer() {
    for status in [StatusCode::OK, StatusCode::BAD_REQUEST] {
        let echo = move |body: Bytes| async move { (status, body) };
        let origin = serve(Router::new().route("/24.06/job", post(echo))).await;
        let setup = Setup::new().set("ENGINE__BASE_URL", format!("{origin}/24.06"));
        let service = setup.start().await;
        let answer = service.submit(&ready_job()).await;
        let echoed = answer.text();
        assert!(echoed.contains("/callbacks/"), "the Engine echoed the address: {echoed}");
        let id = service.jobs().await[0]["id"].clone();
        let mut answers = vec![echoed];
        for path in ["", "/events", "/deliveries", "/result"] {
            answers.push(service.get(&format!("/v1/jobs/{}{path}", text(&id))).await.text());
        }
        for answer in answers {
            let shown = answer.split("/callbacks/").skip(1).map(|rest| rest.split('"').next());
            for address in shown.flatten() {
                assert!(address.trim_end_matches('\\').ends_with("/[redacted]"), "{address}");
            }
        }
    }
}

#[tokio::test]
async fn one_token_serves_fifty_submissions_at_once() {
    let setup = Setup::new().engine(|options| options.token_delay = Duration::from_millis(100));
    let service = setup.start().await;
    let body = ready_job();
    let all = futures_util::future::join_all((0..50).map(|_| service.submit(&body))).await;
    assert!(all.iter().all(|answer| answer.status == 201));
    assert_eq!((service.engine.requests().tokens, service.engine.jobs().len()), (1, 50));
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let clock = Clock::manual("2026-03-01T00:00:00Z".parse().expect("a time"));
    let service = Setup::new().clock(&clock).start().await;
    let hour = Duration::from_secs(3600);
    service.submitted(&ready_job()).await;
    clock.advance(23 * hour);
    service.submitted(&ready_job()).await;
    assert_eq!(service.engine.tokens_issued(), 1, "a good token is kept");
    clock.advance(hour - Duration::from_secs(60));
    service.submitted(&ready_job()).await;
    assert_eq!(service.engine.tokens_issued(), 2, "a minute before its end there is a new one");
    assert_eq!(service.engine.requests().unauthorized, 0);
}

#[tokio::test]
async fn a_token_the_engine_forgot_is_replaced_once_and_the_job_taken_once() {
    let service = Service::start().await;
    service.submitted(&ready_job()).await;
    service.engine.forget_tokens();
    let job = service.submitted(&ready_job()).await;
    assert_eq!(job["status"], "submitted");
    let requests = service.engine.requests();
    assert_eq!((requests.tokens_issued, requests.unauthorized, requests.submissions), (2, 1, 3));
    assert_eq!(service.engine.jobs().len(), 2);
}

#[tokio::test]
async fn a_job_is_on_record_before_the_engine_hears_of_it() {
    let setup = Setup::new().engine(|options| options.hang = FaultRate::Always);
    let service = setup.start().await;
    let body = ready_job().to_string();
    let request = service.request(Method::POST, "/v1/jobs").body(body);
    let submission = tokio::spawn(request.send());
    within(service.engine.wait_until(|engine| engine.requests().submissions == 1)).await;
    let jobs = service.jobs().await;
    assert_eq!(jobs.len(), 1);
    assert_eq!((&jobs[0]["status"], &jobs[0]["submittedAt"]), (&json!("submitting"), &Value::Null));
    submission.abort();
}

#[tokio::test]
async fn a_callback_that_overtakes_the_reply_finds_its_job() {
    let setup = Setup::new().engine(|options| options.callback_before_reply = FaultRate::Always);
    let service = setup.start().await;
    for is_reply_lost in [FaultRate::Never, FaultRate::Always] {
        service.engine.set(|options| options.lose_reply = is_reply_lost);
        let job = service.submitted(&ready_job()).await;
        assert_eq!((&job["status"], &job["success"]), (&json!("succeeded"), &json!(true)));
        assert_eq!(job["deliveries"], 1);
        let id = text(&job["id"]);
        let result = service.get(&format!("/v1/jobs/{id}/result")).await.expect(200);
        assert_eq!(Some(result.body), service.engine.jobs().pop().and_then(|job| job.result));
        assert_eq!(service.job(id).await, job);
    }
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_stop_the_submission() {
    let setup = Setup::new().engine(|options| options.reply_delay = Duration::from_secs(1));
    let service = setup.start().await;
    let request = service.request(Method::POST, "/v1/jobs").body(ready_job().to_string());
    let caller = tokio::spawn(request.send());
    within(service.engine.wait_until(|engine| !engine.jobs().is_empty())).await;
    caller.abort();
    assert!(caller.await.expect_err("it was cut off").is_cancelled());
    let id = service.jobs().await[0]["id"].clone();
    let job = service.job_with_status(text(&id), "submitted").await;
    assert_eq!(job["engineJobId"], service.engine.jobs()[0].engine_job_id);
}
