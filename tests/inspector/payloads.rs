//! Hostile and bottomless payloads: text on the page, and little of it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::support::*;

/// Markup that must never be markup.
const HOSTILE: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>";

/// A page that holds more than this is no page.
const MOST_BYTES: usize = 1024 * 1024;

/// Long even for a build that is not optimized.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_hostile_payload_is_text_wherever_it_is_shown() {
    let service = Service::start().await;
    let body = json!({"endUserId": HOSTILE, "finishline": {"reference": HOSTILE}});
    let job = service.submitted(&ready_job_with(body)).await;
    let id = text(&job["id"]);
    let url = service.callback_url(id);
    let result = json!({"success": true, HOSTILE: [HOSTILE], "outputFiles": {"meshes": [
        {"status": HOSTILE, "url": format!("javascript:{HOSTILE}")}]}});
    service.post_to(&url, result.to_string()).await.expect(200);
    service.post_to(&url, json!({"success": false, "x": HOSTILE}).to_string()).await.expect(200);
    service.post_to(&url, HOSTILE).await.expect(400);
    let encoded: String = url::form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    for path in [
        "/jobs".to_owned(),
        format!("/jobs?reference={encoded}"),
        format!("/jobs/{id}"),
        format!("/jobs/{id}/erase"),
        format!("/search?q={encoded}x"),
    ] {
        let html = service.get(&path).await.text();
        assert!(html.contains("&lt;script&gt;alert(1)"), "{path} shows it: {html}");
        for markup in ["<script>", "<img", "href=\"javascript:"] {
            assert!(!html.contains(markup), "{path} holds {markup}: {html}");
        }
    }
}

/// Whoever knows it has the file.
const LINK: &str = "https://store.example/a?X-Signature=top-secret";

#[tokio::test]
async fn no_page_shows_a_callback_s_signature_or_the_query_of_a_link() {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let id = text(&job["id"]);
    let url = service.callback_url(id);
    let signature = url.rsplit('/').next().expect("a signature");
    let echo = |success: bool| {
        json!({"success": success, "finishWebhook": url, signature: "x",
            "outputFiles": {"meshes": [{"status": "Available", "url": LINK}]},
            "link": LINK})
    };
    for success in [true, false] {
        let request = service.request_to(reqwest::Method::POST, &url);
        let request = request.header("x-original-uri", url.as_str());
        Answer::of(request.body(echo(success).to_string())).await.expect(200);
    }
    let html = service.get(&format!("/jobs/{id}")).await.expect(200).text();
    assert!(html.contains("https://store.example/a?…"), "{html}");
    assert!(!html.contains(signature), "{html}");
    assert!(!html.contains("top-secret"), "{html}");
    let answer = service.get(&format!("/v1/jobs/{id}/outputs/meshes-0")).await;
    assert_eq!((answer.status, answer.header("location")), (307, Some(LINK)), "it is led there");
    service.get(&format!("/v1/jobs/{id}/outputs/meshes-1")).await.expect(404);
}

#[tokio::test]
async fn a_deep_or_a_large_payload_is_shown_quickly_and_in_part() {
    let service = Service::start().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let row = format!("{{\"name\":\"{}\",\"numbers\":[1,2,3]}},", "x".repeat(40));
    let rows = row.repeat(15 * 1024 * 1024 / row.len());
    let long = "y".repeat(15 * 1024 * 1024);
    for payload in [
        format!("{{\"success\":true,\"deep\":{deep}}}"),
        format!("{{\"success\":true,\"rows\":[{}]}}", rows.trim_end_matches(',')),
        format!("{{\"success\":true,\"text\":\"{long}\"}}"),
    ] {
        let job = service.submitted(&ready_job()).await;
        let id = text(&job["id"]);
        let url = service.callback_url(id);
        service.post_to(&url, payload).await.expect(200);
        service.post_to(&url, format!("{{\"success\":false,\"deep\":{deep}}}")).await.expect(200);
        let begun = Instant::now();
        let page = service.get(&format!("/jobs/{id}")).await.expect(200);
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        assert!(page.body.len() < MOST_BYTES, "{} bytes", page.body.len());
        assert!(page.text().contains("Difference from the result"));
    }
}
