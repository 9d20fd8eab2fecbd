//! A real nginx in front of the service, for what only a proxy that people run can show.
//!
//! Started on a free port of loopback with a configuration of the test's own. The invariants: it
//! writes into a temporary folder only, is one process without workers, and does not outlive its
//! test. Where nginx is not installed the test says so and passes; with `CI=true` it fails.

use std::{
    env, fs,
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::wait_for;

/// Stands in a configuration for the port that nginx is to listen on.
const PORT: &str = "{port}";

/// Where Debian puts it; the path of an ordinary user lacks this folder.
const SYSTEM_FOLDER: &str = "/usr/sbin";

/// Tries to start: another process may take the port between its choice and nginx's start.
const TRIES: usize = 5;

/// A running nginx.
pub struct Nginx {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Nginx {
    /// Starts it with the content of an `http { … }` block, such as a file of `sites-enabled`;
    /// `{port}` in it is the port to listen on. `None`, said loudly, where it is not installed.
    ///
    /// # Panics
    ///
    /// When nginx refuses the configuration: with what it says.
    pub async fn start(http: &str) -> Option<Self> {
        let Some(program) = find() else {
            absent();
            return None;
        };
        assert!(http.contains(PORT), "the configuration listens on {{port}}");
        for _ in 0..TRIES {
            if let Some(nginx) = Self::try_start(&program, http).await {
                return Some(nginx);
            }
        }
        panic!("nginx found no free port");
    }

    /// The usual way to put it in front of something: `location / { proxy_pass …; }` and no other
    /// line, so with all of nginx's defaults.
    pub async fn in_front_of(upstream: &str) -> Option<Self> {
        Self::start(&format!(
            "server {{ listen 127.0.0.1:{PORT}; location / {{ proxy_pass {upstream}; }} }}"
        ))
        .await
    }

    /// `None` if its port was taken meanwhile.
    async fn try_start(program: &Path, http: &str) -> Option<Self> {
        let port = free_port();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("nginx.conf");
        fs::write(&file, whole(folder.path(), &http.replace(PORT, &port.to_string())))
            .expect("the configuration is written");
        let log = fs::File::create(folder.path().join("stderr")).expect("a file");
        let child = Command::new(program)
            .arg("-p")
            .arg(folder.path())
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nginx starts");
        let mut nginx = Self { child, port, folder };
        let is_there = wait_for("nginx to listen", async || {
            if nginx.child.try_wait().expect("it can be waited for").is_some() {
                return Some(false);
            }
            TcpStream::connect(nginx.address()).is_ok().then_some(true)
        });
        if is_there.await {
            return Some(nginx);
        }
        let said = nginx.log();
        assert!(said.contains("Address already in use"), "nginx did not start: {said}");
        None
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// `http://` and its address, without a slash at its end.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address())
    }

    /// What it wrote to its error log and to standard error by now.
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read(self.folder.path().join(name)).unwrap_or_default();
        let bytes = [read("stderr"), read("error.log")].concat();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A whole configuration around the content of its `http` block. One process serves, so that to
/// kill it leaves nothing behind.
fn whole(folder: &Path, http: &str) -> String {
    let folder = folder.display();
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let folders: String =
        kinds.iter().map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n")).collect();
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\n\
         error_log {folder}/error.log info;\nevents {{ worker_connections 512; }}\n\
         http {{\n  access_log off;\n{folders}{http}\n}}\n"
    )
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from(SYSTEM_FOLDER)]);
    folders.map(|folder| folder.join("nginx")).find(|file| file.is_file())
}

/// Says that nginx is not there; fails where it has to be.
fn absent() {
    let what = "nginx is not installed";
    assert!(env::var("CI").as_deref() != Ok("true"), "{what}; .ci/run installs it");
    // Not `eprintln`, which is shown for failing tests only.
    let _ = writeln!(std::io::stderr(), "\nNOT TESTED BEHIND A PROXY: {what}; see .ci/run\n");
}
