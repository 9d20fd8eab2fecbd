//! `finishline serve`: the service.
//!
//! Standard output gets one line, once the service accepts connections; logs go to standard error.
//! The first signal to stop shuts down gracefully, a second one ends the process at once.

use anyhow::Context as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::SignalKind;

use super::{
    Failure,
    screen::{Form, Screen},
    signals::Signals,
};
use crate::{
    app::{App, LINK_LIFETIME, Listeners},
    clock::Clock,
    config::Config,
    telemetry,
};

/// Open files beside connections: the database, the spool, outbound connections.
const OTHER_FILES: u64 = 256;

/// Exit code for an end by a signal, as shells report it: this plus the signal's number.
const ENDED_BY_SIGNAL: i32 = 128;

pub(super) async fn run(config: Config) -> Result<(), Failure> {
    telemetry::start_logging(&config.log);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    raise_file_limit(&config);
    let signals = Signals::all().context("signals cannot be received")?;
    let listeners = Listeners::inherit_or_bind(&config).await?;
    let (callbacks, api) = (listeners.callbacks()?, listeners.api()?);
    // An inherited socket need not listen where the settings say.
    if config.api.listen.is_elsewhere(api)
        && let Some(warning) = config.warning_of_listener(api)
    {
        tracing::warn!("{warning}");
    }
    let app = App::build(config, listeners, Clock::system()).await?;
    app.prove_files().await?;
    if let Some(file) = app.key_file() {
        let link = app.sign_in_link()?;
        let minutes = LINK_LIFETIME.as_secs() / 60;
        tracing::info!(
            "the API's key is in {}; {link} signs in to the inspector once, within {minutes} min",
            std::path::absolute(file)?.display()
        );
    }
    let line = format!("finishline ready callbacks=http://{callbacks} api=http://{api}");
    // The service runs even if its standard output is closed.
    let _ = Screen::new(Form::People).line_at_once(&line);
    app.run(first(signals)).await?;
    Ok(())
}

/// Raises the soft limit of open files: the usual 1024 is used up by a few slow senders.
fn raise_file_limit(config: &Config) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            limit = getrlimit(Resource::Nofile);
        }
    }
    let doors = if config.merged() { 1 } else { 2 };
    let needed = config.service.max_connections as u64 * doors + OTHER_FILES;
    if limit.current.is_some_and(|files| files < needed) {
        tracing::warn!(
            files = limit.current,
            needed,
            "the system allows fewer open files than service.max_connections needs: raise the \
             limit (LimitNOFILE= in systemd), or lower the setting"
        );
    }
}

/// Ready at the first signal to stop; a second one ends the process at once. Everything that was
/// answered 2xx is on disk even then.
async fn first(mut signals: Signals) {
    next_stop(&mut signals).await;
    tracing::info!("stopping; a second signal ends the process at once");
    tokio::spawn(async move {
        let second = next_stop(&mut signals).await;
        std::process::exit(ENDED_BY_SIGNAL + second.as_raw_value());
    });
}

/// By convention SIGHUP asks a service to reload its settings. This one does not reload them, but
/// must not stop either.
async fn next_stop(signals: &mut Signals) -> SignalKind {
    loop {
        let kind = signals.next().await;
        if kind != SignalKind::hangup() {
            return kind;
        }
        tracing::warn!("SIGHUP: settings are read at the start only; restart to change them");
    }
}
