//! Signals that end a command: Ctrl-C, a supervisor's request, a closed terminal.
//!
//! Once a [`Signals`] has been created, none of its signals ends the process, so the command can
//! clean up.

use std::{future::poll_fn, io, task::Poll};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The bit of SIGHUP in the masks of `/proc/self/status`.
const HANGUP: u64 = 1;

/// See the module.
pub(super) struct Signals(Vec<(SignalKind, Signal)>);

impl Signals {
    /// The signals that end any command. A process that was started with `nohup` keeps ignoring
    /// SIGHUP.
    ///
    /// # Errors
    /// The system refuses to register a handler.
    pub(super) fn that_stop() -> io::Result<Self> {
        match is_hangup_ignored() {
            true => Self::of(&[SignalKind::terminate(), SignalKind::interrupt()]),
            false => Self::all(),
        }
    }

    /// SIGTERM, SIGINT and SIGHUP, also under `nohup`.
    ///
    /// # Errors
    /// The system refuses to register a handler.
    pub(super) fn all() -> io::Result<Self> {
        Self::of(&[SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()])
    }

    /// # Errors
    /// The system refuses to register a handler.
    pub(super) fn of(kinds: &[SignalKind]) -> io::Result<Self> {
        let listen = |kind: &SignalKind| Ok((*kind, signal(*kind)?));
        kinds.iter().map(listen).collect::<io::Result<_>>().map(Self)
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> SignalKind {
        poll_fn(|context| {
            for (kind, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*kind);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Ready when the process is asked to end.
pub(super) async fn stop_signal() {
    match Signals::that_stop() {
        Ok(mut signals) => _ = signals.next().await,
        Err(_) => std::future::pending().await,
    }
}

fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & HANGUP != 0)
}
