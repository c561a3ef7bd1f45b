//! The HTTP face: the endpoints for partners' libraries, resource servers and browsers.
//!
//! It calls the same functions as the RPCs, never the store.

use std::sync::{Arc, atomic::AtomicBool};

use accord::rpc::http::Http;
use axum::{
    Router,
    response::IntoResponse,
    routing::{get, post},
};

use self::error::HttpError;
use crate::{consent::Consents, oauth::OAuth};

mod client;
mod discovery;
mod error;
mod form;
mod openapi;
mod pages;
mod token;

/// The state of the routes.
#[derive(Clone, Debug)]
pub(crate) struct HttpState {
    /// Tokens.
    pub(crate) oauth: OAuth,
    /// Consents.
    pub(crate) consents: Consents,
    /// Whether this server can serve.
    pub(crate) ready: Arc<AtomicBool>,
    /// The product's name on pages.
    pub(crate) product_name: Arc<str>,
}

/// Every route, in one place.
pub(crate) fn routes(http: HttpState) -> Http {
    let http = Arc::new(http);
    let router = Router::new()
        .merge(pages::routes(&http))
        .route("/{tenant}/oauth2/token", post(token::token))
        .route("/{tenant}/oauth2/introspect", post(token::introspect))
        .route("/{tenant}/oauth2/revoke", post(token::revoke))
        .route("/openapi.json", get(openapi::openapi))
        .route("/healthz", get(discovery::healthz))
        .route("/{tenant}/jwks.json", get(discovery::jwks))
        .route(
            "/.well-known/oauth-authorization-server/{tenant}",
            get(discovery::metadata),
        )
        .route(
            "/{tenant}/.well-known/oauth-authorization-server",
            get(discovery::metadata),
        )
        .route(
            "/{tenant}/.well-known/openid-configuration",
            get(discovery::metadata),
        )
        .with_state(http);
    Http {
        router,
        error: |status| HttpError::from(status).into_response(),
        before_secrets: &["/claim/", "/enrol/"],
    }
}
