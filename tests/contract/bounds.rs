//! What a job, a result and a page may hold, at the doors of the running service; the table itself
//! is `domain/bounds.rs`, and its every row is tested there and beside its readers.

use std::collections::HashSet;

use axum::{Json, Router, routing::post};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::support::*;

const MAX_OUTPUTS: usize = 1_000;

/// The most that a page of small rows takes, and far less than the hostile ones hold.
const MIB: usize = 1024 * 1024;

/// Changes the database of a running service, as an older release may have left it.
async fn change(service: &Service, statement: &str) {
    let options = SqliteConnectOptions::new()
        .filename(&service.database)
        .busy_timeout(std::time::Duration::from_secs(10));
    let mut connection = SqliteConnection::connect_with(&options).await.expect("the database");
    sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.expect("it is changed");
}

fn pointers(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().expect("errors").iter().map(|one| text(&one["pointer"])).collect()
}

fn has_warning(job: &Value, words: &str) -> bool {
    job["warnings"].as_array().expect("warnings").iter().any(|one| text(one).contains(words))
}

/// Rows of every page of a list, and how many pages there were.
async fn pages(service: &Service, path: &str, member: &str) -> (Vec<Value>, usize) {
    let (mut rows, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let page = service.get(&format!("{path}{cursor}")).await.expect(200).json();
        pages += 1;
        let found = page[member].as_array().expect("a list");
        assert!(!found.is_empty() || page["nextCursor"].is_null(), "each page makes progress");
        rows.extend(found.iter().cloned());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (rows, pages),
        }
    }
}

#[tokio::test]
async fn a_submission_beyond_a_bound_is_refused_with_its_pointer_and_nothing_is_kept() {
    let service = Service::start().await;
    let input = |number: usize| (format!("i{number}"), json!({"extension": ".dcm"}));
    let outputs = |count: usize| json!({ "meshes": vec![json!({}); count] });
    let many: serde_json::Map<String, Value> = (0..101).map(input).collect();
    let long = "x".repeat(257);
    for (members, pointer) in [
        (json!({ "inputFiles": many }), "/inputFiles"),
        (json!({ "outputFiles": outputs(1_001) }), "/outputFiles"),
        (json!({ "outputFiles": outputs(100_000) }), "/outputFiles"),
        (
            json!({ "outputFiles": {"meshes": [{"structures": vec!["tooth11"; 201]}]} }),
            "/outputFiles/meshes/0/structures",
        ),
        (json!({ "endUserId": long }), "/endUserId"),
        (json!({ "cloudPackage": long }), "/cloudPackage"),
        (json!({ "externalJobId": long }), "/externalJobId"),
        (json!({ "finishline": {"reference": long} }), "/finishline/reference"),
        (json!({ "finishWebhook": format!("https://x/{}", "a".repeat(4_096)) }), "/finishWebhook"),
    ] {
        let answer = service.submit(&ready_job_with(members)).await;
        let problem = answer.problem(422, "validation-failed");
        assert_eq!(pointers(&problem), [pointer]);
        assert!(answer.body.len() < 2_000, "{}", answer.body.len());
    }
    let wrong: serde_json::Map<String, Value> =
        (0..5_000).map(|number| (format!("i{number}"), json!(7))).collect();
    let answer = service.submit(&ready_job_with(json!({ "inputFiles": wrong }))).await;
    assert_eq!(pointers(&answer.problem(422, "validation-failed")).len(), 20);
    for name in ["reference", "endUserId", "engineJobId", "cloudPackage", "externalJobId"] {
        let answer = service.get(&format!("/v1/jobs?{name}={long}")).await;
        assert_eq!(pointers(&answer.problem(422, "validation-failed")), [format!("/{name}")]);
    }
    assert!(service.jobs().await.is_empty() && service.engine.jobs().is_empty());
}

#[tokio::test]
async fn an_entry_of_the_engines_reply_beyond_a_bound_is_left_unmatched_and_the_reply_is_kept() {
    let long = format!("https://store.example/{}", "a".repeat(4_096));
    let reply = json!({
        "jobId": "e-1",
        "inputFiles": {
            "cbct": {"uploadUrl": long},
            "facial": {"uploadUrl": "https://store.example/facial"},
        },
    });
    let replied = reply.clone();
    let engine =
        serve(Router::new().route("/job", post(async move || Json(replied.clone())))).await;
    let service =
        Setup::new().set("ENGINE__BASE_URL", engine).set("ENGINE__AUTH__TOKEN_URL", "").start();
    let service = service.await;
    let inputs = json!({"cbct": {"extension": ".dcm"}, "facial": {"extension": ".obj"}});
    let job = service.submitted(&ready_job_with(json!({ "inputFiles": inputs }))).await;
    assert_eq!((&job["engineResponse"], &job["engineJobId"]), (&reply, &json!("e-1")));
    assert_eq!(job["inputs"][0]["uploadUrl"], Value::Null);
    assert_eq!(job["inputs"][1]["uploadUrl"], "https://store.example/facial");
    assert!(has_warning(&job, "left unmatched"), "{}", job["warnings"]);
}

#[tokio::test]
async fn an_entry_of_a_result_beyond_a_bound_is_left_unmatched_and_the_bytes_are_kept() {
    let service = Service::start().await;
    let entry = |members: Value| {
        let mut entry =
            json!({"extension": ".stl", "structures": ["mandible"], "status": "Available"});
        entry.as_object_mut().expect("an object").extend(members.as_object().unwrap().clone());
        entry
    };
    for beyond in [
        json!({ "url": format!("https://s.example/{}", "a".repeat(4_096)) }),
        json!({ "status": "s".repeat(257) }),
        json!({ "structures": vec!["mandible"; 201] }),
    ] {
        let job = service.submitted(&ready_job()).await;
        let id = text(&job["id"]);
        let body = json!({"success": true, "outputFiles": {"meshes": [entry(beyond)]}}).to_string();
        service.post_to(&service.callback_url(id), body.clone()).await.expect(200);
        assert_eq!(service.get(&format!("/v1/jobs/{id}/result")).await.expect(200).body, body);
        let job = service.job(id).await;
        assert_eq!(
            (&job["status"], &job["outputs"][0]["status"]),
            (&json!("succeeded"), &Value::Null)
        );
        assert_eq!(job["outputs"].as_array().expect("outputs").len(), 1);
        assert!(has_warning(&job, "left unmatched"), "{}", job["warnings"]);
    }
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let many = vec![r#"{"status":"Available"}"#; 200_000].join(",");
    let body = format!(r#"{{"success":true,"outputFiles":{{"meshes":[{many}]}}}}"#);
    service.post_to(&service.callback_url(id), body.clone()).await.expect(200);
    assert_eq!(service.get(&format!("/v1/jobs/{id}/result")).await.expect(200).body, body);
    let job = service.job(id).await;
    assert_eq!(job["outputs"].as_array().expect("outputs").len(), MAX_OUTPUTS);
    assert!(has_warning(&job, "1000 outputs"), "{}", job["warnings"]);
}

#[tokio::test]
async fn a_link_that_nobody_should_follow_is_null_with_a_warning_wherever_it_is_shown() {
    const BAD: [&str; 6] = [
        "javascript:alert(document.domain)",
        "data:text/html,hostile",
        "ftp://files.example/hostile",
        "https://hostile@files.example/a",
        "https://user:hostile@files.example/a",
        "https://files.example\\@hostile.example/a",
    ];
    let service = Service::start().await;
    for link in BAD {
        let job = service.submitted(&ready_job()).await;
        let id = text(&job["id"]);
        let fine = "https://files.example/fine?sig=1";
        let body = json!({"success": true, "outputFiles": {"meshes": [
            {"extension": ".stl", "structures": ["mandible"], "status": "Available", "url": link},
            {"extension": ".ply", "structures": ["skull"], "status": "Available", "url": fine},
        ]}})
        .to_string();
        service.post_to(&service.callback_url(id), body.clone()).await.expect(200);
        let result = service.get(&format!("/v1/jobs/{id}/result")).await.expect(200);
        assert_eq!(result.body, body, "the result stays as it came");
        let job = service.job(id).await;
        assert_eq!(
            (&job["outputs"][0]["url"], &job["outputs"][1]["url"]),
            (&Value::Null, &json!(fine))
        );
        assert_eq!(job["outputs"][0]["status"], "Available");
        assert!(has_warning(&job, "is not shown"), "{}", job["warnings"]);
        assert_eq!(service.jobs().await[0], job);
        let outputs = service.get(&format!("/v1/jobs/{id}/outputs")).await.expect(200).json();
        assert_eq!(outputs["outputs"], job["outputs"]);
        let page = service.get(&format!("/jobs/{id}")).await.expect(200);
        let page = String::from_utf8_lossy(&page.body).into_owned();
        assert!(page.contains("is not shown") && !page.contains("href=\"javascript"), "{link}");
    }
    // An older release may have taken them from a reply.
    let inputs = json!({"cbct": {"extension": ".dcm"}});
    let job = service.submitted(&ready_job_with(json!({ "inputFiles": inputs }))).await;
    for (column, member) in [("upload_url", "uploadUrl"), ("notify_url", "notifyUrl")] {
        assert!(job["inputs"][0][member].is_string(), "{member}");
        let statement = format!("update job_inputs set {column} = 'ftp://files.example/a'");
        change(&service, &statement).await;
        let shown = service.job(text(&job["id"])).await;
        assert_eq!(shown["inputs"][0][member], Value::Null);
        assert!(has_warning(&shown, "is not shown"));
    }
}

#[tokio::test]
async fn a_job_from_before_the_bounds_is_shown_in_part_says_so_and_takes_its_result() {
    // A debug build on a busy machine takes its time over 100,000 outputs.
    let service = Setup::new().set("SPOOL__WAIT", "1m").start().await;
    let inputs = json!({"cbct": {"extension": ".dcm"}});
    let mut ids = Vec::new();
    for _ in 0..3 {
        let job = service.submitted(&ready_job_with(json!({ "inputFiles": inputs }))).await;
        ids.push(text(&job["id"]).to_owned());
    }
    let numbers = "with recursive numbers (n) as (values (1) union all select n + 1 from numbers
         where n < 100000)";
    change(
        &service,
        &format!(
            "insert into job_outputs (job_seq, position, name, kind, kind_index, structures) {numbers}
             select seq, n, 'meshes-' || n, 'meshes', n, '[]' from jobs, numbers"
        ),
    )
    .await;
    change(
        &service,
        &format!(
            "insert into job_inputs (job_seq, position, name, extension, state) {numbers}
             select seq, n, 'i' || n, '.dcm', 'awaiting' from jobs, numbers where n < 5000"
        ),
    )
    .await;
    // One whose few rows are long instead.
    change(
        &service,
        "update job_outputs set structures = '[\"' || hex(zeroblob(200000)) || '\"]'
         where position < 50 and job_seq = (select max(seq) from jobs)",
    )
    .await;
    change(
        &service,
        "insert into events (job_id, type, at, data)
         select id, 'input.uploaded', created_at, '{\"input\":\"' || hex(zeroblob(500000)) || '\"}'
         from jobs",
    )
    .await;
    let (listed, _) = pages(&service, "/v1/jobs?limit=200", "jobs").await;
    assert_eq!(listed.len(), 3);
    for (job, outputs) in listed.iter().zip([0, MAX_OUTPUTS, MAX_OUTPUTS]) {
        assert_eq!(job["outputs"].as_array().expect("outputs").len(), outputs);
        assert_eq!(job["inputs"].as_array().expect("inputs").len(), 100);
        assert!(has_warning(job, "older than the bounds"), "{}", job["warnings"]);
        let id = text(&job["id"]);
        assert_eq!(service.job(id).await, *job);
        for path in [format!("/jobs/{id}"), format!("/v1/jobs/{id}/events")] {
            assert!(service.get(&path).await.expect(200).body.len() < MIB, "{path}");
        }
    }
    let stream = service.request(Method::GET, "/v1/jobs").header("accept", "application/x-ndjson");
    let lines = stream.send().await.expect("an answer").text().await.expect("the whole stream");
    assert_eq!(lines.lines().count(), 3);
    assert!(service.get("/jobs").await.expect(200).body.len() < MIB);
    for id in &ids {
        let body = r#"{"success":true,"outputFiles":{"meshes":[]}}"#;
        service.post_to(&service.callback_url(id), body).await.expect(200);
        assert_eq!(service.job(id).await["status"], "succeeded");
    }
}

#[tokio::test]
async fn a_list_of_large_jobs_ends_its_pages_early_and_leaves_none_out() {
    let service = Service::start().await;
    let padding = "x".repeat(900_000);
    let mut ids = Vec::new();
    for _ in 0..7 {
        let job = service.submitted(&ready_job_with(json!({ "padding": padding }))).await;
        ids.push(text(&job["id"]).to_owned());
    }
    ids.reverse();
    let of =
        |jobs: &[Value]| jobs.iter().map(|job| text(&job["id"]).to_owned()).collect::<Vec<_>>();
    let (jobs, count) = pages(&service, "/v1/jobs?limit=200", "jobs").await;
    assert_eq!(of(&jobs), ids);
    assert!(count > 3, "{count} pages");
    let stream = service.request(Method::GET, "/v1/jobs").header("accept", "application/x-ndjson");
    let lines = stream.send().await.expect("an answer").text().await.expect("the whole stream");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(of(&lines), ids);
    let page = service.get("/jobs").await.expect(200);
    let page = String::from_utf8_lossy(&page.body).into_owned();
    assert!(page.contains("Older →"), "the page of the list ends early too");
}

#[tokio::test]
async fn timelines_and_deliveries_are_paged() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let (id, callback) = (text(&job["id"]), service.callback_url(text(&job["id"])));
    for number in 0..7 {
        service.post_to(&callback, format!(r#"{{"number":{number}}}"#)).await.expect(200);
    }
    let mut cursors = Vec::new();
    for (list, key) in [("events", "seq"), ("deliveries", "id")] {
        let path = format!("/v1/jobs/{id}/{list}");
        let whole = service.get(&path).await.expect(200).json();
        assert!(whole["nextCursor"].is_null());
        let whole = whole[list].as_array().expect("a list").clone();
        assert!(whole.len() >= 7);
        for limit in [1, 3, 200] {
            let (rows, count) = pages(&service, &format!("{path}?limit={limit}"), list).await;
            assert_eq!(rows, whole);
            assert_eq!(count, whole.len().div_ceil(limit));
        }
        let distinct: HashSet<String> = whole.iter().map(|row| row[key].to_string()).collect();
        assert_eq!(distinct.len(), whole.len());
        for query in ["limit=0", "limit=201", "limit=x", "cursor=x", "cursor=", "page=2"] {
            let answer = service.get(&format!("{path}?{query}")).await;
            answer.problem(422, "validation-failed");
        }
        let first = service.get(&format!("{path}?limit=1")).await.expect(200).json();
        cursors.push(text(&first["nextCursor"]).to_owned());
    }
    let swapped = service.get(&format!("/v1/jobs/{id}/events?cursor={}", cursors[1])).await;
    swapped.problem(422, "validation-failed");
    let unknown = "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55";
    for list in ["events", "deliveries"] {
        service.get(&format!("/v1/jobs/{unknown}/{list}")).await.problem(404, "not-found");
    }
}
