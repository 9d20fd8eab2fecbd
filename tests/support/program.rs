//! The real binary as a process of its own: started, watched, killed.
//!
//! The invariants: it sees no setting of the machine's, works in the folder it is given, and does
//! not outlive its test.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use super::{DEADLINE, LOOK};

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A process that said that it is ready.
pub struct Program {
    /// Address of the door to the internet; empty for the simulator.
    pub callbacks: String,
    /// Address of the API; empty for the simulator.
    pub api: String,
    /// The line it was ready with.
    pub ready: String,
    running: Running,
}

struct Running {
    child: Child,
    stdout: Collected,
    stderr: Collected,
}

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<String>>);

impl Program {
    /// `finishline serve` on port 0 and on the database `finishline.db` of `folder`, with these
    /// settings (without their prefix) beside.
    pub async fn serve(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let database = format!("sqlite://{}", folder.join("finishline.db").display());
        let mut all = vec![
            ("CALLBACKS__LISTEN", "127.0.0.1:0"),
            ("API__LISTEN", "127.0.0.1:0"),
            ("DATABASE__URL", database.as_str()),
        ];
        if super::is_keyless(settings.iter().map(|(name, _)| *name)) {
            all.push(("API__OPEN_ON_LOOPBACK", "true"));
        }
        all.extend(settings);
        let all: Vec<(String, String)> = all
            .into_iter()
            .map(|(name, value)| (format!("FINISHLINE__{name}"), value.to_owned()))
            .collect();
        Self::start(folder, &["serve"], &all).await
    }

    /// Any command that prints a line with ` ready ` when it is.
    pub async fn start(folder: &Path, args: &[&str], environment: &[(String, String)]) -> Self {
        Self::start_until(" ready ", folder, args, environment).await
    }

    /// Any command that prints a line with this mark when it is ready.
    pub async fn start_until(
        mark: &'static str,
        folder: &Path,
        args: &[&str],
        environment: &[(String, String)],
    ) -> Self {
        let command = command(folder, args, environment);
        let ready = tokio::task::spawn_blocking(move || ready(command, mark));
        ready.await.expect("it becomes ready")
    }

    /// Ends it on the spot, as `kill -9` does.
    pub fn kill(&mut self) {
        self.running.child.kill().expect("it runs");
        self.running.child.wait().expect("it ends");
    }

    /// Asks it to end, as a supervisor does, and waits until it has.
    pub async fn terminate(self) -> Ended {
        let running = self.running;
        tokio::task::spawn_blocking(move || {
            let id = running.child.id().to_string();
            let sent = Command::new("kill").args(["-TERM", &id]).status().expect("kill");
            assert!(sent.success(), "the signal is sent");
            running.wait()
        })
        .await
        .expect("it does not panic")
    }

    pub fn id(&self) -> u32 {
        self.running.child.id()
    }

    /// Returns once it has written this to standard error.
    pub async fn said(&self, words: &str) {
        let look = async || self.stderr().contains(words).then_some(());
        super::wait_for(&format!("the words {words:?}"), look).await;
    }

    /// Whatever it wrote to standard error by now.
    pub fn stderr(&self) -> String {
        self.running.stderr.text()
    }
}

/// Runs the binary to its end.
pub async fn run_program(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Ended {
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let command = command(folder, args, &environment);
    tokio::task::spawn_blocking(move || Running::start(command).wait())
        .await
        .expect("it does not panic")
}

fn command(folder: &Path, args: &[&str], environment: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finishline"));
    command.args(args).current_dir(folder).env_clear().stdin(Stdio::null());
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ready(command: Command, mark: &str) -> Program {
    let mut running = Running::start(command);
    let begun = Instant::now();
    let ready = loop {
        let stdout = running.stdout.text();
        let whole = stdout.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        if let Some(line) = whole.map(str::trim_end).find(|line| line.contains(mark)) {
            break line.to_owned();
        }
        let said = format!("{stdout}{}", running.stderr.text());
        let ended = running.child.try_wait().expect("it can be waited for");
        assert!(ended.is_none(), "it ended before it was ready: {said}");
        assert!(begun.elapsed() < DEADLINE, "it was never ready: {said}");
        thread::sleep(LOOK);
    };
    let value = |name: &str| {
        let word = ready.split(' ').find_map(|word| word.strip_prefix(name));
        word.unwrap_or_default().to_owned()
    };
    let (callbacks, api) = (value("callbacks="), value("api="));
    Program { callbacks, api, ready, running }
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the binary starts");
        let stdout = Collected::from(child.stdout.take().expect("piped"));
        let stderr = Collected::from(child.stderr.take().expect("piped"));
        Self { child, stdout, stderr }
    }

    fn wait(mut self) -> Ended {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                break status;
            }
            let said = self.stderr.text();
            assert!(begun.elapsed() < DEADLINE, "it does not end: {said}");
            thread::sleep(LOOK);
        };
        let (stdout, stderr) = (self.stdout.whole(), self.stderr.whole());
        Ended { code: status.code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors say that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Collected {
    /// Reads on a thread, which ends with the process.
    fn from(source: impl Read + Send + 'static) -> Self {
        let collected = Self::default();
        let text = Arc::clone(&collected.0);
        thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                text.lock().expect("no panic").push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        collected
    }

    fn text(&self) -> String {
        self.0.lock().expect("no panic").clone()
    }

    /// The text of a process that has ended: complete once the reading thread let go of it.
    fn whole(&self) -> String {
        let begun = Instant::now();
        while Arc::strong_count(&self.0) > 1 && begun.elapsed() < DEADLINE {
            thread::sleep(LOOK);
        }
        self.text()
    }
}
