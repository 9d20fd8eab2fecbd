//! The events of the service, one after another, over one connection.
//!
//! Opened by [`Client::follow`]. The invariant: a connection that is as good as dead is noticed:
//! the service breaks every silence, so one that lasts ends the stream.

use std::{collections::VecDeque, time::Duration};

use reqwest::{Method, Response};

use super::{
    Client, ClientError,
    sse::{self, Parser},
};
use crate::{api, domain::ids::JobId};

/// What a stream of events brings.
#[derive(Debug)]
pub enum Followed {
    /// An event, read and as it came.
    Event { event: Box<api::Event>, json: String },
    /// All there was has been brought, up to the event with this number.
    CaughtUp(i64),
}

/// One connection's events.
pub struct EventStream {
    client: Client,
    response: Response,
    parser: Parser,
    ready: VecDeque<Followed>,
    silence: Duration,
}

impl Client {
    /// Follows the events of all jobs, or of one, that come after the event with the number
    /// `after`, or after now. A silence as long as `silence` ends the stream.
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
    /// What comes next; `None` when the connection ended, broke or fell silent.
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
