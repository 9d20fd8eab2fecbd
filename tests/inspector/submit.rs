//! The submit page as a browser without scripts uses it.

use reqwest::Method;
use serde_json::{Value, json};

use super::{form_token, post_form, sign_in, support::*};

async fn page(service: &Service) -> String {
    service.get("/submit").await.expect(200).text()
}

/// The page's hidden fields, and further ones.
fn fields<'a>(page: &'a str, further: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let hidden = |name: &str| {
        let before = format!("name=\"{name}\" value=\"");
        let (_, rest) = page.split_once(&before).expect("a hidden field");
        rest.split('"').next().expect("a value")
    };
    let mut fields =
        vec![("formToken", hidden("formToken")), ("idempotencyKey", hidden("idempotencyKey"))];
    fields.extend_from_slice(further);
    fields
}

const FILLED: &[(&str, &str)] = &[
    ("from", "fields"),
    ("input.cbct", "yes"),
    ("extension.cbct", ".nii.gz"),
    ("url.cbct", "https://store.example/scan.nii.gz"),
    ("extension.ios_upper", ".stl"),
    ("structure", "mandible"),
    ("structure", "left_nerve"),
    ("structures", "tooth11, tooth12"),
    ("spread", "each"),
    ("outputExtension", ".ply"),
    ("reference", "case \"42\""),
    ("body", "not looked at"),
];

#[tokio::test]
async fn the_form_makes_the_job_it_describes() {
    let service = Service::start().await;
    let answer = post_form(&service, "/submit", &fields(&page(&service).await, FILLED), "").await;
    let place = answer.expect(303).header("location").expect("a place").to_owned();
    let job = service.job(place.strip_prefix("/jobs/").expect("a job's page")).await;
    assert_eq!(job["reference"], "case \"42\"");
    assert_eq!(
        job["request"]["inputFiles"],
        json!({"cbct": {"extension": ".nii.gz", "downloadUrl": "https://store.example/scan.nii.gz"}})
    );
    let mesh = |name: &str| json!({"extension": ".ply", "structures": [name]});
    let meshes: Vec<Value> =
        ["mandible", "left_nerve", "tooth11", "tooth12"].into_iter().map(mesh).collect();
    assert_eq!(job["request"]["outputFiles"]["meshes"], json!(meshes));
}

#[tokio::test]
async fn a_page_makes_one_job_however_often_it_is_sent() {
    let service = Service::start().await;
    let body = ready_job_with(json!({"options": {"future": 1}})).to_string();
    let html = page(&service).await;
    let fields = fields(&html, &[("from", "json"), ("body", &body)]);
    let first = post_form(&service, "/submit", &fields, "").await.expect(303);
    let second = post_form(&service, "/submit", &fields, "").await.expect(303);
    assert_eq!(first.header("location"), second.header("location"));
    assert_eq!(service.engine.jobs().len(), 1);
    assert_eq!(service.jobs().await[0]["request"]["options"], json!({"future": 1}));
}

#[tokio::test]
async fn what_is_wrong_stands_at_its_field_and_nothing_filled_in_is_lost() {
    let service = Service::start().await;
    let html = page(&service).await;
    let wrong = [
        ("from", "fields"),
        ("input.cbct", "yes"),
        ("url.cbct", "ftp://<b>"),
        ("finishWebhook", "https://evil.example/<b>"),
        ("reference", "<b>kept</b>"),
    ];
    let answer = post_form(&service, "/submit", &fields(&html, &wrong), "").await.expect(422);
    let html = answer.text();
    for said in [
        "data-wrong=\"/inputFiles/cbct\">downloadUrl: expected an absolute http or https URL</p>",
        "data-wrong=\"/outputFiles\">expected an object with at least one entry</p>",
        "value=\"&lt;b&gt;kept&lt;/b&gt;\"",
        "name=\"input.cbct\" value=\"yes\" checked",
    ] {
        assert!(html.contains(said), "{said}: {html}");
    }
    assert!(!html.contains("<b>"), "{html}");
    let fields = fields(&html, &[("from", "json"), ("body", "{\"inputFiles\":")]);
    let html = post_form(&service, "/submit", &fields, "").await.expect(400).text();
    assert!(html.contains("The body is not JSON"), "{html}");
    assert!(html.contains("{&quot;inputFiles&quot;:</textarea>"), "{html}");
    assert!(service.jobs().await.is_empty());
}

#[tokio::test]
async fn what_the_engine_refuses_is_shown_with_its_words_and_the_job() {
    let service = Setup::new().engine(|options| options.answer = Some(422)).start().await;
    let html = page(&service).await;
    let answer = post_form(&service, "/submit", &fields(&html, FILLED), "").await;
    let again = answer.text();
    let job = service.jobs().await.remove(0);
    assert!(again.contains(&format!("href=\"/jobs/{}\"", text(&job["id"]))), "{again}");
    assert!(again.contains("It is on record as a job"), "{again}");
}

#[tokio::test]
async fn only_a_key_that_may_submit_is_offered_the_page() {
    let keys = json!([{"name": "reader", "key": "key-of-someone-who-reads", "scopes": ["read"]}]);
    let service = Setup::new().set("API__KEYS", keys).start().await;
    let (_, cookie) = sign_in(&service, "key-of-someone-who-reads", "/jobs").await;
    let get = async |path: &str| {
        Answer::of(service.request(Method::GET, path).header("cookie", &cookie)).await
    };
    let list = get("/jobs").await.expect(200).text();
    assert!(list.contains("href=\"/overview\"") && !list.contains("href=\"/submit\""), "{list}");
    assert!(get("/submit").await.expect(403).text().contains("forbidden-scope"));
    let token = form_token(&list);
    let answer = post_form(&service, "/submit", &[("formToken", &token)], &cookie).await;
    assert!(answer.expect(403).text().contains("forbidden-scope"));
}

#[tokio::test]
async fn no_other_site_can_make_a_browser_submit() {
    let service = Service::start().await;
    let form = format!("from=json&body={}", ready_job());
    let kind = "application/x-www-form-urlencoded";
    let request = service.request(Method::POST, "/submit").header("content-type", kind);
    let answer = Answer::of(request.header("origin", "https://evil.example").body(form)).await;
    assert!(answer.expect(403).text().contains("forbidden-origin"));
    assert!(service.jobs().await.is_empty());
}
