//! Deliveries: the records of what was received, and its exact bytes.
//!
//! Invariant: bytes from outside are served as data, never as something a browser runs.

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
    refusals::{CHECKED, JOB, KEY, Refusals, STORE},
};
use crate::{
    api::{self, ProblemCode as Code, schema},
    domain::page::RowList,
};

/// Lists a job's deliveries in the order they came.
#[utoipa::path(
    operation_id = "listDeliveries",
    get, path = "/v1/jobs/{id}/deliveries", tag = "deliveries",
    description = "Page by page. Scope: `read`.",
    params(JobPath, RowQuery),
    responses(
        (status = 200, body = api::Deliveries, description = "A page"),
        Refusals<{ KEY | JOB | CHECKED }>,
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
    params(DeliveryPath),
    responses(
        (status = 200, body = api::Delivery, description = "The delivery, without its bytes"),
        Refusals<{ KEY | STORE | Code::NotFound.bit() }>,
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
    params(DeliveryPath),
    responses(
        (status = 200, body = inline(schema::Binary), content_type = "application/octet-stream", description = "Unpacked, otherwise as received"),
        Refusals<{ KEY | STORE | Code::NotFound.bit() }>,
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
