//! Events: what was, and what comes.

use serde_json::Value;

use crate::{
    ask, json,
    process::Process,
    shown,
    support::{Service, ready_job, text},
};

fn types(events: &Value) -> Vec<&str> {
    events["events"].as_array().unwrap().iter().map(|event| text(&event["type"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_is_shown_to_its_end() {
    let service = Service::start().await;
    assert_eq!(shown(&ask(&service, &["events"]).await), "");
    let none = ask(&service, &["events", "--json"]).await;
    assert_eq!(json(&none), serde_json::json!({ "events": [] }));
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    let other = service.submitted(&ready_job()).await;

    let table = ask(&service, &["events"]).await;
    let lines: Vec<&str> = shown(&table).lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].contains("job.finished") && lines[1].contains(text(&job["id"])));
    let all = json(&ask(&service, &["events", "--json"]).await);
    assert_eq!(types(&all), ["job.submitted", "job.finished", "job.submitted"]);
    let first = all["events"][0]["seq"].to_string();
    let later = json(&ask(&service, &["events", "--json", "--after", &first]).await);
    assert_eq!(types(&later), ["job.finished", "job.submitted"]);
    let of_one = ["events", "--json", "--job", text(&other["id"])];
    assert_eq!(types(&json(&ask(&service, &of_one).await)), ["job.submitted"]);
    let beyond = json(&ask(&service, &["events", "--json", "--after", "1000"]).await);
    assert_eq!(types(&beyond), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_each_event_as_it_happens_over_a_restart() {
    let mut service = Service::start().await;
    let first = service.submitted(&ready_job()).await;
    let all = Process::start(&service, &["events", "--follow", "--after", "0", "--json"]);
    let id = text(&first["id"]).to_owned();
    let one = Process::start(&service, &["events", "--follow", "--after=0", "--job", &id]);
    all.shows(1).await;
    one.shows(1).await;
    service.finish(&first).await;
    all.shows(2).await;
    service.restart().await;
    let second = service.submitted(&ready_job()).await;
    service.finish(&second).await;
    let lines = all.shows(4).await;
    let events: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).expect("JSON in each line")).collect();
    let seen: Vec<(&str, &str)> =
        events.iter().map(|event| (text(&event["type"]), text(&event["jobId"]))).collect();
    let other = text(&second["id"]);
    assert_eq!(
        seen,
        [
            ("job.submitted", id.as_str()),
            ("job.finished", &id),
            ("job.submitted", other),
            ("job.finished", other)
        ]
    );
    assert_eq!(one.shows(2).await.len(), 2, "of the one job only");
}
