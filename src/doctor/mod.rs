//! The public URL's doctor: does what is sent there come back from this very instance?
//!
//! Run by `app` beside the service and by `check`. It sends a nonce through the public URL, small
//! and large, to an address whose signature is genuine; only the instance with the same key can
//! prove that it read it. (A second service on a copy of this database has that key too and is not
//! told apart.) The invariant: what it finds is one sentence that says what to do, without any
//! part of a signed address.

mod connection;
mod fault;
mod probe;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

pub use self::{
    connection::{Trouble, reach},
    fault::Fault,
    probe::Prober,
};
use crate::{clock::Clock, outbound, public_url::PublicUrl};

/// Between two examinations while all is well.
const PAUSE: Duration = Duration::from_secs(60);

/// While it is not: results are being lost on their way, and someone may be mending it.
const SHORT_PAUSE: Duration = Duration::from_secs(10);

/// What one examination found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// `None` while it is unknown.
    pub url: Option<String>,
    pub checked_at: Timestamp,
    /// `None`: what is sent to the public URL arrives here.
    pub fault: Option<Fault>,
}

/// Cheap to clone; clones share the last finding.
#[derive(Clone)]
pub struct Doctor(Arc<Shared>);

struct Shared {
    prober: Prober,
    public_url: PublicUrl,
    clock: Clock,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    last: Option<Finding>,
    /// The last URL that was known: an agent that is restarted names none in between.
    url: Option<String>,
}

impl Doctor {
    pub fn new(prober: Prober, public_url: PublicUrl, clock: Clock) -> Self {
        let memory = Mutex::default();
        Self(Arc::new(Shared { prober, public_url, clock, memory }))
    }

    /// What the last examination found; `None` before the first.
    pub fn last(&self) -> Option<Finding> {
        self.memory().last.clone()
    }

    /// Examines the public URL once, keeps what it finds, and logs what is new about it.
    pub async fn examine(&self) -> Finding {
        let (url, fault) = match self.0.public_url.current().await {
            Ok(url) => {
                let fault = self.0.prober.probe(&url).await.err();
                (Some(url), fault)
            }
            Err(unknown) => (None, Some(Fault::Unknown(unknown.to_string()))),
        };
        let finding = Finding { url, checked_at: self.0.clock.now(), fault };
        self.remember(finding.clone());
        finding
    }

    /// Examines again and again, for ever; the first time at once.
    pub async fn run(&self) {
        loop {
            let finding = self.examine().await;
            let pause = if finding.fault.is_none() { PAUSE } else { SHORT_PAUSE };
            self.0.clock.sleep(pause).await;
        }
    }

    fn remember(&self, finding: Finding) {
        let mut memory = self.memory();
        if let Some(new) = &finding.url {
            let old = memory.url.replace(new.clone()).filter(|old| old != new);
            if let Some(old) = old {
                let (old, new) = (outbound::redact(&old), outbound::redact(new));
                tracing::warn!(
                    old,
                    new,
                    "the public URL changed: jobs that carry the old one get no callback"
                );
            }
        }
        let before = memory.last.replace(finding.clone()).and_then(|last| last.fault);
        if before == finding.fault {
            return;
        }
        let url = finding.url.as_deref().map(outbound::redact).unwrap_or_default();
        match finding.fault {
            Some(fault) => tracing::warn!(url, "the public URL does not lead here: {fault}"),
            None => tracing::info!(url, "the public URL leads here again"),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
