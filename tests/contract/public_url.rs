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
