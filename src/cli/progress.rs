//! How far a command is: bars and a spinner on a terminal, lines elsewhere, nothing if so asked.
//!
//! Used by commands that move files or wait. The invariants: progress goes to standard error, and
//! to a terminal only; an interruption says which command takes up what is left.

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

/// Between two pictures of the spinner: quick enough to look alive.
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
    /// `resume` is the command that takes up what is left.
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

    /// A message that a quiet command leaves out.
    pub(super) fn note(&self, line: &str) {
        if !self.is_quiet {
            self.alarm(line);
        }
    }

    /// A message that is always said.
    pub(super) fn alarm(&self, line: &str) {
        self.bars.suspend(|| say(line));
    }

    /// Says what is wrong, and waits before it is tried again.
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

    /// The work's end, or the interruption that came before.
    pub(super) async fn or_interrupted<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            // Signals are listened for before the work says that it has begun.
            biased;
            () = stop_signal() => {
                self.say_resume("");
                Err(Failure::silent(Exit::Interrupted))
            }
            done = work => done,
        }
    }

    /// A bar for a file on its way to the service.
    pub(super) fn upload(&self, name: &str, bytes: u64) -> ProgressBar {
        self.bar(ProgressBar::new(bytes).with_prefix(printable::line(name).into_owned()), UPLOAD)
    }

    /// A bar for files on their way from the service; its length grows as theirs become known.
    pub(super) fn downloads(&self) -> ProgressBar {
        self.bar(ProgressBar::new(0), DOWNLOAD)
    }

    /// A spinner while the Engine works; `None` where nobody would see it.
    pub(super) fn work(&self, job: &api::Job) -> Option<ProgressBar> {
        if !self.is_shown {
            return None;
        }
        let since = job.submitted_at.unwrap_or(job.created_at);
        // The two clocks may differ.
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

/// What to expect, for the spinner; nothing while no job has finished.
pub(super) fn expected(turnaround: &api::Turnaround) -> String {
    let (Some(half), Some(most)) = (turnaround.p50_seconds, turnaround.p95_seconds) else {
        return String::new();
    };
    format!("; half of the jobs take {}, 95 of 100 at most {}", seconds(half), seconds(most))
}

fn seconds(seconds: f64) -> String {
    // A saturating cast: what the service sends may be anything.
    let whole = seconds.ceil() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{}:{:02} min", whole / 60, whole % 60),
        _ => format!("{}:{:02} h", whole / 3600, whole % 3600 / 60),
    }
}

/// A word as a shell takes it.
pub(super) fn shell_word(word: &str) -> Cow<'_, str> {
    let is_plain = |character: char| {
        character.is_alphanumeric() || matches!(character, '/' | '.' | '-' | '_' | '=' | ',' | ':')
    };
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")).into(),
    }
}

/// The same of a word that may be any bytes, such as a file's name.
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
