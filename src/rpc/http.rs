//! The HTTP protocol: a service's routes, bounded by the middleware.

use axum::{
    Router,
    body::Body,
    extract::DefaultBodyLimit,
    http::{HeaderValue, Response, header::X_CONTENT_TYPE_OPTIONS},
};
use tonic::Status;
use tower::Layer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::rpc::middleware::{self, Protocol, Routes};

/// The largest body that a route reads, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The HTTP routes of a service.
#[derive(Clone, Debug)]
pub struct Http {
    /// The routes.
    pub router: Router,
    /// Converts a status of the middleware to a response.
    pub error: fn(Status) -> Response<Body>,
    /// Segments before a secret in a path. The log must not hold the secret.
    pub before_secrets: &'static [&'static str],
}

impl Http {
    pub(super) fn into_routes(self) -> impl Routes {
        // Around the router, because layers inside it are cloned for each request.
        let routes = DefaultBodyLimit::max(MAX_BODY_BYTES).layer(self.router.clone());
        let nosniff = HeaderValue::from_static("nosniff");
        SetResponseHeaderLayer::overriding(X_CONTENT_TYPE_OPTIONS, nosniff)
            .layer(middleware::stack(self, routes))
    }
}

impl Protocol for Http {
    fn error(&self, status: Status) -> Response<Body> {
        (self.error)(status)
    }

    fn failure(&self, response: &Response<Body>) -> Option<String> {
        let status = response.status();
        (status.is_client_error() || status.is_server_error()).then(|| status.as_str().to_owned())
    }

    fn loggable<'a>(&self, path: &'a str) -> &'a str {
        let segments = self.before_secrets.iter();
        let ends = segments.filter_map(|segment| Some(path.find(segment)? + segment.len()));
        ends.min().map_or(path, |end| &path[..end])
    }
}
