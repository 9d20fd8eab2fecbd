//! Pre-signed links to the Engine's object store.
//!
//! Made by `submission` and `result`, checked by `upload` and `download`. Invariant: a link gives
//! access to one file with one method, until it expires.

use std::time::Duration;

use axum::http::StatusCode;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::Deserialize;
use sha2::Sha256;
use url::Url;

use super::fault::FileFault;
use super::job::AcceptedJob;
use super::{Refusal, Simulator, hex};

/// A file of a job: inputs are uploaded with PUT, outputs downloaded with GET.
#[derive(Clone, Copy)]
pub(super) enum StoredFile<'a> {
    Input(&'a str),
    Output(&'a str),
}

impl StoredFile<'_> {
    fn segments(&self) -> [&str; 2] {
        match self {
            Self::Input(name) => ["inputs", name],
            Self::Output(name) => ["outputs", name],
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Input(_) => "PUT",
            Self::Output(_) => "GET",
        }
    }

    fn expiry(self) -> FileFault {
        match self {
            Self::Input(_) => FileFault::ExpireUpload,
            Self::Output(_) => FileFault::ExpireDownload,
        }
    }
}

/// The query string of a link.
#[derive(Deserialize)]
pub(super) struct Grant {
    /// Milliseconds since 1970.
    expires: i64,
    /// Makes every signed link different.
    serial: u64,
    signature: String,
}

impl Simulator {
    pub(super) fn link(&self, job: &AcceptedJob, file: StoredFile<'_>, life: Duration) -> String {
        let life = i64::try_from(life.as_millis()).unwrap_or(i64::MAX);
        let expires = Timestamp::now().as_millisecond().saturating_add(life);
        let serial = self.next_link_serial();
        let signature = self.signature(&job.engine_job_id, file, (expires, serial));
        let mut link = job.address(&["storage", &job.engine_job_id]);
        link.path_segments_mut().expect("an http address has a path").extend(file.segments());
        link.query_pairs_mut()
            .append_pair("expires", &expires.to_string())
            .append_pair("serial", &serial.to_string())
            .append_pair("signature", &signature);
        link.into()
    }

    fn signature(&self, job: &str, file: StoredFile<'_>, (expires, serial): (i64, u64)) -> String {
        let [folder, name] = file.segments();
        let signed = format!("{} {job} {folder} {name} {expires} {serial}", file.method());
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.shared.signing_key)
            .expect("HMAC takes a key of any length");
        mac.update(signed.as_bytes());
        hex(&mac.finalize().into_bytes())
    }

    pub(super) fn check_link(
        &self,
        job: &str,
        file: StoredFile<'_>,
        grant: &Grant,
    ) -> Result<(), Refusal> {
        let refused = |reason| Err(Refusal::new(StatusCode::FORBIDDEN, reason));
        if self.signature(job, file, (grant.expires, grant.serial)) != grant.signature {
            return refused("the signature does not match");
        }
        let name = format!("{job}/{}", file.segments().join("/"));
        let expired = Timestamp::now().as_millisecond() >= grant.expires
            || self.state().expired_links.contains(&grant.serial);
        if !expired && !self.strikes_file(file.expiry(), &name) {
            return Ok(());
        }
        // An expired link stays expired: only a fresh link helps.
        self.state().expired_links.insert(grant.serial);
        refused("the link has expired")
    }
}

impl AcceptedJob {
    /// A URL by which the submitter reaches the simulator.
    pub(super) fn address(&self, segments: &[&str]) -> Url {
        let mut address =
            Url::parse(&self.origin).expect("an origin is checked when a job is accepted");
        address.path_segments_mut().expect("an http address has a path").extend(segments);
        address
    }
}
