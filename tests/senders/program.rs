//! The real binary as a process of its own, and addresses of callbacks that it takes for genuine.
//!
//! Invariant: it sees no setting of the machine's, lives in a temporary folder, and does not outlive
//! its test.

use std::{
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use finishline::{
    clock::Clock,
    domain::{ids::JobId, signature},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use crate::wire::Sender;

/// Longer than anything here takes on a slow machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(2);

/// Held by a test that would disturb others' figures, or be disturbed.
pub async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// How the binary is to be started.
pub struct Setup {
    settings: Vec<(String, String)>,
    /// Run by the shell before the binary takes its place.
    prelude: String,
    stdin: Stdio,
    stdout: Stdio,
    folder: TempDir,
}

impl Setup {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("finishline.db");
        let settings = [
            ("CALLBACKS__LISTEN", "127.0.0.1:0".to_owned()),
            ("CALLBACKS__PUBLIC_URL", "http://127.0.0.1".to_owned()),
            ("API__LISTEN", "127.0.0.1:0".to_owned()),
            ("API__OPEN_ON_LOOPBACK", "true".to_owned()),
            ("ENGINE__BASE_URL", "http://127.0.0.1:9".to_owned()),
            ("ENGINE__AUTH__TOKEN_URL", String::new()),
            ("DATABASE__URL", format!("sqlite://{}", database.display())),
            ("SPOOL__SIZE", "0".to_owned()),
            ("LOG__LEVEL", "warn".to_owned()),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value)).into();
        let (stdin, stdout) = (Stdio::null(), Stdio::piped());
        Self { settings, prelude: String::new(), stdin, stdout, folder }
    }

    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As on most systems, whatever this one allows.
    pub fn with_few_files(self) -> Self {
        Self { prelude: "ulimit -Sn 1024;".to_owned(), ..self }
    }

    /// No more than these, whatever it needs.
    pub fn with_files(self, most: usize) -> Self {
        Self { prelude: format!("ulimit -n {most};"), ..self }
    }

    /// Hands two sockets over as systemd does; the ready line then goes to standard error.
    pub fn with_sockets(self, first: &TcpListener, second: &TcpListener, names: &str) -> Self {
        let handed = |socket: &TcpListener| {
            Stdio::from(OwnedFd::from(socket.try_clone().expect("a second handle")))
        };
        let prelude = format!(
            "exec 3<&0 4<&1 0</dev/null 1>&2;
             export LISTEN_FDS=2 LISTEN_PID=$$ LISTEN_FDNAMES={names};"
        );
        Self { prelude, stdin: handed(first), stdout: handed(second), ..self }
    }

    /// Starts it; answers once it is ready.
    pub fn start(self) -> Program {
        match self.try_start() {
            Ok(program) => program,
            Err((code, log)) => panic!("it ended with {code:?}:\n{log}"),
        }
    }

    /// Starts it; answers its exit code and log if it ends instead of being ready.
    pub fn try_start(self) -> Result<Program, (Option<i32>, String)> {
        let mut command = Command::new("sh");
        let script = format!("{} exec \"$0\" serve", self.prelude);
        command.args(["-c", &script, env!("CARGO_BIN_EXE_finishline")]);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        let settings = self.settings.iter();
        command.envs(settings.map(|(name, value)| (format!("FINISHLINE__{name}"), value)));
        command.current_dir(self.folder.path()).stdin(self.stdin).stdout(self.stdout);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
        drop(command);

        let (lines, ready) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            tell_lines(stdout, lines.clone());
        }
        tell_lines(child.stderr.take().expect("piped"), lines);
        let mut log = String::new();
        // The channel ends with the process's outputs.
        while let Ok(line) = ready.recv_timeout(DEADLINE) {
            if let Some(addresses) = line.strip_prefix("finishline ready ") {
                let address = |door: &str| -> SocketAddr {
                    let found = addresses.split(' ').find_map(|part| part.strip_prefix(door));
                    found.and_then(|found| found.parse().ok()).expect("an address")
                };
                let (callbacks, api) = (address("callbacks=http://"), address("api=http://"));
                let folder = self.folder;
                return Ok(Program { callbacks, api, child, key: [0; 32], folder });
            }
            log.push_str(&line);
            log.push('\n');
        }
        Err((child.wait().expect("it can be waited for").code(), log))
    }
}

fn tell_lines(source: impl Read + Send + 'static, lines: mpsc::Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            // Read on to the end, or the process would stand still at a full pipe.
            let _ = lines.send(line);
        }
    });
}

/// A running service.
pub struct Program {
    pub callbacks: SocketAddr,
    pub api: SocketAddr,
    child: Child,
    /// Signs callback addresses; zeros until it is asked for.
    pub key: [u8; 32],
    folder: TempDir,
}

impl Program {
    /// Reads the key that signs callback addresses.
    pub async fn knowing_its_key(mut self) -> Self {
        let mut database = self.database().await;
        let row = sqlx::query("select signing_key from instance").fetch_one(&mut database).await;
        let key: Vec<u8> = row.expect("the instance").try_get("signing_key").expect("a key");
        self.key = key.try_into().expect("32 bytes");
        self
    }

    pub async fn database(&self) -> SqliteConnection {
        let file = self.folder.path().join("finishline.db");
        let options = SqliteConnectOptions::new().filename(file).read_only(true);
        SqliteConnection::connect_with(&options).await.expect("the database opens")
    }

    /// The callback address of a job that is not on record, which makes it a recovered one.
    pub fn fresh_callback(&self) -> (JobId, String) {
        fresh_callback(&self.key)
    }

    /// A whole callback, answered.
    pub async fn honest_callback(&self) -> JobId {
        let (id, path) = self.fresh_callback();
        let mut sender = Sender::connect(self.callbacks).await;
        sender.post(&path, BODY).await;
        assert_eq!(sender.answer().await.expect("an answer").status, 200);
        id
    }

    pub async fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let mut sender = Sender::connect(self.api).await;
        sender.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        let answer = sender.answer().await.expect("an answer");
        (answer.status, answer.body)
    }

    pub async fn result(&self, id: JobId) -> (u16, Vec<u8>) {
        self.get(&format!("/v1/jobs/{id}/result")).await
    }

    /// A figure of `/metrics`, whatever its labels; 0 while there is none.
    pub async fn figure(&self, name: &str, label: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let text = String::from_utf8(text).expect("text");
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Most memory it has ever had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a running process");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        kilobytes * 1024
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is there");
    }

    /// Waits for its end; answers the exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let child = &mut self.child;
        wait_for("the process to end", async || child.try_wait().expect("it can be waited for"))
            .await
            .code()
    }

    /// The folder outlives the process, for another one to use.
    pub async fn stopped(mut self) -> Setup {
        self.signal(Signal::TERM);
        assert_eq!(self.ended().await, Some(0));
        let database = self.folder.path().join("finishline.db");
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder"));
        let setup = Setup { folder, ..Setup::new() };
        setup.set("DATABASE__URL", &format!("sqlite://{}", database.display()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn fresh_callback(key: &[u8; 32]) -> (JobId, String) {
    let id = JobId::new(Clock::system().now());
    (id, format!("/callbacks/{id}/{}", signature::sign(key, id)))
}

/// A job result as the Engine sends it.
pub const BODY: &str = r#"{"success": true, "outputFiles": {}}"#;

/// Returns what `look` finds, as soon as it finds it.
pub async fn wait_for<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain for {what}");
        tokio::time::sleep(LOOK).await;
    }
}

pub fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}
