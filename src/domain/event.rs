//! Events: the timeline of a job, one row each, rendered once when it is written.
//!
//! The store writes an event in the same transaction as the fact that it reports. Invariant: the
//! data of an event holds no personal data, no credential and no signed link.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{delivery::Outcome, ids::JobId};

/// The kinds of events in a job's timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    JobSubmitted,
    JobUnsent,
    JobRejected,
    JobUnconfirmed,
    JobFinished,
    /// Past its due time without a callback.
    JobOverdue,
    /// A look-up at the Engine returned its result.
    JobReconciled,
    /// It is no longer looked up; a callback is still accepted.
    JobGivenUp,
    /// Created when a valid callback arrived for an unknown job.
    JobRecovered,
    /// Every output that should be copied has been copied.
    JobSecured,
    InputUploaded,
    /// A file did not reach the storage.
    InputUploadFailed,
    /// The Engine was notified that inputs are uploaded.
    InputNotified,
    OutputMirrored,
    /// An attempt to copy an output failed, or the copy was damaged.
    OutputMirrorFailed,
    RelayDelivered,
    /// An attempt failed; another follows.
    RelayFailed,
    /// No further attempt follows unless one is requested.
    RelayDead,
    JobErased,
    DeliverySpooled,
    DeliveryDuplicate,
    DeliveryRefreshed,
    DeliveryConflict,
    /// Larger than the limit; nothing was stored.
    DeliveryOversize,
    DeliveryUnrecognised,
    DeliveryMalformed,
}

impl EventType {
    /// Every type.
    pub const ALL: [Self; 26] = [
        Self::JobSubmitted,
        Self::JobUnsent,
        Self::JobRejected,
        Self::JobUnconfirmed,
        Self::JobFinished,
        Self::JobOverdue,
        Self::JobReconciled,
        Self::JobGivenUp,
        Self::JobRecovered,
        Self::JobSecured,
        Self::InputUploaded,
        Self::InputUploadFailed,
        Self::InputNotified,
        Self::OutputMirrored,
        Self::OutputMirrorFailed,
        Self::RelayDelivered,
        Self::RelayFailed,
        Self::RelayDead,
        Self::JobErased,
        Self::DeliverySpooled,
        Self::DeliveryDuplicate,
        Self::DeliveryRefreshed,
        Self::DeliveryConflict,
        Self::DeliveryOversize,
        Self::DeliveryUnrecognised,
        Self::DeliveryMalformed,
    ];

    /// The name in JSON, SQL and server-sent events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobSubmitted => "job.submitted",
            Self::JobUnsent => "job.unsent",
            Self::JobRejected => "job.rejected",
            Self::JobUnconfirmed => "job.unconfirmed",
            Self::JobFinished => "job.finished",
            Self::JobOverdue => "job.overdue",
            Self::JobReconciled => "job.reconciled",
            Self::JobGivenUp => "job.given_up",
            Self::JobSecured => "job.secured",
            Self::InputUploaded => "input.uploaded",
            Self::InputUploadFailed => "input.upload_failed",
            Self::InputNotified => "input.notified",
            Self::OutputMirrored => "output.mirrored",
            Self::OutputMirrorFailed => "output.mirror_failed",
            Self::RelayDelivered => "relay.delivered",
            Self::RelayFailed => "relay.failed",
            Self::RelayDead => "relay.dead",
            Self::JobRecovered => "job.recovered",
            Self::JobErased => "job.erased",
            Self::DeliverySpooled => "delivery.spooled",
            Self::DeliveryDuplicate => "delivery.duplicate",
            Self::DeliveryRefreshed => "delivery.refreshed",
            Self::DeliveryConflict => "delivery.conflict",
            Self::DeliveryOversize => "delivery.oversize",
            Self::DeliveryUnrecognised => "delivery.unrecognised",
            Self::DeliveryMalformed => "delivery.malformed",
        }
    }

    /// The event type for a delivery with this outcome.
    pub fn of_delivery(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Stored => Self::JobFinished,
            Outcome::Duplicate => Self::DeliveryDuplicate,
            Outcome::Refreshed => Self::DeliveryRefreshed,
            Outcome::Conflict => Self::DeliveryConflict,
            Outcome::Unrecognised => Self::DeliveryUnrecognised,
            Outcome::Malformed => Self::DeliveryMalformed,
        }
    }
}

/// A stored event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Increases with every event of the instance; never reused.
    pub seq: i64,
    pub job_id: JobId,
    /// The name of an [`EventType`], as text: an older program can show a newer one's events.
    pub kind: String,
    pub at: Timestamp,
    /// A JSON object.
    pub data: String,
}

/// An event to be written.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub job_id: JobId,
    pub kind: EventType,
    pub at: Timestamp,
    pub data: Value,
}

impl NewEvent {
    /// An event without data.
    pub fn new(job_id: JobId, kind: EventType, at: Timestamp) -> Self {
        Self { job_id, kind, at, data: json!({}) }
    }

    /// The same event with this JSON object as its data.
    pub fn with(self, data: Value) -> Self {
        Self { data, ..self }
    }
}
