//! The service as a process of its own beside a simulated Engine, to be killed and started again.
//!
//! The invariant: folder, Engine and the door to the internet outlive the process.

use std::path::PathBuf;

use finishline::simulator::{Options, Processing, Simulator};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::*;

pub struct Node {
    program: Option<Program>,
    pub engine: Simulator,
    pub folder: TempDir,
    /// Address of the door to the internet.
    pub callbacks: String,
    http: reqwest::Client,
}

impl Node {
    /// Jobs finish when told to; `change` says how else the Engine behaves.
    pub async fn start(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options { processing: Processing::Manual, ..Options::default() };
        change(&mut options);
        let mut node = Self {
            program: None,
            engine: Simulator::start(free_port().await, options).await.expect("a simulator"),
            folder: tempfile::tempdir().expect("a temporary folder"),
            // A fixed one, because the public URL has to be known before the start.
            callbacks: format!("http://{}", dead_port().await),
            http: http_client(),
        };
        node.serve().await;
        node
    }

    /// Starts the process, on the same database and door as before.
    pub async fn serve(&mut self) {
        assert!(self.program.is_none(), "it runs");
        let listen = self.callbacks.trim_start_matches("http://");
        let settings = [
            ("CALLBACKS__LISTEN", listen),
            ("CALLBACKS__PUBLIC_URL", &self.callbacks),
            ("ENGINE__BASE_URL", &self.engine.base_url()),
            ("ENGINE__RETRY_BUDGET", "0s"),
            ("ENGINE__AUTH__TOKEN_URL", &self.engine.token_url()),
            ("ENGINE__AUTH__CLIENT_ID", "test"),
            ("ENGINE__AUTH__CLIENT_SECRET", "test-secret"),
            ("SPOOL__SIZE", "1MiB"),
        ];
        let program = Program::serve(self.folder.path(), &settings).await;
        assert_eq!(program.callbacks, self.callbacks);
        self.program = Some(program);
    }

    pub fn program(&self) -> &Program {
        self.program.as_ref().expect("it runs")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.program.take().expect("it runs").kill();
    }

    /// The process, to be ended otherwise.
    pub fn release(&mut self) -> Program {
        self.program.take().expect("it runs")
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join("finishline.db")
    }

    /// A request to the API.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.program().api))
    }

    pub fn post_to(&self, url: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.http.post(url).body(body)
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub async fn job(&self, id: &str) -> Value {
        self.get(&format!("/v1/jobs/{id}")).await.expect(200).json()
    }

    pub async fn event_types(&self, id: &str) -> Vec<String> {
        let found = self.get(&format!("/v1/jobs/{id}/events")).await.expect(200).json();
        let events = found["events"].as_array().expect("a list").iter();
        events.map(|event| text(&event["type"]).to_owned()).collect()
    }
}
