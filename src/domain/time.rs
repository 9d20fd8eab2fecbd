//! The written form of an instant: RFC 3339 in UTC with milliseconds, everywhere.
//!
//! Used by everything that shows or stores a time. Invariant: a stored instant is read back
//! unchanged, because it never holds more than milliseconds.

use jiff::Timestamp;

/// Truncates an instant to whole milliseconds, the precision in which all are stored and shown.
pub fn whole_millis(at: Timestamp) -> Timestamp {
    from_millis(at.as_millisecond())
}

/// The instant `millis` milliseconds after the Unix epoch; out-of-range values are clamped.
pub fn from_millis(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(if millis < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

/// RFC 3339, UTC, three decimals: `2026-11-23T20:15:00.000Z`.
pub fn render(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// Parses an RFC 3339 date and time with its offset; `None` for anything else.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok()
}

/// Serde form of a required instant.
pub mod rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{at:.3}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse(&text).ok_or_else(|| D::Error::custom("not an RFC 3339 time"))
    }
}

/// Serde form of an instant that may be absent (`null`).
pub mod rfc3339_option {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::rfc3339::serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        super::parse(&text).map(Some).ok_or_else(|| D::Error::custom("not an RFC 3339 time"))
    }
}
