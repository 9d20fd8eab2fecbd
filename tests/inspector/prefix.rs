//! The whole API door behind a path that a real nginx puts in front of it.

use std::collections::{BTreeSet, VecDeque};

use reqwest::Method;
use serde_json::json;

use super::{cookie_of, form_token, support::*};

const KEY: &str = "key-of-a-prefix-reader-0123";
const PREFIX: &str = "/finishline";

/// A service that is told its path, and nginx, which takes it off.
async fn started() -> Option<(Service, Nginx)> {
    let service = Setup::new()
        .key(KEY)
        .set("API__KEYS", json!([{ "name": "support", "key": KEY }]))
        .set("API__PUBLIC_URL", format!("http://127.0.0.1{PREFIX}"))
        .finishing_at_once()
        .start()
        .await;
    let api = &service.api;
    let nginx = Nginx::start(&format!(
        "server {{
            listen 127.0.0.1:{{port}};
            location {PREFIX}/ {{ proxy_pass {api}/; proxy_set_header Host $http_host; }}
        }}"
    ))
    .await?;
    Some((service, nginx))
}

/// Every address of our own that a page names.
fn addresses(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for attribute in ["href", "src", "action", "data-events", "data-mesh", "data-already"] {
        for rest in page.split(&format!(" {attribute}=\"")).skip(1) {
            let address = rest.split('"').next().expect("a value").replace("&amp;", "&");
            if address.starts_with('/') {
                found.push(address);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_path_every_link_of_every_page_leads_through_it() {
    let Some((service, nginx)) = started().await else { return };
    let job = service.submitted(&ready_job()).await;
    service.job_with_status(text(&job["id"]), "succeeded").await;
    service.submitted(&ready_job()).await;

    // As a browser: without a key, by the form.
    let http = http_client();
    let at = |path: &str| format!("{}{path}", nginx.origin());
    let first = Answer::of(http.get(at("/finishline/"))).await.expect(303);
    assert_eq!(first.header("location"), Some("/finishline/jobs"));
    let led = Answer::of(http.get(at("/finishline/jobs"))).await;
    let sign_in = led.header("location").expect("a form to sign in").to_owned();
    assert!(sign_in.starts_with("/finishline/sign-in?"), "{sign_in}");
    let form = Answer::of(http.get(at(&sign_in))).await.expect(200);
    assert!(form.text().contains("action=\"/finishline/sign-in\""), "{}", form.text());
    let fields =
        [("formToken", form_token(&form.text())), ("key", KEY.into()), ("next", "/jobs".into())];
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
    let request = http
        .post(at("/finishline/sign-in"))
        .header("origin", "null")
        .header("cookie", cookie_of(&form))
        .header("content-type", "application/x-www-form-urlencoded");
    let signed_in = Answer::of(request.body(body)).await.expect(303);
    assert_eq!(signed_in.header("location"), Some("/finishline/jobs"));
    let session = cookie_of(&signed_in);

    let mut seen = BTreeSet::new();
    let mut ahead = VecDeque::from(["/finishline/jobs".to_owned(), "/finishline/docs".to_owned()]);
    while let Some(address) = ahead.pop_front() {
        let address = address.split('#').next().unwrap_or_default().to_owned();
        // Only forms are sent there; they change something.
        let is_order = ["/sign-out", "/refresh", "/resubmit", "/resend"];
        if is_order.iter().any(|end| address.ends_with(end)) || !seen.insert(address.clone()) {
            assert!(address.starts_with("/finishline/"), "{address}");
            continue;
        }
        assert!(address.starts_with("/finishline/"), "{address}");
        let answer = Answer::of(http.get(at(&address)).header("cookie", &session)).await;
        assert!((200..400).contains(&answer.status), "{address}: {}", answer.text());
        let location = answer.header("location").filter(|location| location.starts_with('/'));
        ahead.extend(location.map(str::to_owned));
        if answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")) {
            ahead.extend(addresses(&answer.text()));
        }
    }
    for part in ["/assets/", "/overview", "/submit", "/v1/events", "/docs/", "/erase", "/result"] {
        assert!(seen.iter().any(|address| address.contains(part)), "{part}: {seen:?}");
    }
    assert!(seen.len() > 20, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_path_the_api_its_document_and_the_commands_lead_through_it() {
    let Some((service, nginx)) = started().await else { return };
    let api = format!("{}{PREFIX}", nginx.origin());
    let request = service
        .request_to(Method::POST, &format!("{api}/v1/jobs"))
        .header("content-type", "application/json");
    let submitted = Answer::of(request.body(ready_job().to_string())).await.expect(201);
    let location = submitted.header("location").expect("a location");
    let id = submitted.json()["id"].clone();
    assert_eq!(location, format!("{PREFIX}/v1/jobs/{}", text(&id)));
    let found = service.get_from(&nginx.origin(), location).await.expect(200);
    assert_eq!(found.json()["id"], id);

    let document = service.get_from(&api, "/openapi.json").await.expect(200).json();
    assert_eq!(document["servers"], json!([{ "url": PREFIX }]));
    let script = service.get_from(&api, "/docs/swagger-initializer.js").await.expect(200).text();
    assert!(script.contains("\"../openapi.json\""), "{script}");

    let environment = [("FINISHLINE_API", api.as_str()), ("FINISHLINE_KEY", KEY)];
    std::fs::write(service.folder().join("job.json"), ready_job().to_string()).expect("written");
    for args in [
        &["submit", "job.json", "--wait", "--download", "out"][..],
        &["jobs", "list"],
        &["jobs", "show", text(&id)],
        &["jobs", "result", text(&id)],
        &["events"],
        &["relays", "list"],
    ] {
        let ended = run_program(service.folder(), args, &environment).await;
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_path_nothing_is_put_in_front() {
    let service = Setup::new().set("API__PUBLIC_URL", "http://127.0.0.1/").start().await;
    let job = service.submit(&ready_job()).await.expect(201);
    let id = job.json()["id"].clone();
    assert_eq!(job.header("location"), Some(&*format!("/v1/jobs/{}", text(&id))));
    assert_eq!(service.get("/").await.expect(303).header("location"), Some("/jobs"));
    let page = service.get("/jobs").await.expect(200);
    assert!(page.text().contains(" href=\"/overview\""));
    let document = service.get("/openapi.json").await.expect(200).json();
    assert!(document["servers"].is_null(), "{}", document["servers"]);
}
