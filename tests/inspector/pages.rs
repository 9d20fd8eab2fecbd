//! What holds for every page: what it says to the browser, and what it is made of.

use crate::support::*;

async fn pages() -> (Service, Vec<(String, Answer)>) {
    let service = Service::start().await;
    let job = service.submitted(&ready_job()).await;
    let job = service.finish(&job).await;
    let id = text(&job["id"]);
    let missing = "01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55";
    let paths = [
        ("/jobs".to_owned(), 200),
        ("/jobs?status=failed".to_owned(), 200),
        ("/jobs?limit=0".to_owned(), 422),
        (format!("/jobs/{id}"), 200),
        (format!("/jobs/{id}/erase"), 200),
        (format!("/jobs/{missing}"), 404),
        ("/overview".to_owned(), 200),
        ("/submit".to_owned(), 200),
        ("/search?q=nothing-is-called-this".to_owned(), 200),
    ];
    let mut pages = Vec::new();
    for (path, status) in paths {
        let page = service.get(&path).await.expect(status);
        pages.push((path, page));
    }
    (service, pages)
}

#[tokio::test]
async fn every_page_tells_its_browser_to_run_and_load_nothing_from_elsewhere() {
    let (_service, pages) = pages().await;
    for (path, page) in pages {
        let policy = page.header("content-security-policy").expect("a policy");
        for part in
            ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(page.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
        let html = page.text();
        assert!(html.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{path}");
        for forbidden in ["<script>", "<style", " style=", " onclick=", "javascript:", "<iframe"] {
            assert!(!html.contains(forbidden), "{path} holds {forbidden}");
        }
        for (attribute, _) in html.match_indices(" src=\"") {
            assert!(html[attribute..].starts_with(" src=\"/assets/"), "{path}");
        }
    }
}

#[tokio::test]
async fn styles_and_scripts_are_kept_by_browsers_until_they_change() {
    let service = Service::start().await;
    let page = service.get("/jobs").await.expect(200).text();
    let addresses: Vec<&str> =
        page.split('"').filter(|text| text.starts_with("/assets/")).collect();
    assert!(addresses.len() >= 4, "{addresses:?}");
    for address in addresses {
        let asset = service.get(address).await.expect(200);
        assert_eq!(asset.header("cache-control"), Some("public, max-age=31536000, immutable"));
        assert_eq!(asset.header("x-content-type-options"), Some("nosniff"));
        let kind = match address.rsplit('.').next() {
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(asset.header("content-type"), Some(kind), "{address}");
        let name = address.rsplit('/').next().expect("a name");
        service.get(&format!("/assets/0123456789ab/{name}")).await.expect(404);
    }
}

#[tokio::test]
async fn without_keys_the_pages_are_for_this_machine_only() {
    let service = Service::start().await;
    let rebound = service.request(reqwest::Method::GET, "/jobs").header("host", "evil.example");
    Answer::of(rebound).await.problem(403, "forbidden-origin");
    service.get_from(&service.callbacks, "/jobs").await.problem(404, "not-found");
    let start = service.get("/").await;
    assert_eq!((start.status, start.header("location")), (303, Some("/jobs")));
    let sign_in = service.get("/sign-in").await;
    assert_eq!(
        (sign_in.status, sign_in.header("location")),
        (303, Some("/jobs")),
        "none is needed"
    );
}
