//! `/search`: finds a job by any id or by its reference.
//!
//! Each possible meaning is one index lookup. The result is a redirect to the list or to a job, so
//! its address can be kept and shared.

use axum::{
    extract::{RawQuery, State},
    response::{IntoResponse, Redirect, Response},
};
use maud::html;
use uuid::Uuid;

use super::super::{
    super::Context,
    layout::{self, Page, Place},
    refusal::Refusal,
    visitor::Visitor,
};
use crate::{
    domain::{
        ids::{DeliveryId, JobId},
        page::JobFilter,
        relay::{Relay, order_of_webhook_id},
    },
    store::Lookup,
};

/// Redirects to what was found.
pub(in super::super) async fn redirect_to_match(
    visitor: Visitor,
    State(context): State<Context>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let query = query.unwrap_or_default();
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let text = pairs.find(|(name, _)| name == "q").map(|(_, value)| value).unwrap_or_default();
    let text = text.trim();
    if text.is_empty() {
        return Ok(Redirect::to("/jobs").into_response());
    }
    let by_id = id_in(text).map(async |id| of_id(&context, id).await);
    let place = match by_id {
        Some(place) => place.await?,
        None => None,
    };
    let place = match place {
        Some(place) => Some(place),
        None => of_property(&context, text).await?,
    };
    Ok(match place {
        Some(place) => Redirect::to(&place).into_response(),
        None => nothing(&visitor, text).into_response(),
    })
}

/// One of our ids, also in the form of the `webhook-id` that a relay's receiver got.
fn id_in(text: &str) -> Option<Uuid> {
    // Older webhook ids are `msg_` and the relay's id, without the job's.
    let alone = || Uuid::try_parse(text.strip_prefix("msg_").unwrap_or(text)).ok();
    order_of_webhook_id(text).or_else(alone)
}

async fn of_id(context: &Context, id: Uuid) -> Result<Option<String>, Refusal> {
    if !matches!(context.store.job(JobId(id)).await?, Lookup::Missing) {
        return Ok(Some(format!("/jobs/{}", JobId(id))));
    }
    if let Some(delivery) = context.store.delivery(DeliveryId(id)).await? {
        return Ok(Some(format!("/jobs/{}#delivery-{}", delivery.job_id, delivery.id)));
    }
    let relay = context.store.relay(id, context.clock.now()).await?;
    let place = |relay: Relay| format!("/jobs/{}#relay-{}", relay.job_id, relay.id);
    Ok(relay.map(|(relay, _)| place(relay)))
}

/// The jobs that match, by the first property that matches any job.
async fn of_property(context: &Context, text: &str) -> Result<Option<String>, Refusal> {
    let given = || Some(text.to_owned());
    let meanings = [
        ("reference", JobFilter { reference: given(), ..JobFilter::default() }),
        ("engineJobId", JobFilter { engine_job_id: given(), ..JobFilter::default() }),
        ("endUserId", JobFilter { end_user_id: given(), ..JobFilter::default() }),
        ("externalJobId", JobFilter { external_job_id: given(), ..JobFilter::default() }),
    ];
    for (name, filter) in meanings {
        let page = context.store.jobs(&filter, None, 1).await?;
        match page.jobs.as_slice() {
            [] => {}
            [only] if page.next.is_none() => return Ok(Some(format!("/jobs/{}", only.id))),
            _ => {
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                query.append_pair(name, text);
                return Ok(Some(format!("/jobs?{}", query.finish())));
            }
        }
    }
    Ok(None)
}

fn nothing(visitor: &Visitor, text: &str) -> impl IntoResponse {
    let content = html! {
        section.card.alone {
            p.eyebrow { "Search" }
            h1 { "Nothing is called “" (text) "”" }
            p.lead {
                "Looked for: a job's, delivery's or relay's id, a " code { "webhook-id" }
                ", a reference, an Engine's id, an end user, an external id. Each must be given whole."
            }
            p { a.button href="/jobs" { "To the jobs" } }
        }
    };
    let page =
        Page { title: "Search", place: Some(Place::Jobs), live: None, visitor: Some(visitor) };
    layout::render(&page, content)
}
