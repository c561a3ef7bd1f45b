//! A sample partner: a web application that is connected to one tenant by its Tenant Admin, and then reads
//! the tenant's contacts. It is meant to be read, from top to bottom:
//!
//! - [`settings`]: the four things that a partner is given, and where this application is.
//! - [`discovery`]: from the Tenant Authority URL to its endpoints.
//! - [`authority`]: the protocol, by the `oauth2` crate: ask, redeem, refresh, revoke.
//! - [`connection`]: keeping tokens fresh, with one refresh at a time.
//! - [`session`]: which browser has asked for what, and which connection it has.
//! - `routes` and [`pages`]: what a person sees.
//! - [`http`]: the one HTTP client.
//!
//! It knows nothing of Accord but what any OAuth 2.0 server would tell it.

use std::sync::Arc;

use ::http::{HeaderValue, header};
use axum::{
    Router,
    response::Response,
    routing::{get, post},
};

use crate::{authority::Authority, error::StartError, http::Http, session::Sessions, settings::Settings};

pub mod authority;
pub mod connection;
pub mod discovery;
pub mod error;
pub mod http;
pub mod pages;
mod routes;
pub mod session;
pub mod settings;

/// What the routes work with.
#[derive(Debug)]
pub struct App {
    authority: Arc<Authority>,
    sessions: Sessions,
    http: Http,
    contacts_url: String,
}

/// Finds the authority and makes the application's routes.
///
/// # Errors
/// [`StartError`].
pub async fn router(settings: &Settings) -> Result<Router, StartError> {
    let http = Http::new(settings)?;
    let app = App {
        authority: Arc::new(Authority::find(settings, http.clone()).await?),
        sessions: Sessions::new(settings.is_https()),
        contacts_url: format!("{}/contacts", settings.cloud_api_url),
        http,
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

/// Pages hold what is one person's, and the address of one of them held a code.
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
