//! How often a fault strikes, and the faults of file transfers.
//!
//! The options hold one `FaultRate` per fault; a handler checks it before each fault. Invariant:
//! the same seed and the same order of requests give the same faults.

use std::{fmt, str::FromStr};

use rand::{RngExt, rngs::StdRng};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::Value;

use super::Options;

/// `never`, `always`, `first:2` (the next two chances), `first-of-each:2` (the first two transfers
/// of every file) or a probability such as `0.3`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum FaultRate {
    #[default]
    Never,
    Always,
    /// The next chances, this many; counts down as the fault strikes.
    First(u32),
    /// The first transfers of every file, this many; for faults not about files, like `First`.
    FirstOfEach(u32),
    /// Between 0 and 1.
    Probability(f64),
}

impl FaultRate {
    /// Whether the fault strikes this time; counts `First` down.
    pub(super) fn strikes(&mut self, random: &mut StdRng) -> bool {
        match self {
            Self::Never | Self::First(0) | Self::FirstOfEach(0) => false,
            Self::Always => true,
            Self::First(left) | Self::FirstOfEach(left) => {
                *left -= 1;
                true
            }
            Self::Probability(probability) => random.random_bool(probability.clamp(0.0, 1.0)),
        }
    }
}

impl FromStr for FaultRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is none of never, always, first:N, first-of-each:N, a number from 0 to 1"
            )
        };
        match text {
            "never" | "false" => return Ok(Self::Never),
            "always" | "true" => return Ok(Self::Always),
            _ => {}
        }
        if let Some(count) = text.strip_prefix("first:") {
            return count.parse().map(Self::First).map_err(|_| wrong());
        }
        if let Some(count) = text.strip_prefix("first-of-each:") {
            return count.parse().map(Self::FirstOfEach).map_err(|_| wrong());
        }
        match text.parse::<f64>() {
            Ok(probability) if (0.0..=1.0).contains(&probability) => {
                Ok(Self::Probability(probability))
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for FaultRate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => formatter.write_str("never"),
            Self::Always => formatter.write_str("always"),
            Self::First(count) => write!(formatter, "first:{count}"),
            Self::FirstOfEach(count) => write!(formatter, "first-of-each:{count}"),
            Self::Probability(probability) => write!(formatter, "{probability}"),
        }
    }
}

impl Serialize for FaultRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Accepts the text of the command line, and also a bare JSON number or boolean.
impl<'de> Deserialize<'de> for FaultRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        text.parse().map_err(D::Error::custom)
    }
}

/// A fault of uploads or downloads, counted for each file separately.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum FileFault {
    ExpireUpload,
    AnswerUpload,
    CutUpload,
    ExpireDownload,
    AnswerDownload,
    CutDownload,
    LieLength,
    CorruptDownload,
}

impl FileFault {
    pub(super) fn rate(self, options: &mut Options) -> &mut FaultRate {
        match self {
            Self::ExpireUpload => &mut options.expire_uploads,
            Self::AnswerUpload => &mut options.upload_answer_rate,
            Self::CutUpload => &mut options.cut_uploads,
            Self::ExpireDownload => &mut options.expire_downloads,
            Self::AnswerDownload => &mut options.download_answer_rate,
            Self::CutDownload => &mut options.cut_downloads,
            Self::LieLength => &mut options.lie_length_rate,
            Self::CorruptDownload => &mut options.corrupt_downloads,
        }
    }
}
