//! An API that is open on loopback: for programs and browsers of this machine, and for nobody who
//! comes through a proxy or from another site's page.

use crate::support::*;

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n")
}

#[tokio::test]
async fn what_comes_through_a_proxy_is_refused_on_every_page_and_route() {
    let service = Service::start().await;
    let ask = async |request: &str| Answer::of_bytes(&service.api, request.as_bytes()).await;
    let paths =
        ["/v1/jobs", "/v1/stats", "/metrics", "/readyz", "/docs/", "/jobs", "/overview", "/submit"];
    for path in paths {
        let answer = ask(&get(path, "")).await;
        assert!(matches!(answer.status, 200 | 503), "{path}: {}", answer.text());
        for request in [
            // What nginx sends when it is told nothing but proxy_pass.
            format!("GET {path} HTTP/1.0\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nconnection: close\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nhost: localhost:evil\r\nconnection: close\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nhost: [::1]evil\r\nconnection: close\r\n\r\n"),
            format!(
                "GET http://evil.example{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            ),
            get(path, "host: evil.example\r\n"),
            get(path, "host: localhost\r\n"),
            get(path, "Forwarded: for=192.0.2.1\r\n"),
            get(path, "X-Forwarded-For: 127.0.0.1\r\n"),
            get(path, "X-Forwarded-Host: localhost\r\n"),
            get(path, "X-Forwarded-Proto: https\r\n"),
            get(path, "X-Forwarded-Whatever: \r\n"),
            get(path, "X-Real-IP: 127.0.0.1\r\n"),
            get(path, "Via: 1.1 caddy\r\n"),
        ] {
            let answer = ask(&request).await;
            assert_eq!(answer.status, 403, "{request:?}: {}", answer.text());
            answer.problem(403, "forbidden-origin");
        }
    }
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing_whatever_its_browser_sends() {
    let service = Service::start().await;
    let ask = async |request: &str| Answer::of_bytes(&service.api, request.as_bytes()).await;
    let body = ready_job().to_string();
    let post = |headers: &str| {
        let length = body.len();
        format!(
            "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {length}\r\n{headers}\r\n{body}"
        )
    };
    for headers in [
        "sec-fetch-site: cross-site\r\n",
        "sec-fetch-site: same-site\r\n",
        "sec-fetch-site: cross-site\r\norigin: http://localhost\r\n",
        "sec-fetch-site: cross-site\r\nauthorization: Bearer anything-at-all\r\n",
        "sec-fetch-site: same-origin\r\nsec-fetch-site: cross-site\r\n",
        "sec-fetch-site: same-origin\r\norigin: http://evil.example\r\n",
        "origin: null\r\n",
        "origin: https://localhost\r\n",
        "origin: http://localhost:3000\r\n",
        "origin: http://localhost.evil.example\r\n",
        "origin: http://localhost\r\norigin: http://evil.example\r\n",
    ] {
        let answer = ask(&post(headers)).await;
        assert_eq!(answer.status, 403, "{headers:?}: {}", answer.text());
        answer.problem(403, "forbidden-origin");
    }
    assert!(service.jobs().await.is_empty());
    for headers in [
        "",
        "origin: http://localhost\r\n",
        "sec-fetch-site: same-origin\r\norigin: http://localhost\r\n",
        "sec-fetch-site: none\r\n",
    ] {
        let answer = ask(&post(headers)).await;
        assert_eq!(answer.status, 201, "{headers:?}: {}", answer.text());
    }
}

#[tokio::test]
async fn an_open_api_is_warned_of_at_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = Program::serve(folder.path(), &[("API__OPEN_ON_LOOPBACK", "true")]).await;
    program.said("api.open_on_loopback = true: every user").await;
    assert!(!folder.path().join("finishline.key").exists());
}
