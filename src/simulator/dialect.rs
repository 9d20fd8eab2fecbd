//! Choices where the Engine's documentation is silent: one type per open question.
//!
//! Held by the options, read by the code that renders a reply or a result. Every choice is a
//! plausible Engine; none is a fault.

use std::{fmt, str::FromStr, time::Duration};

use clap::ValueEnum;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// The field that carries the Engine's job id in replies and results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[value(rename_all = "camelCase")]
pub enum IdField {
    JobId,
    Id,
    ExternalJobId,
    /// No field at all.
    None,
}

impl IdField {
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::JobId => Some("jobId"),
            Self::Id => Some("id"),
            Self::ExternalJobId => Some("externalJobId"),
            Self::None => None,
        }
    }
}

/// Where the reply puts `notifyUrl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotifyPlace {
    PerFile,
    TopLevel,
}

/// The field that carries an output's link in a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[value(rename_all = "camelCase")]
pub enum UrlField {
    Url,
    DownloadUrl,
}

impl UrlField {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::DownloadUrl => "downloadUrl",
        }
    }
}

/// How a polled job looks while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Running {
    #[value(name = "202")]
    #[serde(rename = "202")]
    Accepted,
    #[value(name = "200-no-success")]
    #[serde(rename = "200-no-success")]
    WithoutSuccess,
    #[value(name = "200-success-false")]
    #[serde(rename = "200-success-false")]
    SuccessFalse,
    #[value(name = "404")]
    #[serde(rename = "404")]
    NotFound,
}

/// How a result holds its outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResultShape {
    /// A list under each kind.
    List,
    /// A bare object under a kind that has one output, otherwise a list.
    Single,
}

/// What a result repeats of each output that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Echo {
    /// `extension` and `structures`.
    All,
    /// `extension` only.
    Extension,
    Nothing,
}

/// What a repeat of the callback says differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conflict {
    None,
    /// Other statuses of the outputs.
    Statuses,
    /// The other `success`.
    Success,
}

/// How long a job takes: a duration, or `manual` until `finish` is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processing {
    Manual,
    After(Duration),
}

impl FromStr for Processing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "manual" {
            return Ok(Self::Manual);
        }
        let duration = humantime::parse_duration(text);
        duration
            .map(Self::After)
            .map_err(|error| format!("neither `manual` nor a duration: {error}"))
    }
}

impl fmt::Display for Processing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manual => formatter.write_str("manual"),
            Self::After(duration) => humantime::format_duration(*duration).fmt(formatter),
        }
    }
}

impl Serialize for Processing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Processing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}
