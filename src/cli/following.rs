//! Follows events across restarts, sleep and lost connections.
//!
//! Used by `events` and `forward`. Invariant: after the last event that was returned, every later
//! event is returned, in order, also after reconnects.

use std::time::Duration;

use super::{
    Failure,
    connection::{Backoff, line_of, pause},
    say,
};
use crate::{
    client::{Client, EventStream, Followed},
    domain::ids::JobId,
};

/// The service sends something at least every 15 s; after three times that the connection is dead.
pub(super) const SILENCE: Duration = Duration::from_secs(45);

/// What to follow.
#[derive(Clone, Debug)]
pub(super) struct Follow {
    pub(super) job: Option<JobId>,
    /// The number of the last event that was seen; `None`: from now.
    pub(super) after: Option<i64>,
    /// The silence that ends a connection.
    pub(super) silence: Duration,
    /// Whether to wait for a service that has not answered yet.
    pub(super) is_patient: bool,
}

/// See the module.
pub(super) struct Following {
    client: Client,
    follow: Follow,
    stream: Option<EventStream>,
    backoff: Backoff,
}

impl Following {
    pub(super) fn new(client: Client, follow: Follow) -> Self {
        Self { client, follow, stream: None, backoff: Backoff::default() }
    }

    /// The next item; waits without a limit.
    pub(super) async fn next(&mut self) -> Result<Followed, Failure> {
        loop {
            let Some(stream) = &mut self.stream else {
                self.connect().await?;
                continue;
            };
            let trouble = match stream.next().await {
                Ok(Some(followed)) => {
                    self.note(&followed);
                    return Ok(followed);
                }
                Ok(None) => "the connection ended".to_owned(),
                Err(error) => line_of(&error),
            };
            self.stream = None;
            pause(&mut self.backoff, &trouble).await;
        }
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        let Follow { job, after, silence, is_patient } = self.follow;
        match self.client.follow(job, after, silence).await {
            Ok(stream) => {
                self.stream = Some(stream);
                self.follow.is_patient = true;
            }
            Err(error) if error.is_passing() && is_patient => {
                pause(&mut self.backoff, &line_of(&error)).await;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn note(&mut self, followed: &Followed) {
        let (seq, is_event) = match followed {
            Followed::Event { event, .. } => (event.seq, true),
            Followed::CaughtUp(seq) => (*seq, false),
        };
        if let Some(after) = self.follow.after
            && (seq < after || is_event && seq == after)
        {
            say(&format!(
                "the service's last event is before number {after}: another database, or a backup \
                 of this one; following on from number {seq}"
            ));
        }
        self.follow.after = Some(seq);
        self.backoff = Backoff::default();
    }
}
