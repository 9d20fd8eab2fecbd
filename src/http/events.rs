//! Events: a job's timeline, and all events as a stream to follow.
//!
//! The invariants: events are shown in the order of their numbers, which is the order of their
//! commits; a follower that resumes after the last one it saw misses none and sees none twice.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::broadcast;

use super::{
    Context,
    access::MayRead,
    error::Problem,
    extract::{JobPath, RowQuery},
    feed::{Published, render},
    jobs::found,
    limits::Room,
    parameters::EventQuery,
    refusals::{CHECKED, JOB, KEY, Refusals, STORE},
};
use crate::{
    api,
    domain::{event::Event, ids::JobId, page::RowList},
    store::StoreError,
};

/// Silence is broken this often, so that proxies keep the connection.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Events replayed at a time: a follower holds what it has not taken yet.
const PAGE: u32 = 100;

/// Shows a job's timeline.
#[utoipa::path(
    operation_id = "showTimeline",
    get, path = "/v1/jobs/{id}/events", tag = "events",
    description = "Page by page. Scope: `read`.",
    params(JobPath, RowQuery),
    responses(
        (status = 200, body = api::Events, description = "A page"),
        Refusals<{ KEY | JOB | CHECKED }>,
    ),
    security(("key" = [])),
)]
pub async fn timeline(
    _: MayRead,
    State(context): State<Context>,
    JobPath(id): JobPath,
    query: RowQuery,
) -> Result<Json<api::Events>, Problem> {
    let list = RowList { job_id: id, name: "events" };
    let after = query.after(list)?;
    let page = found(context.store.events(id, after, query.limit).await?)?;
    let events = page.rows.into_iter().map(api::Event::from).collect();
    Ok(Json(api::Events { events, next_cursor: page.next.map(|seq| list.to_cursor(seq)) }))
}

/// Follows the events of all jobs, or of one.
#[utoipa::path(
    operation_id = "followEvents",
    get, path = "/v1/events", tag = "events",
    description = "Server-sent events: `event` is the type, `id` the number, `data` the event. \
        Resumes after `Last-Event-ID` or `after` with nothing missed; without either it follows \
        from now. Where what was ends and what comes begins stands a comment, `caught up with` \
        the number. A reader that is too slow is cut and may resume; a stream ends with the session \
        it was opened in. Scope: `read`.",
    params(EventQuery),
    responses(
        (status = 200, body = String, content_type = "text/event-stream", description = "Until one side ends it; each `data` is an `Event`"),
        Refusals<{ KEY | CHECKED | STORE }>,
    ),
    security(("key" = [])),
)]
pub async fn follow(
    MayRead(caller): MayRead,
    State(context): State<Context>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (job_id, after) = read_query(&query.unwrap_or_default(), &headers)?;
    let place = context.limits.places.take(&caller.name)?;
    // Subscribed before the store is read: what the replay does not hold, the feed brings.
    let live = context.feed.follow().await?;
    let last = context.store.last_event().await?;
    // A number beyond the last is of another database, or of this one before a backup was restored:
    // numbers up to it will be used again, for events that its reader has not seen.
    let seen = after.map_or(last, |seq| seq.min(last));
    let over = caller.over(&context);
    let follower =
        Follower { context, job_id, seen, live, replayed: Some(VecDeque::new()), room: None };
    let events = follower.into_stream().take_until(over);
    let heartbeat = KeepAlive::new().interval(HEARTBEAT).text("heartbeat");
    let events = Sse::new(events).keep_alive(heartbeat);
    Ok(place.until_sent(events.into_response()))
}

fn read_query(query: &str, headers: &HeaderMap) -> Result<(Option<JobId>, Option<i64>), Problem> {
    let (mut job_id, mut after) = (None, None);
    let number = |pointer: &str, text: &str| {
        let number = text.trim().parse::<i64>().ok().filter(|number| *number >= 0);
        number.ok_or_else(|| Problem::invalid(pointer, "expected the number of an event"))
    };
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "jobId" => {
                let id = value.parse().map_err(|error| Problem::invalid("/jobId", error))?;
                job_id = Some(id);
            }
            "after" => after = Some(number("/after", &value)?),
            _ => return Err(Problem::invalid(format!("/{name}"), "unknown parameter")),
        }
    }
    if let Some(last) = headers.get("last-event-id") {
        let last = last.to_str().unwrap_or_default();
        after = Some(number("/Last-Event-ID", last)?);
    }
    Ok((job_id, after))
}

/// One open stream.
struct Follower {
    context: Context,
    job_id: Option<JobId>,
    /// The last event that was sent or passed over.
    seen: i64,
    live: broadcast::Receiver<Arc<Published>>,
    /// What was read of the store and not sent yet; `None` once the live end is reached.
    replayed: Option<VecDeque<Event>>,
    /// For what was read of the store.
    room: Option<Room>,
}

impl Follower {
    fn into_stream(self) -> impl Stream<Item = Result<sse::Event, Infallible>> {
        stream::unfold(self, |mut follower| async move {
            let event = follower.next().await?;
            Some((Ok(event), follower))
        })
    }

    /// The next event; `None` ends the stream, and the reader resumes after what it saw.
    async fn next(&mut self) -> Option<sse::Event> {
        while self.replayed.is_some() {
            match self.replay().await {
                Ok(Some(event)) => return Some(render(&event)),
                Ok(None) if self.replayed.is_none() => return Some(caught_up(self.seen)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "a follower was cut");
                    return None;
                }
            }
        }
        loop {
            let received = tokio::select! {
                received = self.live.recv() => received,
                () = self.context.stopping.cancelled() => return None,
            };
            // Too far behind, or the feed has ended: cut.
            let published = received.ok()?;
            let event = &published.event;
            if event.seq <= self.seen {
                continue;
            }
            self.seen = event.seq;
            if self.job_id.is_none_or(|wanted| wanted == event.job_id) {
                return Some(published.rendered.clone());
            }
        }
    }

    async fn replay(&mut self) -> Result<Option<Event>, StoreError> {
        let Some(page) = &mut self.replayed else { return Ok(None) };
        if let Some(event) = page.pop_front() {
            self.seen = event.seq;
            return Ok(Some(event));
        }
        self.room = None;
        let events = self.context.store.events_after(self.seen, self.job_id, PAGE).await?;
        let bytes = events.iter().map(|event| event.data.len() + size_of::<Event>()).sum();
        self.room = self.context.limits.answers.wait_for_room(bytes).await;
        self.replayed = (!events.is_empty()).then(|| events.into());
        Ok(None)
    }
}

/// Tells a reader that it has seen all there is, and from where on to resume if it sees no more.
fn caught_up(seen: i64) -> sse::Event {
    sse::Event::default().comment(format!("{}{seen}", api::CAUGHT_UP))
}
