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
    extract::{DeliveryPath, JobPath, RowQuery},
    jobs::found,
};
use crate::{api, domain::page::RowList};

/// Lists a job's deliveries in the order they came.
#[utoipa::path(
    operation_id = "listDeliveries",
    get, path = "/v1/jobs/{id}/deliveries", tag = "deliveries",
    description = "Page by page. Scope: `read`.",
    params(
        ("id" = String, Path, description = "Job id"),
        ("limit" = Option<u32>, Query, description = "1 to 200; 50 if absent"),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before"),
    ),
    responses(
        (status = 200, body = api::Deliveries),
        (status = 401, body = api::Problem, content_type = "application/problem+json", description = "`unauthorized`"),
        (status = 403, body = api::Problem, content_type = "application/problem+json", description = "`forbidden-scope`, `forbidden-origin`"),
        (status = 404, body = api::Problem, content_type = "application/problem+json", description = "`not-found`"),
        (status = 410, body = api::Problem, content_type = "application/problem+json", description = "`gone`"),
        (status = 422, body = api::Problem, content_type = "application/problem+json", description = "`validation-failed`"),
        (status = 503, body = api::Problem, content_type = "application/problem+json", description = "`overloaded`, `storage-unavailable`"),
    ),
    security(("key" = [])),
)]
pub async fn list(
    _: MayRead,
    State(context): State<Context>,
    JobPath(id): JobPath,
    query: RowQuery,
) -> Result<Json<api::Deliveries>, Problem> {
    let list = RowList { job_id: id, name: "deliveries" };
    let after = query.after(list)?;
    let page = found(context.store.deliveries(id, after, query.limit).await?)?;
    let deliveries = page.rows.into_iter().map(api::Delivery::from).collect();
    let next_cursor = page.next.map(|seq| list.to_cursor(seq));
    Ok(Json(api::Deliveries { deliveries, next_cursor }))
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
    let head = [
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
    ];
    Ok((head, body).into_response())
}
