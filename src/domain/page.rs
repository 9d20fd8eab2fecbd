//! Lists of jobs: filters, and cursors from page to page.
//!
//! The HTTP layer reads them, the store answers them. Invariant: a cursor is accepted only
//! unchanged and with the filter it was made for.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    ids::JobId,
    job::{Job, JobStatus},
};

/// Selects jobs; every given field must match.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Any of these; empty for all.
    pub statuses: Vec<JobStatus>,
    pub end_user_id: Option<String>,
    pub cloud_package: Option<String>,
    pub reference: Option<String>,
    pub engine_job_id: Option<String>,
    pub external_job_id: Option<String>,
    pub overdue: Option<bool>,
    /// Whether it is in flight with a callback address that is not under [`Self::public_url`].
    pub stale_callback: Option<bool>,
    /// The current public URL; empty while it is unknown. A cursor does not depend on it.
    pub public_url: String,
    /// Inclusive.
    pub created_after: Option<Timestamp>,
    /// Exclusive.
    pub created_before: Option<Timestamp>,
}

/// One page, newest first.
#[derive(Debug)]
pub struct JobPage {
    pub jobs: Vec<Job>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<Position>,
}

/// One page of a job's deliveries or events, in the order of their numbers.
#[derive(Debug)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// The number after which the next page begins; `None` on the last one.
    pub next: Option<i64>,
}

/// The list of a job's rows that a cursor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowList {
    pub job_id: JobId,
    /// `events` or `deliveries`.
    pub name: &'static str,
}

impl RowList {
    /// The opaque text for the position after the row numbered `seq`.
    pub fn to_cursor(self, seq: i64) -> String {
        let mut bytes = Vec::with_capacity(16);
        bytes.extend(seq.to_be_bytes());
        bytes.extend(self.seal(seq));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The number in a cursor.
    ///
    /// # Errors
    /// [`BadCursor`] if the cursor belongs to another list or was changed.
    pub fn from_cursor(self, cursor: &str) -> Result<i64, BadCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| BadCursor)?;
        let (seq, given) = bytes.split_first_chunk::<8>().ok_or(BadCursor)?;
        let seq = i64::from_be_bytes(*seq);
        if given == self.seal(seq) { Ok(seq) } else { Err(BadCursor) }
    }

    fn seal(self, seq: i64) -> [u8; 8] {
        let digest: [u8; 32] =
            Sha256::digest(format!("{} {} {seq}", self.name, self.job_id)).into();
        digest[..8].try_into().expect("eight of thirty-two bytes")
    }
}

/// The last row of a page: the next page holds older rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub created_at_millis: i64,
    pub seq: i64,
}

/// The cursor was not made by us, or was made for another filter.
#[derive(Debug, thiserror::Error)]
#[error("not a cursor of this list: take nextCursor as it came, with the same filters")]
pub struct BadCursor;

impl Position {
    /// The opaque text for this position in the list of `filter`.
    pub fn to_cursor(self, filter: &JobFilter) -> String {
        let mut bytes = Vec::with_capacity(24);
        bytes.extend(self.created_at_millis.to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        let seal = seal(&bytes, filter);
        bytes.extend(seal);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position in a cursor.
    ///
    /// # Errors
    /// [`BadCursor`] if the cursor belongs to another filter or was changed.
    pub fn from_cursor(cursor: &str, filter: &JobFilter) -> Result<Self, BadCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| BadCursor)?;
        let (millis, rest) = bytes.split_first_chunk::<8>().ok_or(BadCursor)?;
        let (seq, given) = rest.split_first_chunk::<8>().ok_or(BadCursor)?;
        if given != seal(&bytes[..16], filter) {
            return Err(BadCursor);
        }
        Ok(Self { created_at_millis: i64::from_be_bytes(*millis), seq: i64::from_be_bytes(*seq) })
    }
}

/// Guards against mistakes, not against forgery: a forged cursor reveals nothing.
fn seal(position: &[u8], filter: &JobFilter) -> [u8; 8] {
    let mut hasher = Sha256::new();
    hasher.update(position);
    let filter = JobFilter { public_url: String::new(), ..filter.clone() };
    hasher.update(format!("{filter:?}"));
    let digest: [u8; 32] = hasher.finalize().into();
    digest[..8].try_into().expect("eight of thirty-two bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_of_a_job_s_rows_is_good_for_that_job_and_list_only() {
        let list = |job, name| RowList { job_id: JobId(uuid::Uuid::from_u128(job)), name };
        let cursor = list(1, "events").to_cursor(42);
        assert_eq!(list(1, "events").from_cursor(&cursor).expect("ours"), 42);
        for (list, cursor) in [
            (list(2, "events"), &*cursor),
            (list(1, "deliveries"), &*cursor),
            (list(1, "events"), "42"),
            (list(1, "events"), ""),
        ] {
            assert!(list.from_cursor(cursor).is_err(), "{list:?} {cursor}");
        }
    }

    #[test]
    fn a_cursor_is_good_for_its_own_list_only_and_only_unchanged() {
        let filter = JobFilter { overdue: Some(true), ..JobFilter::default() };
        let position = Position { created_at_millis: 1_700_000_000_000, seq: 42 };
        let cursor = position.to_cursor(&filter);
        assert_eq!(Position::from_cursor(&cursor, &filter).expect("ours"), position);
        assert!(Position::from_cursor(&cursor, &JobFilter::default()).is_err());
        for at in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(Position::from_cursor(&changed, &filter).is_err(), "{changed}");
        }
        assert!(Position::from_cursor("", &filter).is_err());
    }
}
