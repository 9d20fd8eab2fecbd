//! The address that the Engine calls back on, when ngrok's agent is asked for it.
//!
//! The invariant: no job leaves with an address that leads nowhere.

use std::sync::{Arc, Mutex};

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde_json::{Value, json};

use crate::support::*;

/// ngrok's agent as far as it is asked: `None` is answered with 500.
#[derive(Clone, Default)]
struct Agent(Arc<Mutex<Option<Value>>>);

/// A tunnel's public side, which passes everything on to `to`, as ngrok does.
async fn tunnel_to(to: &str) -> String {
    let to = to.to_owned();
    let pass = async |State(to): State<String>, request: axum::extract::Request| {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
        let url = format!("{to}{}", head.uri.path());
        let answer = http_client().request(head.method, url).body(body).send().await;
        let answer = answer.expect("an answer");
        (answer.status(), answer.bytes().await.expect("a body"))
    };
    serve(Router::new().fallback(axum::routing::any(pass)).with_state(to)).await
}

impl Agent {
    async fn start() -> (Self, String) {
        let agent = Self::default();
        let tunnels = async |State(agent): State<Self>| {
            let answer = agent.0.lock().expect("no panic").clone();
            answer.map(Json).ok_or(StatusCode::INTERNAL_SERVER_ERROR)
        };
        let router = Router::new().route("/api/tunnels", get(tunnels)).with_state(agent.clone());
        (agent, serve(router).await)
    }

    /// Pairs of public URL and the tunnel's end.
    fn offer(&self, tunnels: &[(&str, String)]) {
        let tunnel = |(url, end): &(&str, String)| json!({"name": url, "public_url": url, "proto": "https", "config": {"addr": end, "inspect": true}});
        let tunnels: Vec<Value> = tunnels.iter().map(tunnel).collect();
        *self.0.lock().expect("no panic") =
            Some(json!({"tunnels": tunnels, "uri": "/api/tunnels"}));
    }

    fn fail(&self) {
        *self.0.lock().expect("no panic") = None;
    }
}

async fn with_agent(agent: &str) -> Service {
    let setup = Setup::new().set("CALLBACKS__PUBLIC_URL", "ngrok");
    setup.set("CALLBACKS__NGROK_API", agent).start().await
}

/// The port that callbacks are listened for on.
fn port(service: &Service) -> &str {
    service.callbacks.rsplit(':').next().expect("a port")
}

/// Waits until the service knows of that public URL; an answer of the agent stands for a moment.
async fn knows(service: &Service, url: Option<&str>) {
    wait_for(&format!("the public URL to be {url:?}"), async || {
        let ready = service.get("/readyz").await;
        let known = ready.json()["checks"]["publicUrl"]["url"].as_str().map(str::to_owned);
        // A URL that is known but leads nowhere is found out sooner or later, and is not ready.
        assert!(known.is_some() || ready.status == 503, "{}", ready.text());
        (known.as_deref() == url).then_some(())
    })
    .await;
}

#[track_caller]
fn assert_unknown(answer: &Answer, names: &str) {
    let problem = answer.problem(503, "public-url-unknown");
    assert!(text(&problem["detail"]).contains(names), "it names {names}: {problem}");
    assert_eq!(problem.get("jobId"), None);
}

#[tokio::test]
async fn without_an_agent_submissions_are_refused_and_nothing_is_stored() {
    let dead = format!("http://{}", dead_port().await);
    let service = with_agent(&dead).await;
    let answer = service.submit(&ready_job()).await;
    assert_unknown(&answer, &format!("ngrok http {}", port(&service)));
    let with_key = service.submit_once("key", &ready_job().to_string()).await;
    assert_unknown(&with_key, "ngrok");
    assert!(service.jobs().await.is_empty());
    assert_eq!(service.engine.requests(), Default::default(), "nothing was sent");
    let ready = service.get("/readyz").await.expect(503).json();
    assert_eq!(ready["status"], "not ready");
    assert_eq!(ready["checks"]["publicUrl"]["ok"], false);
    service.get("/healthz").await.expect(200);
}

#[tokio::test]
async fn an_agent_that_names_no_tunnel_of_ours_is_as_good_as_none() {
    let (agent, address) = Agent::start().await;
    let service = with_agent(&address).await;
    assert_unknown(&service.submit(&ready_job()).await, "ngrok");
    let api_port = service.api.rsplit(':').next().expect("a port");
    agent.offer(&[
        ("https://api.ngrok.app", format!("http://localhost:{api_port}")),
        ("https://other.ngrok.app", "http://localhost:3000".into()),
        ("https://far.ngrok.app", format!("http://10.0.0.9:{}", port(&service))),
    ]);
    let no_tunnel = "no ngrok tunnel leads to port";
    wait_for("the agent to be asked again", async || {
        let answer = service.submit(&ready_job()).await;
        answer.text().contains(no_tunnel).then_some(())
    })
    .await;
    assert_unknown(&service.submit(&ready_job()).await, no_tunnel);
    assert!(service.jobs().await.is_empty());
    assert_eq!(service.engine.requests(), Default::default(), "nothing was sent");
}

#[tokio::test]
async fn the_tunnel_to_our_own_port_is_taken_https_first_and_followed_when_it_changes() {
    let (agent, address) = Agent::start().await;
    let service = with_agent(&address).await;
    let end = format!("http://localhost:{}", port(&service));
    agent.offer(&[
        ("https://other.ngrok.app", "http://localhost:3000".into()),
        ("http://one.ngrok.app", end.clone()),
        ("https://one.ngrok.app", end.clone()),
        ("tcp://one.ngrok.app:1234", end.clone()),
    ]);
    knows(&service, Some("https://one.ngrok.app")).await;
    let first = service.submitted(&ready_job()).await;
    let url = service.callback_url(text(&first["id"]));
    assert!(url.starts_with("https://one.ngrok.app/callbacks/"), "{url}");

    agent.offer(&[("https://two.ngrok.app", end)]);
    knows(&service, Some("https://two.ngrok.app")).await;
    let second = service.submitted(&ready_job()).await;
    let url = service.callback_url(text(&second["id"]));
    assert!(url.starts_with("https://two.ngrok.app/callbacks/"), "{url}");

    agent.fail();
    knows(&service, None).await;
    assert_unknown(&service.submit(&ready_job()).await, "ngrok");
    assert_eq!((service.engine.jobs().len(), service.jobs().await.len()), (2, 2));
}

#[tokio::test]
async fn a_fixed_public_url_keeps_its_path() {
    let setup = Setup::new().set("CALLBACKS__PUBLIC_URL", "https://hooks.example.com/finishline/");
    let service = setup.start().await;
    let job = service.submitted(&ready_job()).await;
    let url = service.callback_url(text(&job["id"]));
    assert!(url.starts_with("https://hooks.example.com/finishline/callbacks/"), "{url}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_ends_at_another_name_is_ours_once_a_nonce_has_come_through_it() {
    let (agent, address) = Agent::start().await;
    let service = with_agent(&address).await;
    let port = port(&service).to_owned();
    let (ours, other) = (tunnel_to(&service.callbacks).await, Service::start().await);
    let theirs = tunnel_to(&other.callbacks).await;
    for end in [
        format!("http://host.docker.internal:{port}"),
        format!("finishline:{port}"),
        format!("172.17.0.2:{port}"),
        format!("http://[fd00::2]:{port}/"),
    ] {
        // Another service's tunnel looks the same.
        agent.offer(&[(&theirs, end.clone())]);
        wait_for("another's tunnel to be refused", async || {
            let answer = service.submit(&ready_job()).await;
            let text = answer.text().to_owned();
            (text.contains("does not arrive here") && text.contains(&theirs)).then_some(())
        })
        .await;
        agent.offer(&[(&theirs, end.clone()), (&ours, end.clone())]);
        knows(&service, Some(&ours)).await;
        let job = service.submitted(&ready_job()).await;
        let url = service.callback_url(text(&job["id"]));
        assert!(url.starts_with(&format!("{ours}/callbacks/")), "{end}: {url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_tunnels_that_end_here_the_one_that_works_is_taken() {
    let (agent, address) = Agent::start().await;
    let service = with_agent(&address).await;
    let end = format!("0.0.0.0:{}", port(&service));
    let ours = tunnel_to(&service.callbacks).await;
    let dead = format!("https://{}", dead_port().await);
    agent.offer(&[(&dead, end.clone()), (&ours, end)]);
    knows(&service, Some(&ours)).await;
}

#[tokio::test]
async fn when_no_tunnel_fits_those_that_were_seen_are_named_with_the_reason() {
    let (agent, address) = Agent::start().await;
    let service = with_agent(&address).await;
    let end = format!("localhost:{}", port(&service));
    agent.offer(&[
        ("https://shop.ngrok.app", "http://localhost:3000".into()),
        ("https://quiet.internal", end.clone()),
        ("tcp://5.tcp.ngrok.io:12345", end.clone()),
        ("tls://own.ngrok.app", end),
        ("https://odd.ngrok.app", "\u{1b}[2Jfile:///etc\r\n".into()),
    ]);
    let detail = wait_for("the agent to be asked again", async || {
        let problem = service.submit(&ready_job()).await.problem(503, "public-url-unknown");
        let detail = text(&problem["detail"]).to_owned();
        detail.contains("no ngrok tunnel leads to port").then_some(detail)
    })
    .await;
    for reason in [
        "https://shop.ngrok.app/ leads to port 3000",
        "https://quiet.internal/ is internal to ngrok",
        "tcp://5.tcp.ngrok.io:12345 is a tcp endpoint",
        "tls://own.ngrok.app is a tls endpoint",
        "https://odd.ngrok.app/ leads to",
        "run `ngrok http ",
    ] {
        assert!(detail.contains(reason), "{reason}: {detail}");
    }
    assert!(!detail.chars().any(char::is_control), "{detail:?}");
    agent.offer(&[]);
    wait_for("the agent to name none", async || {
        let answer = service.submit(&ready_job()).await;
        answer.text().contains("the agent names none").then_some(())
    })
    .await;
    assert!(service.jobs().await.is_empty());
}

#[tokio::test]
async fn what_answers_in_an_agent_s_place_is_told_as_what_it_is() {
    let page = "<html></html>";
    for (status, kind, body, said) in [
        (302, "text/plain", "", "a redirect (status 302)"),
        (200, "text/html; charset=utf-8", page, "a web page (HTML, status 200)"),
        (404, "text/html", page, "a web page (HTML, status 404)"),
        (200, "application/json", "null", "JSON without a list of tunnels"),
        (200, "application/json", r#"{"tunnels":null}"#, "JSON without a list of tunnels"),
        (200, "application/json", "[]", "JSON without a list of tunnels"),
        (200, "application/json", "", "an empty body"),
        (200, "application/json", r#"{"tunnels": ["#, "what is not JSON"),
        (403, "text/plain", "no", "status 403"),
    ] {
        let status = StatusCode::from_u16(status).expect("a status");
        let answer = (status, [(axum::http::header::CONTENT_TYPE, kind)], body);
        let router = Router::new().fallback(async move || answer);
        let service = with_agent(&serve(router).await).await;
        let problem = service.submit(&ready_job()).await.problem(503, "public-url-unknown");
        let detail = text(&problem["detail"]);
        assert!(detail.contains(said), "{said}: {detail}");
        assert!(!detail.contains("no ngrok agent answers"), "{detail}");
        assert!(service.jobs().await.is_empty());
    }
}
