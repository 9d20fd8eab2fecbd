//! Logs and metrics: how they are set up, and every figure with its labels.
//!
//! Set up once by `main` through `cli`; the figures are used wherever something is counted. The
//! invariants: no body, token, signature or query string of a pre-signed URL is ever a field or a
//! label, and nothing outside this module names `metrics`, so every label is a [`Label`].

mod figure;

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

pub use self::figure::{Counter, Gauge, Histogram, Label};
use crate::config::{LogConfig, LogFormat};

/// Callbacks received, by what became of them.
pub const CALLBACKS: Counter<1> =
    Counter::new("finishline_callbacks_total", ["outcome"], "Callbacks received, by outcome");
/// Submissions, by the problem code, `submitted` or `replayed`.
pub const SUBMISSIONS: Counter<1> =
    Counter::new("finishline_submissions_total", ["answer"], "Submissions, by answer");
/// Inputs uploaded through us, by the problem code or `uploaded`.
pub const UPLOADS: Counter<1> =
    Counter::new("finishline_uploads_total", ["answer"], "Inputs uploaded, by answer");
/// Attempts to copy an output.
pub const MIRROR_ATTEMPTS: Counter<1> = Counter::new(
    "finishline_mirror_attempts_total",
    ["outcome"],
    "Attempts to copy an output, by outcome",
);
/// Bytes of outputs copied.
pub const MIRRORED_BYTES: Counter<0> =
    Counter::new("finishline_mirrored_bytes_total", [], "Bytes of outputs copied");
/// Tokens fetched from the token endpoint.
pub const TOKEN_FETCHES: Counter<1> =
    Counter::new("finishline_token_fetches_total", ["outcome"], "Tokens fetched, by outcome");
/// Seconds from taking up a batch of changes to its commit.
pub const STORE_COMMIT_SECONDS: Histogram<0> =
    Histogram::new("finishline_store_commit_seconds", [], "Time to commit a batch of changes");
/// Changes committed together.
pub const STORE_BATCH_SIZE: Histogram<0> =
    Histogram::new("finishline_store_batch_size", [], "Changes committed together");
/// Changes that wait for the writer.
pub const STORE_QUEUE_DEPTH: Gauge<0> =
    Gauge::new("finishline_store_queue_depth", [], "Changes that wait for the writer");
/// Callbacks that wait in the emergency spool.
pub const SPOOL_RECORDS: Gauge<0> =
    Gauge::new("finishline_spool_records", [], "Callbacks that wait in the emergency spool");
/// Bytes that the emergency spool can still take.
pub const SPOOL_FREE_BYTES: Gauge<0> =
    Gauge::new("finishline_spool_free_bytes", [], "Bytes that the emergency spool can still take");
/// Requests answered.
pub const HTTP_REQUESTS: Counter<3> = Counter::new(
    "finishline_http_requests_total",
    ["method", "route", "status"],
    "Requests answered, by route and status",
);
/// Seconds to the head of an answer.
pub const HTTP_SECONDS: Histogram<2> = Histogram::new(
    "finishline_http_request_seconds",
    ["method", "route"],
    "Time to the head of an answer, by route",
);
/// Connections that are open.
pub const HTTP_CONNECTIONS: Gauge<1> =
    Gauge::new("finishline_http_connections", ["door"], "Connections that are open, by door");
/// Connections that were ended for taking too long or too much.
pub const HTTP_CUT: Counter<2> = Counter::new(
    "finishline_http_connections_cut_total",
    ["door", "reason"],
    "Connections ended by a limit, by door and reason",
);

const SECONDS_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
const BATCH_BUCKETS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Writes logs to standard error, as the settings say.
pub fn start_logging(config: &LogConfig) {
    let logs = fmt::layer().with_writer(std::io::stderr);
    let logs = match config.format {
        LogFormat::Json => logs.json().flatten_event(true).boxed(),
        LogFormat::Text => {
            logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed()
        }
    };
    // A second set-up in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry().with(logs.with_filter(config.level.clone())).try_init();
}

/// Collects metrics from now on; the first call in a process decides.
pub fn start_metrics() -> &'static PrometheusHandle {
    METRICS.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Suffix("_size".into()), &BATCH_BUCKETS)
            })
            .expect("the buckets are not empty")
            .build_recorder();
        let handle = recorder.handle();
        // Another recorder in the process keeps its place; ours then renders nothing.
        let _ = metrics::set_global_recorder(recorder);
        describe();
        handle
    })
}

fn describe() {
    CALLBACKS.describe();
    SUBMISSIONS.describe();
    UPLOADS.describe();
    MIRROR_ATTEMPTS.describe();
    MIRRORED_BYTES.describe();
    TOKEN_FETCHES.describe();
    STORE_COMMIT_SECONDS.describe();
    STORE_BATCH_SIZE.describe();
    STORE_QUEUE_DEPTH.describe();
    SPOOL_RECORDS.describe();
    SPOOL_FREE_BYTES.describe();
    HTTP_REQUESTS.describe();
    HTTP_SECONDS.describe();
    HTTP_CONNECTIONS.describe();
    HTTP_CUT.describe();
}
