//! Content negotiation by `Accept` (RFC 9110, section 12.5.1).
//!
//! Called by handlers whose answer has two forms. Invariant: the usual form is replaced only by one
//! that the caller asks for by name.

use axum::http::{HeaderMap, header::ACCEPT};

/// A weight in thousandths: the standard allows three digits.
type Weight = u16;

const FULL: Weight = 1000;

/// Returns whether `wanted` is asked for by name and preferred to the usual form. If both are named
/// with the same weight, the first one counts.
pub(super) fn prefers(headers: &HeaderMap, wanted: &str, usual: &str) -> bool {
    let lines: Vec<String> = headers
        .get_all(ACCEPT)
        .iter()
        .map(|line| String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase())
        .collect();
    let ranges: Vec<Range<'_>> =
        lines.iter().flat_map(|line| line.split(',')).map(Range::parse).collect();
    let place = |kind: &str| ranges.iter().position(|range| range.kind == kind);
    let Some(asked_at) = place(wanted) else { return false };
    let (wanted, other) = (weight(&ranges, wanted), weight(&ranges, usual));
    let is_first = place(usual).is_none_or(|other_at| asked_at < other_at);
    wanted > other || (wanted == other && wanted > 0 && is_first)
}

/// One part of `Accept`, in lower case.
struct Range<'a> {
    /// Such as `application/json`, `application/*` or `*/*`.
    kind: &'a str,
    weight: Weight,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=")).and_then(read_weight);
        Self { kind, weight: weight.unwrap_or(FULL) }
    }
}

/// Parses `0`, `0.5`, `1.000`; `None` if the text is not a valid weight.
fn read_weight(text: &str) -> Option<Weight> {
    let (whole, rest) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let is_weight = rest.len() <= 3 && rest.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths = format!("{rest:0<3}").parse::<Weight>().ok().filter(|_| is_weight)?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(FULL),
        _ => None,
    }
}

/// The weight of the most specific range that matches.
fn weight(ranges: &[Range<'_>], kind: &str) -> Weight {
    let family = kind.split_once('/').map_or(kind, |(family, _)| family);
    let of = |fits: &dyn Fn(&str) -> bool| {
        ranges.iter().find(|range| fits(range.kind)).map(|range| range.weight)
    };
    of(&|range| range == kind)
        .or_else(|| of(&|range| range.strip_suffix("/*") == Some(family)))
        .or_else(|| of(&|range| range == "*/*"))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_preferred_only_where_they_are_asked_for_by_name() {
        let asks_for_lines = |accept: &[&str]| {
            let lines = accept.iter().map(|line| (ACCEPT, line.parse().expect("a value")));
            let mut headers = HeaderMap::new();
            lines.for_each(|(name, value)| _ = headers.append(name, value));
            prefers(&headers, "application/x-ndjson", "application/json")
        };
        for yes in [
            &["application/x-ndjson"][..],
            &["Application/X-NDJSON"],
            &["application/x-ndjson;charset=utf-8"],
            &["application/x-ndjson ; Q=0.1"],
            &["application/x-ndjson;q=0.001"],
            &["application/x-ndjson, */*"],
            &["*/*;q=0.1, application/x-ndjson"],
            &["application/x-ndjson, application/json"],
            &["application/json;q=0.9, application/x-ndjson"],
            &["application/json;q=0, application/x-ndjson;q=0.1"],
            &["text/html", "application/x-ndjson"],
            &["application/*;q=0.2", "application/x-ndjson;q=0.3"],
            &["application/x-ndjson;q=oops"],
            &["application/x-ndjson;q=1.000"],
        ] {
            assert!(asks_for_lines(yes), "{yes:?}");
        }
        for no in [
            &[][..],
            &[""],
            &["*/*"],
            &["application/*"],
            &["application/json"],
            &["application/json, application/x-ndjson"],
            &["application/x-ndjson;q=0.5, application/json"],
            &["application/x-ndjson;q=0.5, application/json;q=0.501"],
            &["application/x-ndjson;q=0.5, */*"],
            &["application/x-ndjson;q=0.2, application/*;q=0.3"],
            &["application/x-ndjson;q=0"],
            &["application/x-ndjson;q=0.000, */*;q=0"],
            &["text/x-ndjson", "application/x-ndjsonp"],
        ] {
            assert!(!asks_for_lines(no), "{no:?}");
        }
    }
}
