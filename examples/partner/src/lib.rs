//! A sample partner: a web application that a Tenant Admin connects to a tenant, and that then reads the tenant's
//! contacts. Read it in this order:
//!
//! - [`settings`]: the four values that a partner receives, and the addresses of this application.
//! - [`discovery`]: the endpoints of a Tenant Authority URL.
//! - [`authority`]: the protocol, by the `oauth2` crate: authorize, redeem, refresh, revoke.
//! - [`dpop`]: the key that tokens are bound to, and its proofs.
//! - [`connection`]: fresh tokens, with one refresh at a time.
//! - [`session`]: the pending request and the connection of each browser.
//! - `routes` and [`pages`]: the pages.
//! - [`http`]: the HTTP client.
//!
//! It uses nothing but standard OAuth 2.0.

use std::sync::Arc;

use ::http::{HeaderValue, header};
use axum::{
    Router,
    response::Response,
    routing::{get, post},
};

use crate::{
    authority::Authority, dpop::Dpop, error::StartError, http::Http, session::Sessions, settings::Settings,
};

pub mod authority;
pub mod connection;
pub mod discovery;
pub mod dpop;
pub mod error;
pub mod http;
pub mod pages;
mod routes;
pub mod session;
pub mod settings;

/// The state of the routes.
#[derive(Debug)]
pub struct App {
    authority: Arc<Authority>,
    sessions: Sessions,
    dpop: Arc<Dpop>,
    contacts_url: String,
}

/// Discovers the authority and creates the application's routes.
///
/// # Errors
/// [`StartError`].
pub async fn router(settings: &Settings) -> Result<Router, StartError> {
    let http = Http::new(settings)?;
    let dpop = Arc::new(Dpop::new(http.clone())?);
    let app = App {
        authority: Arc::new(Authority::discover(settings, http, dpop.clone()).await?),
        sessions: Sessions::new(settings.is_https()),
        contacts_url: format!("{}/contacts", settings.cloud_api_url),
        dpop,
    };
    Ok(Router::new()
        .route("/", get(routes::home))
        .route("/connect", get(routes::connect))
        .route(settings.redirect_uri.path(), get(routes::callback))
        .route("/contacts", get(routes::contacts))
        .route("/refresh", post(routes::refresh))
        .route("/disconnect", post(routes::disconnect))
        .route("/style.css", get(style))
        .layer(axum::middleware::map_response(safe))
        .with_state(Arc::new(app)))
}

async fn style() -> impl axum::response::IntoResponse {
    let css = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (css, include_str!("../assets/style.css"))
}

/// Pages hold data of one person, and the URL of one of them holds a code.
async fn safe(mut response: Response) -> Response {
    let policy = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; \
                  frame-ancestors 'none'";
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
