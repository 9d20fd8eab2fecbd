//! The settings: `config.example.toml` (compiled in) < file < environment, checked. Read by `app`
//! and the commands, which pass each part of the program its own section.
//!
//! Invariant: a `Config` that exists is safe to start with, and its `Debug` output shows no secret.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tracing_subscriber::filter::Targets;
use url::Url;

mod check;
mod error;
mod form;
mod load;
mod mistake;
mod place;
mod secret;
mod value;
pub mod variables;

pub use error::ConfigError;
pub use load::{default_file, load, process_environment};
pub use value::{
    ApiKeyConfig, ApiListen, LogFormat, PublicUrlSetting, ReconcileAfter, RelayTarget,
    RunningSetting, Scope, Secret,
};
pub use variables::StrayVariable;

/// Every key with its default and a comment; the template for a settings file.
pub const EXAMPLE: &str = include_str!("../../config.example.toml");

/// The file of the key that the service generates.
const KEY_FILE: &str = "finishline.key";

/// The newest Engine version whose route is `/generic-job`, as in `v2`.
const LAST_GENERIC_VERSION: f64 = 2.0;

/// The limit of concurrent copies: each may hold 16 MiB of memory on its way to a bucket.
const MAX_COPIES: i64 = 64;

/// More than one process can keep open.
const MAX_CONNECTIONS: i64 = 1_000_000;

/// The limit of concurrent deliveries: each holds a result in memory, up to `callbacks.max_body`.
const MAX_CONCURRENCY: i64 = 256;

/// All settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The process itself.
    pub service: ServiceConfig,
    /// The listener that the Engine calls back to.
    pub callbacks: CallbacksConfig,
    /// The listener for our own callers.
    pub api: ApiConfig,
    /// The Relu Engine.
    pub engine: EngineConfig,
    /// The database.
    pub database: DatabaseConfig,
    /// The emergency spool.
    pub spool: SpoolConfig,
    /// The guard for URLs from others.
    pub outbound: OutboundConfig,
    /// The look-up of jobs without a callback.
    pub reconcile: ReconcileConfig,
    /// The relay of results.
    pub relay: RelayConfig,
    /// The copies of outputs.
    pub mirror: MirrorConfig,
    /// The erasure of old jobs.
    pub retention: RetentionConfig,
    /// Logging.
    pub log: LogConfig,
    /// Environment variables that look like settings but are not.
    #[serde(skip)]
    pub stray_variables: Vec<StrayVariable>,
}

impl Config {
    /// Whether callbacks and API share one listener: `api.listen` is `"same"`, or both have the
    /// same address with a port other than 0.
    pub fn merged(&self) -> bool {
        match self.api.listen {
            ApiListen::Same => true,
            ApiListen::Address(address) => address == self.callbacks.listen && address.port() != 0,
        }
    }

    /// The folder for what the service generates: its key, its spool.
    pub fn state_dir(&self) -> &Path {
        let beside = || self.database.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let set = self.service.state_dir.as_deref().or_else(beside);
        set.unwrap_or(Path::new("."))
    }

    /// The path of the key that the service generates if no other is set.
    pub fn key_file(&self) -> PathBuf {
        self.state_dir().join(KEY_FILE)
    }

    /// The path of the emergency spool.
    pub fn spool_file(&self) -> PathBuf {
        if let Some(path) = &self.spool.path {
            return path.clone();
        }
        let mut name = self.database.path.file_name().unwrap_or_default().to_owned();
        name.push("-spool");
        self.state_dir().join(name)
    }

    /// A warning if other machines can reach the API at `address` and the settings mention no TLS.
    /// [`Self::warnings`] covers the address in the settings.
    pub fn warning_of_listener(&self, address: SocketAddr) -> Option<String> {
        check::plain_listener(self, address)
    }

    /// Warnings about settings that are allowed but that an operator should know about; one line
    /// each, without secrets.
    pub fn warnings(&self) -> Vec<String> {
        check::warnings(self)
    }
}

/// The process itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Where the service keeps what it generates; `None`: the database's folder. See
    /// [`Config::state_dir`].
    #[serde(deserialize_with = "form::optional::<place::FolderPath, _>")]
    pub state_dir: Option<PathBuf>,
    /// How long a stop waits for requests in flight; may be zero.
    #[serde(deserialize_with = "form::one::<form::AnyDuration, _>")]
    pub shutdown_grace: Duration,
    /// The limit of each listener; at least 1.
    #[serde(deserialize_with = "form::count::<_, _, MAX_CONNECTIONS>")]
    pub max_connections: usize,
    /// How long the head of a request may take.
    #[serde(deserialize_with = "form::one::<form::PositiveDuration, _>")]
    pub header_timeout: Duration,
    /// The longest pause between two pieces of a body.
    #[serde(deserialize_with = "form::one::<form::PositiveDuration, _>")]
    pub idle_timeout: Duration,
    /// The longest pause between two requests on a connection.
    #[serde(deserialize_with = "form::one::<form::PositiveDuration, _>")]
    pub keep_alive: Duration,
    /// How long a whole body may take to arrive, and the client to accept the next piece of an
    /// answer.
    #[serde(deserialize_with = "form::one::<form::PositiveDuration, _>")]
    pub body_timeout: Duration,
    /// For transfers larger than a callback. Not a setting: only tests change it.
    #[serde(skip)]
    pub least_rate: LeastRate,
    /// The longest silence of an event stream. Not a setting: only tests change it.
    #[serde(skip)]
    pub heartbeat: Heartbeat,
}

/// The longest silence of an event stream.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat(pub Duration);

impl Default for Heartbeat {
    /// Proxies close a connection that is silent for a minute.
    fn default() -> Self {
        Self(Duration::from_secs(15))
    }
}

/// The slowest accepted rate of the other side of an upload, a copy or a download.
#[derive(Clone, Copy, Debug)]
pub struct LeastRate {
    pub bytes_per_second: u64,
    /// A transfer that stays below the rate for this long is aborted.
    pub patience: Duration,
}

impl Default for LeastRate {
    /// 64 KiB a second is a poor mobile line, and transfers a scan of 200 MiB within an hour. A
    /// minute outlasts the stalls of a working line.
    fn default() -> Self {
        Self { bytes_per_second: 64 * 1024, patience: Duration::from_secs(60) }
    }
}

/// The listener that the Engine calls back to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallbacksConfig {
    /// The port may be 0 (any free one).
    #[serde(deserialize_with = "form::one::<place::Address, _>")]
    pub listen: SocketAddr,
    /// The address of that listener on the internet.
    #[serde(deserialize_with = "form::one::<place::PublicUrl, _>")]
    pub public_url: PublicUrlSetting,
    /// The API of the ngrok agent; no query.
    #[serde(deserialize_with = "form::one::<place::BaseUrl, _>")]
    pub ngrok_api: Url,
    /// The largest callback body in bytes, decoded.
    #[serde(deserialize_with = "form::one::<form::BodyLimit, _>")]
    pub max_body: usize,
    /// Memory for bodies that are being received, in bytes; at least `max_body`.
    #[serde(deserialize_with = "form::one::<form::MemorySize, _>")]
    pub memory: usize,
    /// Part of the inbox's path, unencoded (only unreserved characters); `None`: no inbox.
    #[serde(deserialize_with = "form::optional::<form::InboxSecret, _>")]
    pub inbox_secret: Option<Secret>,
}

/// The listener for our own callers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Where it listens.
    #[serde(deserialize_with = "form::one::<place::ApiAddress, _>")]
    pub listen: ApiListen,
    /// The address for browsers, including any path prefix; `None`: not given.
    #[serde(deserialize_with = "form::optional::<place::BaseUrl, _>")]
    pub public_url: Option<Url>,
    /// Allows everyone on this machine to call without a key if `keys` is empty; `load` accepts it
    /// only on a separate loopback address.
    pub open_on_loopback: bool,
    /// If empty, the service generates one, see [`ApiConfig::is_open`].
    pub keys: Vec<ApiKeyConfig>,
}

impl ApiConfig {
    /// Whether requests need no key. If keys are set, one is always required.
    pub fn is_open(&self) -> bool {
        self.open_on_loopback && self.keys.is_empty()
    }

    /// Whether the service uses a key that it generates.
    pub fn needs_key_file(&self) -> bool {
        !self.open_on_loopback && self.keys.is_empty()
    }
}

/// The Relu Engine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// Region and version; no user, query or fragment.
    #[serde(deserialize_with = "form::one::<place::BaseUrl, _>")]
    pub base_url: Url,
    /// As written; [`EngineConfig::job_url`] applies the default for `None`.
    #[serde(deserialize_with = "form::optional::<place::Route, _>")]
    pub job_path: Option<String>,
    /// As written; [`EngineConfig::result_url`] applies the default for `None`.
    #[serde(deserialize_with = "form::optional::<place::ResultRoute, _>")]
    pub result_path: Option<String>,
    /// JSON pointers (RFC 6901), in the order to try.
    #[serde(deserialize_with = "form::list::<place::JsonPointer, _>")]
    pub job_id_pointers: Vec<String>,
    /// How to recognise a polled job that is still running.
    #[serde(deserialize_with = "form::one::<form::Running, _>")]
    pub running: RunningSetting,
    /// The limit of one call, up to its complete answer.
    #[serde(deserialize_with = "form::one::<form::PositiveDuration, _>")]
    pub timeout: Duration,
    /// How long a submission is retried within one call; zero: one try.
    #[serde(deserialize_with = "form::one::<form::AnyDuration, _>")]
    pub retry_budget: Duration,
    /// For jobs that name no cloud package.
    #[serde(deserialize_with = "form::optional::<form::Text, _>")]
    pub default_cloud_package: Option<String>,
    /// For jobs that name no end user.
    #[serde(deserialize_with = "form::optional::<form::Text, _>")]
    pub default_end_user_id: Option<String>,
    /// How to log in.
    pub auth: AuthConfig,
}

impl EngineConfig {
    /// The URL that jobs are submitted to.
    pub fn job_url(&self) -> Url {
        self.url_below_base(self.job_route())
    }

    /// The URL that is polled for the job with the Engine's id `engine_job_id`.
    pub fn result_url(&self, engine_job_id: &str) -> Url {
        let id = path_segment(engine_job_id);
        match &self.result_path {
            Some(route) => self.url_below_base(&route.replace("{id}", &id)),
            None => {
                self.url_below_base(&format!("{}/{id}", self.job_route().trim_end_matches('/')))
            }
        }
    }

    fn job_route(&self) -> &str {
        match &self.job_path {
            Some(route) => route,
            None if self.has_generic_route() => "/generic-job",
            None => "/job",
        }
    }

    /// Whether the base URL ends in `v2`, `v1.5`, `v0` …; versions like `24.06` are newer.
    fn has_generic_route(&self) -> bool {
        let path = self.base_url.path().trim_end_matches('/');
        let version = path.rsplit('/').next().unwrap_or(path);
        version
            .strip_prefix('v')
            .filter(|number| number.starts_with(|character: char| character.is_ascii_digit()))
            .and_then(|number| number.parse::<f64>().ok())
            .is_some_and(|number| number <= LAST_GENERIC_VERSION)
    }

    fn url_below_base(&self, route: &str) -> Url {
        let mut url = self.base_url.clone();
        let path = format!("{}{route}", self.base_url.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }
}

/// Encodes any text as one segment of a path.
fn path_segment(text: &str) -> String {
    // "." and ".." mean another path even when they are encoded, so a job with such an id cannot be
    // addressed; encoded twice, they at least match no other path.
    if matches!(text, "." | "..") {
        return text.replace('.', "%252E");
    }
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

/// OAuth 2.0 client credentials.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// `None`: no token is sent.
    #[serde(deserialize_with = "form::optional::<place::TokenUrl, _>")]
    pub token_url: Option<Url>,
    /// What the token is for.
    #[serde(deserialize_with = "form::one::<form::Text, _>")]
    pub audience: String,
    /// Empty: not set; `Config::warnings` reports it.
    #[serde(deserialize_with = "form::one::<form::Text, _>")]
    pub client_id: String,
    /// From `client_secret`, or from the file that `client_secret_file` names.
    #[serde(deserialize_with = "form::optional::<form::Secret, _>")]
    pub client_secret: Option<Secret>,
}

/// The database.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// The SQLite file; relative to the working directory unless it is a full path.
    #[serde(rename = "url", deserialize_with = "form::one::<place::SqliteFile, _>")]
    pub path: PathBuf,
}

/// The emergency spool.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolConfig {
    /// As written; [`Config::spool_file`] applies the default for `None`.
    #[serde(deserialize_with = "form::optional::<place::FilePath, _>")]
    pub path: Option<PathBuf>,
    /// In bytes; 0: no spool.
    #[serde(deserialize_with = "form::one::<form::AnySize, _>")]
    pub size: u64,
    /// How long to wait for a busy database; may be zero.
    #[serde(deserialize_with = "form::one::<form::AnyDuration, _>")]
    pub wait: Duration,
}

/// The guard for URLs from others.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboundConfig {
    /// Whether loopback, link-local and private addresses are allowed.
    pub allow_private: bool,
    /// Whether plain http is allowed.
    pub allow_http: bool,
}

/// The look-up of jobs without a callback. None of the durations is zero.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReconcileConfig {
    /// From the submission until a job is due.
    #[serde(deserialize_with = "form::one::<form::DueAfter, _>")]
    pub after: ReconcileAfter,
    /// The pause between two searches for due jobs.
    #[serde(deserialize_with = "form::one::<form::PositiveDuration, _>")]
    pub every: Duration,
    /// From the submission until a job is given up.
    #[serde(deserialize_with = "form::one::<form::PositiveDuration, _>")]
    pub give_up: Duration,
}

/// The relay of results.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// Addresses that get every result.
    pub targets: Vec<RelayTarget>,
    /// The key from which the secrets of jobs' own targets are derived, see
    /// [`RelayConfig::secret_of`]: `whsec_` + standard base64; `None`: relays to them are unsigned.
    #[serde(deserialize_with = "form::optional::<form::WebhookSecret, _>")]
    pub secret: Option<Secret>,
    /// `host`, `host:port` or `*`; hosts in lower case, as `url::Url` spells them.
    #[serde(deserialize_with = "form::list::<place::AllowedHost, _>")]
    pub allowed_hosts: Vec<String>,
    /// The limit of one delivery.
    #[serde(deserialize_with = "form::one::<form::PositiveDuration, _>")]
    pub timeout: Duration,
    /// Concurrent deliveries to one target; at least 1.
    #[serde(deserialize_with = "form::count::<_, _, MAX_CONCURRENCY>")]
    pub concurrency: u32,
    /// The wait before each further try: n entries mean n + 1 tries.
    #[serde(deserialize_with = "form::list::<form::AnyDuration, _>")]
    pub schedule: Vec<Duration>,
}

impl RelayConfig {
    /// The secret that signs relays to a job's own target at `host`, as [`Url::host_str`] spells
    /// it: `whsec_` and the base64 of HMAC-SHA256 over the host in lower case, without trailing
    /// dots, keyed with the bytes of [`RelayConfig::secret`]. The holder of one host's secret can
    /// therefore forge nothing for another host. `None` if that secret is empty.
    pub fn secret_of(&self, host: &str) -> Option<Secret> {
        self.secret.as_ref().map(|secret| value::secret_of_host(secret, host))
    }
}

/// The copies of outputs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorConfig {
    /// `file:///…`, `s3://bucket/prefix` or (for tests) `memory:///`; `None`: no copies.
    #[serde(deserialize_with = "form::optional::<place::StoreUrl, _>")]
    pub store: Option<String>,
    /// Concurrent copies.
    #[serde(deserialize_with = "form::count::<_, _, MAX_COPIES>")]
    pub concurrency: usize,
    /// The largest file that is copied, in bytes.
    #[serde(deserialize_with = "form::one::<form::PositiveSize, _>")]
    pub max_file: u64,
}

/// The erasure of old jobs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// Since the job finished; `None`: never.
    #[serde(deserialize_with = "form::optional::<form::PositiveDuration, _>")]
    pub erase_after: Option<Duration>,
    /// The pause between two searches for such jobs.
    #[serde(deserialize_with = "form::one::<form::PositiveDuration, _>")]
    pub every: Duration,
}

/// Logging.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// How lines are written.
    #[serde(deserialize_with = "form::one::<form::LogStyle, _>")]
    pub format: LogFormat,
    /// A level, and levels of modules.
    #[serde(deserialize_with = "form::one::<form::LogLevel, _>")]
    pub level: Targets,
}
