//! The findings of a command that checks things: a line for each, or one JSON value.
//!
//! Used by `check`, `restore-check` and `verify-files`. Standard output gets either a line for each
//! finding at once, or one JSON value at the end and nothing else.

use std::io;

use serde_json::{Value, json};

use super::{
    Exit, Failure,
    screen::{Form, Screen},
};

/// Column widths for the marks and for the longest name.
const MARK_WIDTH: usize = 8;
const NAME_WIDTH: usize = 11;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Ok,
    /// Works, but needs attention.
    Warning,
    Failed,
}

impl Mark {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

pub(super) struct Report {
    screen: Screen,
    findings: Vec<(Mark, &'static str, String)>,
    /// The first error of writing to standard output.
    unheard: Option<io::Error>,
}

impl Report {
    /// Prints one value if `json` is set, else lines.
    pub(super) fn new(json: bool) -> Self {
        Self { screen: Screen::new(Form::of_flag(json)), findings: Vec::new(), unheard: None }
    }

    /// Adds a finding: its subject, what was found, and what to do.
    pub(super) fn add(&mut self, mark: Mark, name: &'static str, detail: impl Into<String>) {
        let detail = detail.into();
        if !self.screen.is_json() {
            let line = format!("{:<MARK_WIDTH$} {name:<NAME_WIDTH$} {detail}", mark.as_str());
            // A closed output does not stop the checks.
            if let Err(error) = self.screen.line_at_once(&line) {
                self.unheard.get_or_insert(error);
            }
        }
        self.findings.push((mark, name, detail));
    }

    /// Ends the command; `figures` are the other members of the JSON form.
    pub(super) fn finish(mut self, figures: Value) -> Result<(), Failure> {
        let failed = self.findings.iter().filter(|(mark, ..)| *mark == Mark::Failed).count();
        if self.screen.is_json() {
            let finding = |(mark, name, detail): &(Mark, &str, String)| json!({ "name": name, "state": mark.as_str(), "detail": detail });
            let mut value = figures;
            value["ok"] = json!(failed == 0);
            value["checks"] = self.findings.iter().map(finding).collect();
            self.screen.json(&value)?;
            self.screen.flush()?;
        }
        match failed {
            0 => Ok(self.unheard.map_or(Ok(()), Err)?),
            1 => Err(Failure { exit: Exit::Failed, line: "one check failed".into() }),
            _ => Err(Failure { exit: Exit::Failed, line: format!("{failed} checks failed") }),
        }
    }
}
