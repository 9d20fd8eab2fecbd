//! What can be done on a job's page, and that nobody else can make a browser do it.

use axum::{http::StatusCode, response::IntoResponse};
use finishline::simulator::FaultRate;
use reqwest::Method;
use serde_json::json;

use super::{form_token, post_form, support::*};

async fn page(service: &Service, id: &str) -> String {
    service.get(&format!("/jobs/{id}")).await.expect(200).text()
}

#[tokio::test]
async fn no_other_site_can_make_a_browser_change_anything() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let path = format!("/jobs/{id}/erase");
    let token = form_token(&page(&service, id).await);
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let genuine = format!("formToken={token}&confirm=yes");
    for (headers, body) in [
        (vec![], "confirm=yes".to_owned()),
        (vec![("origin", "null")], "confirm=yes&formToken=".to_owned()),
        (vec![("sec-fetch-site", "same-origin")], "confirm=yes&formToken=x".to_owned()),
        (vec![("origin", "https://evil.example")], genuine.clone()),
        (vec![("sec-fetch-site", "cross-site")], genuine.clone()),
        (vec![("sec-fetch-site", "same-site")], genuine.clone()),
    ] {
        let mut request = service.request(Method::POST, &path).header(kind.0, kind.1);
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let answer = Answer::of(request.body(body)).await.expect(403);
        assert!(answer.text().contains("forbidden-origin"), "{headers:?}");
    }
    for path in [path.as_str(), &format!("/jobs/{id}/refresh"), "/sign-out"] {
        let read = service.get(path).await;
        assert!(matches!(read.status, 200 | 405), "{path}: {}", read.status);
    }
    assert_eq!(service.job(id).await["status"], "submitted");
}

#[tokio::test]
async fn a_refresh_brings_the_result_that_no_callback_brought() {
    let service =
        Setup::new().engine(|options| options.drop_callbacks = FaultRate::Always).start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    assert!(service.engine.finish(text(&job["engineJobId"])));
    let token = form_token(&page(&service, id).await);
    let answer =
        post_form(&service, &format!("/jobs/{id}/refresh"), &[("formToken", &token)], "").await;
    let back = format!("/jobs/{id}?notice=refreshed");
    assert_eq!((answer.status, answer.header("location")), (303, Some(back.as_str())));
    let html = service.get(&back).await.expect(200).text();
    assert!(html.contains("The Engine was asked") && html.contains(">succeeded<"), "{html}");
}

#[tokio::test]
async fn an_unconfirmed_job_is_sent_again_only_by_someone_who_means_it() {
    let service = Setup::new().engine(|options| options.answer = Some(500)).start().await;
    let id = text(&service.submit(&ready_job()).await.json()["jobId"]).to_owned();
    service.engine.set(|options| options.answer = None);
    let html = page(&service, &id).await;
    assert!(html.contains("name=\"confirm\""), "{html}");
    let (path, token) = (format!("/jobs/{id}/resubmit"), form_token(&html));
    let answer = post_form(&service, &path, &[("formToken", &token)], "").await.expect(422);
    assert!(answer.text().contains("would run and bill it twice"), "{}", answer.text());
    let fields = [("formToken", token.as_str()), ("confirm", "yes")];
    post_form(&service, &path, &fields, "").await.expect(303);
    assert_eq!(service.job(&id).await["status"], "submitted");
}

#[tokio::test]
async fn a_dead_relay_is_shown_with_its_answers_and_sent_again() {
    let target =
        axum::routing::post(async || (StatusCode::BAD_GATEWAY, "no <b>room</b>").into_response());
    let origin = serve(axum::Router::new().route("/hook", target)).await;
    let targets = json!([{"name": "app", "url": format!("{origin}/hook?token=of-the-target"),
        "secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}]);
    let setup = Setup::new().set("RELAY__TARGETS", targets).set("RELAY__SCHEDULE", "[]");
    let service = setup.start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    service.finish(&job).await;
    let html = wait_for("the relay to be dead", async || {
        Some(page(&service, id).await).filter(|html| html.contains(">dead<"))
    })
    .await;
    assert!(html.contains("no &lt;b&gt;room&lt;/b&gt;") && html.contains(">502<"), "{html}");
    assert!(!html.contains("of-the-target"), "{html}");
    let (_, rest) = html.split_once("/relays/").expect("a form");
    let relay = rest.split('/').next().expect("an id");
    let path = format!("/jobs/{id}/relays/{relay}/resend");
    post_form(&service, &path, &[("formToken", &form_token(&html))], "").await.expect(303);
    wait_for("another attempt", async || {
        let relay = service.get(&format!("/v1/relays/{relay}")).await.json();
        (relay["attempts"] == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_job_is_erased_after_it_was_asked_for_twice() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let path = format!("/jobs/{id}/erase");
    let asked = service.get(&path).await.expect(200).text();
    assert!(asked.contains("Erase this job?") && asked.contains("would be lost"), "{asked}");
    let token = form_token(&asked);
    let hasty = post_form(&service, &path, &[("formToken", &token)], "").await;
    assert_eq!(hasty.header("location"), Some(&*format!("/jobs/{id}?notice=unconfirmed")));
    let fields = [("formToken", token.as_str()), ("confirm", "yes")];
    let done = post_form(&service, &path, &fields, "").await;
    assert_eq!((done.status, done.header("location")), (303, Some("/jobs?notice=erased")));
    assert!(service.get("/jobs?notice=erased").await.expect(200).text().contains("are erased"));
    service.get(&format!("/jobs/{id}")).await.expect(410);
}
