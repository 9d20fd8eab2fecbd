//! `/openapi.json` and `/docs`: the API's description, made from its handlers.
//!
//! Invariant: everything the pages need is compiled in; nothing is loaded from elsewhere.

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
        OpenApi as OpenApiDocument, Server,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config, SwaggerFile};

use super::{
    Context, callback_operations, error::Problem, extract::Segments, operations,
    operator_operations, prefix::Prefix, routes::Routes,
};
use crate::api;

/// Allows the page's own scripts, the styles that its scripts write, and images within its styles.
const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

/// The document's address is relative to the page, so that it works behind a proxy's prefix.
///
/// Swagger's external validator is off: it would learn every private address.
static PAGE: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    Arc::new(Config::new(["../openapi.json"]).validator_url("none").use_base_layout())
});

/// The whole document: the description of the API, and every operation of both doors.
static DOCUMENT: LazyLock<OpenApiDocument> = LazyLock::new(|| {
    let described = OpenApiRouter::with_openapi(Document::openapi());
    let described = described.merge(operations()).merge(operator_operations());
    described.merge(callback_operations()).into_openapi()
});

/// What the OpenAPI document says of the API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Finishline",
        description = "Submit Engine jobs, never poll, never lose a result. Errors are RFC 9457 \
            problems with a stable `code`; times are RFC 3339 in UTC; every answer carries \
            `x-request-id`. There is no CORS: call it from your server, not from a page of another \
            origin.",
    ),
    components(schemas(api::Problem, api::schema::JobStatus, api::schema::RelayState)),
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
struct Document;

struct ApiKey;

impl Modify for ApiKey {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("One of `api.keys`, or the key in `finishline.key` that the \
                service makes where none is set. Where `api.open_on_loopback` is set, none is needed."))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// An operation's path as the program writes it.
pub(super) fn pattern(path: &str) -> &'static str {
    let known = DOCUMENT.paths.paths.get_key_value(path);
    known.map(|(path, _)| path.as_str()).expect("the document has every operation")
}

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/openapi.json", get(document))
        .route("/docs", get(async || Redirect::to("/docs/")))
        .route("/docs/", get(async || file("index.html")))
        .route("/docs/{*file}", get(async |Segments(name): Segments<String>| file(&name)))
}

/// The document, with the path prefix that a proxy puts in front of the API.
async fn document(State(context): State<Context>) -> Json<OpenApiDocument> {
    let mut document = DOCUMENT.clone();
    let prefix = Prefix::of(&context.config.api);
    if !prefix.as_str().is_empty() {
        document.servers = Some(vec![Server::new(prefix.as_str())]);
    }
    Json(document)
}

/// One of the page's files.
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
