//! The outcome of a download: a table for people, JSON members for programs, an exit code for
//! scripts.
//!
//! An output that does not exist is listed and is no failure; one that exists and was not
//! downloaded makes the command exit with 1, also if a file of its name was kept.

use serde::Serialize;

use super::{Copy, Downloaded, Outcome};
use crate::{
    api,
    cli::{
        Exit, Failure, Screen, jobs,
        table::{Cell, Kind, Table},
    },
    client::Answer,
};

/// One output as JSON.
#[derive(Serialize)]
struct Line<'a> {
    output: &'a str,
    status: Option<&'a str>,
    /// `written`, `unchanged`, `absent`, `kept` (another file has its name) or `failed`.
    state: &'static str,
    path: Option<String>,
    bytes: Option<u64>,
    sha256: Option<&'a str>,
    detail: Option<&'a str>,
}

impl Outcome {
    fn state(&self) -> &'static str {
        match self {
            Self::Written(_) => "written",
            Self::Unchanged(_) => "unchanged",
            Self::Absent => "absent",
            Self::Kept(_) => "kept",
            Self::Failed(_) => "failed",
        }
    }

    fn copy(&self) -> Option<&Copy> {
        match self {
            Self::Written(copy) | Self::Unchanged(copy) => Some(copy),
            Self::Absent | Self::Kept(_) | Self::Failed(_) => None,
        }
    }
}

impl Downloaded {
    fn line(&self) -> Line<'_> {
        let copy = self.outcome.copy();
        Line {
            output: &self.output,
            status: self.status.as_deref(),
            state: self.outcome.state(),
            path: copy.map(|copy| copy.path.display().to_string()),
            bytes: copy.map(|copy| copy.bytes),
            sha256: copy.map(|copy| copy.sha256.as_str()),
            detail: match &self.outcome {
                Outcome::Kept(why) | Outcome::Failed(why) => Some(why),
                _ => None,
            },
        }
    }

    fn row(&self) -> Vec<Cell> {
        let copy = self.outcome.copy();
        vec![
            self.output.as_str().into(),
            self.status.as_deref().map_or_else(|| "-".into(), Cell::status),
            Cell::status(self.outcome.state()),
            copy.map(|copy| copy.bytes).into(),
            self.structures.join(", ").into(),
            copy.map(|copy| copy.path.display().to_string()).into(),
        ]
    }
}

/// The exit code after the downloads, if it would otherwise be `exit`.
pub(in crate::cli) fn exit_of(downloaded: &[Downloaded], exit: Exit) -> Exit {
    let is_missing =
        |one: &Downloaded| matches!(one.outcome, Outcome::Kept(_) | Outcome::Failed(_));
    if downloaded.iter().any(is_missing) { Exit::Failed } else { exit }
}

/// Prints the job's status and its outputs; as JSON, the job with a member `downloads`.
pub(in crate::cli) fn print(
    screen: &mut Screen,
    job: &Answer<api::JobView>,
    downloaded: &[Downloaded],
) -> Result<(), Failure> {
    if screen.is_json() {
        let lines: Vec<Line<'_>> = downloaded.iter().map(Downloaded::line).collect();
        return Ok(screen.json_text(&with_member(&job.json, &serde_json::to_vec(&lines)?))?);
    }
    jobs::print_status(screen, job)?;
    if downloaded.is_empty() {
        return Ok(());
    }
    screen.line("")?;
    let mut table = Table::new(&[
        ("OUTPUT", Kind::Whole),
        ("STATUS", Kind::Whole),
        ("COPY", Kind::Whole),
        ("BYTES", Kind::Number),
        ("STRUCTURES", Kind::Cut),
        ("FILE", Kind::Cut),
    ]);
    Ok(table.print(screen, &downloaded.iter().map(Downloaded::row).collect::<Vec<_>>())?)
}

/// The job as the service sent it, with a member `downloads` added.
fn with_member(job: &[u8], downloads: &[u8]) -> Vec<u8> {
    let job = job.trim_ascii();
    // It parsed as a job, so it is an object with members.
    let open = job.strip_suffix(b"}").unwrap_or(job);
    [open, b",\"downloads\":", downloads, b"}"].concat()
}
