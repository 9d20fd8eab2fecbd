//! Every behaviour of the simulator, as flags of `simulate-engine` and as JSON under
//! `/_simulator/options`.
//!
//! Set by tests and operators; handlers read the options at the moment of use. Invariant:
//! `Options::default()` equals the command line without flags, an Engine without faults.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser};
use humantime::parse_duration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dialect::{
    Conflict, Echo, IdField, NotifyPlace, Processing, ResultShape, Running, UrlField,
};
use super::fault::FaultRate;

/// How the simulated Engine behaves. A RATE is `never`, `always`, `first:N`, `first-of-each:N` (of every file) or a
/// probability such as `0.3`; the flag alone means `always`.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[group(skip)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Seed of the probabilities; without one every run differs (read at start)
    #[arg(long)]
    pub seed: Option<u64>,
    /// Append accepted jobs, and callbacks answered 2xx, to this file as JSON lines (read at start)
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,

    /// Refuse job, poll and notify calls without a valid token
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub require_token: bool,
    /// Ask for the token on notify calls too
    #[arg(long)]
    pub notify_requires_token: bool,
    /// The only audience that gets a token; unset: any
    #[arg(long)]
    pub audience: Option<String>,
    /// The only client id that gets a token; unset: any
    #[arg(long)]
    pub client_id: Option<String>,
    /// The only client secret that gets a token; unset: any
    #[arg(long)]
    pub client_secret: Option<String>,
    /// Life of a token, announced as `expires_in`
    #[arg(long, default_value = "24h", value_parser = parse_duration)]
    #[serde(with = "duration_text")]
    pub token_life: Duration,
    /// Forget tokens this long after issue, whatever `expires_in` said; 0s: keep to it
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    #[serde(with = "duration_text")]
    pub forget_tokens_after: Duration,
    /// Revoke a valid token as it is presented, and answer 401
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub revoke_tokens: FaultRate,
    /// Answer token requests with `token_status`
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub refuse_tokens: FaultRate,
    /// The status of a refused token request
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(200..600))]
    pub token_status: u16,
    /// Wait before answering a token request
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    #[serde(with = "duration_text")]
    pub token_delay: Duration,

    /// Field of the Engine's job id
    #[arg(long, value_enum, default_value = "jobId")]
    pub id_field: IdField,
    /// Place of `notifyUrl` in the reply
    #[arg(long, value_enum, default_value = "per-file")]
    pub notify_place: NotifyPlace,
    /// Field of an output's link
    #[arg(long, value_enum, default_value = "url")]
    pub url_field: UrlField,
    /// How a polled job looks while it runs
    #[arg(long, value_enum, default_value = "202")]
    pub running: Running,
    /// Status of the reply to an accepted job
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..600))]
    pub reply_status: u16,
    /// Reply with plain text instead of JSON
    #[arg(long)]
    pub reply_without_json: bool,
    /// How a result holds its outputs
    #[arg(long, value_enum, default_value = "list")]
    pub result_shape: ResultShape,
    /// What a result repeats of each output
    #[arg(long, value_enum, default_value = "all")]
    pub echo: Echo,
    /// Say `Success` where `Available` is meant
    #[arg(long)]
    pub status_success: bool,
    /// Refuse a second notify for the same input (409)
    #[arg(long)]
    pub refuse_second_notify: bool,

    /// Time a job takes, or `manual`
    #[arg(long, default_value = "2s")]
    pub processing: Processing,
    /// Structures (or kinds of output) that are not in the patient's data
    #[arg(long, value_name = "STRUCTURE", value_delimiter = ',')]
    pub missing: Vec<String>,
    /// Structures (or kinds of output) that cannot be computed
    #[arg(long, value_name = "STRUCTURE", value_delimiter = ',')]
    pub failed: Vec<String>,
    /// Fail the whole job: `success: false`, an error, no outputs
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub fail_job: FaultRate,
    /// Pad results with this many bytes
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub result_padding: usize,
    /// Add a value nested this many levels to results
    #[arg(long, value_name = "LEVELS", default_value_t = 0)]
    pub result_nesting: usize,
    /// Fetch inputs that have a `downloadUrl`; the job fails when one cannot be fetched
    #[arg(long)]
    pub fetch_downloads: bool,
    /// Write outputs to their `uploadUrl`
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub write_uploads: bool,

    /// Accept the job, then close the connection without a byte of reply
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub lose_reply: FaultRate,
    /// Close the connection without reading or accepting the job
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub close_before_accept: FaultRate,
    /// Accept the job, send half of the reply, close the connection
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub half_reply: FaultRate,
    /// Never answer the submission
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub hang: FaultRate,
    /// Answer submissions with this status
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(200..600))]
    pub answer: Option<u16>,
    /// How often `answer` and `redirect_to` are used
    #[arg(long, value_name = "RATE", default_value = "always")]
    pub answer_rate: FaultRate,
    /// `Retry-After` of `answer`, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub retry_after: Option<u64>,
    /// Accept the job before `answer`, `redirect_to` and `hang`
    #[arg(long)]
    pub answer_after_accept: bool,
    /// Redirect submissions to this address (307, or `answer`)
    #[arg(long, value_name = "URL")]
    pub redirect_to: Option<String>,
    /// Wait before the reply to an accepted job
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    #[serde(with = "duration_text")]
    pub reply_delay: Duration,
    /// Answer polls with this status
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(200..600))]
    pub poll_answer: Option<u16>,
    /// How often `poll_answer` is used
    #[arg(long, value_name = "RATE", default_value = "always")]
    pub poll_answer_rate: FaultRate,
    /// Re-sign the links in every polled result (other bytes, same reading)
    #[arg(long)]
    pub resign_polls: bool,

    /// Never send a job's callback
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub drop_callbacks: FaultRate,
    /// Wait before sending a callback
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    #[serde(with = "duration_text")]
    pub delay_callbacks: Duration,
    /// Send every callback this many times more
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub repeat_callbacks: u32,
    /// Send the repeats all at once
    #[arg(long)]
    pub repeat_concurrently: bool,
    /// Re-sign the links in repeats (other bytes, same reading)
    #[arg(long)]
    pub resign_repeats: bool,
    /// Send one more repeat that says something else
    #[arg(long, value_enum, default_value = "none")]
    pub conflicting_repeat: Conflict,
    /// Hold a callback until the next job's callback was sent
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub reorder_callbacks: FaultRate,
    /// Finish the job and send its callback before replying to the submission, uploaded or not
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub callback_before_reply: FaultRate,
    /// Send a callback that was not answered 2xx again, so many times
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub callback_retries: u32,
    /// Wait before each of those
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    #[serde(with = "duration_text")]
    pub callback_retry_wait: Duration,
    /// Send half of the JSON
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub malformed_callbacks: FaultRate,
    /// Send an empty body
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub empty_callbacks: FaultRate,
    /// Leave `success` out
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub callbacks_without_success: FaultRate,
    /// Put bytes into a string that are not UTF-8
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub invalid_utf8_callbacks: FaultRate,
    /// Send callbacks gzip-encoded
    #[arg(long)]
    pub gzip_callbacks: bool,
    /// Send callbacks chunked, without `Content-Length`
    #[arg(long)]
    pub chunked_callbacks: bool,

    /// Life of upload and download links
    #[arg(long, default_value = "15m", value_parser = parse_duration)]
    #[serde(with = "duration_text")]
    pub link_life: Duration,
    /// Find the link of an upload expired (403); that link stays so
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub expire_uploads: FaultRate,
    /// Find the link of a download expired (403); that link stays so, a fresh one may work
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub expire_downloads: FaultRate,
    /// Refuse uploads that do not look like their announced extension
    #[arg(long)]
    pub check_uploads: bool,
    /// Refuse uploads without `Content-Length` (411), as object stores do
    #[arg(long)]
    pub require_content_length: bool,
    /// Answer uploads with this status
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(200..600))]
    pub upload_answer: Option<u16>,
    /// How often `upload_answer` is used
    #[arg(long, value_name = "RATE", default_value = "always")]
    pub upload_answer_rate: FaultRate,
    /// Answer notify calls with this status
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(200..600))]
    pub notify_answer: Option<u16>,
    /// Answer downloads with this status
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(200..600))]
    pub download_answer: Option<u16>,
    /// How often `download_answer` is used
    #[arg(long, value_name = "RATE", default_value = "always")]
    pub download_answer_rate: FaultRate,
    /// Close the connection midway through an upload
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub cut_uploads: FaultRate,
    /// Close the connection midway through a download
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub cut_downloads: FaultRate,
    /// Cut after so many bytes; unset: halfway
    #[arg(long, value_name = "BYTES")]
    pub cut_after: Option<u64>,
    /// Announce downloads longer by this than they are, and close; if negative, send and announce as much less
    #[arg(long, value_name = "BYTES", default_value_t = 0, allow_negative_numbers = true)]
    pub lie_length: i64,
    /// How often `lie_length` is used
    #[arg(long, value_name = "RATE", default_value = "always")]
    pub lie_length_rate: FaultRate,
    /// Send one wrong byte in the middle of a download
    #[arg(long, value_name = "RATE", default_value = "never", num_args = 0..=1, default_missing_value = "always")]
    pub corrupt_downloads: FaultRate,
    /// Send the true `Content-MD5` of downloads up to 32 MiB (`x-ms-blob-content-md5` with ranges), as Azure does
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub content_md5: bool,
    /// Send downloads chunked, without `Content-Length`
    #[arg(long)]
    pub omit_content_length: bool,
    /// Answer range requests with the whole file
    #[arg(long)]
    pub ignore_ranges: bool,
    /// Bytes per second of each upload and download; 0: as fast as it goes
    #[arg(long, value_name = "BYTES_PER_SECOND", default_value_t = 0)]
    pub throttle: u64,
    /// Make output files at least this large
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub output_size: u64,
}

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    options: Options,
}

impl Default for Options {
    fn default() -> Self {
        CommandLine::parse_from(["simulate-engine"]).options
    }
}

impl Options {
    /// These options with the fields of a JSON object replaced; an error names the wrong field.
    pub(super) fn merged(&self, patch: Value) -> Result<Self, String> {
        let Value::Object(patch) = patch else {
            return Err("the options are a JSON object".into());
        };
        let mut merged = serde_json::to_value(self).map_err(|error| error.to_string())?;
        for (name, value) in patch {
            merged[name.as_str()] = value;
        }
        serde_json::from_value(merged).map_err(|error| error.to_string())
    }
}

mod duration_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(D::Error::custom)
    }
}
