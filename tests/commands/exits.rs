//! Exit codes, and where a key comes from.

use serde_json::json as json_of;

use crate::{
    ask, ask_with, assert_failed, shown,
    support::{Service, Setup, dead_port, ready_job, run_program, text},
};

const READER: &str = "a-key-that-may-read-only";
const NOBODY: &str = "a-key-that-nobody-knows";

fn keys() -> String {
    json_of!([{ "name": "reader", "key": READER, "scopes": ["read"] }]).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_ends_with_2() {
    let service = Service::start().await;
    let id = "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55";
    for args in [
        &["jobs"][..],
        &["jobs", "show"],
        &["jobs", "show", "../stats"],
        &["jobs", "list", "--status", "done"],
        &["jobs", "list", "--limit", "0"],
        &["jobs", "list", "--limit", "201"],
        &["jobs", "list", "--limit", "5", "--all"],
        &["jobs", "list", "--created-after", "yesterday"],
        &["jobs", "list", "--overdue", "maybe"],
        &["jobs", "wait", id, "--timeout", "soon"],
        &["jobs", "erase", "--yes"],
        &["jobs", "erase", "--yes", id, "--end-user", "x"],
        &["jobs", "erase", "--yes", "--end-user", ""],
        &["relays", "resend"],
        &["relays", "resend", "--dry-run"],
        &["relays", "resend", id, "--state", "dead"],
        &["relays", "list", "--state", "gone"],
        &["events", "--after", "-1"],
        &["submit", "job.json", "--timeout", "1s"],
        &["submit", "job.json", "--idempotency-key", ""],
        &["completions", "powershell"],
        &["forward"],
        &["jobs", "list", "--api", "ftp://127.0.0.1"],
        &["jobs", "list", "--api", "http://me:word@127.0.0.1"],
        &["jobs", "list", "--key", "one", "--key-file", "two"],
        &["jobs", "list", "--key-file", "no-such-file"],
    ] {
        let ended = ask(&service, args).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{args:?}: {ended:?}");
        assert!(!ended.stderr.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_ends_with_1() {
    let service = Service::start().await;
    let id = "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55";
    for args in [["jobs", "show"], ["jobs", "wait"], ["jobs", "refresh"], ["relays", "show"]] {
        let ended = ask(&service, &[args[0], args[1], id]).await;
        assert_failed(&ended, 1, &["finishline: ", "not-found"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_there_ends_with_3() {
    let folder = tempfile::tempdir().unwrap();
    let dead = format!("http://{}", dead_port().await);
    std::fs::write(folder.path().join("job.json"), ready_job().to_string()).unwrap();
    let id = "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55";
    for args in [
        &["jobs", "list"][..],
        &["jobs", "wait", id],
        &["relays", "list"],
        &["events"],
        &["events", "--follow"],
        &["submit", "job.json"],
    ] {
        let mut all = vec!["--api", dead.as_str()];
        all.extend(args);
        assert_failed(&run_program(folder.path(), &all, &[]).await, 3, &[&dead, "does not answer"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_behind_the_address_ends_with_3() {
    let service = Service::start().await;
    let door = &service.callbacks;
    let ended = ask(&service, &["jobs", "list", "--api", &format!("{door}/elsewhere")]).await;
    assert_eq!(ended.code, Some(1), "a finishline, but not its API: {ended:?}");
    let router = axum::Router::new().fallback(async || "<html>");
    let other = crate::support::serve(router).await;
    let ended = ask(&service, &["jobs", "list", "--api", &other]).await;
    assert_failed(&ended, 3, &["does not answer as a finishline does"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_allowed_ends_with_3_and_no_key_is_shown() {
    let service = Setup::new().set("API__KEYS", keys()).start().await;
    assert_failed(&ask(&service, &["jobs", "list"]).await, 3, &["unauthorized"]);
    for args in [
        &["--key", NOBODY, "jobs", "list"][..],
        &["relays", "list", "--key", NOBODY],
        &["events", "--key", NOBODY],
        &["events", "--follow", "--key", NOBODY],
        &["forward", "--to", "http://127.0.0.1:9", "--key", NOBODY],
    ] {
        let ended = ask(&service, args).await;
        assert_failed(&ended, 3, &["unauthorized"]);
        assert!(!ended.stderr.contains(NOBODY));
    }
    let id = "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55";
    let ended = ask(&service, &["jobs", "erase", "--yes", id, "--key", READER]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("forbidden-scope") && !ended.stderr.contains(READER));
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_stand_before_or_after_and_the_nearest_key_counts() {
    let service = Setup::new().set("API__KEYS", keys()).start().await;
    let file = service.folder().join("key");
    std::fs::write(&file, format!("{READER}\n")).unwrap();
    let file = file.to_str().unwrap();
    for args in [
        &["--key", READER, "--json", "jobs", "list"][..],
        &["jobs", "--key", READER, "--json", "list"],
        &["jobs", "list", "--key", READER, "--json"],
        &["jobs", "list", "--json", "--key-file", file],
    ] {
        let ended = ask_with(&service, args, &[("FINISHLINE_KEY", NOBODY)]).await;
        assert_eq!(shown(&ended), "{\"jobs\":[],\"nextCursor\":null}\n", "{args:?}");
    }
    let ended = ask_with(&service, &["jobs", "list"], &[("FINISHLINE_KEY", READER)]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // The flag is stronger than the environment, wherever it stands.
    let dead = format!("http://{}", dead_port().await);
    let environment = [("FINISHLINE_API", dead.as_str())];
    for args in [
        &["--api", &service.api, "jobs", "list", "--key", READER][..],
        &["jobs", "list", "--key", READER, "--api", &service.api],
    ] {
        let ended = run_program(service.folder(), args, &environment).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_below_a_path_is_found_there() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let api = service.api.clone();
    let proxy = axum::Router::new().route(
        "/finishline/v1/jobs",
        axum::routing::get(async move |uri: axum::http::Uri| {
            let query = uri.query().unwrap_or_default();
            let url = format!("{api}/v1/jobs?{query}");
            crate::support::http_client().get(url).send().await.unwrap().bytes().await.unwrap()
        }),
    );
    let url = format!("{}/finishline/", crate::support::serve(proxy).await);
    let ended = ask(&service, &["jobs", "list", "--api", &url]).await;
    assert!(shown(&ended).contains(text(&job["id"])));
}
