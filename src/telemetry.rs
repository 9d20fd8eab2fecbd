//! Logs and metrics: how they are set up, and the name of every figure.
//!
//! Set up once by `main` through `cli`; the names are used wherever something is counted. The
//! invariant: no body, token, signature or query string of a pre-signed URL is ever a field or a
//! label.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{LogConfig, LogFormat};

/// Counter, label `outcome`: callbacks received, by what became of them.
pub const CALLBACKS: &str = "finishline_callbacks_total";
/// Counter, label `answer`: submissions, by the problem code or `submitted`.
pub const SUBMISSIONS: &str = "finishline_submissions_total";
/// Counter, label `answer`: inputs uploaded through us, by the problem code or `uploaded`.
pub const UPLOADS: &str = "finishline_uploads_total";
/// Counter, label `outcome`: attempts to copy an output.
pub const MIRROR_ATTEMPTS: &str = "finishline_mirror_attempts_total";
/// Counter: bytes of outputs copied.
pub const MIRRORED_BYTES: &str = "finishline_mirrored_bytes_total";
/// Counter, label `outcome`: tokens fetched from the token endpoint.
pub const TOKEN_FETCHES: &str = "finishline_token_fetches_total";
/// Histogram, seconds: from taking up a batch of changes to its commit.
pub const STORE_COMMIT_SECONDS: &str = "finishline_store_commit_seconds";
/// Histogram: changes committed together.
pub const STORE_BATCH_SIZE: &str = "finishline_store_batch_size";
/// Gauge: changes that wait for the writer.
pub const STORE_QUEUE_DEPTH: &str = "finishline_store_queue_depth";
/// Gauge: callbacks that wait in the emergency spool.
pub const SPOOL_RECORDS: &str = "finishline_spool_records";
/// Gauge: bytes that the emergency spool can still take.
pub const SPOOL_FREE_BYTES: &str = "finishline_spool_free_bytes";
/// Counter, label `reason`: failures to get in, by what was wrong.
pub const ACCESS_FAILURES: &str = "finishline_access_failures_total";
/// Counter, labels `method`, `route`, `status`: requests answered.
pub const HTTP_REQUESTS: &str = "finishline_http_requests_total";
/// Histogram, seconds, labels `method`, `route`: time to the answer's head.
pub const HTTP_SECONDS: &str = "finishline_http_request_seconds";

/// Gauge, label `door`: connections that are open.
pub const HTTP_CONNECTIONS: &str = "finishline_http_connections";
/// Counter, labels `door`, `reason`: connections that were ended for taking too long or too much.
pub const HTTP_CUT: &str = "finishline_http_connections_cut_total";

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
    metrics::describe_counter!(CALLBACKS, "Callbacks received, by outcome");
    metrics::describe_counter!(SUBMISSIONS, "Submissions, by answer");
    metrics::describe_counter!(UPLOADS, "Inputs uploaded, by answer");
    metrics::describe_counter!(MIRROR_ATTEMPTS, "Attempts to copy an output, by outcome");
    metrics::describe_counter!(MIRRORED_BYTES, "Bytes of outputs copied");
    metrics::describe_counter!(TOKEN_FETCHES, "Tokens fetched, by outcome");
    metrics::describe_histogram!(STORE_COMMIT_SECONDS, "Time to commit a batch of changes");
    metrics::describe_histogram!(STORE_BATCH_SIZE, "Changes committed together");
    metrics::describe_gauge!(STORE_QUEUE_DEPTH, "Changes that wait for the writer");
    metrics::describe_gauge!(SPOOL_RECORDS, "Callbacks that wait in the emergency spool");
    metrics::describe_gauge!(SPOOL_FREE_BYTES, "Bytes that the emergency spool can still take");
    metrics::describe_counter!(ACCESS_FAILURES, "Failures to get in, by what was wrong");
    metrics::describe_counter!(HTTP_REQUESTS, "Requests answered, by route and status");
    metrics::describe_histogram!(HTTP_SECONDS, "Time to the head of an answer, by route");
    metrics::describe_gauge!(HTTP_CONNECTIONS, "Connections that are open, by door");
    metrics::describe_counter!(HTTP_CUT, "Connections ended by a limit, by door and reason");
}
