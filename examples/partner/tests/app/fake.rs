//! A minimal authority and Cloud API. They record requests and fail on demand.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Form, Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use oauth2::{ClientId, ClientSecret};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use example_partner::settings::Settings;

/// The failure of a refresh.
#[derive(Clone, Copy, Debug)]
pub enum Refresh {
    /// The response with the next tokens breaks off.
    Lost,
    /// `invalid_grant`.
    InvalidGrant,
    /// Status 503.
    Unavailable,
}

#[derive(Debug, Default)]
pub struct Seen {
    /// The forms at the token endpoint, with their `Authorization`.
    pub token: Vec<(Vec<(String, String)>, String)>,
    pub revoked: Vec<String>,
    /// The number of requests that the Cloud API accepted.
    pub accepted: usize,
    /// The number of requests to the target of a redirect.
    pub elsewhere: usize,
    /// The failures of the next refreshes; without one a refresh succeeds.
    pub refreshes: VecDeque<Refresh>,
    pub revocation_fails: bool,
    pub api_redirects: bool,
    /// The lifetime of the first access token, in seconds.
    pub first_lifetime: u64,
    /// The number of the access token that the Cloud API accepts.
    pub generation: usize,
}

#[derive(Clone)]
pub struct Fake {
    pub seen: Arc<Mutex<Seen>>,
    pub base: String,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen = Seen {
            first_lifetime: 300,
            ..Seen::default()
        };
        let fake = Self {
            seen: Arc::new(Mutex::new(seen)),
            base,
        };
        let router = Router::new()
            .route("/.well-known/oauth-authorization-server/firm", get(metadata))
            .route("/.well-known/oauth-authorization-server/liar", get(metadata))
            .route(
                "/.well-known/oauth-authorization-server/moved",
                get(async || Redirect::temporary("/.well-known/oauth-authorization-server/firm")),
            )
            .route("/firm/token", post(token))
            .route("/firm/revoke", post(revoke))
            .route("/v1/contacts", get(contacts))
            .route("/elsewhere", get(elsewhere))
            .with_state(fake.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        fake
    }

    pub fn settings(&self) -> Settings {
        Settings {
            issuer: format!("{}/firm", self.base),
            client_id: ClientId::new("cli_1".into()),
            client_secret: ClientSecret::new("acs_a+b".into()),
            cloud_api_url: format!("{}/v1", self.base),
            redirect_uri: "http://127.0.0.1:9090/callback".parse().unwrap(),
            ca_pem: None,
        }
    }
}

async fn metadata(State(fake): State<Fake>) -> Json<Value> {
    let issuer = format!("{}/firm", fake.base);
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn token(
    State(fake): State<Fake>,
    headers: HeaderMap,
    Form(form): Form<Vec<(String, String)>>,
) -> Response {
    let authorization = headers.get(header::AUTHORIZATION);
    let authorization = authorization
        .map(|value| value.to_str().unwrap().to_owned())
        .unwrap_or_default();
    let is_code = value(&form, "grant_type") == "authorization_code";
    let (generation, outcome) = {
        let mut seen = fake.seen.lock().unwrap();
        seen.token.push((form, authorization));
        let outcome = if is_code { None } else { seen.refreshes.pop_front() };
        let lifetime = if is_code { seen.first_lifetime } else { 300 };
        if matches!(outcome, None | Some(Refresh::Lost)) {
            seen.generation += 1;
        }
        ((seen.generation, lifetime), outcome)
    };
    let (number, lifetime) = generation;
    let tokens = json!({
        "access_token": format!("access-{number}"),
        "refresh_token": format!("refresh-{number}"),
        "token_type": "Bearer",
        "expires_in": lifetime,
        "scope": "contacts.read matters.read",
        "grant_id": "grt_1",
    });
    match outcome {
        None => Json(tokens).into_response(),
        Some(Refresh::Lost) => {
            let start = tokens.to_string()[..10].to_owned();
            let broken: [Result<String, std::io::Error>; 2] =
                [Ok(start), Err(std::io::ErrorKind::ConnectionReset.into())];
            Body::from_stream(futures_util::stream::iter(broken)).into_response()
        }
        Some(Refresh::InvalidGrant) => {
            (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response()
        }
        Some(Refresh::Unavailable) => {
            let error = Json(json!({"error": "temporarily_unavailable"}));
            (StatusCode::SERVICE_UNAVAILABLE, error).into_response()
        }
    }
}

async fn revoke(State(fake): State<Fake>, Form(form): Form<Vec<(String, String)>>) -> Response {
    let mut seen = fake.seen.lock().unwrap();
    if seen.revocation_fails {
        let error = Json(json!({"error": "temporarily_unavailable", "error_description": "later"}));
        return (StatusCode::SERVICE_UNAVAILABLE, error).into_response();
    }
    assert_eq!(value(&form, "client_secret"), "acs_a+b");
    seen.revoked.push(value(&form, "token").to_owned());
    StatusCode::OK.into_response()
}

async fn contacts(State(fake): State<Fake>, headers: HeaderMap) -> Response {
    let mut seen = fake.seen.lock().unwrap();
    if seen.api_redirects {
        return Redirect::temporary("/elsewhere").into_response();
    }
    let expected = format!("Bearer access-{}", seen.generation);
    if headers
        .get(header::AUTHORIZATION)
        .is_some_and(|value| *value == *expected)
    {
        seen.accepted += 1;
        return Json(json!({"contacts": [{"name": "<b>Ada</b>"}]})).into_response();
    }
    StatusCode::UNAUTHORIZED.into_response()
}

async fn elsewhere(State(fake): State<Fake>) {
    fake.seen.lock().unwrap().elsewhere += 1;
}

pub fn value<'a>(form: &'a [(String, String)], name: &str) -> &'a str {
    let found = form.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str()).unwrap_or_default()
}
