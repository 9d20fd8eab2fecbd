//! Deliveries: the evidence of what was received, and its exact bytes.
//!
//! The invariant: bytes from outside are served as data, never as something a browser runs.

use axum::{
    Json,
    extract::State,
    http::{
        HeaderValue,
        header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};

use super::{
    Context,
    access::MayRead,
    error::Problem,
    extract::{DeliveryPath, JobPath},
    jobs::found,
};
use crate::api;

/// Lists a job's deliveries in the order they came.
#[utoipa::path(
    operation_id = "listDeliveries",
    get, path = "/v1/jobs/{id}/deliveries", tag = "deliveries", description = "Scope: `read`.",
    params(("id" = String, Path, description = "Job id")),
    responses(
        (status = 200, body = api::Deliveries),
        (status = 401, body = api::Problem, content_type = "application/problem+json", description = "`unauthorized`"),
        (status = 403, body = api::Problem, content_type = "application/problem+json", description = "`forbidden-scope`, `forbidden-origin`"),
        (status = 404, body = api::Problem, content_type = "application/problem+json", description = "`not-found`"),
        (status = 410, body = api::Problem, content_type = "application/problem+json", description = "`gone`"),
        (status = 503, body = api::Problem, content_type = "application/problem+json", description = "`storage-unavailable`"),
    ),
    security(("key" = [])),
)]
pub async fn list(
    _: MayRead,
    State(context): State<Context>,
    JobPath(id): JobPath,
) -> Result<Json<api::Deliveries>, Problem> {
    let deliveries = found(context.store.deliveries(id).await?)?;
    let deliveries = deliveries.into_iter().map(api::Delivery::from).collect();
    Ok(Json(api::Deliveries { deliveries }))
}

/// Shows a delivery.
#[utoipa::path(
    operation_id = "showDelivery",
    get, path = "/v1/deliveries/{id}", tag = "deliveries", description = "Scope: `read`.",
    params(("id" = String, Path, description = "Delivery id")),
    responses(
        (status = 200, body = api::Delivery),
        (status = 401, body = api::Problem, content_type = "application/problem+json", description = "`unauthorized`"),
        (status = 403, body = api::Problem, content_type = "application/problem+json", description = "`forbidden-scope`, `forbidden-origin`"),
        (status = 404, body = api::Problem, content_type = "application/problem+json", description = "`not-found`"),
        (status = 503, body = api::Problem, content_type = "application/problem+json", description = "`storage-unavailable`"),
    ),
    security(("key" = [])),
)]
pub async fn show(
    _: MayRead,
    State(context): State<Context>,
    DeliveryPath(id): DeliveryPath,
) -> Result<Json<api::Delivery>, Problem> {
    let delivery = context.store.delivery(id).await?.ok_or(Problem::NotFound)?;
    Ok(Json(delivery.into()))
}

/// Gives a delivery's exact bytes.
#[utoipa::path(
    operation_id = "showDeliveryBody",
    get, path = "/v1/deliveries/{id}/body", tag = "deliveries", description = "Scope: `read`.",
    params(("id" = String, Path, description = "Delivery id")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream", description = "Unpacked, otherwise as received"),
        (status = 401, body = api::Problem, content_type = "application/problem+json", description = "`unauthorized`"),
        (status = 403, body = api::Problem, content_type = "application/problem+json", description = "`forbidden-scope`, `forbidden-origin`"),
        (status = 404, body = api::Problem, content_type = "application/problem+json", description = "`not-found`"),
        (status = 503, body = api::Problem, content_type = "application/problem+json", description = "`overloaded`, `storage-unavailable`"),
    ),
    security(("key" = [])),
)]
pub async fn body(
    _: MayRead,
    State(context): State<Context>,
    DeliveryPath(id): DeliveryPath,
) -> Result<Response, Problem> {
    let body = context.store.delivery_body(id).await?.ok_or(Problem::NotFound)?;
    let body = context.limits.answers.hold(body)?;
    let head = [
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
    ];
    Ok((head, body).into_response())
}
