//! The HTTP protocol: a service's routes, bounded by the middleware.

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, MatchedPath},
    http::{
        HeaderValue, Request, Response, Version,
        header::{HOST, X_CONTENT_TYPE_OPTIONS},
        uri::Authority,
    },
};
use tonic::{Code, Status};
use tower::{Layer, util::MapRequestLayer};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::{
    rpc::{
        context,
        middleware::{self, Matched, Protocol, Route, Routes, Shared},
        status::{ErrorReason, Problem},
    },
    text::id::TenantId,
};

/// The largest body that a route reads, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Where the router notes the route of a request.
type MatchedRoute = Arc<OnceLock<Matched>>;

/// The HTTP routes of a service.
#[derive(Clone, Debug)]
pub struct Http {
    /// The routes.
    pub router: Router,
    /// The ends of the paths whose POST requests end with their caller, because they only read, or complete what must be.
    pub ends_with_caller: &'static [&'static str],
    /// Converts a status of the middleware to a response.
    pub error: fn(Status) -> Response<Body>,
}

impl Http {
    pub(super) fn into_routes(self, shared: Shared) -> impl Routes {
        let router = self.router.clone().layer(MapRequestLayer::new(note_route));
        // Around the router, because layers inside it are cloned for each request.
        let routes = DefaultBodyLimit::max(MAX_BODY_BYTES).layer(router);
        let nosniff = HeaderValue::from_static("nosniff");
        SetResponseHeaderLayer::overriding(X_CONTENT_TYPE_OPTIONS, nosniff)
            .layer(middleware::stack(self, shared, routes))
    }
}

impl Protocol for Http {
    const NAME: &'static str = "http";

    fn error(&self, status: Status) -> Response<Body> {
        (self.error)(status)
    }

    /// Rejects a request of HTTP/1.1 that does not name one host (RFC 9112 §3.2).
    async fn admit(&self, request: &mut Request<Body>) -> Result<String, Response<Body>> {
        let mut hosts = request.headers().get_all(HOST).iter().map(HeaderValue::as_bytes);
        let is_host = |host: &[u8]| host.is_empty() || Authority::try_from(host).is_ok();
        let names_one = hosts.next().is_some_and(is_host) && hosts.next().is_none();
        if request.version() == Version::HTTP_11 && !names_one {
            let message = "the request must have one Host header";
            let problem = Problem::new(Code::InvalidArgument, ErrorReason::InvalidFields, message);
            return Err(self.error(problem.into()));
        }
        Ok(String::new())
    }

    /// Safe methods only read (RFC 9110 §9.2.1).
    fn outlives_caller(&self, request: &Request<Body>) -> bool {
        let path = request.uri().path();
        !request.method().is_safe() && !self.ends_with_caller.iter().any(|end| path.ends_with(end))
    }

    fn failure(&self, response: &Response<Body>) -> Option<String> {
        let status = response.status();
        (status.is_client_error() || status.is_server_error()).then(|| status.as_str().to_owned())
    }

    /// A page may answer a rejected call with a form, so the status does not tell.
    fn rejection(&self, _: &Response<Body>) -> Option<ErrorReason> {
        context::noted_rejection()
    }

    fn route(&self, request: &mut Request<Body>) -> Route {
        let route = MatchedRoute::default();
        request.extensions_mut().insert(route.clone());
        Route::Noted(route)
    }
}

/// Notes the route that a request matched.
fn note_route(request: Request<Body>) -> Request<Body> {
    const TENANT: &str = "/{tenant}";
    let extensions = request.extensions();
    if let (Some(route), Some(matched)) = (extensions.get::<MatchedRoute>(), extensions.get::<MatchedPath>())
    {
        let pattern = matched.as_str();
        let first = request.uri().path().split('/').nth(1).unwrap_or_default();
        // Only what can be a tenant's id is shown: no secret can.
        let tenant = TenantId::parse(first).ok().zip(pattern.strip_prefix(TENANT));
        // The first one counts.
        let _ = route.set(Matched {
            pattern: pattern.to_owned(),
            logged: tenant.map_or_else(
                || pattern.to_owned(),
                |(tenant_id, rest)| format!("/{tenant_id}{rest}"),
            ),
        });
    }
    request
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::routing::{any, get};
    use tower::ServiceExt;

    use super::*;
    use crate::{
        random::SystemRandom,
        text::opaque::{OpaqueToken, TokenKind},
    };

    #[tokio::test]
    async fn a_request_of_http_1_1_names_one_host() {
        let http = Http {
            ends_with_caller: &[],
            router: Router::new(),
            error: |_| Response::default(),
        };
        for (version, hosts, admitted) in [
            (Version::HTTP_11, &["auth.example:8443"][..], true),
            (Version::HTTP_11, &["[::1]:8080"], true),
            (Version::HTTP_11, &[""], true),
            (Version::HTTP_11, &[], false),
            (Version::HTTP_11, &["a.example", "a.example"], false),
            (Version::HTTP_11, &["a.example/path"], false),
            (Version::HTTP_11, &["a b"], false),
            // The checks of balancers.
            (Version::HTTP_10, &[], true),
            (Version::HTTP_2, &[], true),
        ] {
            let mut request = Request::builder().version(version);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            let mut request = request.body(Body::empty()).unwrap();
            let outcome = http.admit(&mut request).await;
            assert_eq!(outcome.is_ok(), admitted, "{version:?} {hosts:?}");
        }
    }

    #[test]
    fn requests_end_with_their_caller_if_their_method_is_safe_or_their_path_is_named() {
        let http = Http {
            ends_with_caller: &["/oauth2/token"],
            router: Router::new(),
            error: |_| Response::default(),
        };
        for (method, path, outlives) in [
            ("GET", "/firm/oauth2/revoke", false),
            ("HEAD", "/firm/oauth2/revoke", false),
            ("POST", "/firm/oauth2/token", false),
            ("POST", "/firm/oauth2/token/", true),
            ("POST", "/firm/oauth2/revoke", true),
            ("DELETE", "/firm/oauth2/revoke", true),
        ] {
            let request = Request::builder().method(method).uri(path);
            let request = request.body(Body::empty()).unwrap();
            assert_eq!(http.outlives_caller(&request), outlives, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn the_log_and_labels_name_the_route_and_no_other_part_of_a_path() {
        let page = || get(async || ());
        let http = Http {
            ends_with_caller: &[],
            router: Router::new()
                .route("/claim/{token}", page())
                .route("/{tenant}/enrol/{token}", page())
                .route("/{tenant}/setups/{setup}", page())
                .fallback(any(async || ())),
            error: |_| Response::default(),
        };
        let token = OpaqueToken::generate(TokenKind::Claim, &SystemRandom);
        let token = token.expose();
        for (method, path, logged) in [
            ("GET", "/claim/T", "/claim/{token}"),
            ("PUT", "/claim/T", "/claim/{token}"),
            ("GET", "/firm/enrol/T", "/firm/enrol/{token}"),
            ("GET", "/T/enrol/T", "/{tenant}/enrol/{token}"),
            ("GET", "/firm/setups/T", "/firm/setups/{setup}"),
            ("GET", "/Claim/T", "none"),
            ("GET", "/claim%2FT", "none"),
            ("GET", "/%63laim/T", "none"),
            ("GET", "/firm/T", "none"),
            ("GET", "/claim/T/", "none"),
            ("GET", "/T", "none"),
        ] {
            let request = Request::builder().method(method).uri(path.replace('T', token));
            let mut request = request.body(Body::empty()).unwrap();
            let route = http.route(&mut request);
            let routes = http.router.clone().layer(MapRequestLayer::new(note_route));
            routes.oneshot(request).await.unwrap();
            assert_eq!(route.logged(), logged, "{method} {path}");
            let label = logged.replace("/firm/", "/{tenant}/");
            let expected = if label == "none" { "unknown" } else { &label };
            assert_eq!(route.label(), expected, "{method} {path}");
        }
    }
}
