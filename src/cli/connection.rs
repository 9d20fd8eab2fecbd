//! What every client command needs: the service's address, the key, and exit codes for errors.
//!
//! Keys are never printed, and are sent encrypted to other machines unless the caller says
//! otherwise.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, anyhow};
use url::{Host, Url};

use super::{
    Exit, Failure, say,
    screen::{Form, Screen},
};
use crate::{
    client::{Client, ClientError},
    config::{self, variables},
    domain::ids::JobId,
    key_file::{self, KeyFileError},
};

/// The service's address by default.
const DEFAULT_API: &str = "http://127.0.0.1:8086";

/// The first and the longest wait between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Flags of every client command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Client options")]
#[group(skip)]
pub(super) struct Arguments {
    /// Address of the service's API; else FINISHLINE_API, else http://127.0.0.1:8086
    #[arg(long, global = true, value_name = "URL", value_parser = service_url)]
    api: Option<Url>,
    /// API key; better FINISHLINE_KEY or --key-file, which other users of this machine cannot see
    #[arg(long, global = true, value_name = "KEY", conflicts_with = "key_file")]
    key: Option<String>,
    /// File that holds the API key
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Send the key by plain http to another machine, where it can be read on the way; or
    /// FINISHLINE_INSECURE_HTTP=true
    #[arg(long, global = true)]
    insecure_http: bool,
    /// Print JSON instead of tables and sentences
    #[arg(long, global = true)]
    json: bool,
    /// File of settings, which say where a service on this machine keeps the key it made
    #[arg(skip)]
    settings: Option<PathBuf>,
}

impl Arguments {
    /// Sets the settings file, which names the key file of a service on this machine.
    pub(super) fn with_settings(self, file: Option<PathBuf>) -> Self {
        Self { settings: file, ..self }
    }

    /// Standard output: text, or JSON with `--json`.
    pub(super) fn screen(&self) -> Screen {
        Screen::new(Form::of_flag(self.json))
    }

    pub(super) fn client(&self) -> Result<Client, Failure> {
        let api = self.address()?;
        let key = match self.key()? {
            None if is_loopback(&api) => self.key_of_this_machine()?,
            key => key,
        };
        let is_readable = api.scheme() == "http" && !is_loopback(&api);
        if key.is_some() && is_readable && !self.is_insecure()? {
            return Err(Failure::usage(anyhow!(
                "{api} is plain http to another machine, where the API key can be read on its way: \
                 use https, or say --insecure-http"
            )));
        }
        Ok(Client::new(api, key)?)
    }

    fn address(&self) -> Result<Url, Failure> {
        if let Some(api) = &self.api {
            return Ok(api.clone());
        }
        let text = variable(variables::API)?;
        let url = service_url(text.as_deref().unwrap_or(DEFAULT_API));
        url.map_err(|problem| {
            // It may hold a password.
            let shown = text.filter(|text| !text.contains(['@', '?'])).unwrap_or_default();
            let name = variables::API;
            Failure::usage(anyhow!("{name}={shown}: {problem}"))
        })
    }

    /// The key from `--key`, `--key-file` or the environment.
    fn key(&self) -> Result<Option<String>, Failure> {
        let (text, origin) = match (&self.key, &self.key_file) {
            (Some(key), _) => (Some(key.clone()), "--key".to_owned()),
            (None, Some(file)) => {
                let origin = format!("--key-file {}", file.display());
                let text = std::fs::read_to_string(file).with_context(|| origin.clone());
                (Some(text.map_err(Failure::usage)?), origin)
            }
            (None, None) => (variable(variables::KEY)?, variables::KEY.to_owned()),
        };
        // Trimmed as the settings trim their secrets.
        let key = text.map(|key| key.trim_start_matches('\u{feff}').trim().to_owned());
        match key {
            Some(key) if key.is_empty() && origin != variables::KEY => {
                Err(Failure::usage(anyhow!("{origin} is empty: give an API key, or leave it out")))
            }
            Some(key) if !key.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(Failure::usage(anyhow!("{origin}: an API key is one word of ASCII")))
            }
            key => Ok(key.filter(|key| !key.is_empty())),
        }
    }

    fn is_insecure(&self) -> Result<bool, Failure> {
        let name = variables::INSECURE_HTTP;
        let text = variable(name)?.unwrap_or_default().to_ascii_lowercase();
        let of_variable = match text.as_str() {
            "" | "false" | "0" | "no" | "off" | "n" | "f" => false,
            "true" | "1" | "yes" | "on" | "y" | "t" => true,
            _ => return Err(Failure::usage(anyhow!("{name}={text}: write true or false"))),
        };
        Ok(self.insecure_http || of_variable)
    }

    /// The key that a service with these settings generated; `None` if it generates none, or has
    /// not been started yet.
    fn key_of_this_machine(&self) -> Result<Option<String>, Failure> {
        let file = self.settings.clone().or_else(config::default_file);
        let config = match config::load(file.as_deref(), config::process_environment()) {
            Ok(config) => config,
            Err(error) if self.settings.is_some() => return Err(Failure::usage(error)),
            Err(error) => {
                say(&format!("no key was looked for, since the settings are wrong: {error}"));
                return Ok(None);
            }
        };
        if !config.api.needs_key_file() {
            return Ok(None);
        }
        match key_file::read(&config.key_file()) {
            Ok(key) => Ok(key.map(|key| key.expose().to_owned())),
            Err(error @ KeyFileError::Invalid(..)) => Err(Failure::usage(error)),
            Err(error) => Err(Failure { exit: Exit::NotReached, line: error.to_string() }),
        }
    }
}

/// The value of an environment variable, if it is set.
fn variable(name: &'static str) -> Result<Option<String>, Failure> {
    variables::of_client(name).map_err(|line| Failure::usage(anyhow!("{line}")))
}

/// Whether the address is on this machine.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    }
}

/// Parses an http(s) address. One with credentials is refused, since addresses are shown.
pub(super) fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or("expected an address such as http://127.0.0.1:8086")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user name or password cannot stand in the address".into());
    }
    Ok(url)
}

/// Parses the service's address: a path prefix is part of it; routes, a query and a fragment are
/// not.
pub(super) fn service_url(text: &str) -> Result<Url, String> {
    let url = http_url(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("leave out what follows \"?\" or \"#\"".into());
    }
    let path = url.path().trim_end_matches('/');
    let route = path.rsplit('/').next().unwrap_or_default();
    if matches!(route, "v1" | "docs" | "openapi.json") {
        return Err(format!("leave out /{route}, which is added to it where it is needed"));
    }
    Ok(url)
}

/// The exit code for an error of the client.
pub(super) fn exit_of(error: &ClientError) -> Exit {
    match error {
        ClientError::Unreachable(_) | ClientError::Lost(_) | ClientError::Foreign(_) => {
            Exit::NotReached
        }
        _ if error.is_refusal() => Exit::NotReached,
        ClientError::Problem(_) => Exit::Failed,
    }
}

/// The one-line message for an error of the client.
pub(super) fn line_of(error: &ClientError) -> String {
    let mut line = error.to_string();
    let ClientError::Problem(problem) = error else { return line };
    if problem.errors.len() > 1 {
        let errors = problem.errors.iter().map(|one| format!("{}: {}", one.pointer, one.detail));
        line = format!("{line}: {}", errors.collect::<Vec<_>>().join("; "));
    }
    if let Some(body) = &problem.engine_body {
        line = format!("{line} (the Engine said: {})", body.get());
    }
    if let Some(id) = &problem.job_id {
        line = format!("{line}; it is on record: finishline jobs show {id}");
    }
    line
}

/// Exponential backoff.
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Backoff {
    /// The next wait: twice the one before, plus up to a tenth at random, so that clients that were
    /// cut off together do not reconnect together.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.0.mul_f64(1.0 + rand::random::<f64>() / 10.0);
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        wait
    }
}

/// Repeats a request until it is answered or a retry cannot help.
pub(super) async fn until_answered<T>(
    mut ask: impl AsyncFnMut() -> Result<T, ClientError>,
) -> Result<T, Failure> {
    let mut backoff = Backoff::default();
    loop {
        match ask().await {
            Err(error) if error.is_passing() => pause(&mut backoff, &line_of(&error)).await,
            answered => return Ok(answered?),
        }
    }
}

/// Reports the trouble, and waits before the next try.
pub(super) async fn pause(backoff: &mut Backoff, trouble: &str) {
    let wait = backoff.next();
    say(&format!("{trouble}; again in {:.1} s", wait.as_secs_f64()));
    tokio::time::sleep(wait).await;
}

/// Parses a job's id for clap.
pub(super) fn job_id(text: &str) -> Result<JobId, String> {
    text.parse().map_err(|error: crate::domain::ids::NotAnId| error.to_string())
}
