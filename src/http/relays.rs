//! `/v1/relays`: the orders to pass results on, how each went, and resending them.
//!
//! Invariant: a target's address is shown without its path and query, which may hold secrets.

use axum::{
    Json,
    body::Body,
    extract::{FromRequestParts, Path, RawQuery, State},
    http::{HeaderMap, StatusCode, request::Parts},
};
use serde::Deserialize;
use uuid::Uuid;

use super::{
    Context,
    access::{MayOperate, MayRead},
    error::Problem,
    extract::{self, read_small_json},
    parameters::RelayQuery,
    refusals::{CHECKED, JSON, KEY, Refusals, STORE},
};
use crate::{
    api::{self, ProblemCode as Code, schema},
    domain::{bounds::DEFAULT_LIMIT, relay::RelayFilter},
};

/// The order's id in the path; anything else is answered as not found.
pub struct RelayPath(Uuid);

impl<S: Send + Sync> FromRequestParts<S> for RelayPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let segment = Path::<String>::from_request_parts(parts, state).await;
        let Path(segment) = segment.map_err(|_| Problem::NotFound)?;
        Uuid::try_parse(&segment).map(Self).map_err(|_| Problem::NotFound)
    }
}

/// Lists orders, newest first.
#[utoipa::path(
    operation_id = "listRelays",
    get, path = "/v1/relays", tag = "relays", description = "Scope: `read`.",
    params(RelayQuery),
    responses(
        (status = 200, body = api::Relays, description = "A page"),
        Refusals<{ KEY | CHECKED | STORE }>,
    ),
    security(("key" = [])),
)]
pub async fn list(
    MayRead(caller): MayRead,
    State(context): State<Context>,
    RawQuery(query): RawQuery,
) -> Result<Json<api::Relays>, Problem> {
    let (filter, before, limit) = read_query(&query.unwrap_or_default())?;
    let now = context.clock.now();
    let mut relays = context.store.relays(&filter, before, limit + 1, now).await?;
    let is_more = relays.len() > limit as usize;
    relays.truncate(limit as usize);
    let next_cursor = relays.last().filter(|_| is_more).map(|last| last.seq.to_string());
    let relays = relays.into_iter().map(|relay| caller.view_whole_relay(relay));
    let relays = relays.collect::<Result<_, _>>()?;
    Ok(Json(api::Relays { relays, next_cursor }))
}

fn read_query(query: &str) -> Result<(RelayFilter, Option<i64>, u32), Problem> {
    let (mut filter, mut before, mut limit) = (RelayFilter::default(), None, DEFAULT_LIMIT);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let refuse =
            |detail: &dyn ToString| Problem::invalid(format!("/{name}"), detail.to_string());
        match &*name {
            "jobId" => filter.job_id = Some(value.parse().map_err(|error| refuse(&error))?),
            "state" => filter.state = Some(value.parse().map_err(|error| refuse(&error))?),
            "target" => filter.target = Some(value.into_owned()),
            "cursor" => {
                let detail = "not a cursor of this list: take nextCursor as it came";
                before = Some(value.parse().map_err(|_| refuse(&detail))?);
            }
            "limit" => limit = extract::limit(&value)?,
            _ => return Err(refuse(&"unknown parameter")),
        }
    }
    Ok((filter, before, limit))
}

/// Shows an order with its attempts, the last 100 of them.
#[utoipa::path(
    operation_id = "showRelay",
    get, path = "/v1/relays/{id}", tag = "relays", description = "Scope: `read`.",
    params(RelayPath),
    responses(
        (status = 200, body = api::RelayDetail, description = "The order"),
        Refusals<{ KEY | STORE | Code::NotFound.bit() }>,
    ),
    security(("key" = [])),
)]
pub async fn show(
    MayRead(caller): MayRead,
    State(context): State<Context>,
    RelayPath(id): RelayPath,
) -> Result<Json<api::RelayDetail>, Problem> {
    let found = context.store.relay(id, context.clock.now()).await?;
    let (relay, attempts) = found.ok_or(Problem::NotFound)?;
    let attempt_log = attempts.into_iter().map(api::RelayAttempt::from).collect();
    Ok(Json(api::RelayDetail { relay: caller.view_whole_relay(relay)?, attempt_log }))
}

/// Orders one again, at once and with the whole schedule before it.
#[utoipa::path(
    operation_id = "resendRelay",
    post, path = "/v1/relays/{id}/resend", tag = "relays",
    description = "Under the same `webhook-id`. Scope: `operate`.",
    params(RelayPath),
    responses(
        (status = 202, body = api::RelayView, description = "It is ordered again"),
        Refusals<{ KEY | STORE | Code::NotFound.bit() }>,
    ),
    security(("key" = [])),
)]
pub async fn resend(
    MayOperate(caller): MayOperate,
    State(context): State<Context>,
    RelayPath(id): RelayPath,
) -> Result<(StatusCode, Json<api::RelayView>), Problem> {
    let now = context.clock.now();
    context.store.resend_relay(id, now).await?;
    let (relay, _) = context.store.relay(id, now).await?.ok_or(Problem::NotFound)?;
    Ok((StatusCode::ACCEPTED, Json(caller.view_relay(relay))))
}

/// Which orders to order again; at least one of the fields must be given.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResendMany {
    job_id: Option<String>,
    #[schema(value_type = Option<schema::RelayState>)]
    state: Option<String>,
    target: Option<String>,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
}

/// Orders many again, or counts them.
#[utoipa::path(
    operation_id = "resendRelays",
    post, path = "/v1/relays/resend", tag = "relays",
    description = "Every given field must fit. `{\"dryRun\": true}` gives the count and changes \
        nothing. Scope: `operate`.",
    request_body(content = ResendMany, example = json!({"state": "dead", "dryRun": true})),
    responses(
        (status = 202, body = api::Resent, description = "They are ordered again"),
        (status = 200, body = api::Resent, description = "A dry run"),
        Refusals<{ KEY | JSON | STORE }>,
    ),
    security(("key" = [])),
)]
pub async fn resend_many(
    _: MayOperate,
    State(context): State<Context>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<api::Resent>), Problem> {
    let order: ResendMany = read_small_json(&context.limits, &headers, body).await?;
    let parse = |pointer: &str, detail: String| Problem::invalid(pointer, detail);
    let filter = RelayFilter {
        job_id: match &order.job_id {
            Some(id) => Some(id.parse().map_err(|_| parse("/jobId", "not a job id".into()))?),
            None => None,
        },
        state: match &order.state {
            Some(state) => Some(state.parse().map_err(|detail| parse("/state", detail))?),
            None => None,
        },
        target: order.target,
    };
    if filter.job_id.is_none() && filter.state.is_none() && filter.target.is_none() {
        return Err(Problem::invalid("", "say which: jobId, state or target"));
    }
    let now = context.clock.now();
    let relays = context.store.resend_relays(filter, now, order.dry_run).await?;
    let status = if order.dry_run { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(api::Resent { relays, dry_run: order.dry_run })))
}
