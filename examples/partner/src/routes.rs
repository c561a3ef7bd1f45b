//! What each address does.

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
    authority::Answer,
    connection::{Connection, Wanted},
    error::CallError,
    pages::{Contacts, Home, Shown, message, page},
    session::Connected,
};

/// A form of one of our pages.
#[derive(Deserialize)]
pub(crate) struct Posted {
    form_token: String,
}

/// `GET /`: connect, or what the connection allows.
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
    let (url, pending) = app.authority.ask();
    let jar = app.sessions.begin(jar, pending);
    (jar, Redirect::to(url.as_str())).into_response()
}

/// `GET <redirect URI>`: the Tenant Admin comes back, with a code or with an error.
pub(crate) async fn callback(
    State(app): State<Arc<App>>,
    jar: CookieJar,
    Query(answer): Query<Answer>,
) -> Response {
    let Some(pending) = app.sessions.take_pending(&jar, &answer) else {
        return message(
            StatusCode::BAD_REQUEST,
            "This answer is not expected",
            "It does not belong to a request that this browser has made, or it was used before. Please \
             start again with Connect.",
        );
    };
    match app.authority.redeem(answer, pending).await {
        Ok(tokens) => {
            let jar = app.sessions.connect(jar, Connection::new(tokens));
            tracing::info!("connected");
            // On to another address, so that the code does not stay in the browser's.
            (jar, Redirect::to("/")).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// `GET /contacts`: calls the Cloud API with the access token.
pub(crate) async fn contacts(State(app): State<Arc<App>>, jar: CookieJar) -> Result<Response, CallError> {
    let Connected { connection, .. } = app.sessions.connected(&jar).ok_or(CallError::NotConnected)?;
    let access = connection.access_token(&app.authority, Wanted::Fresh).await?;
    let mut answer = app.call(&access).await?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        // The token may have ended early, by a change of the designated user for one. Once is enough: if
        // the next one is refused too, it is not the token's age.
        let wanted = Wanted::OtherThan(access);
        let access = connection.access_token(&app.authority, wanted).await?;
        answer = app.call(&access).await?;
    }
    match answer.status() {
        StatusCode::OK => Ok(shown(&app, &answer)?),
        StatusCode::FORBIDDEN => Ok(message(
            StatusCode::FORBIDDEN,
            "Not granted",
            "The Tenant Admin's consent does not cover contacts.",
        )),
        StatusCode::UNAUTHORIZED => Err(CallError::Nonsense("the Cloud API takes no token of ours")),
        _ => Err(CallError::Nonsense("the Cloud API failed")),
    }
}

fn shown(app: &App, answer: &HttpResponse) -> Result<Response, CallError> {
    let json = serde_json::from_slice::<serde_json::Value>(answer.body())
        .and_then(|value| serde_json::to_string_pretty(&value))
        .map_err(|_| CallError::Nonsense("the Cloud API's answer is no JSON"))?;
    let url = app.contacts_url.clone();
    Ok(page(StatusCode::OK, &Contacts { url, json }))
}

/// `POST /refresh`: refreshes now; otherwise it happens when it has to.
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
        Err(refused) => Ok(refused),
    }
}

/// `POST /disconnect`: gives the tokens back.
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
        Err(refused) => Ok(refused),
    }
}

/// The connection of a browser, if the form came from one of our pages in it.
fn own_form(app: &App, jar: &CookieJar, form: Posted) -> Result<Result<Connected, Response>, CallError> {
    let connected = app.sessions.connected(jar).ok_or(CallError::NotConnected)?;
    if connected.form_token == CsrfToken::new(form.form_token) {
        return Ok(Ok(connected));
    }
    Ok(Err(message(
        StatusCode::FORBIDDEN,
        "Not from here",
        "This form did not come from a page of this application. Nothing was done.",
    )))
}

impl App {
    /// Asks the Cloud API for the contacts (RFC 6750 §2.1).
    async fn call(&self, access: &AccessToken) -> Result<HttpResponse, CallError> {
        let unusable = |_| CallError::Nonsense("the access token fits no header");
        let mut bearer =
            header::HeaderValue::try_from(format!("Bearer {}", access.secret())).map_err(unusable)?;
        bearer.set_sensitive(true);
        let request = Request::get(&self.contacts_url)
            .header(header::AUTHORIZATION, bearer)
            .header(header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|_| CallError::Nonsense("the Cloud API URL is no URL"))?;
        self.http.send(request).await
    }
}
