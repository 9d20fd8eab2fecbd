//! The two front doors: callbacks for the internet, the API for the company.
//!
//! Built by `app`. This file is the whole route table; each resource has a file of its own.
//! Invariant: nothing that reads a stored result can be reached through the callbacks door, unless
//! the settings merge the doors, and then only with a key.

mod accept;
pub mod access;
mod address_places;
mod answers;
mod authority;
mod bundle;
mod callbacks;
mod conditions;
mod connection;
mod cookie;
mod crowd;
mod deliveries;
pub mod docs;
mod download;
pub mod error;
mod event_stream;
mod events;
mod extract;
mod failures;
pub mod feed;
mod file_responses;
mod gzip;
mod headers;
mod health;
mod idempotency_key;
mod input_locks;
mod inputs;
mod inspector;
mod jobs;
mod kept;
mod limits;
pub mod listen;
mod observe;
mod orders;
mod origin;
mod outputs;
mod parameters;
mod peers;
mod places;
mod prefix;
pub mod probe;
mod progress;
mod readiness;
mod refusals;
mod relays;
mod results;
mod routes;
pub mod serve;
mod session;
mod sign_in_link;
mod stats;
mod submission;
mod upload;
mod view;
mod wait;
mod wire;
mod zip;

use std::{ops::Deref, sync::Arc};

use axum::{
    Router,
    extract::FromRef,
    middleware::{from_fn, from_fn_with_state, map_response},
    routing::{any, get},
};
use jiff::Timestamp;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{error::Problem, feed::Feed, routes::Routes};
pub use self::{
    failures::Failures,
    input_locks::InputLocks,
    limits::Limits,
    readiness::Readiness,
    session::Sessions,
    sign_in_link::{LINK_LIFETIME, SignInLink},
};
use crate::{
    blobs::{Blobs, Verified},
    clock::Clock,
    config::Config,
    doctor::Doctor,
    engine::Engine,
    erasure::Eraser,
    heartbeats::Heartbeats,
    outbound::Outbound,
    public_url::PublicUrl,
    store::{Store, intake::Intake},
    wake::Wake,
};

/// The state shared by all handlers. Every extractor of every request clones it, so it is a
/// pointer.
#[derive(Clone)]
pub struct Context(Arc<Parts>);

/// The contents of a [`Context`].
pub struct Parts {
    pub config: Arc<Config>,
    pub store: Arc<dyn Store>,
    /// Everything that is received goes through it.
    pub intake: Arc<Intake>,
    pub eraser: Eraser,
    pub engine: Engine,
    pub public_url: PublicUrl,
    pub doctor: Doctor,
    pub outbound: Outbound,
    /// Copies of outputs; `None` where mirroring is off.
    pub blobs: Option<Blobs>,
    /// Copies that were verified since the start.
    pub verified: Verified,
    pub clock: Clock,
    pub heartbeats: Heartbeats,
    pub wake: Wake,
    pub feed: Feed,
    pub limits: Limits,
    pub readiness: Readiness,
    /// When the service was built.
    pub started_at: Timestamp,
    /// Held while an input is uploaded and while it is decided whether to notify the Engine.
    pub input_locks: InputLocks,
    /// Sessions of people in browsers.
    pub sessions: Sessions,
    /// Opens a session.
    pub sign_in_link: SignInLink,
    /// Failed attempts to get in.
    pub failures: Failures,
    /// Cancelled when the service stops: waiting requests and event streams end.
    pub stopping: CancellationToken,
    pub metrics: &'static PrometheusHandle,
    /// Work that must finish even if its caller hangs up.
    pub tasks: TaskTracker,
}

impl From<Parts> for Context {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for Context {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl FromRef<Context> for Arc<dyn Store> {
    fn from_ref(context: &Context) -> Self {
        context.store.clone()
    }
}

/// The door to the internet.
pub fn callbacks_door(context: Context) -> Router {
    observed(callbacks_door_routes(), context)
}

/// The door to the company.
pub fn api_door(context: Context) -> Router {
    observed(api_routes(&context), context)
}

/// Both on one listener. `/readyz` is then the API's.
pub fn merged_door(context: Context) -> Router {
    let callbacks = Routes::documented(callback_operations());
    observed(api_routes(&context).merge(callbacks), context)
}

/// The patterns of every route, by the door that serves it.
pub struct Patterns {
    pub callbacks: Vec<&'static str>,
    pub api: Vec<&'static str>,
}

/// Every route of the two doors, for checks over all of them.
pub fn patterns(context: &Context) -> Patterns {
    Patterns { callbacks: callbacks_door_routes().patterns(), api: api_routes(context).patterns() }
}

fn callbacks_door_routes() -> Routes {
    Routes::documented(callback_operations())
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready_for_callbacks))
}

fn api_routes(context: &Context) -> Routes {
    Routes::documented(operations())
        .layer(from_fn_with_state(context.clone(), answers::count))
        .merge(Routes::documented(operator_operations()))
        .merge(docs::routes())
        .layer(from_fn_with_state(context.clone(), access::only_this_machine))
        .merge(inspector::routes(context))
        .layer(from_fn_with_state(context.clone(), prefix::put_before))
}

/// The operations that the Engine calls. Each one's method, path and description are with its
/// handler.
fn callback_operations() -> OpenApiRouter<Context> {
    OpenApiRouter::default()
        .routes(routes!(callbacks::receive, callbacks::probe))
        .routes(routes!(callbacks::receive_in_inbox))
}

/// The operations that the company's software calls.
fn operations() -> OpenApiRouter<Context> {
    OpenApiRouter::default()
        .routes(routes!(jobs::submit, jobs::list, jobs::erase_many))
        .routes(routes!(jobs::show, jobs::erase))
        .routes(routes!(orders::refresh))
        .routes(routes!(orders::resubmit))
        .routes(routes!(inputs::upload))
        .routes(routes!(inputs::notify))
        .routes(routes!(outputs::list))
        .routes(routes!(outputs::show))
        .routes(routes!(results::show))
        .routes(routes!(deliveries::list))
        .routes(routes!(events::timeline))
        .routes(routes!(events::follow))
        .routes(routes!(deliveries::show))
        .routes(routes!(deliveries::body))
        .routes(routes!(relays::list))
        .routes(routes!(relays::resend_many))
        .routes(routes!(relays::show))
        .routes(routes!(relays::resend))
        .routes(routes!(stats::show))
}

/// The operations that operators and orchestrators call.
fn operator_operations() -> OpenApiRouter<Context> {
    OpenApiRouter::default()
        .routes(routes!(health::metrics))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
}

/// Adds to every answer of every door: its headers, a request id, a span, metrics, and a problem in
/// place of a panic, a wrong method or an unknown path.
fn observed(routes: Routes, context: Context) -> Router {
    let labels = routes.labels();
    routes
        .into_router()
        .fallback(any(async || Problem::NotFound))
        .method_not_allowed_fallback(observe::wrong_method)
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(from_fn(observe::refuse_large_head))
        .layer(from_fn_with_state(labels, observe::measure))
        .layer(TraceLayer::new_for_http().make_span_with(observe::span).on_failure(()))
        .layer(from_fn(observe::name_request))
        .layer(map_response(headers::completed))
        .with_state(context)
}
