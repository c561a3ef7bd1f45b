//! The HTTP face: a router within the bounds of the middleware.

use axum::{
    Router,
    body::Body,
    extract::DefaultBodyLimit,
    http::{HeaderValue, Response, header::X_CONTENT_TYPE_OPTIONS},
};
use tonic::Status;
use tower::Layer;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::rpc::{
    listener::Handler,
    middleware::{self, Face},
};

/// The largest body that a route reads, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The HTTP routes of a service.
#[derive(Clone, Debug)]
pub struct Http {
    /// The routes.
    pub router: Router,
    /// Turns a status of the middleware into an answer of this face.
    pub error: fn(Status) -> Response<Body>,
    /// Segments after which a path holds a secret, which the log must not.
    pub before_secrets: &'static [&'static str],
}

impl Http {
    pub(super) fn into_handler(self) -> impl Handler {
        // Around the router: a layer inside is cloned for each request.
        let routes = DefaultBodyLimit::max(MAX_BODY_BYTES).layer(self.router.clone());
        let nosniff = HeaderValue::from_static("nosniff");
        SetResponseHeaderLayer::overriding(X_CONTENT_TYPE_OPTIONS, nosniff)
            .layer(middleware::stack(self, routes))
    }
}

impl Face for Http {
    fn error(&self, status: Status) -> Response<Body> {
        (self.error)(status)
    }

    fn failure(&self, response: &Response<Body>) -> Option<String> {
        let status = response.status();
        (status.is_client_error() || status.is_server_error()).then(|| status.as_str().to_owned())
    }

    fn loggable<'a>(&self, path: &'a str) -> &'a str {
        let secret = self.before_secrets.iter();
        let end = secret
            .filter_map(|segment| Some(path.find(segment)? + segment.len()))
            .min();
        end.and_then(|end| path.get(..end)).unwrap_or(path)
    }
}
