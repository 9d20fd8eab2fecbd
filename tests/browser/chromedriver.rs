//! The chromedriver process that stands between a test and Chromium.
//!
//! Started for each browser on a port of its own choice. The invariant: neither it nor the browser
//! it opened outlives the test, even one that fails.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// What it says once it listens, before the port.
const READY: &str = "started successfully on port ";

/// A browser that is asked to close and does not is left to the end of its driver.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running chromedriver.
pub struct Chromedriver {
    child: Child,
    port: u16,
    /// Sessions that are ended with it.
    pub session: Option<String>,
}

impl Chromedriver {
    /// `None`, said loudly, where this machine has no browser; where `CI=true`, that is a failure.
    pub fn start() -> Option<Self> {
        for program in ["chromium", "chromedriver"] {
            if find(program).is_none() {
                absent(&format!("{program} is not installed"));
                return None;
            }
        }
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            // Pages are read in this language and zone on every machine.
            .env("LANGUAGE", "en_US")
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|line| port_in(&line));
        // A pipe that nobody reads would stop its writer.
        thread::spawn(move || lines.for_each(drop));
        Some(Self { child, port: port.expect("chromedriver says its port"), session: None })
    }

    /// Its address, without a slash at its end.
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Asks it to close the browser, without the runtime, which may be gone by now.
    fn close_browser(&self, session: &str) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = "HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n";
        write!(stream, "DELETE /session/{session} {head}")?;
        stream.read(&mut [0; 64]).map(drop)
    }
}

impl Drop for Chromedriver {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // Whatever does not close ends with the driver, as far as it can be ended.
            let _ = self.close_browser(&session);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says that something the tests need is not there; fails where it has to be.
pub fn absent(what: &str) {
    assert!(env::var("CI").as_deref() != Ok("true"), "{what}; .ci/run installs it");
    // Not `eprintln`, which is shown for failing tests only.
    let _ = writeln!(std::io::stderr(), "\nNOT TESTED IN A BROWSER: {what}; see .ci/run\n");
}

fn port_in(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once(READY)?;
    rest.trim_end_matches('.').parse().ok()
}

fn find(program: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(program)).find(|file| file.is_file())
}
