//! Logs and metrics: how they are set up, and every figure with its labels.
//!
//! Set up once by `main` through `cli`; the figures are used wherever something is counted. The
//! invariants: no body, token, signature or query string of a pre-signed URL is ever a field or a
//! label, nothing outside this module names `metrics`, so every label is a [`Label`];
//! no field's text steers a terminal or begins a line of its own.

mod figure;

use std::{
    fmt::Debug,
    io::{self, IsTerminal as _, Write},
    sync::OnceLock,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::field::Field;
use tracing_subscriber::{
    Layer, Registry,
    field::MakeExt as _,
    fmt::{
        self,
        format::{Writer, debug_fn},
    },
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

pub use self::figure::{Counter, Gauge, Histogram, Label};
use crate::{
    config::{LogConfig, LogFormat},
    printable,
};

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
/// Failures to get in.
pub const ACCESS_FAILURES: Counter<1> = Counter::new(
    "finishline_access_failures_total",
    ["reason"],
    "Failures to get in, by what was wrong",
);
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
    let has_colours = io::stderr().is_terminal() && printable::may_have_colours();
    let logs = lines(config.format, has_colours, io::stderr);
    // A second set-up in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry().with(logs.with_filter(config.level.clone())).try_init();
}

/// A line for each event, written to what `open` gives.
fn lines<W: Write + 'static>(
    format: LogFormat,
    has_colours: bool,
    open: impl Fn() -> W + Send + Sync + 'static,
) -> Box<dyn Layer<Registry> + Send + Sync> {
    match format {
        LogFormat::Json => {
            let logs = fmt::layer().with_writer(move || JsonLines(open()));
            logs.json().flatten_event(true).boxed()
        }
        LogFormat::Text => {
            let logs = fmt::layer().with_writer(open).with_ansi(has_colours);
            logs.fmt_fields(debug_fn(write_field).delimited(" ")).boxed()
        }
    }
}

/// Writes a field of an event or a span as text.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    let value = format!("{value:?}");
    let value = printable::line(&value);
    match field.name() {
        "message" => write!(writer, "{value}"),
        name if writer.has_ansi_escapes() => {
            write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}")
        }
        name => write!(writer, "{name}={value}"),
    }
}

/// Takes whole lines of JSON, as the logger writes them.
struct JsonLines<W>(W);

impl<W: Write> Write for JsonLines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line.trim_ascii_end());
        writeln!(self.0, "{}", printable::json(&text))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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
    ACCESS_FAILURES.describe();
    HTTP_REQUESTS.describe();
    HTTP_SECONDS.describe();
    HTTP_CONNECTIONS.describe();
    HTTP_CUT.describe();
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const FOREIGN: &str = "\u{1b}[31mred\u{9b}2J\u{7f}\u{202e}\u{2028}\r\n2026 ERROR forged";

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat) -> String {
        let written = Written::default();
        let open = written.clone();
        let logs = tracing_subscriber::registry().with(lines(format, false, move || open.clone()));
        tracing::subscriber::with_default(logs, || {
            let span = tracing::info_span!("request", method = %FOREIGN, route = FOREIGN);
            let _entered = span.enter();
            let error = io::Error::other(FOREIGN);
            tracing::warn!(%error, text = FOREIGN, debugged = ?FOREIGN, "{FOREIGN}");
        });
        let bytes = written.0.lock().expect("no panic").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn what_is_logged_stays_in_its_line_and_steers_nothing() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let log = logged(format);
            let line = log.strip_suffix('\n').expect("a whole line");
            assert_eq!(printable::line(line), line, "{format:?}");
            assert!(line.matches("forged").count() >= 6, "{format:?}: nothing is left out: {line}");
        }
        let json: serde_json::Value = serde_json::from_str(&logged(LogFormat::Json)).expect("JSON");
        assert_eq!(json["text"], FOREIGN);
    }
}
