//! What was received, on its way to the database, directly or through the emergency spool.
//!
//! Created by the callbacks, the workers and the spool; recorded by the store. Invariant: an
//! arrival's digest and reading are those of its body.

use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::spool::SpoolId;
use crate::domain::{
    delivery::{ENGINE_SOURCE, Outcome},
    ids::{DeliveryId, JobId},
    result::{self, Reading},
    signing_keys::KeyNumber,
};

/// What a body was received for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addressee {
    /// The job that a callback address proves.
    Job(JobId),
    /// The inbox job with this key (SHA-256 of the Engine's id, else of the body), made if there
    /// is none.
    Inbox([u8; 32]),
}

impl Addressee {
    /// The inbox job that a body is for: by the Engine's id if the body has one, else by the body's
    /// digest.
    pub fn of_inbox(engine_job_id: Option<&str>, sha256: &[u8; 32]) -> Self {
        Self::Inbox(engine_job_id.map_or(*sha256, inbox_key))
    }
}

/// The key of the inbox job with this id of the Engine.
pub fn inbox_key(engine_job_id: &str) -> [u8; 32] {
    Sha256::digest(format!("engine-job:{engine_job_id}")).into()
}

/// A body that was received, read and digested, to be put on record.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub delivery_id: DeliveryId,
    pub addressee: Addressee,
    /// The key that signed the callback address; `None` if it did not come to a callback address.
    pub signer: Option<KeyNumber>,
    pub received_at: Timestamp,
    /// The sender's address, or [`ENGINE_SOURCE`].
    pub source: String,
    /// With credentials redacted.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub sha256: [u8; 32],
    pub reading: Reading,
}

impl Arrival {
    /// An arrival from a look-up at the Engine.
    pub fn of_engine(
        job_id: JobId,
        body: Bytes,
        received_at: Timestamp,
        id_pointers: &[String],
    ) -> Self {
        Self {
            delivery_id: DeliveryId::new(received_at),
            addressee: Addressee::Job(job_id),
            signer: None,
            received_at,
            source: ENGINE_SOURCE.to_owned(),
            headers: Vec::new(),
            sha256: Sha256::digest(&body).into(),
            reading: result::read(&body, id_pointers),
            body,
        }
    }

    /// Whether we asked the Engine for it. Without that, it changes nothing in a job that has a
    /// result.
    pub fn was_asked_for(&self) -> bool {
        self.source == ENGINE_SOURCE
    }
}

/// What became of an [`Arrival`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// On record with this outcome, or only counted because the job keeps too much already.
    Kept { job_id: JobId, outcome: Outcome },
    /// The job has been erased; nothing was kept.
    Erased,
    /// The job finished too long ago; nothing was kept.
    Ended,
    /// A replaced key signed the address, and no job is on record that was submitted under it;
    /// nothing was kept.
    Unproven,
}

/// How far an emergency spool has been drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolMark {
    /// Which spool file.
    pub spool: SpoolId,
    /// Its records up to this number have been drained.
    pub number: u64,
}

/// An arrival that waited in the emergency spool.
#[derive(Clone, Debug)]
pub struct Spooled {
    pub arrival: Arrival,
    pub spool: SpoolId,
    /// Its record's number.
    pub number: u64,
    /// No older record waits, so the mark may move up to this one.
    pub is_oldest: bool,
}
