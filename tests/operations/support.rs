//! What the tests of operation share: a service in process, the program as a command, servers that
//! stand where the public URL leads.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use axum::Router;
use finishline::{
    app::{App, Listeners},
    clock::Clock,
    config::{self, Config, PublicUrlSetting},
    domain::{ids::JobId, signature},
    store::sqlite::inspect,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

const DEADLINE: Duration = Duration::from_secs(30);

/// Settings of a service on free ports, with its database in `folder`.
pub fn settings(folder: &Path) -> Config {
    let settings = [
        ("CALLBACKS__LISTEN", "127.0.0.1:0".to_owned()),
        ("CALLBACKS__PUBLIC_URL", "http://127.0.0.1".to_owned()),
        ("API__LISTEN", "127.0.0.1:0".to_owned()),
        ("API__OPEN_ON_LOOPBACK", "true".to_owned()),
        ("DATABASE__URL", format!("sqlite://{}", database(folder).display())),
    ];
    let environment = settings.map(|(key, value)| (format!("FINISHLINE__{key}"), value));
    config::load(None, environment.into_iter()).unwrap()
}

pub fn database(folder: &Path) -> PathBuf {
    folder.join("finishline.db")
}

/// A service that runs in this process.
pub struct Service {
    pub callbacks: SocketAddr,
    pub api: SocketAddr,
    pub folder: TempDir,
    pub signing_key: [u8; 32],
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Service {
    /// Its public URL is its own callbacks' address.
    pub async fn start() -> Self {
        Self::start_with(|config, callbacks| {
            let public_url = format!("http://{callbacks}").parse().unwrap();
            config.callbacks.public_url = PublicUrlSetting::Fixed(public_url);
        })
        .await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config, SocketAddr)) -> Self {
        Self::start_by(Clock::system(), change).await
    }

    pub async fn start_by(clock: Clock, change: impl FnOnce(&mut Config, SocketAddr)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = settings(folder.path());
        let listeners = Listeners::bind(&config).await.unwrap();
        let (callbacks, api) = (listeners.callbacks().unwrap(), listeners.api().unwrap());
        change(&mut config, callbacks);
        let app = App::build(config, listeners, clock).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(app.run(async { _ = stopped.await }));
        let checkup = inspect::check_up(&database(folder.path()), Clock::system().now()).await;
        let signing_key = checkup.unwrap().unwrap().signing_key.unwrap();
        Self { callbacks, api, folder, signing_key, stop, task }
    }

    pub fn callback_url(&self, id: JobId) -> String {
        let signature = signature::sign(&self.signing_key, id);
        format!("http://{}/callbacks/{id}/{signature}", self.callbacks)
    }

    /// Sends a callback as the Engine does; the job is made by it. Answers the job's id.
    pub async fn receive(&self, client: &reqwest::Client, body: String) -> JobId {
        let id = JobId::new(Clock::system().now());
        let answer = client.post(self.callback_url(id)).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        id
    }

    /// Status and body of `/readyz`.
    pub async fn readiness(&self) -> (u16, Value) {
        let answer = client().get(format!("http://{}/readyz", self.api)).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    /// Returns once `/readyz` shows what is waited for.
    pub async fn wait_until_ready_shows(&self, shows: impl Fn(u16, &Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let (status, body) = self.readiness().await;
            if shows(status, &body) {
                return body;
            }
            assert!(started.elapsed() < DEADLINE, "still {status} {body}");
            tokio::task::yield_now().await;
        }
    }

    /// Ends it and hands back its folder.
    pub async fn stop(self) -> TempDir {
        let _ = self.stop.send(());
        self.task.await.unwrap().unwrap();
        self.folder
    }
}

pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A server that stands where the public URL leads.
pub async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// An address of this machine where nothing listens, of the ports that nobody is given unasked.
pub async fn free_address() -> SocketAddr {
    loop {
        let address = SocketAddr::from(([127, 0, 0, 1], rand::random_range(20_000..32_000)));
        if TcpListener::bind(address).await.is_ok() {
            return address;
        }
    }
}

/// How a command of the program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Standard output as the one JSON value that it must be.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The state and detail of one check in the JSON form.
    pub fn check(&self, name: &str) -> (String, String) {
        let value = self.json();
        let found = value["checks"].as_array().unwrap().iter().find(|one| one["name"] == name);
        let found = found.unwrap_or_else(|| panic!("no {name} in {value}"));
        let text = |member: &str| found[member].as_str().unwrap().to_owned();
        (text("state"), text("detail"))
    }
}

/// Runs the program in `folder`, with these settings in its environment.
pub async fn finishline(folder: &Path, settings: &[(&str, String)], arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finishline"));
    command.current_dir(folder).args(arguments);
    for (key, value) in settings {
        command.env(format!("FINISHLINE__{key}"), value);
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
