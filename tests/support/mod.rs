//! The running service for tests: a real server, a real SQLite file, a simulated Engine beside it.
//!
//! Each test crate includes it with `mod support;`. The invariants: everything listens on port 0 of
//! loopback and lives in a temporary folder, nothing outside the test is read, and waiting means
//! looking for a condition until a deadline.

#![allow(dead_code, unused_imports, reason = "each test crate uses a part of it")]

mod answer;
mod nginx;
mod program;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use finishline::{
    app::{self, App, Listeners, Opened},
    clock::Clock,
    config::{self, ApiListen, Config, Heartbeat, LeastRate, PublicUrlSetting},
    http::Patterns,
    outbound::{Outbound, Permissions},
    simulator::{Options, Processing, Simulator},
    store::{Store, sqlite::SqliteStore},
    wake::Wake,
    workers::{Step, Worker, reconcile::Reconciler, relay::Relayer},
};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

pub use answer::Answer;
pub use nginx::Nginx;
pub use program::{Ended, Program, run_program};

/// Longer than anything here takes on a slow machine.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(3);

/// Puts something around the store that the service is given.
pub type Wrap = Arc<dyn Fn(Arc<dyn Store>) -> Arc<dyn Store> + Send + Sync>;

/// How a service is to be started. The defaults: the simulator finishes jobs when told to, one try
/// per submission, the public URL is the callbacks' own address.
pub struct Setup {
    settings: Vec<(String, String)>,
    options: Options,
    clock: Clock,
    wrap: Option<Wrap>,
    key: Option<String>,
    least_rate: LeastRate,
    heartbeat: Heartbeat,
    is_public_url_set: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    pub fn new() -> Self {
        Self {
            settings: Vec::new(),
            options: Options { processing: Processing::Manual, ..Options::default() },
            clock: Clock::system(),
            wrap: None,
            key: None,
            least_rate: LeastRate::default(),
            heartbeat: Heartbeat::default(),
            is_public_url_set: false,
        }
    }

    /// The API key that requests are sent with unless they name another.
    pub fn key(self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self }
    }

    /// One setting, such as `("ENGINE__TIMEOUT", "300ms")`; the last of a name counts. `{engine}`
    /// in a value is the simulator's address.
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.is_public_url_set |= name == "CALLBACKS__PUBLIC_URL";
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// How the simulated Engine behaves from the start.
    pub fn engine(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// Jobs finish, and call back, as soon as their inputs are there.
    pub fn finishing_at_once(self) -> Self {
        self.engine(|options| options.processing = Processing::After(Duration::ZERO))
    }

    pub fn clock(self, clock: &Clock) -> Self {
        Self { clock: clock.clone(), ..self }
    }

    pub fn wrap(self, wrap: Wrap) -> Self {
        Self { wrap: Some(wrap), ..self }
    }

    /// How slow the other side of a transfer may be.
    pub fn least_rate(self, bytes_per_second: u64, patience: Duration) -> Self {
        Self { least_rate: LeastRate { bytes_per_second, patience }, ..self }
    }

    /// How long an event stream is silent at most.
    pub fn heartbeat(self, silence: Duration) -> Self {
        Self { heartbeat: Heartbeat(silence), ..self }
    }

    pub async fn start(self) -> Service {
        let engine = Simulator::start(free_port().await, self.options).await.expect("a simulator");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = folder.path().join("finishline.db");
        let mut settings: Vec<(String, String)> = [
            ("CALLBACKS__LISTEN", "127.0.0.1:0".to_owned()),
            ("CALLBACKS__PUBLIC_URL", "http://127.0.0.1".to_owned()),
            ("API__LISTEN", "127.0.0.1:0".to_owned()),
            ("ENGINE__BASE_URL", engine.base_url()),
            ("ENGINE__RETRY_BUDGET", "0s".to_owned()),
            ("ENGINE__AUTH__TOKEN_URL", engine.token_url()),
            ("ENGINE__AUTH__CLIENT_ID", "test".to_owned()),
            ("ENGINE__AUTH__CLIENT_SECRET", "test-secret".to_owned()),
            ("DATABASE__URL", format!("sqlite://{}", database.display())),
            ("SPOOL__SIZE", "1MiB".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if is_keyless(self.settings.iter().map(|(name, _)| name.as_str())) {
            settings.push(("API__OPEN_ON_LOOPBACK".to_owned(), "true".to_owned()));
        }
        let origin = engine.origin();
        let given = self.settings.into_iter();
        settings.extend(given.map(|(name, value)| (name, value.replace("{engine}", &origin))));
        let mut config = load(&settings);
        config.service.least_rate = self.least_rate;
        config.service.heartbeat = self.heartbeat;
        let mut service = Service {
            callbacks: String::new(),
            api: String::new(),
            engine,
            clock: self.clock,
            database,
            config,
            is_public_url_set: self.is_public_url_set,
            wrap: self.wrap,
            http: http_client_with(self.key.as_deref()),
            reconciler: None,
            patterns: None,
            store: None,
            running: None,
            folder,
        };
        service.open().await;
        service
    }
}

/// A service in this process.
pub struct Service {
    /// Address of the door to the internet, without a slash at its end.
    pub callbacks: String,
    /// Address of the API, likewise.
    pub api: String,
    pub engine: Simulator,
    pub clock: Clock,
    pub database: PathBuf,
    config: Config,
    is_public_url_set: bool,
    wrap: Option<Wrap>,
    http: reqwest::Client,
    reconciler: Option<Reconciler>,
    patterns: Option<Patterns>,
    store: Option<Arc<dyn Store>>,
    running: Option<(oneshot::Sender<()>, JoinHandle<anyhow::Result<()>>)>,
    folder: TempDir,
}

impl Service {
    /// One with the defaults of [`Setup`].
    pub async fn start() -> Self {
        Setup::new().start().await
    }

    /// Everything of the service is in here.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Opens the doors and serves, on the ports it had before if it had some.
    async fn open(&mut self) {
        let mut config = self.config.clone();
        let listeners = Listeners::bind(&config).await.expect("free ports");
        let (callbacks, api) = (listeners.callbacks().unwrap(), listeners.api().unwrap());
        self.config.callbacks.listen = callbacks;
        if let ApiListen::Address(_) = self.config.api.listen {
            self.config.api.listen = ApiListen::Address(api);
        }
        (self.callbacks, self.api) = (format!("http://{callbacks}"), format!("http://{api}"));
        if !self.is_public_url_set {
            config.callbacks.public_url = PublicUrlSetting::Fixed(self.callbacks.parse().unwrap());
        }
        let wake = Wake::default();
        let path = &config.database.path;
        let orders = app::orders(&config);
        let opened = SqliteStore::open_with(path, self.clock.now(), wake.clone(), orders).await;
        let (store, writer) = opened.expect("the database opens");
        let mut store: Arc<dyn Store> = Arc::new(store);
        if let Some(wrap) = &self.wrap {
            store = wrap(store);
        }
        self.store = Some(store.clone());
        let opened = Opened { store, writer, wake };
        let app = App::with_store(config, listeners, self.clock.clone(), opened).await;
        let app = app.expect("the service is put together");
        self.reconciler = Some(app.reconciler());
        self.patterns = Some(app.patterns());
        let (stop, stopped) = oneshot::channel();
        let run = app.run(async { _ = stopped.await });
        self.running = Some((stop, tokio::spawn(run)));
    }

    /// The store that the service works with.
    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone().expect("the service has been opened")
    }

    /// Every route of the two doors.
    pub fn patterns(&self) -> &Patterns {
        self.patterns.as_ref().expect("the service has been opened")
    }

    /// Takes one step of reconciliation by hand.
    pub async fn reconcile(&self) -> Step {
        let reconciler = self.reconciler.as_ref().expect("the service has been opened");
        reconciler.step().await.expect("a step of reconciliation")
    }

    /// A relay with the service's settings, to be stepped by hand.
    pub fn relayer(&self, store: Arc<dyn Store>) -> Relayer {
        let outbound = Outbound::new(Permissions::default(), &[]).expect("clients");
        Relayer::new(self.config.relay.clone(), store, outbound, self.clock.clone())
    }

    /// Moves the public URL, as a restart of ngrok does; it takes effect with the next start.
    pub fn move_public_url(&mut self, url: &str) {
        self.config.callbacks.public_url = PublicUrlSetting::Fixed(url.parse().unwrap());
        self.is_public_url_set = true;
    }

    /// Stops the service as SIGTERM does; the Engine and the database file stay.
    pub async fn stop(&mut self) {
        let (stop, running) = self.running.take().expect("the service runs");
        stop.send(()).expect("the service listens for its end");
        let ended = tokio::time::timeout(DEADLINE, running).await.expect("the service ends");
        ended.expect("the service does not panic").expect("the service ends well");
    }

    /// Starts again after a stop, on the same database, doors and Engine.
    pub async fn start_again(&mut self) {
        self.open().await;
    }

    /// Stops and starts again.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// A request to the API.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.api))
    }

    /// A request to any address.
    pub fn request_to(&self, method: Method, url: &str) -> RequestBuilder {
        self.http.request(method, url)
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    /// Asks either door.
    pub async fn get_from(&self, door: &str, path: &str) -> Answer {
        Answer::of(self.request_to(Method::GET, &format!("{door}{path}"))).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    /// Posts JSON text to the API.
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        Answer::of(request.body(body)).await
    }

    /// Posts a body to any address, a job's callback address for one.
    pub async fn post_to(&self, url: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.request_to(Method::POST, url).header("content-type", "application/json");
        Answer::of(request.body(body)).await
    }

    pub async fn submit(&self, body: &Value) -> Answer {
        self.post("/v1/jobs", body.to_string()).await
    }

    /// With an `Idempotency-Key`; the body is text, so that its spelling is the caller's.
    pub async fn submit_once(&self, key: &str, body: &str) -> Answer {
        let request = self.request(Method::POST, "/v1/jobs").header("idempotency-key", key);
        let request = request.header("content-type", "application/json");
        Answer::of(request.body(body.to_owned())).await
    }

    /// Submits a job that the Engine takes; answers its JSON.
    pub async fn submitted(&self, body: &Value) -> Value {
        self.submit(body).await.expect(201).json()
    }

    pub async fn job(&self, id: &str) -> Value {
        self.get(&format!("/v1/jobs/{id}")).await.expect(200).json()
    }

    /// All jobs on record, newest first.
    pub async fn jobs(&self) -> Vec<Value> {
        let jobs = self.get("/v1/jobs?limit=200").await.expect(200).json();
        assert!(jobs["nextCursor"].is_null(), "more jobs than one page shows");
        jobs["jobs"].as_array().expect("a list").clone()
    }

    /// The job once it has that status.
    pub async fn job_with_status(&self, id: &str, status: &str) -> Value {
        wait_for(&format!("job {id} to be {status}"), async || {
            Some(self.job(id).await).filter(|job| job["status"] == status)
        })
        .await
    }

    /// Finishes a job at the Engine and waits until its result is on record.
    pub async fn finish(&self, job: &Value) -> Value {
        let engine_job_id = job["engineJobId"].as_str().expect("the Engine's id");
        assert!(self.engine.finish(engine_job_id), "the Engine has the job unfinished");
        let id = text(&job["id"]);
        wait_for(&format!("job {id} to finish"), async || {
            Some(self.job(id).await).filter(|job| !job["finishedAt"].is_null())
        })
        .await
    }

    /// The callback address that the Engine was given for a job.
    pub fn callback_url(&self, job_id: &str) -> String {
        let part = format!("/callbacks/{job_id}/");
        let urls = self.engine.jobs().into_iter().filter_map(|job| job.callback_url);
        urls.rev().find(|url| url.contains(&part)).expect("the Engine has the job")
    }
}

/// Whether these settings say nothing of keys: such a test is not about them, and calls without.
fn is_keyless<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    !names.any(|name| matches!(name, "API__KEYS" | "API__OPEN_ON_LOOPBACK"))
}

/// A job body that runs at once: its input has a download address.
pub fn ready_job() -> Value {
    json!({
        "inputFiles": {"cbct": {"extension": ".dcm", "downloadUrl": "https://store.example/scan.dcm"}},
        "outputFiles": {"meshes": [{"extension": ".stl", "structures": ["mandible"]}]},
    })
}

/// The same with further members.
pub fn ready_job_with(members: Value) -> Value {
    let mut body = ready_job();
    let all = body.as_object_mut().expect("an object");
    all.extend(members.as_object().expect("an object").clone());
    body
}

/// Settings as `serve` reads them, from pairs without the prefix.
pub fn load(settings: &[(String, String)]) -> Config {
    let last: BTreeMap<&String, &String> =
        settings.iter().map(|(name, value)| (name, value)).collect();
    let environment =
        last.into_iter().map(|(name, value)| (format!("FINISHLINE__{name}"), value.clone()));
    config::load(None, environment).expect("settings that are right")
}

/// Returns what `look` finds, as soon as it finds it.
pub async fn wait_for<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain for {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Fails if the work is not done by the deadline.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("done before the deadline")
}

pub async fn free_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

/// An address that refuses connections.
pub async fn dead_port() -> SocketAddr {
    free_port().await.local_addr().expect("an address")
}

/// Serves what a test needs beside the service; answers its address.
pub async fn serve(router: axum::Router) -> String {
    let listener = free_port().await;
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(axum::serve(listener, router).into_future());
    origin
}

/// Follows nothing, repeats nothing, and opens a connection for each request, so that a restarted
/// service is never asked through a dead one.
pub fn http_client() -> reqwest::Client {
    http_client_with(None)
}

/// The same with an API key.
fn http_client_with(key: Option<&str>) -> reqwest::Client {
    let key = key.map(|key| format!("Bearer {key}").parse().expect("a header value"));
    let headers = key.map(|key| (reqwest::header::AUTHORIZATION, key));
    // An error only says that the process has a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .default_headers(headers.into_iter().collect())
        // Reading the machine's certificates for plain http takes longer than most tests.
        .tls_certs_only([])
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(0)
        .timeout(DEADLINE)
        .build()
        .expect("a client")
}

/// The text of a JSON string.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("expected a string, found {value}"))
}
