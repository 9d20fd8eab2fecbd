//! `/openapi.json` and `/docs`: the API's description, made from its handlers.
//!
//! The invariant: everything the pages need is compiled in; nothing is loaded from elsewhere.

use std::sync::{Arc, LazyLock};

use axum::{
    Json,
    extract::State,
    http::{
        HeaderMap, HeaderValue,
        header::{CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        ContentBuilder, Header, Object, Ref, ResponseBuilder, Server, Type,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_swagger_ui::{Config, SwaggerFile};

use super::{
    Context, callbacks, deliveries, error::Problem, events, extract::Segments, health, inputs,
    jobs, orders, outputs, prefix::Prefix, relays, results, routes::Routes, stats,
};

/// The page's own scripts; styles that its scripts write, and pictures within its styles.
const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

/// The document is named relative to the page, wherever a proxy puts both.
///
/// The outside validator would be told of every private address.
static PAGE: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    Arc::new(Config::new(["../openapi.json"]).validator_url("none").use_base_layout())
});

/// The OpenAPI document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Finishline",
        description = "Submit Engine jobs, never poll, never lose a result. Errors are RFC 9457 \
            problems with a stable `code`; times are RFC 3339 in UTC; every answer carries \
            `x-request-id`. There is no CORS: call it from your server, not from a page of another \
            origin.",
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
    modifiers(&ApiKey, &TooManyFailures),
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

/// What every guarded route may answer, said once.
struct TooManyFailures;

impl Modify for TooManyFailures {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let description = "`too-many-failures`: too many wrong keys came from this address; a right \
            one is let in at any time";
        let response = ResponseBuilder::new()
            .description(description)
            .content("application/problem+json", content)
            .header("Retry-After", Header::new(Object::with_type(Type::Integer)))
            .build();
        for path in document.paths.paths.values_mut() {
            let operations = [&mut path.get, &mut path.post, &mut path.put, &mut path.delete];
            for operation in operations.into_iter().flatten().filter(|one| one.security.is_some()) {
                operation.responses.responses.insert("429".to_owned(), response.clone().into());
            }
        }
    }
}

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/openapi.json", get(document))
        .route("/docs", get(async || Redirect::to("/docs/")))
        .route("/docs/", get(async || file("index.html")))
        .route("/docs/{*file}", get(async |Segments(name): Segments<String>| file(&name)))
}

/// The document, with the path that a proxy puts in front of the API.
async fn document(State(context): State<Context>) -> Json<utoipa::openapi::OpenApi> {
    let mut document = Document::openapi();
    let prefix = Prefix::of(&context.config.api);
    if !prefix.as_str().is_empty() {
        document.servers = Some(vec![Server::new(prefix.as_str())]);
    }
    Json(document)
}

/// One of the files that the page is made of.
fn file(name: &str) -> Result<Response, Problem> {
    let found = utoipa_swagger_ui::serve(name, PAGE.clone()).map_err(|error| {
        tracing::error!(%error, "a file of /docs cannot be made");
        Problem::Internal
    })?;
    found.map(render).ok_or(Problem::NotFound)
}

fn render(file: SwaggerFile<'_>) -> Response {
    let kind = HeaderValue::try_from(&file.content_type);
    let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let mut head = HeaderMap::new();
    if kind.as_bytes().starts_with(b"text/html") {
        head.insert(CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    }
    head.insert(CONTENT_TYPE, kind);
    if file.gzpipped {
        head.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    (head, file.bytes.into_owned()).into_response()
}
