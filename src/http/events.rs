//! Events: a job's timeline, and all events as a stream to follow.
//!
//! Invariants: events are shown in the order of their numbers, which is the order of their commits;
//! a follower that resumes after the last event it saw misses none and sees none twice.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::HeaderMap,
    response::Response,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::broadcast;

use super::{
    Context,
    access::MayRead,
    error::Problem,
    event_stream,
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

/// Events read from the store at a time during a replay: a follower holds those not sent yet.
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
        from now. After the replay, at once where there is nothing to replay, comes the event \
        `caught-up` with the data `{\"seq\": N}` and without an `id`: everything up to that number \
        has been sent. A client that connects without a number and may lose the connection before \
        its first event keeps that `seq` and resumes with `after`. Silence is broken by comments of \
        one line. A reader that is too slow is cut and may resume; a stream ends with the session \
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
    // Subscribe before reading the store: events that the replay misses arrive through the feed.
    let live = context.feed.follow().await?;
    let last = context.store.last_event().await?;
    // A number beyond the last event comes from another database, or from before a backup was
    // restored. Numbers up to it will be used again, for events that this reader has not seen.
    let seen = after.map_or(last, |seq| seq.min(last));
    let over = caller.over(&context);
    let heartbeat = context.config.service.heartbeat.0;
    let replayed = Some(VecDeque::new());
    let follower = Follower { context, job_id, seen, last, live, replayed, room: None };
    let events = follower.into_stream().take_until(over);
    Ok(place.until_sent(event_stream::respond(events, heartbeat)))
}

fn read_query(query: &str, headers: &HeaderMap) -> Result<(Option<JobId>, Option<i64>), Problem> {
    let (mut job_id, mut after, mut last_event_id) = (None, None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "jobId" => {
                let id = value.parse().map_err(|error| Problem::invalid("/jobId", error))?;
                job_id = Some(id);
            }
            "after" => after = Some(event_number("/after", &value)?),
            // Polyfills of EventSource send the header's value as this parameter.
            "lastEventId" => last_event_id = Some(event_number("/lastEventId", &value)?),
            _ => return Err(Problem::invalid(format!("/{name}"), "unknown parameter")),
        }
    }
    let resumed = last_event_id_header(headers)?.or(last_event_id);
    Ok((job_id, resumed.or(after)))
}

/// An empty header is ignored. Of several values, which a proxy may have joined, the smallest
/// counts, so that nothing is missed.
fn last_event_id_header(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let mut smallest = None;
    for value in headers.get_all("last-event-id") {
        let text = value.to_str().unwrap_or("?");
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let number = event_number("/Last-Event-ID", part)?;
            smallest = Some(smallest.map_or(number, |least: i64| least.min(number)));
        }
    }
    Ok(smallest)
}

fn event_number(pointer: &str, text: &str) -> Result<i64, Problem> {
    let number = text.trim().parse::<i64>().ok().filter(|number| *number >= 0);
    number.ok_or_else(|| Problem::invalid(pointer, "expected the number of an event"))
}

/// One open stream.
struct Follower {
    context: Context,
    job_id: Option<JobId>,
    /// The last event that was sent or skipped.
    seen: i64,
    /// The last event in the store when the stream began: once the replay ends, every event up to
    /// it was sent or belongs to another job.
    last: i64,
    live: broadcast::Receiver<Arc<Published>>,
    /// Events read from the store and not sent yet; `None` once the replay has ended.
    replayed: Option<VecDeque<Event>>,
    /// Memory of the events read from the store.
    room: Option<Room>,
}

impl Follower {
    fn into_stream(self) -> impl Stream<Item = Bytes> {
        stream::unfold(self, |mut follower| async move {
            let event = follower.next().await?;
            Some((event, follower))
        })
    }

    /// The next event; `None` ends the stream, and the reader resumes after the last event it saw.
    async fn next(&mut self) -> Option<Bytes> {
        while self.replayed.is_some() {
            match self.replay().await {
                Ok(Some(event)) => return Some(render(&event)),
                Ok(None) if self.replayed.is_none() => {
                    self.seen = self.seen.max(self.last);
                    return Some(caught_up(self.seen));
                }
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
            // The reader is too far behind, or the feed has ended: end the stream.
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

/// Tells the client that it is up to date, and the number to resume after.
fn caught_up(seq: i64) -> Bytes {
    let data = serde_json::to_string(&api::CaughtUp { seq }).expect("a number is JSON");
    event_stream::unnumbered(api::CAUGHT_UP, &data)
}
