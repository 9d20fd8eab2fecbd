//! A job: what was requested, its status and its result.
//!
//! Stores build it, the HTTP layer shows it. Invariant: a finished job never returns to an open
//! status ([`JobStatus::is_finished`]).

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::{
    bounds::{MAX_WARNING_CHARS, MAX_WARNINGS, beginning},
    ids::JobId,
    link,
    mirror::MirroredFile,
    names::Names,
};

/// The status of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobStatus {
    /// Stored; the Engine has not answered yet.
    Submitting,
    /// The Engine accepted it.
    Submitted,
    /// The Engine certainly did not accept it; it is safe to send again.
    Unsent,
    /// The Engine refused it.
    Rejected,
    /// It may be running; only a callback can confirm it.
    Unconfirmed,
    /// Finished with every output that could be produced.
    Succeeded,
    /// Finished, some output `Failed`.
    Partial,
    /// Finished without success.
    Failed,
}

impl JobStatus {
    /// Every status, in the order of a job's life.
    pub const ALL: [Self; 8] = [
        Self::Submitting,
        Self::Submitted,
        Self::Unsent,
        Self::Rejected,
        Self::Unconfirmed,
        Self::Succeeded,
        Self::Partial,
        Self::Failed,
    ];

    /// The name in JSON, SQL and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitting => "submitting",
            Self::Submitted => "submitted",
            Self::Unsent => "unsent",
            Self::Rejected => "rejected",
            Self::Unconfirmed => "unconfirmed",
            Self::Succeeded => "succeeded",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }

    /// What it means for sending the job again that it was not accepted, or may not have been. The
    /// log, problems, events and pages all use exactly these words, because every job that is sent
    /// twice costs money.
    pub fn outlook(self) -> Option<&'static str> {
        match self {
            Self::Unsent => Some("the job was not taken: it is safe to send again"),
            Self::Rejected => Some("the job was refused: it would be refused again as it is"),
            Self::Unconfirmed => Some(
                "the job may be running and its callback settles it: do not submit it again, or \
                 it may be paid twice",
            ),
            _ => None,
        }
    }

    /// Whether the Engine may be working on it and its callback is awaited.
    pub fn is_in_flight(self) -> bool {
        matches!(self, Self::Submitting | Self::Submitted | Self::Unconfirmed)
    }

    /// Whether a result has been stored for it.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Partial | Self::Failed)
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for JobStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|status| status.as_str()).collect();
            format!("expected one of {}", known.join(", "))
        })
    }
}

/// How a job was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Through `POST /v1/jobs`.
    Submitted,
    /// By a callback with a valid signature, for a job that was not in the database.
    Recovered,
    /// Through the inbox: submitted elsewhere.
    Inbox,
}

impl Origin {
    /// Every origin.
    pub const ALL: [Self; 3] = [Self::Submitted, Self::Recovered, Self::Inbox];

    /// The name in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Recovered => "recovered",
            Self::Inbox => "inbox",
        }
    }
}

/// One scan that the Engine needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its modality: the key under `inputFiles`.
    pub name: String,
    /// Includes the leading dot.
    pub extension: String,
    /// Pre-signed, from the Engine's reply.
    pub upload_url: Option<String>,
    /// Called after the upload; from the Engine's reply.
    pub notify_url: Option<String>,
    pub state: InputState,
}

/// The progress of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputState {
    /// Not uploaded yet.
    Awaiting,
    Uploaded,
    /// Uploaded, and the Engine was notified.
    Notified,
    /// It had a `downloadUrl`: nothing to upload.
    Provided,
}

impl InputState {
    /// Every state, in the order of an upload.
    pub const ALL: [Self; 4] = [Self::Awaiting, Self::Uploaded, Self::Notified, Self::Provided];

    /// The name in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Awaiting => "awaiting",
            Self::Uploaded => "uploaded",
            Self::Notified => "notified",
            Self::Provided => "provided",
        }
    }
}

impl FromStr for InputState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == text);
        known.ok_or_else(|| format!("unknown input state {text}"))
    }
}

/// One file that the Engine was asked for, or reported without a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Unique within the job: `meshes-0`, or `unmatched-0` for one that matches no request.
    pub name: String,
    /// The key under `outputFiles`.
    pub kind: String,
    /// Position among the requested files of its kind; `None` if it matches none of them.
    pub index: Option<u32>,
    pub extension: Option<String>,
    pub structures: Names,
    /// As the Engine spelled it; `None` before the result, and if the result does not give it.
    pub status: Option<String>,
    /// A pre-signed, short-lived link from the Engine.
    pub url: Option<String>,
    /// The copy, once it exists.
    pub file: Option<MirroredFile>,
}

/// A job as it is stored.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: JobId,
    pub status: JobStatus,
    pub success: Option<bool>,
    /// Past its due time without a result; false once it has finished.
    pub overdue: bool,
    pub origin: Origin,
    /// Whether every output that should be copied has been copied; `None` before the result, and if
    /// mirroring was off when it arrived.
    pub secured: Option<bool>,
    /// The caller's own label, never sent to the Engine.
    pub reference: Option<String>,
    pub engine_job_id: Option<String>,
    pub end_user_id: Option<String>,
    pub cloud_package: Option<String>,
    pub external_job_id: Option<String>,
    pub created_at: Timestamp,
    pub submitted_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// The caller's body without `finishline`, with defaults filled in; `None` for a job that was
    /// not submitted here.
    pub request: Option<Box<RawValue>>,
    pub inputs: Vec<Input>,
    pub outputs: Vec<Output>,
    /// HTTP status of the Engine's last answer to the submission.
    pub engine_status: Option<u16>,
    /// Body of that answer; text that is not JSON is stored as a JSON string.
    pub engine_response: Option<Box<RawValue>>,
    /// Distinct deliveries that were received.
    pub deliveries: u32,
    pub warnings: Vec<String>,
}

/// The warning for a link that is left out.
const LINK_LEFT_OUT: &str = "A link of the Engine's is not shown: it is not http or https, holds a user name, or is longer \
     than a link. The body it came in is kept as it came.";

impl Job {
    /// Adds a warning unless the job already has it.
    pub fn warn(&mut self, warning: &str) {
        warn(&mut self.warnings, warning);
    }

    /// The job as it is shown in JSON and on pages: without links that nobody should follow, see
    /// [`link::is_shown`], but with a warning if there was one.
    pub fn into_shown(mut self) -> Self {
        let inputs = self.inputs.iter_mut();
        let links = inputs.flat_map(|input| [&mut input.upload_url, &mut input.notify_url]);
        let links = links.chain(self.outputs.iter_mut().map(|output| &mut output.url));
        let mut is_any_left_out = false;
        for link in links {
            if link.as_ref().is_some_and(|link| !link::is_shown(link)) {
                *link = None;
                is_any_left_out = true;
            }
        }
        if is_any_left_out {
            self.warn(LINK_LEFT_OUT);
        }
        self
    }
}

/// Adds a warning, unless it is already there or there are [`MAX_WARNINGS`].
pub fn warn(warnings: &mut Vec<String>, warning: &str) {
    let warning = beginning(warning, MAX_WARNING_CHARS);
    if warnings.len() < MAX_WARNINGS && !warnings.iter().any(|known| known == warning) {
        warnings.push(warning.to_owned());
    }
}

/// What is unusual about a job besides its status, as shown in a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobFlags {
    /// In flight with a callback address that is not under the current public URL.
    pub has_stale_callback: bool,
    /// A later delivery has another reading than the result.
    pub has_conflict: bool,
    /// One of its targets did not accept the result.
    pub has_dead_relay: bool,
}
