//! The list of jobs: filters, pages, search, marks.

use serde_json::json;

use super::support::*;

/// The values of an attribute, in their order.
fn all<'a>(html: &'a str, before: &str) -> Vec<&'a str> {
    html.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

fn unescaped(text: &str) -> String {
    text.replace("&amp;", "&")
}

#[tokio::test]
async fn an_empty_list_says_what_to_do_next_at_its_own_address() {
    let service = Service::start().await;
    let html = service.get("/jobs").await.expect(200).text();
    assert!(html.contains("finishline demo") && html.contains("ngrok http"), "{html}");
    assert!(html.contains(&format!("curl {}/v1/jobs", service.api)), "{html}");
    let html = service.get("/jobs?reference=nobody").await.expect(200).text();
    assert!(html.contains("No job fits"), "{html}");
}

#[tokio::test]
async fn every_page_keeps_the_filters_and_together_they_hold_each_job_once() {
    let service = Service::start().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let end_user = if number == 2 { "other & one" } else { "clinic & sons" };
        let job = service.submitted(&ready_job_with(json!({ "endUserId": end_user }))).await;
        if end_user.starts_with("clinic") {
            ids.push(text(&job["id"]).to_owned());
        }
    }
    ids.reverse();
    let mut path = "/jobs?endUserId=clinic+%26+sons&status=submitted&limit=3".to_owned();
    let mut shown: Vec<String> = Vec::new();
    loop {
        let html = service.get(&path).await.expect(200).text();
        shown.extend(all(&html, "data-row=\"").into_iter().map(str::to_owned));
        assert!(html.contains("name=\"endUserId\" value=\"clinic &amp; sons\""), "{html}");
        assert!(html.contains("name=\"status\" value=\"submitted\" checked"), "{html}");
        let Some(older) = all(&html, "rel=\"next\" href=\"").first().copied() else { break };
        path = unescaped(older);
        assert!(path.contains("endUserId=clinic+%26+sons&status=submitted&limit=3"), "{path}");
    }
    assert_eq!(shown, ids);
}

#[tokio::test]
async fn a_form_s_empty_fields_do_not_stay_in_the_address() {
    let service = Service::start().await;
    let answer = service.get("/jobs?status=failed&reference=&createdAfter=2026-11-23").await;
    let address = "/jobs?status=failed&createdAfter=2026-11-23T00%3A00%3A00.000Z";
    assert_eq!((answer.status, answer.header("location")), (303, Some(address)));
    let html = service.get(address).await.expect(200).text();
    assert!(html.contains("type=\"date\" name=\"createdAfter\" value=\"2026-11-23\""), "{html}");
}

#[tokio::test]
async fn a_search_leads_from_any_id_or_reference_to_its_job() {
    let target = json!([{"name": "app", "url": "http://127.0.0.1:9/hook",
        "secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}]);
    let service = Setup::new().set("RELAY__TARGETS", target).start().await;
    let body = json!({"endUserId": "u-1", "externalJobId": "x-1", "finishline": {"reference": "case & 7"}});
    let job = service.submitted(&ready_job_with(body)).await;
    let job = service.finish(&job).await;
    let id = text(&job["id"]);
    let first = async |path: &str, list: &str| {
        service.get(&format!("{path}?jobId={id}")).await.json()[list][0].clone()
    };
    let relay = first("/v1/relays", "relays").await;
    let delivery = service.get(&format!("/v1/jobs/{id}/deliveries")).await.json();
    let delivery = text(&delivery["deliveries"][0]["id"]).to_owned();
    let page = format!("/jobs/{id}");
    let at_relay = format!("{page}#relay-{}", text(&relay["id"]));
    for (words, expected) in [
        (id, &page),
        ("case & 7", &page),
        ("  u-1 ", &page),
        ("x-1", &page),
        (text(&job["engineJobId"]), &page),
        (&*delivery, &format!("{page}#delivery-{delivery}")),
        (text(&relay["id"]), &at_relay),
        (text(&relay["webhookId"]), &at_relay),
    ] {
        let query: String = url::form_urlencoded::byte_serialize(words.as_bytes()).collect();
        let answer = service.get(&format!("/search?q={query}")).await;
        let led = (answer.status, answer.header("location"));
        assert_eq!(led, (303, Some(expected.as_str())), "{words}");
    }
    service.submitted(&ready_job_with(json!({"endUserId": "u-1"}))).await;
    let answer = service.get("/search?q=u-1").await;
    assert_eq!(answer.header("location"), Some("/jobs?endUserId=u-1"), "several have it");
}

#[tokio::test]
async fn what_is_unusual_about_a_job_is_a_word_in_its_row() {
    let target = json!([{"name": "app", "url": "http://127.0.0.1:9/hook",
        "secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}]);
    let setup = Setup::new().set("RELAY__TARGETS", target).set("RELAY__SCHEDULE", r#"["10ms"]"#);
    let mut service = setup.start().await;
    let job = service.submitted(&ready_job()).await;
    service.submitted(&ready_job()).await;
    let url = service.callback_url(text(&job["id"]));
    service.finish(&job).await;
    service.post_to(&url, r#"{"success":false}"#).await.expect(200);
    wait_for("both marks", async || {
        let html = service.get("/jobs").await.expect(200).text();
        (html.contains(">conflict<") && html.contains(">dead relay<")).then_some(())
    })
    .await;
    let html = service.get("/jobs").await.text();
    assert!(!html.contains(">stale callback<"), "{html}");
    service.move_public_url("https://elsewhere.example");
    service.restart().await;
    let html = service.get("/jobs").await.expect(200).text();
    assert_eq!(html.matches(">stale callback<").count(), 1, "only the one in flight: {html}");
}
