//! The overview: figures, drawings and what they say to those who do not see them.

use std::time::Duration;

use axum::{Router, http::StatusCode, routing::post};
use finishline::clock::Clock;
use serde_json::json;

use super::support::*;

async fn page(service: &Service) -> String {
    service.get("/overview").await.expect(200).text()
}

#[tokio::test]
async fn an_empty_service_has_an_overview_without_a_drawing() {
    let service = Service::start().await;
    let html = page(&service).await;
    assert!(html.contains("No job has finished yet"), "{html}");
    assert!(html.contains(&format!("http://{}", service.callbacks.trim_start_matches("http://"))));
    assert!(!html.contains("class=\"chart\""), "{html}");
    assert!(html.contains(env!("CARGO_PKG_VERSION")) && html.contains("Running since"), "{html}");
}

#[tokio::test]
async fn each_drawing_stands_there_as_text_too() {
    let clock = Clock::manual("2026-03-01T12:00:00Z".parse().expect("a time"));
    let service = Setup::new().clock(&clock).start().await;
    let first = service.submitted(&ready_job()).await;
    clock.advance(Duration::from_secs(90));
    service.finish(&first).await;
    clock.advance(Duration::from_secs(24 * 3600));
    service.submitted(&ready_job()).await;
    let html = page(&service).await;
    let told = "Jobs of each of the last 30 days. In all: 1 succeeded, 1 at the Engine";
    assert!(html.contains(&format!("role=\"img\" aria-label=\"{told}\"")), "{html}");
    assert!(html.contains("<title>2026-03-01: 1 succeeded</title>"), "{html}");
    assert!(html.contains("<title>2026-03-02: 1 at the Engine</title>"), "{html}");
    assert!(html.contains("<th scope=\"row\">2026-03-01</th><td>1</td>"), "{html}");
    let turnaround = "How long jobs took: p50 1 min 30 s, p95 1 min 30 s";
    assert!(html.contains(turnaround), "{html}");
    assert!(html.contains("href=\"/jobs?status=submitting&amp;status=submitted&amp;status=unconfirmed\"><strong>1</strong>"), "{html}");
}

#[tokio::test]
async fn a_public_url_that_is_not_known_is_told_with_what_to_do() {
    let agent = dead_port().await;
    let service = Setup::new()
        .set("CALLBACKS__PUBLIC_URL", "ngrok")
        .set("CALLBACKS__NGROK_API", format!("http://{agent}"))
        .start()
        .await;
    let html = page(&service).await;
    assert!(html.contains("not known") && html.contains("no ngrok agent answers"), "{html}");
    let port = service.callbacks.rsplit(':').next().expect("a port");
    assert!(html.contains(&format!("<code>ngrok http {port}</code>")), "{html}");
}

#[tokio::test]
async fn results_that_a_target_refuses_are_counted_for_it() {
    let refusing = Router::new().route("/", post(async || StatusCode::GONE));
    let target = serve(refusing).await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let targets = json!([{"name": "archive", "url": target, "secret": secret}]);
    let service = Setup::new()
        .set("RELAY__TARGETS", targets)
        .set("OUTBOUND__ALLOW_PRIVATE", "true")
        .set("OUTBOUND__ALLOW_HTTP", "true")
        .start()
        .await;
    let idle = page(&service).await;
    assert!(idle.contains("archive</th><td>0</td><td>0</td>"), "{idle}");
    assert!(idle.contains("up to date"), "{idle}");
    let job = service.submitted(&ready_job()).await;
    service.finish(&job).await;
    let html = wait_for("the order to be dead", async || {
        Some(page(&service).await).filter(|html| html.contains("archive</th><td>0</td><td>1</td>"))
    })
    .await;
    assert!(html.contains("given up") && html.contains("finishline relays resend"), "{html}");
}
