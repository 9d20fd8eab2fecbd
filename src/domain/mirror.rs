//! Mirroring: which outputs are copied, in which order, and what follows an attempt.
//!
//! The store orders copies in the transaction of the result, and the mirror worker executes them.
//! Invariant: an output counts as copied only with the length and digest of the stored file.

use std::{collections::HashMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::{ids::JobId, job::Output};

/// The wait before each further attempt: short at first, because links expire within the hour; the
/// last ones cover an outage of the storage. n entries mean n + 1 attempts.
const SCHEDULE: [Duration; 9] = [
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(60 * 60),
    Duration::from_secs(4 * 60 * 60),
    Duration::from_secs(12 * 60 * 60),
];

/// The last entry of the schedule that is used while our own file store fails: it will come back,
/// and links expire in the meantime.
const OUTAGE_INDEX: usize = 4;

/// The copy of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirroredFile {
    pub bytes: u64,
    pub sha256: [u8; 32],
    pub content_type: String,
}

/// The identity of a copy: the job, and the output's position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilePlace {
    pub job_id: JobId,
    /// From 0, among the job's outputs.
    pub position: u32,
}

/// An output that is due to be copied.
#[derive(Clone, Debug)]
pub struct DueMirror {
    pub place: FilePlace,
    pub output: Output,
    /// Without an id, fresh links cannot be requested.
    pub engine_job_id: Option<String>,
    /// Earlier attempts, not including this one.
    pub attempts: u32,
}

/// The free slots for copies.
#[derive(Clone, Debug)]
pub struct FreePlaces {
    /// Free slots for links to any host.
    pub all: usize,
    /// The most slots that links to one host may use, out of all slots.
    pub most_of_host: usize,
    /// Slots in use, by host.
    pub taken: HashMap<String, usize>,
}

impl FreePlaces {
    /// Takes a slot for a link, if one is free.
    pub fn take(&mut self, link: &str) -> bool {
        let of_host = self.taken.entry(host(link)).or_default();
        if self.all == 0 || *of_host >= self.most_of_host {
            return false;
        }
        self.all -= 1;
        *of_host += 1;
        true
    }
}

/// The most slots that links to one host may use: half of them, so that one slow host does not
/// block copies from other hosts; a single slot is not divided.
pub fn most_of_host(places: usize) -> usize {
    (places / 2).max(1)
}

/// The host of a link; links that cannot be parsed share an empty one.
pub fn host(link: &str) -> String {
    Url::parse(link).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
}

/// The outcome of an attempt. A reason is for people and contains no link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AfterMirror {
    Stored(MirroredFile),
    Retry {
        at: Timestamp,
        reason: String,
    },
    /// No further attempt follows unless the Engine renews the link.
    Failed {
        reason: String,
    },
    /// The copy is not what was stored: it is made anew.
    Damaged,
}

/// A copy that has been stored.
#[derive(Clone, Debug)]
pub struct StoredCopy {
    pub place: FilePlace,
    pub output: Output,
}

/// An erased job whose copies have not been deleted yet.
#[derive(Clone, Copy, Debug)]
pub struct PendingFileDeletion {
    pub job_id: JobId,
    /// Until then, a copy in progress may still be finished.
    pub until: Timestamp,
}

/// Whether an output of a result should be copied: it exists and has a link.
pub fn is_to_be_copied(output: &Output) -> bool {
    let is_absent = |status: &str| {
        ["missing", "failed"].iter().any(|absent| status.eq_ignore_ascii_case(absent))
    };
    output.url.is_some() && !output.status.as_deref().is_some_and(is_absent)
}

/// What follows a failed attempt; `attempts` counts this one.
pub fn after_failure(attempts: u32, reason: String, now: Timestamp) -> AfterMirror {
    match SCHEDULE.get(index(attempts)) {
        Some(wait) => retry(*wait, reason, now),
        None => AfterMirror::Failed { reason },
    }
}

/// What follows an attempt that failed at our own file store: it is always retried, because the
/// output is still available.
pub fn after_outage(attempts: u32, reason: String, now: Timestamp) -> AfterMirror {
    retry(SCHEDULE[index(attempts).min(OUTAGE_INDEX)], reason, now)
}

fn index(attempts: u32) -> usize {
    usize::try_from(attempts).unwrap_or(usize::MAX).saturating_sub(1)
}

fn retry(wait: Duration, reason: String, now: Timestamp) -> AfterMirror {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    AfterMirror::Retry { at: now.checked_add(wait).unwrap_or(Timestamp::MAX), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_at_most_half_of_the_places_however_its_links_are_spelled() {
        assert_eq!([1, 2, 3, 4, 64].map(most_of_host), [1, 1, 1, 2, 32]);
        let mut places = FreePlaces { all: 4, most_of_host: 2, taken: HashMap::new() };
        assert!(places.take("https://slow.example/1"));
        assert!(places.take("HTTPS://SLOW.example:8443/2?a=b"));
        assert!(!places.take("http://slow%2Eexample/3"));
        assert!(places.take("https://fast.example/1"));
        assert!(places.take("https://other.example/1"));
        assert!(!places.take("https://fast.example/2"), "none is left");
    }

    #[test]
    fn attempts_end_after_the_last_wait() {
        let now = Timestamp::UNIX_EPOCH;
        let after = |attempts| after_failure(attempts, "cut".into(), now);
        let first = Timestamp::from_second(2).expect("in range");
        assert_eq!(after(1), AfterMirror::Retry { at: first, reason: "cut".into() });
        assert!(matches!(after(SCHEDULE.len() as u32), AfterMirror::Retry { .. }));
        assert!(matches!(after(SCHEDULE.len() as u32 + 1), AfterMirror::Failed { .. }));
    }
}
