//! Links that others wrote, on their way out of the service.
//!
//! The invariant: one guard judges each of them, whichever door it leaves by.

use serde_json::{Value, json};

use crate::{
    hosts::{FORBIDDEN_ADDRESSES, FORBIDDEN_SPELLINGS, PUBLIC},
    support::*,
};

/// Links that lead nowhere a browser or a client should be sent, beside those by their host.
const FORBIDDEN_LINKS: [&str; 18] = [
    "http://store.example/a",
    "http://8.8.8.8/a",
    "https://me@store.example/a",
    "https://me:word@store.example/a",
    "https://store.example:443@evil.example/a",
    "javascript:alert(1)",
    "java\tscript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "file:///etc/passwd",
    "ftp://store.example/a",
    "//evil.example/a",
    "/jobs",
    "mesh.stl",
    "https://",
    "https:\\\\169.254.169.254\\latest",
    "https:169.254.169.254/latest",
    "https://[fe80::1%25eth0]/a",
    "https://store.example:99999/a",
];

fn forbidden_hosts() -> impl Iterator<Item = &'static str> {
    FORBIDDEN_ADDRESSES.split_whitespace().chain(FORBIDDEN_SPELLINGS.split_whitespace())
}

/// A finished job whose result has one output for each link.
async fn with_links(service: &Service, links: &[String]) -> String {
    let meshes = vec![json!({"extension": ".stl"}); links.len()];
    let body = ready_job_with(json!({"outputFiles": {"meshes": meshes}}));
    let job = service.submitted(&body).await;
    let id = text(&job["id"]).to_owned();
    let outputs: Vec<Value> =
        links.iter().map(|link| json!({"status": "Available", "url": link})).collect();
    let result = json!({"success": true, "outputFiles": {"meshes": outputs}});
    service.post_to(&service.callback_url(&id), result.to_string()).await.expect(200);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn no_redirect_leads_where_the_guard_lets_nobody() {
    let service = Service::start().await;
    let mut links: Vec<String> = forbidden_hosts()
        .enumerate()
        .map(|(index, host)| match index % 3 {
            0 => format!("https://{host}/latest?X-Signature=top-secret"),
            1 => format!("https://{host}:8443/latest?X-Signature=top-secret"),
            _ => format!("http://{host}/latest?X-Signature=top-secret"),
        })
        .collect();
    links.extend(FORBIDDEN_LINKS.map(str::to_owned));
    assert!(links.len() > 190, "{}", links.len());
    let id = with_links(&service, &links).await;
    for (index, link) in links.iter().enumerate() {
        let answer = service.get(&format!("/v1/jobs/{id}/outputs/meshes-{index}")).await;
        assert_eq!(answer.header("location"), None, "{link}");
        let body = answer.text();
        assert!(!body.contains("top-secret"), "{link}: {body}");
        answer.problem(502, "url-refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_leads_to_public_hosts_and_to_the_engines_own() {
    let service = Service::start().await;
    let mut links: Vec<String> =
        PUBLIC.split_whitespace().map(|host| format!("https://{host}/a?X-Signature=s")).collect();
    links.push(format!("{}/a?X-Signature=s", service.engine.origin()));
    let id = with_links(&service, &links).await;
    for (index, link) in links.iter().enumerate() {
        let answer = service.get(&format!("/v1/jobs/{id}/outputs/meshes-{index}")).await;
        let spelled = url::Url::parse(link).unwrap();
        assert_eq!((answer.status, answer.header("location")), (307, Some(spelled.as_str())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_webhook_names_a_forbidden_host_in_any_spelling() {
    let any = Setup::new().set("RELAY__ALLOWED_HOSTS", r#"["*"]"#).start().await;
    let none = Service::start().await;
    let hooks = forbidden_hosts().map(|host| format!("https://{host}/hook"));
    let hooks: Vec<String> = hooks.chain(FORBIDDEN_LINKS.map(str::to_owned)).collect();
    for hook in &hooks {
        for service in [&any, &none] {
            let answer = service.submit(&ready_job_with(json!({"finishWebhook": hook}))).await;
            assert_eq!(answer.invalid_at(), ["/finishWebhook"], "{hook}");
        }
    }
    for service in [any, none] {
        assert!(service.jobs().await.is_empty());
        assert_eq!(service.engine.requests(), Default::default(), "nothing was sent");
    }
}
