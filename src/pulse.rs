//! The pulse of the loops that run beside the requests: when each last turned.
//!
//! Beaten by the workers, read by readiness. The invariant: a loop that has stopped turning is
//! noticed, because its age grows.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;

/// Cheap to clone; clones share the beats.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<BTreeMap<&'static str, Beat>>>);

/// One loop's last turn.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    pub at: Timestamp,
    /// A turn that is older than this is missed.
    pub patience: Duration,
}

impl Pulse {
    /// Notes that a loop turned.
    pub fn beat(&self, name: &'static str, at: Timestamp, patience: Duration) {
        self.locked().insert(name, Beat { at, patience });
    }

    /// Every loop's last turn, by name.
    pub fn beats(&self) -> BTreeMap<&'static str, Beat> {
        self.locked().clone()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Beat>> {
        self.0.lock().expect("no one panics while holding it")
    }
}

impl Beat {
    /// How long ago it was at `now`; zero if the clock went back.
    pub fn age(self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.at)).unwrap_or_default()
    }

    /// Whether the loop seems to have stopped.
    pub fn is_missed(self, now: Timestamp) -> bool {
        self.age(now) > self.patience
    }
}
