//! The service's events, in order, over one connection.
//!
//! Opened by [`Client::follow`]. A dead connection is noticed: the service sends something at least
//! every 15 s, so a longer silence ends the stream.

use std::{collections::VecDeque, time::Duration};

use reqwest::{Method, Response};

use super::{
    Client, ClientError,
    sse::{self, Parser},
};
use crate::{api, domain::ids::JobId};

/// An item of the event stream.
#[derive(Debug)]
pub enum Followed {
    /// An event, parsed and as the original JSON.
    Event { event: Box<api::Event>, json: String },
    /// All past events have been sent, up to the event with this number.
    CaughtUp(i64),
}

/// The events of one connection.
pub struct EventStream {
    client: Client,
    response: Response,
    parser: Parser,
    ready: VecDeque<Followed>,
    silence: Duration,
}

impl Client {
    /// Follows the events of all jobs, or of one, that come after event number `after`, or after
    /// now. A silence as long as `silence` ends the stream.
    ///
    /// # Errors
    /// The service refused the request or could not be reached; retry if
    /// [`ClientError::is_passing`].
    pub async fn follow(
        &self,
        job_id: Option<JobId>,
        after: Option<i64>,
        silence: Duration,
    ) -> Result<EventStream, ClientError> {
        let mut request = self.request(Method::GET, "/v1/events");
        if let Some(job_id) = job_id {
            request = request.query(&[("jobId", job_id.to_string())]);
        }
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let unreachable = |_| ClientError::Unreachable(self.base.clone());
        let sent = tokio::time::timeout(silence, self.send(request)).await;
        Ok(EventStream {
            client: self.clone(),
            response: sent.map_err(unreachable)??,
            parser: Parser::default(),
            ready: VecDeque::new(),
            silence,
        })
    }
}

impl EventStream {
    /// The next item; `None` when the connection ended, broke or fell silent: follow again after
    /// the last number seen.
    ///
    /// # Errors
    /// [`ClientError::Foreign`] if what was sent is not an event of this service, or is too large.
    pub async fn next(&mut self) -> Result<Option<Followed>, ClientError> {
        loop {
            if let Some(followed) = self.ready.pop_front() {
                return Ok(Some(followed));
            }
            let piece = tokio::time::timeout(self.silence, self.response.chunk()).await;
            let Ok(Ok(Some(piece))) = piece else { return Ok(None) };
            let foreign = || ClientError::Foreign(self.client.base.clone());
            for event in self.parser.push(&piece).map_err(|_| foreign())? {
                self.ready.push_back(read(event).map_err(|_| foreign())?);
            }
        }
    }
}

fn read(sse::Event { kind, data }: sse::Event) -> serde_json::Result<Followed> {
    if kind == api::CAUGHT_UP {
        return Ok(Followed::CaughtUp(serde_json::from_str::<api::CaughtUp>(&data)?.seq));
    }
    Ok(Followed::Event { event: Box::new(serde_json::from_str(&data)?), json: data })
}
