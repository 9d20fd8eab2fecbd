//! Heartbeats of the background loops: when each last ran a turn.
//!
//! Recorded by the workers, read by readiness. A loop that has stopped is noticed because its last
//! beat grows old.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;

/// Cheap to clone; clones share the beats.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats(Arc<Mutex<BTreeMap<&'static str, Heartbeat>>>);

/// One loop's last turn.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    pub at: Timestamp,
    /// A loop whose last turn is older than this counts as stopped.
    pub patience: Duration,
}

impl Heartbeats {
    /// Records that a loop ran a turn.
    pub fn beat(&self, name: &'static str, at: Timestamp, patience: Duration) {
        self.locked().insert(name, Heartbeat { at, patience });
    }

    /// Every loop's last turn, by name.
    pub fn beats(&self) -> BTreeMap<&'static str, Heartbeat> {
        self.locked().clone()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Heartbeat>> {
        self.0.lock().expect("no one panics while holding it")
    }
}

impl Heartbeat {
    /// How long ago it was at `now`; zero if the clock went back.
    pub fn age(self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.at)).unwrap_or_default()
    }

    /// Whether the loop seems to have stopped.
    pub fn is_missed(self, now: Timestamp) -> bool {
        self.age(now) > self.patience
    }
}
