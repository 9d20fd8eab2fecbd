//! `/openapi.json` and `/docs`: the API's description, made from its handlers.
//!
//! The invariant: everything the pages need is compiled in; nothing is loaded from elsewhere.

use axum::{Json, Router, routing::get};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{
    Context, callbacks, deliveries, events, health, inputs, jobs, orders, outputs, relays, results,
    stats,
};

/// The OpenAPI document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Finishline",
        description = "Submit Engine jobs, never poll, never lose a result. Errors are RFC 9457 \
            problems with a stable `code`; times are RFC 3339 in UTC; every answer carries \
            `x-request-id`.",
    ),
    paths(
        jobs::submit,
        jobs::list,
        jobs::erase_many,
        jobs::show,
        jobs::erase,
        orders::refresh,
        orders::resubmit,
        inputs::upload,
        inputs::notify,
        outputs::list,
        outputs::show,
        results::show,
        deliveries::list,
        deliveries::show,
        deliveries::body,
        events::timeline,
        events::follow,
        relays::list,
        relays::resend_many,
        relays::show,
        relays::resend,
        stats::show,
        callbacks::receive,
        callbacks::probe,
        callbacks::receive_in_inbox,
        health::alive,
        health::ready,
        health::metrics,
    ),
    tags(
        (name = "jobs", description = "Submit, follow, erase"),
        (name = "deliveries", description = "What was received, byte for byte"),
        (name = "events", description = "What happened, in order"),
        (name = "relays", description = "Where results are passed on to"),
        (name = "callbacks", description = "The door to the internet: for the Engine alone"),
        (name = "operation", description = "For operators and orchestrators"),
    ),
    modifiers(&ApiKey),
)]
pub struct Document;

struct ApiKey;

impl Modify for ApiKey {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("One of `api.keys`, or the key in `finishline.key` that the service makes where none is set."))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

pub(super) fn routes() -> Router<Context> {
    // The outside validator would be told of every private address.
    let config = Config::new(["/openapi.json"]).validator_url("none").use_base_layout();
    Router::new()
        .route("/openapi.json", get(async || Json(Document::openapi())))
        .merge(SwaggerUi::new("/docs").config(config))
}
