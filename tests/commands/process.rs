//! The binary while it runs: what it has written so far, and signals for it.
//!
//! The invariant: it does not outlive its test.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use crate::support::{Service, wait_for};

pub struct Process {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Reads on a thread, which ends with the process.
    fn of(source: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let read = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                read.0.lock().unwrap().push(line);
            }
        });
        lines
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// The command that asks a service, in its folder and with no other setting.
pub fn command(service: &Service, args: &[&str]) -> Command {
    command_in(service.folder(), &service.api, args)
}

pub fn command_in(folder: &Path, api: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_finishline"));
    command.args(args).current_dir(folder).env_clear().env("FINISHLINE_API", api);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Process {
    pub fn start(service: &Service, args: &[&str]) -> Self {
        Self::of(command(service, args))
    }

    pub fn of(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the binary starts");
        let stdout = Lines::of(child.stdout.take().expect("piped"));
        let stderr = Lines::of(child.stderr.take().expect("piped"));
        Self { child, stdout, stderr }
    }

    pub fn stdout(&self) -> Vec<String> {
        self.stdout.all()
    }

    pub fn stderr(&self) -> Vec<String> {
        self.stderr.all()
    }

    /// Returns once standard error has a line with this.
    pub async fn says(&self, what: &str) {
        let wait = format!("{what:?} among {:?}", self.stderr());
        wait_for(&wait, async || {
            self.stderr().iter().any(|line| line.contains(what)).then_some(())
        })
        .await;
    }

    /// Returns once standard output has so many lines.
    pub async fn shows(&self, count: usize) -> Vec<String> {
        wait_for(&format!("{count} lines"), async || {
            Some(self.stdout()).filter(|lines| lines.len() >= count)
        })
        .await
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        Command::new("kill").args([name, &id]).status().expect("kill");
    }

    /// Ends it on the spot, as a power cut does.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Its exit code, once it has ended by itself.
    pub async fn ended(&mut self) -> Option<i32> {
        wait_for("the process to end", async || self.has_ended()).await
    }

    /// Its exit code (`Some(None)` if a signal ended it), if it has ended.
    pub fn has_ended(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().expect("it can be waited for").map(|status| status.code())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors say that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
