//! A simulator of the Engine: everything that `engine-api.md` states, every plausible dialect, and
//! faults on demand.
//!
//! Tests start it on their own listener; so do `simulate-engine` and `demo`. Invariants: it shares
//! no code with the rest of the crate, so that a misreading of the documentation cannot agree with
//! itself; it sends only to addresses that jobs name.
//!
//! - `options`, `fault`, `dialect`: how it behaves
//! - `submission`, `notify`, `poll`, `token`, `upload`, `download`: its HTTP calls
//! - `job`, `processing`, `result`, `callback`, `upload_check`: what happens to a job
//! - `link`, `mesh`, `content`: where its files are, and what they hold
//! - `state`: what it remembers; `refusal`: its errors
//! - `connection`: sockets that can be closed without an answer
//! - `control`: the routes under `/_simulator/` and the log

#![allow(
    clippy::disallowed_methods,
    reason = "it is another program in the same process: it has its own time and imports nothing of ours"
)]

mod callback;
mod connection;
mod content;
mod control;
mod dialect;
mod download;
mod fault;
mod job;
mod link;
mod mesh;
mod notify;
mod options;
mod poll;
mod processing;
mod refusal;
mod result;
mod state;
mod submission;
mod token;
mod upload;
mod upload_check;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    routing::{get, post, put},
};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use callback::SentCallback;
pub use content::FileContent;
pub use dialect::{
    Conflict, Echo, IdField, NotifyPlace, Processing, ResultShape, Running, UrlField,
};
pub use fault::FaultRate;
pub use job::{AcceptedJob, Input, JobState, Output, OutputStatus, Upload};
pub use options::Options;
pub use state::Requests;

use connection::{Connection, SeverableListener};
use fault::FileFault;
use refusal::Refusal;
use state::State;

/// Time limit for a request: long enough for a slow receiver, short enough to notice a dead one.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Handle to a running simulator; clones share it.
#[derive(Clone)]
pub struct Simulator {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
    address: SocketAddr,
    client: reqwest::Client,
    signing_key: [u8; 32],
    link_serial: AtomicU64,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Simulator {
    /// Serves on the listener until `stop`, or until the runtime ends.
    ///
    /// # Errors
    /// The listener has no address, the log file cannot be opened, or the HTTP client cannot be set
    /// up.
    pub async fn start(listener: TcpListener, options: Options) -> io::Result<Self> {
        let mut address = listener.local_addr()?;
        if address.ip().is_unspecified() {
            address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        let simulator = Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State::new(options)?),
                changed: Notify::new(),
                address,
                client: sending_client()?,
                signing_key: rand::random(),
                link_serial: AtomicU64::new(0),
                stop: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }),
        };
        let stop = simulator.shared.stop.clone();
        let listener = SeverableListener { listener, stop: stop.clone() };
        let service = routes(simulator.clone()).into_make_service_with_connect_info::<Connection>();
        let server = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned());
        simulator.shared.tasks.spawn(server.into_future());
        Ok(simulator)
    }

    /// Base URL of Engine version 24.06; other versions are served as well.
    pub fn base_url(&self) -> String {
        self.base_url_of("24.06")
    }

    /// Base URL of another Engine version, `v2` for example.
    pub fn base_url_of(&self, version: &str) -> String {
        format!("{}/{version}", self.origin())
    }

    /// URL of the token endpoint.
    pub fn token_url(&self) -> String {
        format!("{}/oauth/token", self.origin())
    }

    /// Scheme, host and port, without a slash at the end.
    pub fn origin(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// The current options.
    pub fn options(&self) -> Options {
        self.state().options.clone()
    }

    /// Changes the options from now on.
    pub fn set(&self, change: impl FnOnce(&mut Options)) {
        change(&mut self.state().options);
    }

    /// Every accepted job, oldest first.
    pub fn jobs(&self) -> Vec<AcceptedJob> {
        self.state().jobs.clone()
    }

    /// A job by the id that the Engine gave it.
    pub fn job(&self, engine_job_id: &str) -> Option<AcceptedJob> {
        self.state().job(engine_job_id).cloned()
    }

    /// Every callback attempt that has ended, oldest first.
    pub fn callbacks(&self) -> Vec<SentCallback> {
        self.state().callbacks.clone()
    }

    /// The callback attempts that were answered 2xx.
    pub fn answered_callbacks(&self) -> Vec<SentCallback> {
        let mut callbacks = self.callbacks();
        callbacks.retain(SentCallback::answered);
        callbacks
    }

    /// Tokens issued since the start.
    pub fn tokens_issued(&self) -> usize {
        self.requests().tokens_issued
    }

    /// Requests seen since the start, by kind.
    pub fn requests(&self) -> Requests {
        self.state().requests
    }

    /// Returns once the condition holds; it is checked after every request and callback.
    pub async fn wait_until(&self, condition: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            // Register first: a change between the check and the wait must not be missed.
            changed.as_mut().enable();
            if condition(self) {
                return;
            }
            changed.await;
        }
    }

    /// Stops the server and all its tasks; open connections are closed.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes the tasks that wait for a condition.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.shared.changed.notify_waiters();
        changed
    }

    fn strikes(&self, fault: fn(&mut Options) -> &mut FaultRate) -> bool {
        let State { options, random, .. } = &mut *self.state();
        fault(options).strikes(random)
    }

    /// Whether a fault strikes this transfer of a file.
    fn strikes_file(&self, fault: FileFault, file: &str) -> bool {
        let State { options, random, struck, .. } = &mut *self.state();
        match fault.rate(options) {
            FaultRate::FirstOfEach(limit) => {
                let count = struck.entry((fault, file.to_owned())).or_default();
                let strikes = *count < *limit;
                *count += u32::from(strikes);
                strikes
            }
            rate => rate.strikes(random),
        }
    }

    /// Spawns work that ends with the simulator.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let stop = self.shared.stop.clone();
        self.shared.tasks.spawn(async move {
            stop.run_until_cancelled(work).await;
        })
    }

    fn next_link_serial(&self) -> u64 {
        self.shared.link_serial.fetch_add(1, Ordering::Relaxed)
    }
}

fn routes(simulator: Simulator) -> Router {
    Router::new()
        .route("/oauth/token", post(token::issue))
        .route("/{version}/{route}", post(submission::submit))
        .route("/{version}/{route}/{job}", get(poll::poll))
        .route("/{version}/{route}/{job}/notify", post(notify::notify_job))
        .route("/{version}/{route}/{job}/notify/{input}", post(notify::notify_input))
        .route("/storage/{job}/inputs/{name}", put(upload::upload))
        .route("/storage/{job}/outputs/{name}", get(download::download))
        .route("/_simulator/jobs", get(control::jobs))
        .route("/_simulator/jobs/{job}/finish", post(control::finish))
        .route("/_simulator/jobs/{job}/callback", post(control::send_callback))
        .route("/_simulator/callbacks", get(control::callbacks))
        .route("/_simulator/options", get(control::options).patch(control::change_options))
        .route("/_simulator/stats", get(control::stats))
        .with_state(simulator)
}

/// No proxy and no redirects: it reaches only the address that a job names.
fn sending_client() -> io::Result<reqwest::Client> {
    // Fails if a provider is installed already, which is fine.
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder()
        .user_agent("engine-simulator")
        .timeout(SEND_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(io::Error::other)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
