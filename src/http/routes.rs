//! The routes of a door, recorded while they are declared.
//!
//! A door consists only of `Routes`, so the list of its patterns is complete. Invariant: a route's
//! label is its pattern as written in the program.

use std::{collections::HashSet, convert::Infallible, sync::Arc};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    response::IntoResponse,
    routing::{MethodRouter, Route},
};
use tower::{Layer, Service};
use utoipa_axum::router::OpenApiRouter;

use super::{Context, docs};
use crate::telemetry::Label;

/// The label of a path without a route.
const UNMATCHED: &str = "unmatched";

/// A router that knows the patterns of its routes.
pub(super) struct Routes {
    router: Router<Context>,
    patterns: HashSet<&'static str>,
}

impl Routes {
    pub(super) fn new() -> Self {
        Self { router: Router::new(), patterns: HashSet::new() }
    }

    /// Adds a route.
    pub(super) fn route(self, pattern: &'static str, methods: MethodRouter<Context>) -> Self {
        let mut patterns = self.patterns;
        patterns.insert(pattern);
        Self { router: self.router.route(pattern, methods), patterns }
    }

    /// Adds all routes of another set.
    pub(super) fn merge(self, other: Self) -> Self {
        let mut patterns = self.patterns;
        patterns.extend(other.patterns);
        Self { router: self.router.merge(other.router), patterns }
    }

    /// The routes of operations, which the OpenAPI document describes.
    pub(super) fn documented(operations: OpenApiRouter<Context>) -> Self {
        let (router, described) = operations.split_for_parts();
        let patterns = described.paths.paths.keys().map(|path| docs::pattern(path)).collect();
        Self { router, patterns }
    }

    /// Puts a layer around the routes that have been added so far.
    pub(super) fn layer<L>(self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Error: Into<Infallible> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        Self { router: self.router.layer(layer), ..self }
    }

    /// Every pattern, in alphabetical order.
    pub(super) fn patterns(&self) -> Vec<&'static str> {
        let mut patterns: Vec<_> = self.patterns.iter().copied().collect();
        patterns.sort_unstable();
        patterns
    }

    pub(super) fn labels(&self) -> RouteLabels {
        RouteLabels(Arc::new(self.patterns.clone()))
    }

    pub(super) fn into_router(self) -> Router<Context> {
        self.router
    }
}

/// The label of each route; cheap to clone.
#[derive(Clone)]
pub(super) struct RouteLabels(Arc<HashSet<&'static str>>);

impl RouteLabels {
    /// The pattern of the route that matched a request.
    pub(super) fn of(&self, request: &Request) -> Label {
        let matched = request.extensions().get::<MatchedPath>();
        let pattern = matched.and_then(|matched| self.0.get(matched.as_str()));
        pattern.copied().unwrap_or(UNMATCHED).into()
    }
}
