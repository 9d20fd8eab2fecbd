//! Hostile and bottomless payloads in a real browser: nothing runs, nothing freezes.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::{browser::Browser, support::*};

/// Markup that sets a flag and opens a dialog if it is ever more than text.
const HOSTILE: &str = "\"'></td></script><script>window.hurt=1;alert(1)</script>\
    <img src=x onerror=\"window.hurt=1;alert(2)\"><svg/onload=window.hurt=1>";

/// An address that runs as a script when it is followed.
const SCRIPT_LINK: &str = "javascript:window.hurt=1;alert(3)";

/// How long a page that shows a huge payload may keep its reader from scrolling.
const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_hostile_payload_runs_nothing_on_any_page() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let body = json!({
        "inputFiles": {HOSTILE: {"extension": ".dcm", "downloadUrl": "https://store.example/scan"}},
        "outputFiles": {"meshes": [{"extension": ".stl", "structures": [HOSTILE]}]},
        "endUserId": HOSTILE,
        "finishline": {"reference": HOSTILE},
    });
    let job = service.submitted(&body).await;
    let id = text(&job["id"]);
    let url = service.callback_url(id);
    let result = |success: bool| {
        json!({"success": success, HOSTILE: [HOSTILE, SCRIPT_LINK], "outputFiles": {"meshes": [
            {"status": HOSTILE, "url": SCRIPT_LINK, "structures": [HOSTILE]}]}})
        .to_string()
    };
    for payload in [result(true), result(false), HOSTILE.to_owned()] {
        let request = service.request_to(Method::POST, &url).header("x-note", HOSTILE);
        Answer::of(request.body(payload)).await;
    }
    let encoded: String = url::form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    for path in [
        "/jobs".to_owned(),
        format!("/jobs?reference={encoded}"),
        format!("/jobs/{id}"),
        format!("/jobs/{id}/erase"),
        format!("/search?q={encoded}x"),
    ] {
        browser.visit(&format!("{}{path}", service.api)).await;
        assert!(!browser.has_dialog().await, "{path} opens a dialog");
        browser
            .run("document.querySelectorAll('details').forEach((fold) => fold.open = true)")
            .await;
        assert!(browser.words().await.contains("onerror"), "{path} shows it as text");
        let hurt = "return [window.hurt ?? null, document.querySelectorAll(
            '[href^=\"javascript:\" i], img[src=x], [onerror], [onload]').length]";
        assert_eq!(browser.run(hurt).await, json!([null, 0]), "{path}");
        let complaints = browser.complaints().await;
        let is_policy = |line: &&String| line.contains("Content Security Policy");
        let breaches: Vec<_> = complaints.iter().filter(is_policy).collect();
        assert!(breaches.is_empty(), "{path}: {breaches:?}");
    }
}

#[tokio::test]
async fn a_deep_or_a_large_payload_does_not_freeze_the_page() {
    let Some(browser) = Browser::open().await else { return };
    let service = Service::start().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let row = format!("{{\"name\":\"{}\",\"numbers\":[1,2,3]}},", "x".repeat(40));
    let rows = row.repeat((16 * 1024 * 1024 - 64) / row.len());
    for payload in [
        format!("{{\"success\":true,\"deep\":{deep}}}"),
        format!("{{\"success\":true,\"rows\":[{}]}}", rows.trim_end_matches(',')),
    ] {
        let job = service.submitted(&ready_job()).await;
        let id = text(&job["id"]);
        service.post_to(&service.callback_url(id), payload).await.expect(200);
        browser.visit(&format!("{}/jobs/{id}", service.api)).await;
        browser.wait_until("document.querySelector('[data-live-state].is-on')").await;
        let open = "document.querySelectorAll('details').forEach((fold) => fold.open = true);
            const begun = performance.now();
            scrollTo(0, document.body.scrollHeight);
            return new Promise((done) => requestAnimationFrame(() =>
                requestAnimationFrame(() => done(performance.now() - begun))))";
        let millis = browser.run(open).await.as_f64().expect("a number");
        assert!(millis < PATIENCE.as_millis() as f64, "{millis} ms until the page moved");
        assert_eq!(browser.complaints().await, [""; 0]);
    }
}
