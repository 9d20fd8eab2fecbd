//! Submitting, and looking at jobs.

use serde_json::{Value, json as json_of};

use crate::{
    ask, assert_failed, json, shown,
    support::{Service, Setup, ready_job, ready_job_with, text},
};

fn labelled(reference: &str) -> Value {
    ready_job_with(json_of!({ "finishline": { "reference": reference } }))
}

async fn submit(service: &Service, body: &Value, more: &[&str]) -> crate::support::Ended {
    std::fs::write(service.folder().join("job.json"), body.to_string()).unwrap();
    let mut args = vec!["submit", "job.json"];
    args.extend(more);
    ask(service, &args).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_submitted_and_shown() {
    let service = Service::start().await;
    let ended = submit(&service, &labelled("case-42"), &["--json"]).await;
    let job = json(&ended);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(job, service.job(text(&job["id"])).await);

    let ended = submit(&service, &labelled("case-43"), &[]).await;
    for fact in ["submitted", "case-43", "cbct", ".dcm", "provided", "meshes-0", "mandible"] {
        assert!(shown(&ended).contains(fact), "{fact}: {}", ended.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_never_makes_two_jobs() {
    let service = Service::start().await;
    let args = ["--idempotency-key", "key-1", "--json"];
    let first = submit(&service, &ready_job(), &args).await;
    let again = submit(&service, &ready_job(), &args).await;
    assert_eq!(json(&first)["id"], json(&again)["id"]);
    assert!(again.stderr.contains("on record already"), "{}", again.stderr);
    let other = submit(&service, &labelled("other"), &args).await;
    assert_failed(&other, 1, &["idempotency-mismatch"]);
    assert_eq!(service.jobs().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_had_ends_with_1_and_says_why() {
    let service = Service::start().await;
    let ended = submit(&service, &json_of!({}), &[]).await;
    assert_failed(&ended, 1, &["validation-failed", "/inputFiles", "/outputFiles"]);
    service.engine.set(|options| options.answer = Some(400));
    let ended = submit(&service, &ready_job(), &[]).await;
    let id = text(&service.jobs().await[0]["id"]).to_owned();
    assert_failed(&ended, 1, &["engine-rejected", &format!("finishline jobs show {id}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_jobs_is_a_table_or_the_json_of_the_api() {
    let service = Service::start().await;
    let mut ids = Vec::new();
    for reference in ["first", "second", "third"] {
        ids.push(text(&service.submitted(&labelled(reference)).await["id"]).to_owned());
    }
    let table = ask(&service, &["jobs", "list"]).await;
    let lines: Vec<&str> = shown(&table).lines().collect();
    assert!(lines[0].starts_with("ID ") && lines[0].contains("STATUS"), "{}", lines[0]);
    assert_eq!(lines.len(), 4);
    for (line, (id, reference)) in
        lines[1..].iter().zip(ids.iter().zip(["first", "second", "third"]).rev())
    {
        assert!(line.starts_with(id.as_str()) && line.contains(reference), "{line}");
        let column = lines[0].find("STATUS").unwrap();
        assert!(line[column..].starts_with("submitted"), "aligned: {line}");
    }
    let listed = ask(&service, &["jobs", "list", "--json"]).await;
    assert_eq!(listed.stdout.trim_end(), service.get("/v1/jobs").await.text());
    let few = ask(&service, &["jobs", "list", "--limit", "2"]).await;
    assert_eq!((few.stdout.lines().count(), few.code), (3, Some(0)));
    assert_eq!(few.stderr, "there are more: --all lists them\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_narrow_the_list() {
    let service = Service::start().await;
    let body = ready_job_with(json_of!({ "endUserId": "clinic 7", "cloudPackage": "gold" }));
    let done = service.submitted(&body).await;
    service.finish(&done).await;
    let open = service.submitted(&labelled("a&b=c d")).await;
    let (done, open) = (text(&done["id"]), text(&open["id"]));
    let found = async |args: &[&str], expected: &[&str]| {
        let mut all = vec!["jobs", "list", "--json"];
        all.extend(args);
        let listed = json(&ask(&service, &all).await);
        let ids = listed["jobs"].as_array().unwrap().iter().map(|job| text(&job["id"]));
        assert_eq!(ids.collect::<Vec<_>>(), expected, "{args:?}");
    };
    found(&["--status", "succeeded"], &[done]).await;
    found(&["--status", "succeeded,submitted"], &[open, done]).await;
    found(&["--end-user", "clinic 7", "--cloud-package=gold"], &[done]).await;
    found(&["--reference", "a&b=c d"], &[open]).await;
    found(&["--overdue"], &[]).await;
    found(&["--overdue", "false"], &[open, done]).await;
    found(&["--stale-callback"], &[]).await;
    found(&["--created-before", "2020-01-01T00:00:00Z"], &[]).await;
    found(&["--created-after", "2020-01-01T01:00:00+01:00", "--all"], &[open, done]).await;
    let job = service.job(done).await;
    found(&["--engine-job-id", text(&job["engineJobId"])], &[done]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pages_are_one_list() {
    let service = Service::start().await;
    let mut ids = Vec::new();
    for _ in 0..203 {
        ids.push(text(&service.submitted(&ready_job()).await["id"]).to_owned());
    }
    ids.reverse();
    let table = ask(&service, &["jobs", "list", "--all"]).await;
    let in_table: Vec<&str> =
        shown(&table).lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(in_table, ids);
    let listed = json(&ask(&service, &["jobs", "list", "--all", "--json"]).await);
    let in_json: Vec<&str> =
        listed["jobs"].as_array().unwrap().iter().map(|job| text(&job["id"])).collect();
    assert_eq!(in_json, ids);
    assert_eq!(listed["nextCursor"], Value::Null);
    let none = ask(&service, &["jobs", "list", "--all", "--json", "--status=failed"]).await;
    assert_eq!(json(&none), json_of!({ "jobs": [], "nextCursor": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_shown_with_its_links_but_not_their_signatures() {
    let service = Service::start().await;
    let job = service.submitted(&labelled("case-42")).await;
    let id = text(&job["id"]);
    let none = ask(&service, &["jobs", "result", id]).await;
    assert_failed(&none, 1, &[&format!("finishline jobs wait {id}")]);
    service.finish(&job).await;
    let page = ask(&service, &["jobs", "show", id]).await;
    for fact in [id, "succeeded", "case-42", "Available", "/outputs/", "?…"] {
        assert!(shown(&page).contains(fact), "{fact}: {}", page.stdout);
    }
    let as_json = json(&ask(&service, &["jobs", "show", id, "--json"]).await);
    assert_eq!(as_json, service.job(id).await);
    let url = text(&as_json["outputs"][0]["url"]);
    let (_, signature) = url.split_once('?').expect("a signed link");
    assert!(!page.stdout.contains(signature));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_leaves_byte_for_byte() {
    let service = Setup::new().engine(|options| options.result_padding = 300_000).start().await;
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    let id = text(&job["id"]);
    let sent = service.get(&format!("/v1/jobs/{id}/result")).await.expect(200).text();
    assert_eq!(shown(&ask(&service, &["jobs", "result", id]).await), sent);
    let file = service.folder().join("result.json");
    std::fs::write(&file, "what was there before").unwrap();
    assert_eq!(shown(&ask(&service, &["jobs", "result", id, "--output", "result.json"]).await), "");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), sent);
    let device = ask(&service, &["jobs", "result", id, "--output", "/dev/null"]).await;
    assert_eq!(shown(&device), "");
    let nowhere = ask(&service, &["jobs", "result", id, "--output", "no/such/folder"]).await;
    assert_failed(&nowhere, 1, &["no/such/folder"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_received_and_what_happened_is_shown() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    let id = text(&job["id"]);
    for (name, words) in
        [("deliveries", ["OUTCOME", "stored"]), ("events", ["job.submitted", "job.finished"])]
    {
        let table = ask(&service, &["jobs", name, id]).await;
        for word in words {
            assert!(shown(&table).contains(word), "{word}: {}", table.stdout);
        }
        let as_json = ask(&service, &["jobs", name, id, "--json"]).await;
        let expected = service.get(&format!("/v1/jobs/{id}/{name}")).await.text();
        assert_eq!(as_json.stdout.trim_end(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_looked_up_and_sent_again() {
    let service = Setup::new().engine(|options| options.answer = Some(503)).start().await;
    service.engine.set(|options| options.retry_after = Some(1));
    let refused = submit(&service, &ready_job(), &[]).await;
    assert_failed(&refused, 1, &["engine-busy"]);
    let id = text(&service.jobs().await[0]["id"]).to_owned();
    let look = ask(&service, &["jobs", "refresh", &id]).await;
    assert_failed(&look, 1, &["no-engine-id"]);

    service.engine.set(|options| options.answer = None);
    let sent = ask(&service, &["jobs", "resubmit", &id, "--json"]).await;
    assert_eq!(json(&sent)["status"], "submitted");
    let again = ask(&service, &["jobs", "resubmit", &id, "--confirm"]).await;
    assert_failed(&again, 1, &["validation-failed"]);
    let look = ask(&service, &["jobs", "refresh", &id]).await;
    assert_eq!(shown(&look), format!("{id}  submitted\n"));
    let look = ask(&service, &["jobs", "refresh", &id, "--json"]).await;
    assert_eq!(json(&look), service.job(&id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_and_the_deliveries_are_shown_to_their_end_however_many_pages_they_have() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let callback = service.callback_url(id);
    // As many as a job keeps, and some of them often enough for more events than a page has.
    let repeated = (0..11).flat_map(|number| [number; 10]);
    for number in (0..100).chain(repeated) {
        service.post_to(&callback, format!(r#"{{"number":{number}}}"#)).await.expect(200);
    }
    let first = service.get(&format!("/v1/jobs/{id}/events?limit=200")).await.json();
    assert!(first["nextCursor"].is_string(), "they need more than one page");
    for list in ["events", "deliveries"] {
        let all = json(&ask(&service, &["jobs", list, id, "--json"]).await);
        let rows = all[list].as_array().expect("a list");
        assert!(rows.len() >= 100 && all["nextCursor"].is_null(), "{list}: {}", rows.len());
        let lines = ask(&service, &["jobs", list, id]).await;
        let heading = usize::from(list == "deliveries");
        assert_eq!(shown(&lines).lines().count(), rows.len() + heading);
        if list == "events" {
            assert!(rows.len() > 200, "{}", rows.len());
        }
    }
}
