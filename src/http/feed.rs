//! The live end of the events: read from the store once, shared by all followers.
//!
//! Woken after each commit. Invariant: a follower that subscribes and then replays the store gets
//! every event, since an event that its replay does not hold is published after it subscribed.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Mutex, broadcast};
use tokio_util::sync::CancellationToken;

use super::event_stream;
use crate::{
    api,
    domain::event::Event,
    store::{Store, StoreError},
    wake::Wake,
};

/// How many events a follower may lag behind before it is cut.
const BACKLOG: usize = 4_096;

/// Events read at a time.
const PAGE: u32 = 500;

/// An event, rendered once for all followers.
pub struct Published {
    pub event: Event,
    pub rendered: Bytes,
}

/// Cheap to clone; clones publish to the same followers.
#[derive(Clone)]
pub struct Feed(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    followers: broadcast::Sender<Arc<Published>>,
    /// The last event that was published, or skipped while there was no follower.
    position: Mutex<i64>,
}

impl Feed {
    /// A feed without followers; it publishes nothing until [`Feed::run`].
    pub fn new(store: Arc<dyn Store>) -> Self {
        let followers = broadcast::Sender::new(BACKLOG);
        Self(Arc::new(Shared { store, followers, position: Mutex::new(0) }))
    }

    /// Subscribes: every event that is not in the store yet will be received.
    pub async fn follow(&self) -> Result<broadcast::Receiver<Arc<Published>>, StoreError> {
        let mut position = self.0.position.lock().await;
        if self.0.followers.receiver_count() == 0 {
            *position = self.0.store.last_event().await?;
        }
        Ok(self.0.followers.subscribe())
    }

    /// Publishes after every commit until `stopping` is cancelled.
    pub async fn run(self, wake: Wake, stopping: CancellationToken) {
        let mut commits = wake.commits();
        loop {
            tokio::select! {
                changed = commits.changed() => if changed.is_err() { return },
                () = stopping.cancelled() => return,
            }
            if let Err(error) = self.publish().await {
                // The next commit retries from the same position.
                tracing::warn!(%error, "events were not published");
            }
        }
    }

    async fn publish(&self) -> Result<(), StoreError> {
        let mut position = self.0.position.lock().await;
        while self.0.followers.receiver_count() > 0 {
            let events = self.0.store.events_after(*position, None, PAGE).await?;
            let is_last = events.len() < PAGE as usize;
            for event in events {
                *position = event.seq;
                // Sending fails only if no follower is left.
                let rendered = render(&event);
                let _ = self.0.followers.send(Arc::new(Published { event, rendered }));
            }
            if is_last {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// An event in the form that followers receive.
pub(super) fn render(event: &Event) -> Bytes {
    let data = serde_json::to_string(&api::Event::from(event.clone())).expect("an event is JSON");
    event_stream::numbered(event.seq, &event.kind, &data)
}
