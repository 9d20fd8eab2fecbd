//! Passing results on.

use axum::{http::StatusCode, response::IntoResponse};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::receiver::{HANG, Receiver, SECRET};
use crate::support::{Program, Service, Setup, ready_job, ready_job_with, serve, text, wait_for};

fn targets(receiver: &Receiver) -> String {
    json!([{ "name": "app", "url": receiver.url, "secret": SECRET }]).to_string()
}

async fn relays(service: &Service, query: &str) -> Vec<Value> {
    let answer = service.get(&format!("/v1/relays{query}")).await.expect(200).json();
    answer["relays"].as_array().expect("relays").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_reaches_its_target_byte_for_byte_and_signed() {
    let receiver = Receiver::start().await;
    let service = Setup::new().set("RELAY__TARGETS", targets(&receiver)).start().await;
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    let received = wait_for("the relay", async || receiver.received().first().cloned()).await;
    let path = format!("/v1/jobs/{}/result", text(&job["id"]));
    assert_eq!(received.body, service.get(&path).await.expect(200).text());
    assert_eq!(received.job_id, text(&job["id"]));
    assert_eq!(received.headers["content-type"], "application/json");
    let relay = wait_for("the record", async || {
        relays(&service, "?state=delivered").await.into_iter().next()
    })
    .await;
    assert_eq!(relay["webhookId"], received.webhook_id.as_str());
    assert_eq!(
        (&relay["target"], &relay["attempts"], &relay["lastStatus"]),
        (&json!("app"), &json!(1), &json!(204))
    );
    assert_eq!(relay["nextAttemptAt"], Value::Null);
}

/// The secret of a job's own target, as the documentation says that it is made.
fn secret_of(host: &str) -> String {
    let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap();
    let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(host);
    format!("whsec_{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_can_be_read_from_what_is_signed() {
    let receiver = Receiver::start().await;
    receiver.answering(|n| match n {
        0 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => StatusCode::OK.into_response(),
    });
    let service = Setup::new()
        .set("RELAY__TARGETS", targets(&receiver))
        .set("RELAY__SCHEDULE", r#"["1ms"]"#)
        .start()
        .await;
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    let relay = wait_for("the relay", async || {
        relays(&service, "?state=delivered").await.into_iter().next()
    })
    .await;
    // The receiver keeps only what the official crate has verified.
    let expected = format!("msg_{}_{}", text(&job["id"]), text(&relay["id"]));
    assert_eq!(relay["webhookId"], expected);
    let resend = format!("/v1/relays/{}/resend", text(&relay["id"]));
    service.post(&resend, "").await.expect(202);
    let received = wait_for("the third attempt", async || {
        Some(receiver.received()).filter(|received| received.len() == 3)
    })
    .await;
    for one in received {
        assert_eq!(one.webhook_id, expected, "the same in every try and re-send");
        assert_eq!(one.webhook_id.split('_').nth(1), Some(one.job_id.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_of_a_job_s_own_webhook_has_a_secret_of_its_own() {
    let by_address = Receiver::holding(&secret_of("127.0.0.1")).await;
    let by_name = Receiver::holding(&secret_of("localhost")).await;
    assert_ne!(secret_of("127.0.0.1"), secret_of("localhost"));
    let service = Setup::new()
        .set("RELAY__SECRET", SECRET)
        .set("RELAY__ALLOWED_HOSTS", r#"["*"]"#)
        .set("OUTBOUND__ALLOW_PRIVATE", true)
        .set("OUTBOUND__ALLOW_HTTP", true)
        .start()
        .await;
    for (receiver, spelling) in
        [(&by_address, "127.0.0.1"), (&by_address, "0x7f.1"), (&by_name, "LocalHost")]
    {
        let hook = receiver.url.replace("127.0.0.1", spelling);
        let before = receiver.received().len();
        let job = service.submitted(&ready_job_with(json!({ "finishWebhook": hook }))).await;
        service.finish(&job).await;
        wait_for("the relay", async || (receiver.received().len() > before).then_some(())).await;
    }
    // Who holds the secret of one host proves nothing to another.
    let hook = by_name.url.clone();
    let job = service.submitted(&ready_job_with(json!({ "finishWebhook": hook }))).await;
    service.finish(&job).await;
    let query = format!("?jobId={}", text(&job["id"]));
    let refused = wait_for("the answer", async || {
        let relay = relays(&service, &query).await.into_iter().next();
        relay.filter(|relay| !relay["lastStatus"].is_null())
    })
    .await;
    assert_eq!(refused["lastStatus"], 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_a_job_s_own_webhook_goes_unsigned() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = seen.clone();
    let hook = axum::routing::post(async move |headers: axum::http::HeaderMap| {
        keep.lock().unwrap().push(headers);
    });
    let own = format!("{}/hook", serve(axum::Router::new().route("/hook", hook)).await);
    let service = Setup::new()
        .set("RELAY__ALLOWED_HOSTS", r#"["*"]"#)
        .set("OUTBOUND__ALLOW_PRIVATE", true)
        .set("OUTBOUND__ALLOW_HTTP", true)
        .start()
        .await;
    let job = service.submitted(&ready_job_with(json!({ "finishWebhook": own }))).await;
    service.finish(&job).await;
    let headers = wait_for("the relay", async || seen.lock().unwrap().first().cloned()).await;
    assert!(!headers.contains_key("webhook-signature"), "{headers:?}");
    let id = headers["webhook-id"].to_str().unwrap();
    assert!(id.starts_with(&format!("msg_{}_", text(&job["id"]))), "{id}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_s_own_webhook_gets_its_result_through_the_guard() {
    let receiver = Receiver::holding(&secret_of("127.0.0.1")).await;
    let service = Setup::new()
        .set("RELAY__SECRET", SECRET)
        .set("RELAY__ALLOWED_HOSTS", r#"["127.0.0.1"]"#)
        .set("OUTBOUND__ALLOW_PRIVATE", true)
        .set("OUTBOUND__ALLOW_HTTP", true)
        .start()
        .await;
    let own = format!("{}?token=secret-of-the-caller", receiver.url);
    let job = service.submitted(&ready_job_with(json!({ "finishWebhook": own }))).await;
    service.finish(&job).await;
    wait_for("the relay", async || receiver.received().first().cloned()).await;
    let relay = relays(&service, &format!("?jobId={}", text(&job["id"]))).await.remove(0);
    assert!(receiver.url.starts_with(text(&relay["target"])));
    assert!(!relay.to_string().contains("secret-of-the-caller"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attempt_is_on_record_and_tried_again_under_the_same_id() {
    let receiver = Receiver::start().await;
    receiver.answering(|n| match n {
        0 => (StatusCode::INTERNAL_SERVER_ERROR, "x".repeat(10_000)).into_response(),
        _ => StatusCode::OK.into_response(),
    });
    let service = Setup::new()
        .set("RELAY__TARGETS", targets(&receiver))
        .set("RELAY__SCHEDULE", r#"["10ms"]"#)
        .start()
        .await;
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    let relay = wait_for("the second attempt", async || {
        relays(&service, "?state=delivered").await.into_iter().next()
    })
    .await;
    let received = receiver.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].webhook_id, received[1].webhook_id);
    let detail =
        service.get(&format!("/v1/relays/{}", text(&relay["id"]))).await.expect(200).json();
    let log = detail["attemptLog"].as_array().expect("attempts");
    assert_eq!((&log[0]["status"], &log[1]["status"]), (&json!(500), &json!(200)));
    assert_eq!(text(&log[0]["answer"]).len(), 4096);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_last_try_an_order_is_dead_until_it_is_ordered_again() {
    let receiver = Receiver::start().await;
    receiver.answering(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response());
    let service = Setup::new()
        .set("RELAY__TARGETS", targets(&receiver))
        .set("RELAY__SCHEDULE", r#"["1ms", "1ms"]"#)
        .start()
        .await;
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    let dead = wait_for("it to be dead", async || {
        relays(&service, "?state=dead").await.into_iter().next()
    })
    .await;
    assert_eq!(dead["attempts"], 3, "two waits are three tries");
    receiver.answering(|_| StatusCode::OK.into_response());
    let dry = service.post("/v1/relays/resend", r#"{"state":"dead","dryRun":true}"#).await;
    assert_eq!(dry.expect(200).json(), json!({ "relays": 1, "dryRun": true }));
    assert_eq!(relays(&service, "?state=dead").await.len(), 1, "a dry run changes nothing");
    service.post("/v1/relays/resend", "{}").await.problem(422, "validation-failed");
    let path = format!("/v1/relays/{}/resend", text(&dead["id"]));
    assert_eq!(service.post(&path, "").await.expect(202).json()["state"], "pending");
    wait_for("it to be taken", async || {
        relays(&service, "?state=delivered").await.into_iter().next()
    })
    .await;
    let ids: Vec<String> = receiver.received().into_iter().map(|one| one.webhook_id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_wants_no_more_is_obeyed() {
    let receiver = Receiver::start().await;
    receiver.answering(|_| StatusCode::GONE.into_response());
    let service = Setup::new().set("RELAY__TARGETS", targets(&receiver)).start().await;
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    let dead =
        wait_for("it to stop", async || relays(&service, "?state=dead").await.into_iter().next())
            .await;
    assert_eq!((&dead["attempts"], &dead["lastStatus"]), (&json!(1), &json!(410)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_keeps_failing_is_left_alone_and_shown() {
    let receiver = Receiver::start().await;
    receiver.answering(|_| StatusCode::BAD_GATEWAY.into_response());
    let service = Setup::new()
        .set("RELAY__TARGETS", targets(&receiver))
        .set("RELAY__SCHEDULE", r#"["1h"]"#)
        .finishing_at_once()
        .start()
        .await;
    for _ in 0..30 {
        service.submitted(&ready_job()).await;
    }
    let paused = wait_for("the pause", async || {
        Some(relays(&service, "?state=paused").await).filter(|paused| paused.len() == 30)
    })
    .await;
    assert_eq!(paused.len(), 30, "none is dropped");
    let attempts = receiver.received().len();
    assert!((10..=13).contains(&attempts), "ten failures and what was under way: {attempts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_a_person_orders_again_goes_at_once_though_its_target_is_paused() {
    let receiver = Receiver::start().await;
    receiver.answering(|_| StatusCode::BAD_GATEWAY.into_response());
    let service = Setup::new()
        .set("RELAY__TARGETS", targets(&receiver))
        .set("RELAY__SCHEDULE", r#"["1h"]"#)
        .finishing_at_once()
        .start()
        .await;
    for _ in 0..30 {
        service.submitted(&ready_job()).await;
    }
    let paused = wait_for("the pause", async || {
        Some(relays(&service, "?state=paused").await).filter(|paused| paused.len() == 30)
    })
    .await;
    // While the target is down, each order is one attempt, and those that nobody ordered wait. The
    // newest came last: whatever is due stands before it.
    let order = async |relay: &Value| {
        let before = receiver.received().len();
        let path = format!("/v1/relays/{}/resend", text(&relay["id"]));
        assert_eq!(service.post(&path, "").await.expect(202).json()["state"], "pending");
        wait_for("the attempt that was ordered", async || {
            (receiver.received().len() > before).then_some(())
        })
        .await;
        let attempted = receiver.received().split_off(before);
        assert_eq!(attempted.len(), 1, "one order is one attempt");
        assert_eq!(attempted[0].webhook_id, text(&relay["webhookId"]));
        let attempts = relay["attempts"].as_u64().expect("a number") + 1;
        wait_for("its record", async || {
            let shown = service.get(&format!("/v1/relays/{}", text(&relay["id"]))).await;
            (shown.expect(200).json()["attempts"] == attempts).then_some(())
        })
        .await;
    };
    order(&paused[0]).await;
    order(&paused[1]).await;
    // Many at once are one probe, and the others wait for what it finds.
    let before = receiver.received().len();
    let all = service.post("/v1/relays/resend", r#"{"state":"paused"}"#).await.expect(202);
    assert_eq!(all.json()["relays"], 30);
    wait_for("the probe", async || (receiver.received().len() > before).then_some(())).await;
    wait_for("the pause", async || {
        (relays(&service, "?state=paused").await.len() == 30).then_some(())
    })
    .await;
    assert_eq!(receiver.received().len(), before + 1);
    // The target is well again: the order that finds it so ends the pause for all that are due.
    receiver.answering(|_| StatusCode::OK.into_response());
    let path = format!("/v1/relays/{}/resend", text(&paused[7]["id"]));
    service.post(&path, "").await.expect(202);
    wait_for("all to be taken", async || Some(receiver.taken()).filter(|taken| taken.len() >= 29))
        .await;
    let first = receiver.received().into_iter().find(|one| one.status == 200).expect("one");
    assert_eq!(first.webhook_id, text(&paused[7]["webhookId"]), "the one that was ordered");
}

/// The receiver fails at random, hangs and restarts, and the service is killed five times: each
/// result arrives at least once, under one id. What is not signed well is not received.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_results_survive_a_bad_target_and_five_kills() {
    const RESULTS: usize = 1_000;
    let receiver = Receiver::start().await;
    receiver.answering(|n| match rand::random::<u8>() {
        _ if n % 200 == 50 => HANG.into_response(),
        0..30 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        30..60 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => StatusCode::OK.into_response(),
    });
    let folder = tempfile::tempdir().unwrap();
    let targets = targets(&receiver);
    let waits = json!(vec!["20ms"; 200]).to_string();
    let settings = [
        ("ENGINE__AUTH__TOKEN_URL", ""),
        ("CALLBACKS__INBOX_SECRET", "an-inbox-secret-of-tests"),
        ("CALLBACKS__PUBLIC_URL", "http://127.0.0.1:9"),
        ("RELAY__TARGETS", targets.as_str()),
        ("RELAY__SCHEDULE", waits.as_str()),
        ("RELAY__TIMEOUT", "2s"),
    ];
    let http = crate::support::http_client();
    let mut stored = 0;
    for kill in 0..5 {
        let mut program = Program::serve(folder.path(), &settings).await;
        let so_far = receiver.received().len();
        let upto = RESULTS * (kill + 1) / 5;
        while stored < upto {
            let url = format!("{}/inbox/an-inbox-secret-of-tests", program.callbacks);
            let body = json!({ "jobId": format!("e-{stored}"), "success": true });
            let answer = http.post(&url).json(&body).send().await.expect("an answer");
            assert_eq!(answer.status(), 200);
            stored += 1;
            if stored % 150 == 75 {
                receiver.restart();
            }
        }
        wait_for("some relays", async || (receiver.received().len() > so_far + 20).then_some(()))
            .await;
        program.kill();
    }
    let _program = Program::serve(folder.path(), &settings).await;
    let mut taken = receiver.taken();
    while taken.len() < RESULTS {
        let so_far = taken.len();
        taken = wait_for("more results to be passed on", async || {
            Some(receiver.taken()).filter(|taken| taken.len() > so_far)
        })
        .await;
    }
    for (job_id, ids) in taken {
        assert!(ids.iter().all(|id| *id == ids[0]), "{job_id} came under {ids:?}");
    }
}
