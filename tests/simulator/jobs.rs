//! A job's way through the simulated Engine when nothing goes wrong, and who may not walk it.

use std::time::Duration;

use finishline::simulator::{FaultRate, JobState, Processing};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Receiver, call, json_of, ready_job, start, submit, token, within};

#[tokio::test]
async fn an_uploaded_scan_comes_back_as_a_result_and_its_poll_equals_its_callback() {
    let simulator = start(|options| {
        options.missing = vec!["tooth18".into()];
        options.check_uploads = true;
        options.processing = Processing::Manual;
    })
    .await;
    let receiver = Receiver::start().await;
    let token = token(&simulator).await;
    let job = json!({
        "inputFiles": {"cbct": {"extension": ".dcm"}},
        "outputFiles": {"meshes": [
            {"extension": ".stl", "structures": ["mandible"]},
            {"extension": ".stl", "structures": ["tooth18"]},
            {"extension": ".ply", "structures": ["mandible", "skull"]},
        ]},
        "finishWebhook": receiver.url,
    });
    let reply = json_of(submit(&simulator, &job).await).await;
    let engine_job_id = reply["jobId"].as_str().unwrap();
    let file = &reply["inputFiles"]["cbct"];
    let (upload_url, notify_url) =
        (file["uploadUrl"].as_str().unwrap(), file["notifyUrl"].as_str().unwrap());

    assert_eq!(call(Method::POST, notify_url, "", "").await.status(), 409, "nothing is uploaded");
    assert_eq!(call(Method::PUT, upload_url, "", "no scan").await.status(), 400);
    let mut scan = vec![0; 128];
    scan.extend(b"DICM and the rest");
    assert_eq!(call(Method::PUT, upload_url, "", scan.clone()).await.status(), 200);
    let poll_url = format!("{}/job/{engine_job_id}", simulator.base_url());
    assert_eq!(simulator.jobs()[0].state, JobState::Waiting);
    assert_eq!(call(Method::POST, notify_url, "", "").await.status(), 200);
    assert_eq!(simulator.jobs()[0].state, JobState::Processing);
    assert_eq!(call(Method::GET, &poll_url, &token, "").await.status(), 202);
    assert!(simulator.finish(engine_job_id));
    assert!(!simulator.finish(engine_job_id), "a job finishes once");

    within(simulator.wait_until(|simulator| simulator.answered_callbacks().len() == 1)).await;
    let polled = call(Method::GET, &poll_url, &token, "").await.bytes().await.unwrap();
    assert_eq!(receiver.bodies(), std::slice::from_ref(&polled));
    let accepted = &simulator.jobs()[0];
    assert_eq!(accepted.body, job.to_string());
    assert_eq!(accepted.inputs[0].upload.as_ref().unwrap().content, scan);
    assert_eq!((accepted.notified, accepted.polls), (1, 2));

    let result: Value = serde_json::from_slice(&polled).unwrap();
    assert_eq!(result["success"], true);
    let meshes = &result["outputFiles"]["meshes"];
    assert_eq!(meshes[1]["status"], "Missing");
    assert_eq!(meshes[1]["url"], Value::Null);
    let stl =
        call(Method::GET, meshes[0]["url"].as_str().unwrap(), "", "").await.bytes().await.unwrap();
    let triangles = u32::from_le_bytes(stl[80..84].try_into().unwrap()) as usize;
    assert!(triangles > 100);
    assert_eq!(stl.len(), 84 + 50 * triangles);
    assert!(is_closed(&stl));
    let ply =
        call(Method::GET, meshes[2]["url"].as_str().unwrap(), "", "").await.text().await.unwrap();
    let header = ply.split("end_header\n").next().unwrap();
    let count = |word: &str| -> usize {
        header.lines().find_map(|line| line.strip_prefix(word)).unwrap().trim().parse().unwrap()
    };
    let lines = ply.lines().count() - header.lines().count() - 1;
    assert_eq!(lines, count("element vertex") + count("element face"));
    simulator.stop().await;
}

/// Every edge of a closed surface is walked once in each direction.
fn is_closed(stl: &[u8]) -> bool {
    let mut edges = std::collections::HashSet::new();
    for triangle in stl[84..].chunks(50) {
        let corners: Vec<&[u8]> = triangle[12..48].chunks(12).collect();
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            if !edges.insert((corners[from], corners[to])) {
                return false;
            }
        }
    }
    edges.iter().all(|(from, to)| edges.contains(&(*to, *from)))
}

#[tokio::test]
async fn a_job_with_addresses_of_its_own_starts_at_once_and_its_files_go_there() {
    let simulator = start(|_| {}).await;
    let receiver = Receiver::start().await;
    let mut job = ready_job(&receiver.url);
    job["outputFiles"] = json!({"meshes": {"extension": ".obj", "uploadUrl": receiver.url}});
    let url = format!("{}/generic-job", simulator.base_url_of("v2"));
    let token = token(&simulator).await;
    assert_eq!(call(Method::POST, &url, &token, job.to_string()).await.status(), 200);
    let wrong = format!("{}/job", simulator.base_url_of("v2"));
    assert_eq!(call(Method::POST, &wrong, &token, job.to_string()).await.status(), 404);

    within(simulator.wait_until(|simulator| simulator.answered_callbacks().len() == 1)).await;
    let [file, callback] = &receiver.bodies()[..] else { panic!("a file and a callback") };
    assert!(file.starts_with(b"# engine-simulator\nv "));
    let result: Value = serde_json::from_slice(callback).unwrap();
    assert_eq!(
        result["outputFiles"]["meshes"],
        json!([{"extension": ".obj", "status": "Available"}])
    );
}

#[tokio::test]
async fn a_wrong_body_is_refused_and_never_accepted() {
    let simulator = start(|_| {}).await;
    let wrong = [
        json!([]),
        json!({"inputFiles": {}, "outputFiles": {"meshes": [{"extension": ".stl"}]}}),
        json!({"inputFiles": {"cbct": {}}, "outputFiles": {"meshes": [{"extension": ".stl"}]}}),
        json!({"inputFiles": {"cbct": {"extension": "dcm"}}, "outputFiles": {"meshes": [{"extension": ".stl"}]}}),
        json!({"inputFiles": {"cbct": {"extension": ".dcm"}}, "outputFiles": {"meshes": [{"extension": ".stl"}]}, "finishWebhook": "here"}),
    ];
    for body in wrong {
        let reply = submit(&simulator, &body).await;
        assert_eq!(reply.status(), 400, "{body}");
        assert!(json_of(reply).await["error"].is_string());
    }
    assert!(simulator.jobs().is_empty());
    assert_eq!(simulator.requests().submissions, 5);
}

#[tokio::test]
async fn a_token_is_good_until_its_life_ends_or_it_is_revoked() {
    let simulator = start(|options| options.token_life = Duration::from_secs(2)).await;
    let url = format!("{}/job/unknown", simulator.base_url());
    assert_eq!(call(Method::GET, &url, "made up", "").await.status(), 401);
    let first = token(&simulator).await;
    assert_eq!(call(Method::GET, &url, &first, "").await.status(), 404);
    within(async { while call(Method::GET, &url, &first, "").await.status() != 401 {} }).await;

    simulator.set(|options| {
        options.token_life = Duration::from_secs(3600);
        options.revoke_tokens = FaultRate::First(1);
    });
    let second = token(&simulator).await;
    let statuses =
        [call(Method::GET, &url, &second, "").await, call(Method::GET, &url, &second, "").await];
    assert_eq!(statuses.map(|reply| reply.status().as_u16()), [401, 401]);
    assert_eq!(call(Method::GET, &url, &token(&simulator).await, "").await.status(), 404);
    assert_eq!(simulator.tokens_issued(), 3);
}
