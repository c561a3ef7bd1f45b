//! The pages. askama escapes all values.

use std::time::Duration;

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use http::StatusCode;

use crate::{connection::Status, error::CallError};

/// The first page: the button "Connect", or the connection.
#[derive(Template)]
#[template(path = "home.html")]
pub struct Home {
    /// The Tenant Authority URL.
    pub issuer: String,
    /// The connection, if there is one.
    pub connection: Option<Shown>,
}

/// A connection on a page.
pub struct Shown {
    /// The granted scopes.
    pub scopes: Vec<String>,
    /// The time until the access token expires, in words.
    pub remaining: String,
    /// The number of refreshes.
    pub refreshed: u32,
    /// The token of the forms.
    pub form_token: String,
}

/// The response of the Cloud API.
#[derive(Template)]
#[template(path = "contacts.html")]
pub struct Contacts {
    /// The URL of the request.
    pub url: String,
    /// The JSON, indented.
    pub json: String,
}

/// A message, mostly about a failure.
#[derive(Template)]
#[template(path = "message.html")]
pub struct Message {
    /// The title.
    pub title: String,
    /// The explanation.
    pub text: String,
    /// Details for a developer; may be empty.
    pub detail: String,
}

impl Shown {
    /// Creates the view of a connection, with the token of this browser's forms.
    pub fn new(status: Status, form_token: &str) -> Self {
        Self {
            scopes: status.scopes,
            remaining: in_words(status.remaining),
            refreshed: status.refreshed,
            form_token: form_token.to_owned(),
        }
    }
}

fn in_words(remaining: Duration) -> String {
    match remaining.as_secs() {
        0 => "has expired, and is refreshed with the next call".to_owned(),
        seconds if seconds < 120 => format!("expires in {seconds} seconds"),
        seconds => format!("expires in {} minutes", seconds / 60),
    }
}

/// Returns a page with a status.
pub fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Returns a page with a message.
pub fn message(status: StatusCode, title: &str, text: &str) -> Response {
    let message = Message {
        title: title.to_owned(),
        text: text.to_owned(),
        detail: String::new(),
    };
    page(status, &message)
}

impl IntoResponse for CallError {
    fn into_response(self) -> Response {
        let detail = match &self {
            Self::Rejected { error, description } => format!("{error}: {description}"),
            other => other.to_string(),
        };
        let (status, title, text) = match self {
            Self::NotConnected => (
                StatusCode::CONFLICT,
                "Not connected",
                "This application has no access to the tenant's data. A Tenant Admin must connect it again.",
            ),
            Self::Rejected { error, .. } if error == "access_denied" => (
                StatusCode::FORBIDDEN,
                "The request was denied",
                "The Tenant Admin did not agree. Nothing was shared.",
            ),
            Self::Rejected { .. } => (
                StatusCode::BAD_GATEWAY,
                "The authority returned an error",
                "The tenant's authority rejected the request.",
            ),
            Self::Unreachable(_) => (
                StatusCode::BAD_GATEWAY,
                "No response",
                "The server can't be reached at the moment. Please try again.",
            ),
            Self::Malformed(_) => (
                StatusCode::BAD_GATEWAY,
                "An unexpected response",
                "The server's response is invalid.",
            ),
        };
        // A failure is logged once, where it is handled. None of these texts holds a secret.
        tracing::warn!(%title, %detail, "shown to the user");
        let message = Message {
            title: title.to_owned(),
            text: text.to_owned(),
            detail,
        };
        page(status, &message)
    }
}
