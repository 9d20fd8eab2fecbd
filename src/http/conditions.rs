//! Conditional and range requests: `If-None-Match`, `Range`, `If-Range`.
//!
//! Called by `results` and `download`. Invariant: a condition or range that is not understood is
//! ignored, and the whole file is the answer (RFC 9110, sections 13 and 14).

use std::ops::Range;

use axum::http::{
    HeaderMap,
    header::{IF_NONE_MATCH, IF_RANGE, RANGE},
};

/// The part of a file that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    /// A range of at least one byte, within the file.
    Bytes(Range<u64>),
    /// No byte of the range is in the file.
    Nothing,
}

/// Returns whether the reader already has the version that `etag` identifies.
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|value| {
        let known = value.to_str().unwrap_or_default();
        known.trim() == "*"
            || known.split(',').any(|one| one.trim().trim_start_matches("W/") == etag)
    })
}

/// The requested part of the file that `etag` identifies. Several ranges in one request are
/// answered with the whole file: the client would join them anyway.
pub(super) fn part(headers: &HeaderMap, etag: &str, length: u64) -> Part {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    // A date never matches: files are identified by their digest and have no modification time.
    if text(IF_RANGE).is_some_and(|known| known != etag) {
        return Part::Whole;
    }
    text(RANGE).map_or(Part::Whole, |range| single(range, length))
}

fn single(range: &str, length: u64) -> Part {
    let bounds = range.split_once('=').filter(|(unit, _)| unit.eq_ignore_ascii_case("bytes"));
    let Some((first, last)) = bounds.and_then(|(_, bounds)| bounds.trim().split_once('-')) else {
        return Part::Whole;
    };
    // A number that does not fit is past every end.
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    let range = match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => length.saturating_sub(suffix)..length,
        (Some(first), None) if last.is_empty() => first..length,
        (Some(first), Some(last)) if first <= last => first..length.min(last.saturating_add(1)),
        _ => return Part::Whole,
    };
    if range.start < range.end { Part::Bytes(range) } else { Part::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part_of(pairs: &[(&'static str, &'static str)]) -> Part {
        let header = |(name, value): &(&'static str, &'static str)| {
            (name.parse().expect("a name"), value.parse().expect("a value"))
        };
        part(&pairs.iter().map(header).collect(), "\"e\"", 10)
    }

    #[test]
    fn one_range_is_answered_within_the_file() {
        for (range, expected) in [
            ("bytes=0-0", Part::Bytes(0..1)),
            ("bytes=2-5", Part::Bytes(2..6)),
            ("bytes=2-", Part::Bytes(2..10)),
            ("bytes=9-99", Part::Bytes(9..10)),
            ("bytes=-3", Part::Bytes(7..10)),
            ("bytes=-99", Part::Bytes(0..10)),
            ("Bytes=0-99999999999999999999999", Part::Bytes(0..10)),
            ("bytes=10-", Part::Nothing),
            ("bytes=99999999999999999999999-", Part::Nothing),
            ("bytes=-0", Part::Nothing),
        ] {
            assert_eq!(part_of(&[("range", range)]), expected, "{range}");
        }
        for range in ["", "bytes", "bytes=", "bytes=-", "bytes=5-2", "bytes=0-1,3-4", "bytes=+1-2"]
        {
            assert_eq!(part_of(&[("range", range)]), Part::Whole, "{range}");
        }
        assert_eq!(single("bytes=0-", 0), Part::Nothing);
    }

    #[test]
    fn a_range_of_another_file_is_not_answered() {
        for (known, expected) in [
            ("\"e\"", Part::Bytes(2..10)),
            ("\"other\"", Part::Whole),
            ("W/\"e\"", Part::Whole),
            ("Tue, 24 Nov 2026 06:00:00 GMT", Part::Whole),
        ] {
            let part = part_of(&[("range", "bytes=2-"), ("if-range", known)]);
            assert_eq!(part, expected, "{known}");
        }
    }
}
