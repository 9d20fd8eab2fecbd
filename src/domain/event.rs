//! Events: the timeline of a job, one row each, rendered once when it is written.
//!
//! Written by the store in the transaction of the fact they tell. The invariant: the data of an
//! event holds no personal data, no credential and no signed link.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{delivery::Outcome, ids::JobId};

/// Everything that is worth a line in a job's timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    JobSubmitted,
    JobUnsent,
    JobRejected,
    JobUnconfirmed,
    JobFinished,
    /// Past its due time without a callback.
    JobOverdue,
    /// A look at the Engine brought its result.
    JobReconciled,
    /// It is looked up no more; a callback is still taken.
    JobGivenUp,
    /// Made on arrival of a callback that proves itself.
    JobRecovered,
    /// Every output that is to be copied is.
    JobSecured,
    InputUploaded,
    /// A file did not reach the storage.
    InputUploadFailed,
    /// The Engine was told that inputs are there.
    InputNotified,
    OutputMirrored,
    /// An attempt to copy an output failed, or the copy was damaged.
    OutputMirrorFailed,
    RelayDelivered,
    /// An attempt failed; another follows.
    RelayFailed,
    /// No further attempt follows unless it is ordered.
    RelayDead,
    JobErased,
    DeliverySpooled,
    DeliveryDuplicate,
    DeliveryRefreshed,
    DeliveryConflict,
    /// Larger than the limit; nothing was kept.
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

    /// As it is written in JSON, SQL and server-sent events.
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

    /// The event that tells of a delivery with this outcome.
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

/// An event on record.
#[derive(Clone, Debug)]
pub struct Event {
    /// Grows with every event of the instance; never used twice.
    pub seq: i64,
    pub job_id: JobId,
    /// One of [`EventType`], as text: an older program shows a newer one's events.
    pub kind: String,
    pub at: Timestamp,
    /// A JSON object.
    pub data: String,
}

/// An event about to be written.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub job_id: JobId,
    pub kind: EventType,
    pub at: Timestamp,
    pub data: Value,
}

impl NewEvent {
    /// An event with no more to say than its type.
    pub fn new(job_id: JobId, kind: EventType, at: Timestamp) -> Self {
        Self { job_id, kind, at, data: json!({}) }
    }

    /// The same event with this JSON object as its data.
    pub fn with(self, data: Value) -> Self {
        Self { data, ..self }
    }
}
