//! What people see. askama escapes whatever goes into a page.

use std::time::Duration;

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use http::StatusCode;

use crate::{connection::Status, error::CallError};

/// The first page: connect, or what the connection allows.
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
    /// How long the access token still lasts, in words.
    pub lasts: String,
    /// How often it was refreshed.
    pub refreshed: u32,
    /// What the forms carry.
    pub form_token: String,
}

/// What the Cloud API answered.
#[derive(Template)]
#[template(path = "contacts.html")]
pub struct Contacts {
    /// Where it was asked.
    pub url: String,
    /// Its JSON, indented.
    pub json: String,
}

/// Something to tell, mostly that something did not work.
#[derive(Template)]
#[template(path = "message.html")]
pub struct Message {
    /// What happened.
    pub title: String,
    /// What it means.
    pub text: String,
    /// What the other side said, for a developer; may be empty.
    pub detail: String,
}

impl Shown {
    /// A connection's status, with the token of this browser's forms.
    pub fn new(status: Status, form_token: &str) -> Self {
        Self {
            scopes: status.scopes,
            lasts: in_words(status.lasts),
            refreshed: status.refreshed,
            form_token: form_token.to_owned(),
        }
    }
}

fn in_words(lasts: Duration) -> String {
    match lasts.as_secs() {
        0 => "has ended, and is refreshed with the next call".to_owned(),
        seconds if seconds < 120 => format!("lasts {seconds} seconds more"),
        seconds => format!("lasts {} minutes more", seconds / 60),
    }
}

/// A page with a status.
pub fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A page with a message.
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
            Self::Refused { error, description } => format!("{error}: {description}"),
            other => other.to_string(),
        };
        let (status, title, text) = match self {
            Self::NotConnected => (
                StatusCode::CONFLICT,
                "Not connected",
                "There is no access to the tenant's data, or not any more. A Tenant Admin has to connect again.",
            ),
            Self::Refused { error, .. } if error == "access_denied" => (
                StatusCode::FORBIDDEN,
                "The request was denied",
                "The Tenant Admin did not agree. Nothing was shared.",
            ),
            Self::Refused { .. } => (
                StatusCode::BAD_GATEWAY,
                "The authority refused",
                "The tenant's authority did not do what was asked.",
            ),
            Self::Unreachable(_) => (
                StatusCode::BAD_GATEWAY,
                "No answer",
                "The other side can't be reached at the moment. Please try again.",
            ),
            Self::Nonsense(_) => (
                StatusCode::BAD_GATEWAY,
                "An unexpected answer",
                "The other side's answer could not be used.",
            ),
        };
        // Here, where it is handled, a failure is logged once. None of these texts holds a secret.
        tracing::warn!(%title, %detail, "shown to the user");
        let message = Message {
            title: title.to_owned(),
            text: text.to_owned(),
            detail,
        };
        page(status, &message)
    }
}
