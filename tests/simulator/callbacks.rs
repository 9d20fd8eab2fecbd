//! Callbacks that are repeated, contradicted, spoiled, dropped or out of order.

use std::{io::Read, time::Duration};

use axum::body::Bytes;
use finishline::simulator::{Conflict, FaultRate};
use serde_json::Value;

use super::{Receiver, json_of, ready_job, start, submit, within};

#[tokio::test]
async fn callbacks_are_retried_repeated_resigned_and_contradicted_as_told() {
    let simulator = start(|options| {
        options.callback_retries = 1;
        options.callback_retry_wait = Duration::ZERO;
        options.repeat_callbacks = 1;
        options.resign_repeats = true;
        options.conflicting_repeat = Conflict::Success;
    })
    .await;
    let receiver = Receiver::start().await;
    *receiver.refusals.lock().unwrap() = 1;
    submit(&simulator, &ready_job(&receiver.url)).await;
    within(simulator.wait_until(|simulator| simulator.callbacks().len() == 4)).await;
    let bodies = receiver.bodies();
    let readings: Vec<Value> =
        bodies.iter().map(|body| serde_json::from_slice(body).unwrap()).collect();
    assert_eq!(bodies[0], bodies[1], "a retry sends the same bytes");
    assert_ne!(bodies[1], bodies[2], "a repeat is signed again");
    assert_eq!(readings[1]["success"], readings[2]["success"]);
    assert_eq!(readings[3]["success"], false);
    let statuses: Vec<_> = simulator.callbacks().iter().map(|callback| callback.status).collect();
    assert_eq!(statuses, [Some(503), Some(200), Some(200), Some(200)]);
}

#[tokio::test]
async fn callback_bodies_are_spoiled_as_told() {
    let simulator = start(|options| {
        options.empty_callbacks = FaultRate::First(1);
        options.malformed_callbacks = FaultRate::First(1);
        options.callbacks_without_success = FaultRate::First(1);
        options.invalid_utf8_callbacks = FaultRate::First(1);
        options.repeat_callbacks = 4;
        options.chunked_callbacks = true;
        options.result_padding = 100_000;
        options.result_nesting = 200;
    })
    .await;
    let receiver = Receiver::start().await;
    submit(&simulator, &ready_job(&receiver.url)).await;
    within(simulator.wait_until(|simulator| simulator.answered_callbacks().len() == 5)).await;
    let bodies = receiver.bodies();
    assert_eq!(bodies[0], "");
    assert_eq!(bodies[1].len(), bodies[4].len() / 2);
    assert!(!String::from_utf8_lossy(&bodies[2]).contains("success"));
    assert!(std::str::from_utf8(&bodies[3]).is_err());
    assert!(bodies[4].len() > 100_000);
    assert_eq!(bodies[4].iter().filter(|byte| **byte == b'[').count(), 203);
    assert!(!receiver.received.lock().unwrap()[4].0.contains_key("content-length"));
    let sent: Vec<Bytes> =
        simulator.callbacks().into_iter().map(|callback| callback.body).collect();
    assert_eq!(sent, bodies);
}

#[tokio::test]
async fn callbacks_are_dropped_reordered_and_sent_before_the_reply_as_told() {
    let simulator = start(|options| {
        options.drop_callbacks = FaultRate::First(1);
        options.reorder_callbacks = FaultRate::First(1);
        options.callback_before_reply = FaultRate::Always;
    })
    .await;
    let receiver = Receiver::start().await;
    let mut ids = Vec::new();
    for taken in [0, 0, 2] {
        let reply = json_of(submit(&simulator, &ready_job(&receiver.url)).await).await;
        ids.push(reply["jobId"].as_str().unwrap().to_owned());
        assert_eq!(receiver.bodies().len(), taken);
    }
    let order: Vec<String> =
        simulator.callbacks().into_iter().map(|callback| callback.engine_job_id).collect();
    assert_eq!(order, [ids[2].clone(), ids[1].clone()]);
    assert_eq!(simulator.send_callback(&ids[0]).await, Some(200));
}

#[tokio::test]
async fn callbacks_are_repeated_at_once_and_gzip_encoded_as_told() {
    let simulator = start(|options| {
        options.repeat_callbacks = 4;
        options.repeat_concurrently = true;
        options.gzip_callbacks = true;
    })
    .await;
    let receiver = Receiver::start().await;
    submit(&simulator, &ready_job(&receiver.url)).await;
    within(simulator.wait_until(|simulator| simulator.answered_callbacks().len() == 5)).await;
    let result = simulator.jobs()[0].result.clone().unwrap();
    for (headers, body) in receiver.received.lock().unwrap().iter() {
        assert_eq!(headers["content-encoding"], "gzip");
        let mut decoded = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut decoded).unwrap();
        assert_eq!(decoded, result);
    }
}
