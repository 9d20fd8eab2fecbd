//! Progress of a command: bars and a spinner on a terminal, lines elsewhere, nothing with
//! `--quiet`.
//!
//! Used by commands that transfer files or wait. Bars are drawn on standard error, and only on a
//! terminal; an interruption prints the command that continues the work.

use std::{borrow::Cow, cell::RefCell, ffi::OsStr, os::unix::ffi::OsStrExt as _, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    Exit, Failure,
    connection::Backoff,
    say,
    screen::{Screen, is_heard_on_a_terminal},
    stop_signal,
};
use crate::{api, clock::Clock, printable};

/// Time between two frames of the spinner: short enough to look alive.
const TICK: Duration = Duration::from_millis(120);

const UPLOAD: &str = "{prefix}  [{bar:24}]  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
const DOWNLOAD: &str =
    "{msg}  [{bar:24}]  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}";
const WORK: &str = "{spinner} the Engine works on it for {elapsed_precise}{msg}";

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Arguments {
    /// Say nothing but errors
    #[arg(long)]
    quiet: bool,
}

/// See the module.
pub(super) struct Progress {
    bars: MultiProgress,
    is_shown: bool,
    is_quiet: bool,
    resume: RefCell<String>,
}

impl Progress {
    /// `resume` is the command that continues the work.
    pub(super) fn new(arguments: &Arguments, screen: &Screen, resume: String) -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        let is_shown =
            is_heard_on_a_terminal() && !is_dumb && !arguments.quiet && !screen.is_json();
        let target = match is_shown {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bars = MultiProgress::with_draw_target(target);
        Self { bars, is_shown, is_quiet: arguments.quiet, resume: RefCell::new(resume) }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// A message that `--quiet` suppresses.
    pub(super) fn note(&self, line: &str) {
        if !self.is_quiet {
            self.alarm(line);
        }
    }

    /// A message that is always printed.
    pub(super) fn alarm(&self, line: &str) {
        self.bars.suspend(|| say(line));
    }

    /// Reports the trouble, and waits before the next try.
    pub(super) async fn pause(&self, backoff: &mut Backoff, trouble: &str) {
        let wait = backoff.next();
        self.note(&format!("{trouble}; again in {:.1} s", wait.as_secs_f64()));
        tokio::time::sleep(wait).await;
    }

    pub(super) fn set_resume(&self, command: String) {
        self.resume.replace(command);
    }

    pub(super) fn say_resume(&self, why: &str) {
        self.alarm(&format!("{why}resume with: {}", self.resume.borrow()));
    }

    /// Runs the work until it ends or a signal interrupts it.
    pub(super) async fn or_interrupted<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            // Listen for signals before the work starts.
            biased;
            () = stop_signal() => {
                self.say_resume("");
                Err(Failure::silent(Exit::Interrupted))
            }
            done = work => done,
        }
    }

    /// A progress bar for one upload.
    pub(super) fn upload(&self, name: &str, bytes: u64) -> ProgressBar {
        self.bar(ProgressBar::new(bytes).with_prefix(printable::line(name).into_owned()), UPLOAD)
    }

    /// A progress bar for all downloads; its length grows as the files' lengths become known.
    pub(super) fn downloads(&self) -> ProgressBar {
        self.bar(ProgressBar::new(0), DOWNLOAD)
    }

    /// A spinner while the Engine works; `None` if progress is not shown.
    pub(super) fn work(&self, job: &api::Job) -> Option<ProgressBar> {
        if !self.is_shown {
            return None;
        }
        let since = job.submitted_at.unwrap_or(job.created_at);
        // The service's clock may be ahead of ours.
        let elapsed = Duration::try_from(Clock::system().now().duration_since(since));
        let spinner = ProgressBar::new_spinner().with_elapsed(elapsed.unwrap_or_default());
        let spinner = self.bar(spinner, WORK);
        spinner.enable_steady_tick(TICK);
        Some(spinner)
    }

    fn bar(&self, bar: ProgressBar, template: &'static str) -> ProgressBar {
        let style = ProgressStyle::with_template(template).expect("a template that is right");
        self.bars.add(bar.with_style(style.progress_chars("=> ")))
    }
}

/// The usual duration of a job, for the spinner; empty while no job has finished.
pub(super) fn expected(turnaround: &api::Turnaround) -> String {
    let (Some(half), Some(most)) = (turnaround.p50_seconds, turnaround.p95_seconds) else {
        return String::new();
    };
    format!("; half of the jobs take {}, 95 of 100 at most {}", seconds(half), seconds(most))
}

fn seconds(seconds: f64) -> String {
    // A saturating cast: the service could send any number.
    let whole = seconds.ceil() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{}:{:02} min", whole / 60, whole % 60),
        _ => format!("{}:{:02} h", whole / 3600, whole % 3600 / 60),
    }
}

/// A word quoted for a shell.
pub(super) fn shell_word(word: &str) -> Cow<'_, str> {
    let is_plain = |character: char| {
        character.is_alphanumeric() || matches!(character, '/' | '.' | '-' | '_' | '=' | ',' | ':')
    };
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")).into(),
    }
}

/// As [`shell_word`], for a word that may be any bytes, such as a file name.
pub(super) fn shell_os_word(word: &OsStr) -> String {
    if let Some(text) = word.to_str() {
        return shell_word(text).into_owned();
    }
    let escaped = word.as_bytes().iter().map(|byte| match byte {
        b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
        b' '..=b'~' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    });
    format!("$'{}'", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_typed_again_is_quoted() {
        assert_eq!(shell_word("out/müller.stl"), "out/müller.stl");
        assert_eq!(shell_word("my scans"), "'my scans'");
        assert_eq!(shell_word("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(shell_os_word("my scans".as_ref()), "'my scans'");
        let bytes = OsStr::from_bytes(b"it's \xff\n");
        assert_eq!(shell_os_word(bytes), r"$'it\'s \xff\x0a'");
    }

    #[test]
    fn what_is_expected_is_told_once_jobs_have_finished() {
        let none =
            api::Turnaround { jobs: 0, p50_seconds: None, p95_seconds: None, p99_seconds: None };
        assert_eq!(expected(&none), "");
        let some = api::Turnaround { p50_seconds: Some(41.2), p95_seconds: Some(250.0), ..none };
        assert_eq!(expected(&some), "; half of the jobs take 42 s, 95 of 100 at most 4:10 min");
    }
}
