//! Standard output of the client commands.
//!
//! The invariants: whoever reads it may stop at any time, which ends the command quietly; colours
//! are for terminals only.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use serde::Serialize;

#[derive(Clone, Copy, Debug)]
pub(super) enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
}

/// What a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Tables and sentences.
    People,
    Json,
}

/// See the module.
pub(super) struct Screen {
    form: Form,
    out: BufWriter<Stdout>,
    width: Option<usize>,
    has_colours: bool,
}

impl Screen {
    pub(super) fn new(form: Form) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        let size = if is_terminal { terminal_size::terminal_size_of(&stdout) } else { None };
        Self {
            form,
            out: BufWriter::new(stdout),
            width: size.map(|(width, _)| usize::from(width.0)).filter(|width| *width > 0),
            has_colours: is_terminal && !is_set("NO_COLOR") && !is_dumb,
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// Columns of the terminal; `None` where it is none.
    pub(super) fn width(&self) -> Option<usize> {
        self.width
    }

    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// Bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// One JSON value on one line.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.bytes(b"\n")
    }

    /// Prints what was done: the service's JSON, or a line that says it.
    pub(super) fn done(&mut self, json: &[u8], line: &str) -> io::Result<()> {
        match self.form {
            Form::Json => self.json_text(json),
            Form::People => self.line(line),
        }
    }

    /// JSON as the service sent it.
    pub(super) fn json_text(&mut self, text: &[u8]) -> io::Result<()> {
        self.bytes(text.trim_ascii())?;
        self.bytes(b"\n")
    }

    /// Hands over what was written; a command that goes on does so after each piece.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    pub(super) fn coloured(&self, text: &str, colour: Option<Colour>) -> String {
        match colour {
            Some(colour) if self.has_colours => format!("\x1b[{}m{text}\x1b[0m", colour as u8),
            _ => text.to_owned(),
        }
    }
}
