//! The simulator's own routes, its log, and its options.

use std::time::Duration;

use clap::Parser;
use finishline::simulator::{FaultRate, Options, Processing};
use serde_json::{Value, json};

use super::{Receiver, json_of, ready_job, start, submit, within};

#[tokio::test]
async fn another_process_can_drive_it_and_read_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.jsonl");
    let simulator = start(|options| {
        options.log = Some(path.clone());
        options.processing = Processing::Manual;
    })
    .await;
    let receiver = Receiver::start().await;
    let control = |path: &str| format!("{}/_simulator/{path}", simulator.origin());
    let client = reqwest::Client::new();
    let patch = json!({"fail_job": true, "token_life": "1m", "id_field": "externalJobId"});
    let options =
        json_of(client.patch(control("options")).json(&patch).send().await.unwrap()).await;
    assert_eq!(options["fail_job"], "always");
    assert_eq!(simulator.options().token_life, Duration::from_secs(60));
    let wrong =
        client.patch(control("options")).json(&json!({"unheard_of": 1})).send().await.unwrap();
    assert_eq!(wrong.status(), 400);

    let reply = json_of(submit(&simulator, &ready_job(&receiver.url)).await).await;
    let engine_job_id = reply["externalJobId"].as_str().unwrap();
    let finish = control(&format!("jobs/{engine_job_id}/finish"));
    assert_eq!(client.post(&finish).send().await.unwrap().status(), 200);
    within(simulator.wait_until(|simulator| simulator.answered_callbacks().len() == 1)).await;
    let again =
        client.post(control(&format!("jobs/{engine_job_id}/callback"))).send().await.unwrap();
    assert_eq!(json_of(again).await, json!({"status": 200}));

    let jobs = json_of(client.get(control("jobs")).send().await.unwrap()).await;
    assert_eq!(jobs[0]["success"], false);
    assert!(!jobs.to_string().contains("Bearer "), "tokens are never shown");
    let callbacks = json_of(client.get(control("callbacks")).send().await.unwrap()).await;
    assert_eq!(callbacks[1]["body"].as_str().unwrap().as_bytes(), receiver.bodies()[1]);
    let stats = json_of(client.get(control("stats")).send().await.unwrap()).await;
    assert_eq!(stats["callbacks"], json!({"sent": 2, "answered": 2, "held": 0}));
    let log = std::fs::read_to_string(path).unwrap();
    let types: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].clone())
        .collect();
    assert_eq!(types, ["job", "callback", "callback"]);
}

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    options: Options,
}

#[test]
fn every_option_is_a_flag() {
    let arguments = "simulate-engine --fail-job --lose-reply first:2 --drop-callbacks 0.5 --missing a,b \
        --write-uploads=false --lie-length -5 --id-field none --url-field downloadUrl --running 404 \
        --processing manual --token-life 60s --answer 429 --retry-after 3 --cut-downloads";
    let options = CommandLine::try_parse_from(arguments.split_whitespace()).unwrap().options;
    assert_eq!(options.fail_job, FaultRate::Always);
    assert_eq!(options.lose_reply, FaultRate::First(2));
    assert_eq!(options.drop_callbacks, FaultRate::Probability(0.5));
    assert_eq!(options.missing, ["a", "b"]);
    assert!(!options.write_uploads);
    assert_eq!((options.lie_length, options.answer), (-5, Some(429)));
    assert_eq!(options.processing, Processing::Manual);
    let json = serde_json::to_value(&options).unwrap();
    assert_eq!(json["running"], "404");
    assert_eq!(json["url_field"], "downloadUrl");
    assert_eq!(serde_json::from_value::<Options>(json).unwrap(), options);
}

#[test]
fn options_default_to_an_engine_that_behaves() {
    let options = Options::default();
    assert_eq!(options, CommandLine::parse_from(["simulate-engine"]).options);
    assert_eq!(options.link_life, Duration::from_secs(15 * 60));
    assert!(options.write_uploads && options.require_token);
    assert_eq!("0.25".parse(), Ok(FaultRate::Probability(0.25)));
    assert!("1.5".parse::<FaultRate>().is_err());
}
