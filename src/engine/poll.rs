//! Reads the answer to a look-up: a result, or a job that is still running.
//!
//! How a running job looks is undocumented, so the settings choose the signs. Invariant: a running
//! job is never mistaken for a failed one; in doubt it is still running.

use bytes::Bytes;
use reqwest::StatusCode;

use crate::{
    config::RunningSetting,
    domain::{
        bounds,
        json::{self, Json},
        result::{self, Reading},
    },
};

/// The outcome of a look-up.
#[derive(Debug)]
pub enum Polled {
    Running,
    /// The job result, unchanged.
    Finished(Bytes),
}

/// Whether the status alone means that the job is still running.
pub(super) fn is_running_status(status: StatusCode, running: RunningSetting) -> bool {
    match running {
        RunningSetting::Auto => matches!(status, StatusCode::ACCEPTED | StatusCode::NOT_FOUND),
        RunningSetting::Status202 => status == StatusCode::ACCEPTED,
        RunningSetting::Status404 => status == StatusCode::NOT_FOUND,
        RunningSetting::NoSuccess | RunningSetting::SuccessFalse => false,
    }
}

/// Reads the body of a 2xx.
pub(super) fn read(body: Bytes, running: RunningSetting) -> Polled {
    let Reading::Result(result) = result::read(&body, &[]) else {
        // A body that is not a result is no evidence of an end, whatever the settings say.
        return Polled::Running;
    };
    let may_be_running = !result.success
        && match running {
            RunningSetting::SuccessFalse => true,
            RunningSetting::Auto => {
                let is_told = result.left_out.entries > 0
                    || result.outputs.iter().any(|one| one.status.is_some() || one.url.is_some());
                !is_told && !holds_error(&body)
            }
            _ => false,
        };
    if may_be_running { Polled::Running } else { Polled::Finished(body) }
}

/// Whether there is an error next to `success: false`, under any name that contains "error".
fn holds_error(body: &[u8]) -> bool {
    let members = json::parse(body).ok().and_then(Json::members);
    let is_told = |value: Json<'_>| !matches!(value.get(), "null" | "false" | "\"\"" | "[]" | "{}");
    members.into_iter().flatten().any(|(name, value)| {
        // The Engine would not give an error a longer name.
        !name.is_beyond(bounds::MAX_NAME_CHARS)
            && name.text().to_lowercase().contains("error")
            && is_told(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_running(body: &'static str, running: RunningSetting) -> bool {
        matches!(read(Bytes::from_static(body.as_bytes()), running), Polled::Running)
    }

    #[test]
    fn in_doubt_a_job_still_runs() {
        for body in [
            "",
            "{}",
            r#"{"status":"running"}"#,
            r#"{"success":false}"#,
            r#"{"success":false,"error":null,"errors":[]}"#,
            r#"{"success":false,"outputFiles":{"meshes":[{"extension":".stl"}]}}"#,
        ] {
            assert!(is_running(body, RunningSetting::Auto), "{body}");
        }
        for body in [
            r#"{"success":true}"#,
            r#"{"success":false,"errorMessage":"no teeth"}"#,
            r#"{"success":false,"outputFiles":{"meshes":[{"status":"Failed"}]}}"#,
        ] {
            assert!(!is_running(body, RunningSetting::Auto), "{body}");
        }
    }

    #[test]
    fn the_settings_say_which_signs_count() {
        let failed = r#"{"success":false,"error":"x"}"#;
        assert!(is_running(failed, RunningSetting::SuccessFalse));
        assert!(!is_running(r#"{"success":false}"#, RunningSetting::Status202));
        assert!(is_running(r#"{"id":1}"#, RunningSetting::NoSuccess));
        assert!(is_running_status(StatusCode::NOT_FOUND, RunningSetting::Auto));
        assert!(!is_running_status(StatusCode::NOT_FOUND, RunningSetting::Status202));
        assert!(!is_running_status(StatusCode::OK, RunningSetting::Auto));
    }
}
