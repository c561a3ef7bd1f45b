//! The handlers of the routes.

use std::sync::Arc;

use axum::{
    Form,
    extract::{Query, State},
    response::{IntoResponse, Redirect, Response},
};
use axum_extra::extract::cookie::CookieJar;
use http::{Request, StatusCode, header};
use oauth2::{AccessToken, CsrfToken, HttpResponse};
use serde::Deserialize;

use crate::{
    App,
    authority::AuthorizationResponse,
    connection::{Connection, Need},
    error::CallError,
    pages::{Contacts, Home, Shown, message, page},
    session::Connected,
};

/// A form of one of our pages.
#[derive(Deserialize)]
pub(crate) struct Posted {
    form_token: String,
}

/// `GET /`: shows the button "Connect", or the connection.
pub(crate) async fn home(State(app): State<Arc<App>>, jar: CookieJar) -> Response {
    let mut home = Home {
        issuer: app.authority.issuer().to_owned(),
        connection: None,
    };
    if let Some(connected) = app.sessions.connected(&jar) {
        let status = connected.connection.status().await;
        home.connection = status.map(|status| Shown::new(status, connected.form_token.secret()));
    }
    page(StatusCode::OK, &home)
}

/// `GET /connect`: sends the Tenant Admin to the authority.
pub(crate) async fn connect(State(app): State<Arc<App>>, jar: CookieJar) -> Response {
    let (url, pending) = app.authority.authorize();
    let jar = app.sessions.begin(jar, pending);
    (jar, Redirect::to(url.as_str())).into_response()
}

/// `GET <redirect URI>`: the authority redirects the Tenant Admin's browser here, with a code or an error.
pub(crate) async fn callback(
    State(app): State<Arc<App>>,
    jar: CookieJar,
    Query(response): Query<AuthorizationResponse>,
) -> Response {
    let Some(pending) = app.sessions.take_pending(&jar, &response) else {
        return message(
            StatusCode::BAD_REQUEST,
            "This response is not expected",
            "It does not belong to a request of this browser, or it was used before. Please start again with \
             Connect.",
        );
    };
    match app.authority.redeem(response, pending).await {
        Ok(tokens) => {
            let jar = app.sessions.connect(jar, Connection::new(tokens));
            tracing::info!("connected");
            // To another URL, so that the code does not stay in the address bar.
            (jar, Redirect::to("/")).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// `GET /contacts`: calls the Cloud API with the access token.
pub(crate) async fn contacts(State(app): State<Arc<App>>, jar: CookieJar) -> Result<Response, CallError> {
    let Connected { connection, .. } = app.sessions.connected(&jar).ok_or(CallError::NotConnected)?;
    let access = connection.access_token(&app.authority, Need::Fresh).await?;
    let mut response = app.call(&access).await?;
    if response.status() == StatusCode::UNAUTHORIZED {
        // The token may have been revoked, by a change of the designated user for example. If the API rejects the next
        // one too, the cause is another.
        let need = Need::OtherThan(access);
        let access = connection.access_token(&app.authority, need).await?;
        response = app.call(&access).await?;
    }
    match response.status() {
        StatusCode::OK => Ok(shown(&app, &response)?),
        StatusCode::FORBIDDEN => Ok(message(
            StatusCode::FORBIDDEN,
            "Not granted",
            "The Tenant Admin's consent does not cover contacts.",
        )),
        StatusCode::UNAUTHORIZED => Err(CallError::Malformed("the Cloud API rejects the tokens")),
        _ => Err(CallError::Malformed("the Cloud API failed")),
    }
}

fn shown(app: &App, response: &HttpResponse) -> Result<Response, CallError> {
    let json = serde_json::from_slice::<serde_json::Value>(response.body())
        .and_then(|value| serde_json::to_string_pretty(&value))
        .map_err(|_| CallError::Malformed("the Cloud API's response is no JSON"))?;
    let url = app.contacts_url.clone();
    Ok(page(StatusCode::OK, &Contacts { url, json }))
}

/// `POST /refresh`: refreshes now, not only when necessary.
pub(crate) async fn refresh(
    State(app): State<Arc<App>>,
    jar: CookieJar,
    Form(form): Form<Posted>,
) -> Result<Response, CallError> {
    match own_form(&app, &jar, form)? {
        Ok(connected) => {
            connected.connection.refresh(&app.authority).await?;
            Ok(Redirect::to("/").into_response())
        }
        Err(rejection) => Ok(rejection),
    }
}

/// `POST /disconnect`: revokes the tokens.
pub(crate) async fn disconnect(
    State(app): State<Arc<App>>,
    jar: CookieJar,
    Form(form): Form<Posted>,
) -> Result<Response, CallError> {
    match own_form(&app, &jar, form)? {
        Ok(connected) => {
            connected.connection.end(&app.authority).await?;
            tracing::info!("disconnected");
            Ok((app.sessions.end(jar), Redirect::to("/")).into_response())
        }
        Err(rejection) => Ok(rejection),
    }
}

/// Returns the connection of a browser, if its form is from one of our pages.
fn own_form(app: &App, jar: &CookieJar, form: Posted) -> Result<Result<Connected, Response>, CallError> {
    let connected = app.sessions.connected(jar).ok_or(CallError::NotConnected)?;
    if connected.form_token == CsrfToken::new(form.form_token) {
        return Ok(Ok(connected));
    }
    Ok(Err(message(
        StatusCode::FORBIDDEN,
        "Not from this application",
        "The form is not from a page of this application. Nothing was done.",
    )))
}

impl App {
    /// Requests the contacts from the Cloud API, with a proof (RFC 9449 §7.1).
    async fn call(&self, access: &AccessToken) -> Result<HttpResponse, CallError> {
        let request = Request::get(&self.contacts_url)
            .header(header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|_| CallError::Malformed("the Cloud API URL is no URL"))?;
        self.dpop.send(request, Some(access)).await
    }
}
