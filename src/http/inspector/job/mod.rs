//! `/jobs/{id}`: everything about one job, from its request to its relays.
//!
//! One file for each part of the page. The page is bounded: it reads few of a job's deliveries and
//! shows a limited part of each.

pub(super) mod actions;
mod deliveries;
mod difference;
pub(super) mod files;
mod redactor;
mod relays;
mod timeline;
mod tokens;
mod tree;

use axum::{
    extract::{RawQuery, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use maud::{Markup, html};

use self::redactor::Redactor;
use super::{
    super::{Context, error::Problem, extract::JobPath, jobs::found, view::without_webhook_query},
    curl::{Api, command},
    jobs::row::{self, Expected},
    layout::{self, Page, Place},
    parts,
    refusal::Refusal,
    visitor::Visitor,
};
use crate::{
    domain::{
        bounds::{MAX_SHOWN_DELIVERIES, MAX_SHOWN_EVENTS, MAX_SHOWN_RELAYS},
        delivery::Delivery,
        digest::hex,
        event::Event,
        ids::{DeliveryId, JobId},
        job::{Job, JobFlags},
        page::Page as PageOf,
        relay::{Attempt, Relay, RelayFilter},
    },
    store::{Lookup, StoredResult},
};

/// From this size on, parsing a body would hold up other tasks.
const SLOW_BYTES: usize = 256 * 1024;

/// The data of the page.
struct JobPageData {
    job: Job,
    marks: JobFlags,
    expected: Option<Expected>,
    events: PageOf<Event>,
    deliveries: PageOf<Delivery>,
    relays: Vec<(Relay, Vec<Attempt>)>,
    result: Body,
    redactor: Redactor,
}

/// A body to show.
enum Body {
    None,
    Found(StoredResult),
    /// The memory limit for bodies is used up at the moment.
    NoRoom,
}

/// Shows a job.
pub(super) async fn show(
    visitor: Visitor,
    State(context): State<Context>,
    JobPath(id): JobPath,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let _place = context.limits.page().await;
    let data = gather(&context, id).await?;
    let api = Api::of(&headers, &context);
    let bodies = deliveries::bodies(&context, &data).await?;
    let tree = result_tree(&context, &data).await?;
    let now = context.clock.now();
    let job = &data.job;
    let name = job.reference.clone().unwrap_or_else(|| parts::short_id(&id.to_string()).to_owned());
    let content = html! {
        (actions::notice(query.as_deref().unwrap_or_default()))
        div.heading {
            p.eyebrow { a href="/jobs" { "← Jobs" } }
            h1 { (name) }
            p.live role="status" data-live-state hidden {}
        }
        div #job data-live {
            div.summary {
                div.states { (parts::status(job.status)) (row::marks(job, data.marks)) }
                (row::turnaround(job, data.expected, now))
                (actions::bar(job, &visitor))
            }
            (properties(job))
            @for warning in &job.warnings { p.notice.is-warning { (data.redactor.redact(warning)) } }
            (section("timeline", "Time line", timeline::show(&data, now)))
            div.pair {
                (section("inputs", "Inputs", files::inputs(job)))
                (section("outputs", "Outputs", files::outputs(job)))
            }
            (section("result", "Result", result(&data, tree, &api)))
            (section("deliveries", "Deliveries", deliveries::show(&data, &bodies, &api)))
            (section("relays", "Relays", relays::show(&data, &visitor)))
            (section("request", "Request and reply", exchange(&data)))
            (section("commands", "Copy as curl", html! {
                h3 { "This job" } (command(&api.job(id)))
                h3 { "Its events" } (command(&api.get(&format!("/v1/jobs/{id}/events"))))
                h3 { "Its deliveries" } (command(&api.get(&format!("/v1/jobs/{id}/deliveries"))))
            }))
        }
        (layout::script("mesh.js"))
    };
    let events = format!("/v1/events?jobId={id}");
    let page = Page {
        title: &name,
        place: Some(Place::Jobs),
        live: Some(&events),
        visitor: Some(&visitor),
    };
    Ok(layout::render(&page, content).into_response())
}

async fn gather(context: &Context, id: JobId) -> Result<JobPageData, Refusal> {
    let store = &context.store;
    let mut job = found(store.job(id).await?)?.into_shown();
    job.request = job.request.map(without_webhook_query);
    let public_url = context.public_url.current().await.ok();
    let marks =
        store.job_flags(&[id], public_url.as_deref()).await?.remove(&id).unwrap_or_default();
    let now = context.clock.now();
    let filter = RelayFilter { job_id: Some(id), ..RelayFilter::default() };
    let mut relays = Vec::new();
    for relay in store.relays(&filter, None, MAX_SHOWN_RELAYS, now).await? {
        relays.extend(store.relay(relay.id, now).await?);
    }
    let result = match store.result(id).await? {
        Lookup::Found(Some(result)) => match context.limits.answers.hold(result.body) {
            Ok(body) => Body::Found(StoredResult { body, ..result }),
            Err(_) => Body::NoRoom,
        },
        _ => Body::None,
    };
    Ok(JobPageData {
        marks,
        expected: Expected::of(&store.turnarounds().await?),
        events: found(store.events(id, None, MAX_SHOWN_EVENTS).await?)?,
        deliveries: found(store.deliveries(id, None, MAX_SHOWN_DELIVERIES).await?)?,
        relays,
        result,
        redactor: Redactor::of(store.signing_keys(), id),
        job,
    })
}

/// A delivery's bytes; fails if the memory limit for bodies is used up.
async fn body_of(context: &Context, id: DeliveryId) -> Result<Option<Bytes>, Refusal> {
    let Some(body) = context.store.delivery_body(id).await? else { return Ok(None) };
    Ok(Some(context.limits.answers.hold(body).map_err(Problem::from)?))
}

/// The result's tree. A large result is parsed on a blocking thread, as it was when it arrived.
async fn result_tree(context: &Context, data: &JobPageData) -> Result<Option<Markup>, Refusal> {
    let Body::Found(result) = &data.result else { return Ok(None) };
    if result.body.len() < SLOW_BYTES {
        return Ok(Some(tree::body(&result.body, "result", &data.redactor)));
    }
    let _place = context.limits.reading().await;
    let (body, redactor) = (result.body.clone(), data.redactor.clone());
    let tree = tokio::task::spawn_blocking(move || tree::body(&body, "result", &redactor));
    Ok(Some(tree.await.map_err(|_| Problem::Internal)?))
}

fn section(id: &str, title: &str, content: Markup) -> Markup {
    html! {
        section.card.part aria-labelledby=(format!("{id}-title")) {
            h2 id=(format!("{id}-title")) { (title) }
            (content)
        }
    }
}

fn properties(job: &Job) -> Markup {
    let texts = [
        ("Reference", &job.reference),
        ("Engine's id", &job.engine_job_id),
        ("End user", &job.end_user_id),
        ("Cloud package", &job.cloud_package),
        ("External id", &job.external_job_id),
    ];
    let times = [
        ("Created", Some(job.created_at)),
        ("Submitted", job.submitted_at),
        ("Finished", job.finished_at),
    ];
    html! {
        dl.properties {
            div { dt { "Job id" } dd { (parts::copyable(&job.id.to_string())) } }
            @for (name, text) in texts {
                @if let Some(text) = text { div { dt { (name) } dd { (parts::copyable(text)) } } }
            }
            div { dt { "Origin" } dd { (job.origin.as_str()) } }
            @for (name, at) in times {
                @if let Some(at) = at { div { dt { (name) } dd { (parts::moment(at)) } } }
            }
        }
    }
}

fn result(data: &JobPageData, tree: Option<Markup>, api: &Api) -> Markup {
    let id = data.job.id;
    match &data.result {
        Body::None => html! {
            p.muted {
                @if data.job.status.is_in_flight() { "Not yet: it appears here when the Engine calls back." }
                @else { "There is none." }
            }
        },
        Body::NoRoom => html! {
            p.muted { "Too much is being read at the moment; load the page again, or take " (exact(id)) "." }
        },
        Body::Found(result) => html! {
            p.data {
                span { (parts::size(result.body.len() as u64)) }
                span { "SHA-256 " (parts::copyable(&hex(&result.sha256))) }
                span { (exact(id)) }
            }
            @if let Some(tree) = tree { (tree) }
            h3 { "Copy as curl" }
            (command(&api.result(id)))
        },
    }
}

fn exact(id: JobId) -> Markup {
    html! { a href={ "/v1/jobs/" (id) "/result" } { "the exact bytes" } }
}

/// The request to the Engine and its reply.
fn exchange(data: &JobPageData) -> Markup {
    let bodies = [
        ("request", "The body that was submitted", &data.job.request),
        ("reply", "The Engine's reply", &data.job.engine_response),
    ];
    html! {
        @for (key, title, body) in bodies {
            details.fold data-key=(key) {
                summary { (title)
                    @if key == "reply" && let Some(status) = data.job.engine_status {
                        span.muted { " · " (status) }
                    }
                }
                @match body {
                    Some(body) => (tree::body(body.get().as_bytes(), key, &data.redactor)),
                    None => p.muted { "None is on record." },
                }
            }
        }
    }
}
