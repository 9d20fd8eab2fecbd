//! The doctor checks that requests to the public URL arrive at this instance.
//!
//! Run by `app` beside the service and by `check`. It sends a nonce through the public URL, in a
//! small and a large body, to an address with a genuine signature; only an instance with the same
//! key can prove that it read it. (A second service on a copy of this database has that key too and
//! is not recognised as different.)
//!
//! Invariant: a finding is one sentence that says what to do, without any part of a signed address.

mod connection;
mod fault;
mod probe;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::watch;

pub use self::{
    connection::{Trouble, reach},
    fault::Fault,
    probe::Prober,
};
use crate::{
    clock::{self, Clock},
    outbound,
    public_url::PublicUrl,
};

/// The pause between two examinations while there is no fault.
const PAUSE: Duration = Duration::from_secs(60);

/// The pause while there is one: results are being lost, and someone may be repairing it.
const SHORT_PAUSE: Duration = Duration::from_secs(10);

/// The pauses between two probes with a body of the largest size, which cost more: normally, and
/// after one was lost.
const LARGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
const LARGEST_SHORT_PAUSE: Duration = Duration::from_secs(10 * 60);

/// What one examination found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// `None` while the URL is unknown.
    pub url: Option<String>,
    pub checked_at: Timestamp,
    /// The largest body that is proved to arrive here, in bytes; 0 if none does.
    pub bytes: usize,
    /// `None`: requests to the public URL arrive here.
    pub fault: Option<Fault>,
}

/// Cheap to clone; clones share the last finding.
#[derive(Clone)]
pub struct Doctor(Arc<Shared>);

struct Shared {
    prober: Prober,
    public_url: PublicUrl,
    clock: Clock,
    last: watch::Sender<Option<Finding>>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// The last known URL: an agent that restarts reports none in between.
    url: Option<String>,
    /// The finding of the last probe with a body of the largest size.
    largest: Option<Finding>,
}

impl Doctor {
    pub fn new(prober: Prober, public_url: PublicUrl, clock: Clock) -> Self {
        let (last, memory) = (watch::Sender::new(None), Mutex::default());
        Self(Arc::new(Shared { prober, public_url, clock, last, memory }))
    }

    /// The last finding; `None` before the first examination.
    pub fn last(&self) -> Option<Finding> {
        self.0.last.borrow().clone()
    }

    /// The finding about this URL. If it has not been examined yet, waits for up to `patience`,
    /// then returns `None`.
    pub async fn found(&self, url: &str, patience: Duration) -> Option<Finding> {
        let is_of_url = |finding: &Option<Finding>| {
            finding.as_ref().is_some_and(|finding| finding.url.as_deref() == Some(url))
        };
        let mut last = self.0.last.subscribe();
        let found = tokio::time::timeout(patience, last.wait_for(is_of_url)).await;
        found.ok()?.ok()?.clone()
    }

    /// Examines the public URL once, keeps the finding and logs what has changed.
    pub async fn examine(&self) -> Finding {
        let finding = self.probe().await;
        self.remember(finding.clone());
        finding
    }

    /// The same, including a body of the largest size.
    pub async fn examine_in_full(&self) -> Finding {
        let finding = self.probe_largest(self.probe().await).await;
        self.remember(finding.clone());
        finding
    }

    /// Examines forever: at once, after each pause, and when the URL changes.
    pub async fn run(&self) {
        let mut known = self.0.public_url.watch();
        loop {
            let finding = self.turn().await;
            if *known.borrow_and_update() != finding.url {
                continue;
            }
            let pause = if finding.fault.is_none() { PAUSE } else { SHORT_PAUSE };
            tokio::select! {
                () = self.0.clock.sleep(pause) => {}
                _ = known.changed() => {}
            }
        }
    }

    /// Examines once, from time to time with a body of the largest size. If that body is lost, the
    /// fault remains until another one arrives.
    async fn turn(&self) -> Finding {
        let mut finding = self.probe().await;
        if finding.fault.is_none() {
            let largest = self.memory().largest.clone().filter(|last| last.url == finding.url);
            let is_due = match &largest {
                Some(last) => {
                    let pause = match last.fault {
                        None => LARGEST_PAUSE,
                        Some(_) => LARGEST_SHORT_PAUSE,
                    };
                    finding.checked_at >= clock::add(last.checked_at, pause)
                }
                // A service that has just started does not wait for it.
                None => self.last().is_some_and(|last| last.url == finding.url),
            };
            finding = match largest {
                _ if is_due => self.probe_largest(finding).await,
                Some(last) => Finding { bytes: last.bytes, fault: last.fault, ..finding },
                None => finding,
            };
        }
        self.remember(finding.clone());
        finding
    }

    async fn probe(&self) -> Finding {
        let (url, proved) = match self.0.public_url.current().await {
            Ok(url) => {
                let proved = self.0.prober.probe(&url).await;
                (Some(url), proved)
            }
            Err(unknown) => (None, Err(Fault::Unknown(unknown.to_string()))),
        };
        let checked_at = self.0.clock.now();
        match proved {
            Ok(bytes) => Finding { url, checked_at, bytes, fault: None },
            Err(fault) => Finding { url, checked_at, bytes: 0, fault: Some(fault) },
        }
    }

    /// Continues from a finding without a fault.
    async fn probe_largest(&self, finding: Finding) -> Finding {
        let (Some(url), None) = (&finding.url, &finding.fault) else { return finding };
        let largest = match self.0.prober.probe_largest(url).await {
            Ok(bytes) => Finding { bytes, ..finding },
            // This instance was receiving too much at that moment to accept any further body.
            Err(Fault::Problem { status: 503, .. }) => return finding,
            Err(fault) => Finding { fault: Some(fault), ..finding },
        };
        self.memory().largest = Some(largest.clone());
        largest
    }

    fn remember(&self, finding: Finding) {
        if let Some(new) = &finding.url {
            let old = self.memory().url.replace(new.clone()).filter(|old| old != new);
            if let Some(old) = old {
                let (old, new) = (outbound::redact(&old), outbound::redact(new));
                tracing::warn!(
                    old,
                    new,
                    "the public URL changed: jobs that carry the old one get no callback"
                );
            }
        }
        let last = self.0.last.send_replace(Some(finding.clone()));
        if last.and_then(|last| last.fault) == finding.fault {
            return;
        }
        let url = finding.url.as_deref().map(outbound::redact).unwrap_or_default();
        match finding.fault {
            Some(Fault::Unknown(why)) => {
                tracing::warn!("{why}; until then submissions are refused");
            }
            Some(fault) => tracing::warn!(url, "the public URL does not lead here: {fault}"),
            None => {
                let bytes = finding.bytes;
                tracing::info!(url, "the public URL leads here again, bodies up to {bytes} bytes");
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
