//! Standard output and error of the commands; all output goes through here.
//!
//! Invariant: all text is escaped by `printable`, except a result's exact bytes into a file or a
//! pipe, and our own scripts. A reader may close the output at any time, which ends the command
//! without an error; colours are for terminals only.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use serde::Serialize;

use crate::printable;

#[derive(Clone, Copy, Debug)]
pub(super) enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
}

/// The output format of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Tables and sentences.
    People,
    Json,
}

impl Form {
    /// The format that the flag `--json` selects.
    pub(super) fn of_flag(json: bool) -> Self {
        if json { Self::Json } else { Self::People }
    }
}

/// A piece of a line, with its colour on a terminal.
#[derive(Clone, Debug)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    pub(super) colour: Option<Colour>,
}

impl<'a> Piece<'a> {
    /// A piece without a colour.
    pub(super) fn plain(text: &'a str) -> Self {
        Self { text, colour: None }
    }
}

/// Standard output. See the module.
pub(super) struct Screen {
    form: Form,
    out: BufWriter<Output>,
    is_terminal: bool,
    width: Option<usize>,
    has_colours: bool,
}

/// Standard output; its errors name it.
struct Output(Stdout);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|error| named(&error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(|error| named(&error))
    }
}

fn named(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("standard output takes nothing: {error}"))
}

impl Screen {
    pub(super) fn new(form: Form) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let size = if is_terminal { terminal_size::terminal_size_of(&stdout) } else { None };
        Self {
            form,
            out: BufWriter::new(Output(stdout)),
            is_terminal,
            width: size.map(|(width, _)| usize::from(width.0)).filter(|width| *width > 0),
            has_colours: is_terminal && printable::may_have_colours(),
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// Columns of the terminal; `None` if the output is no terminal.
    pub(super) fn width(&self) -> Option<usize> {
        self.width
    }

    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{}", printable::line(line))
    }

    /// Prints a line and flushes it.
    pub(super) fn line_at_once(&mut self, line: &str) -> io::Result<()> {
        self.line(line)?;
        self.flush()
    }

    /// Prints a line of pieces, without trailing blanks.
    pub(super) fn pieces(&mut self, pieces: &[Piece<'_>]) -> io::Result<()> {
        let mut line = String::new();
        for piece in pieces {
            let text = printable::line(piece.text);
            match piece.colour.filter(|_| self.has_colours) {
                Some(colour) => line.push_str(&format!("\x1b[{}m{text}\x1b[0m", colour as u8)),
                None => line.push_str(&text),
            }
        }
        writeln!(self.out, "{}", line.trim_end())
    }

    /// Prints one of our own scripts unescaped.
    pub(super) fn script(&mut self, script: &[u8]) -> io::Result<()> {
        self.out.write_all(script)
    }

    /// Prints a result: byte for byte, but to a terminal as escaped JSON without control
    /// characters.
    pub(super) fn result(&mut self, body: &[u8]) -> io::Result<()> {
        if !self.is_terminal {
            return self.out.write_all(body);
        }
        for line in String::from_utf8_lossy(body).trim_end().split('\n') {
            writeln!(self.out, "{}", printable::json(line))?;
        }
        Ok(())
    }

    /// Prints one JSON value on one line.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.json_text(&serde_json::to_vec(value)?)
    }

    /// Prints what was done: the service's JSON, or a sentence.
    pub(super) fn done(&mut self, json: &[u8], line: &str) -> io::Result<()> {
        match self.form {
            Form::Json => self.json_text(json),
            Form::People => self.line(line),
        }
    }

    /// Prints the service's JSON on one line.
    pub(super) fn json_text(&mut self, text: &[u8]) -> io::Result<()> {
        self.json_piece(text.trim_ascii())?;
        self.out.write_all(b"\n")
    }

    /// Prints a piece of one JSON value.
    pub(super) fn json_piece(&mut self, text: &[u8]) -> io::Result<()> {
        // Fields of the service's JSON that were not parsed need not be UTF-8.
        self.out.write_all(printable::json(&String::from_utf8_lossy(text)).as_bytes())
    }

    /// Flushes the output; a command that runs on does so after each piece.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Prints a message on standard error; a failure to write it is ignored.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{}", printable::line(line));
}

/// Prints a question on standard error; the answer is typed on the same line.
pub(super) fn ask(question: &str) -> io::Result<()> {
    let mut stderr = io::stderr();
    write!(stderr, "{} ", printable::line(question))?;
    stderr.flush()
}

/// Whether messages go to a terminal.
pub(super) fn is_heard_on_a_terminal() -> bool {
    io::stderr().is_terminal()
}
