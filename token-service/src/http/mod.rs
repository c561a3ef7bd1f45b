//! HTTP: the endpoints for partners' libraries, resource servers and browsers. They call the same functions as the
//! RPCs.

use std::sync::Arc;

use accord::rpc::{auth::Authorizer, http::Http, telemetry::admin::Readiness};
use axum::{
    Router,
    middleware::from_fn,
    response::IntoResponse,
    routing::{get, post},
};

use self::error::HttpError;
use crate::{consent::Consents, oauth::OAuth};

mod authorization_request;
mod client;
mod discovery;
mod error;
mod form;
mod pages;
mod pushed_request;
mod token;

/// The state of the routes.
#[derive(Clone, Debug)]
pub(crate) struct HttpState {
    /// Tokens.
    pub(crate) oauth: OAuth,
    /// Consents.
    pub(crate) consents: Consents,
    /// The permissions of workloads, which introspect here too.
    pub(crate) authorizer: Authorizer,
    /// Whether this server can serve.
    pub(crate) readiness: Readiness,
    /// The product's name on pages.
    pub(crate) product_name: Arc<str>,
}

/// The ends of the paths whose POST requests are dropped when the caller disconnects. Introspection only reads. The others are those
/// of [`END_WITH_CALLER`](crate::permissions::END_WITH_CALLER).
const ENDS_WITH_CALLER: &[&str] = &["/oauth2/token", "/oauth2/introspect", "/sign-in"];

/// Every route, in one place.
pub(crate) fn routes(http: HttpState) -> Http {
    let http = Arc::new(http);
    let metadata = || get(discovery::metadata);
    let public = Router::new()
        .route("/openapi.json", get(discovery::openapi))
        .route("/{tenant}/jwks.json", get(discovery::jwks))
        .route("/.well-known/oauth-authorization-server/{tenant}", metadata())
        .route("/{tenant}/.well-known/oauth-authorization-server", metadata())
        .route("/{tenant}/.well-known/openid-configuration", metadata())
        .layer(from_fn(discovery::share_with_scripts));
    let router = Router::new()
        .merge(public)
        .merge(pages::routes(&http))
        .route("/{tenant}/oauth2/token", post(token::token))
        .route("/{tenant}/oauth2/par", post(pushed_request::push))
        .route("/{tenant}/oauth2/introspect", post(token::introspect))
        .route("/{tenant}/oauth2/revoke", post(token::revoke))
        .route("/healthz", get(discovery::healthz));
    Http {
        router: router.with_state(http),
        ends_with_caller: ENDS_WITH_CALLER,
        error: |status| HttpError::from(status).into_response(),
    }
}
