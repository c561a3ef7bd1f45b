//! A minimal authority and Cloud API. They record requests and fail on demand.

use std::{
    collections::{HashSet, VecDeque},
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
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header, get_current_timestamp, jwk::ThumbprintHash,
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
    /// The thumbprints of the keys that signed proofs.
    pub proof_keys: HashSet<String>,
    /// The `jti` of all proofs.
    pub proofs: HashSet<String>,
    /// The nonce that proofs must have; empty for none.
    pub nonce: String,
    pub every_nonce_is_old: bool,
    /// The number of challenges.
    pub challenges: usize,
    /// Whether the authority ignores proofs.
    pub binds_no_tokens: bool,
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
        "dpop_signing_alg_values_supported": ["ES256"],
        "authorization_response_iss_parameter_supported": true,
    }))
}

impl Fake {
    /// Checks a request's proof as RFC 9449 §4.3 says. Returns the challenge if it lacks the nonce.
    fn check_proof(
        &self,
        headers: &HeaderMap,
        method: &str,
        path: &str,
        access: Option<&str>,
    ) -> Option<Response> {
        let proof = headers["dpop"].to_str().unwrap();
        let header = decode_header(proof).unwrap();
        assert_eq!(header.typ.as_deref(), Some("dpop+jwt"));
        let jwk = header.jwk.unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        let key = DecodingKey::from_jwk(&jwk).unwrap();
        let claims: Value = decode(proof, &key, &validation).unwrap().claims;
        assert_eq!(claims["htm"], method);
        assert_eq!(claims["htu"], format!("{}{path}", self.base));
        assert!(
            get_current_timestamp() - claims["iat"].as_u64().unwrap() < 60,
            "{claims}"
        );
        let hash = access.map(|access| {
            URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(
                &aws_lc_rs::digest::SHA256,
                access.as_bytes(),
            ))
        });
        assert_eq!(claims["ath"].as_str(), hash.as_deref());
        let mut seen = self.seen.lock().unwrap();
        seen.proof_keys
            .insert(jwk.thumbprint(ThumbprintHash::SHA256).unwrap());
        assert!(
            seen.proofs.insert(claims["jti"].to_string()),
            "a proof came twice"
        );
        if claims["nonce"].as_str().unwrap_or_default() == seen.nonce && !seen.every_nonce_is_old {
            return None;
        }
        seen.challenges += 1;
        let nonce = [("dpop-nonce", seen.nonce.clone())];
        Some(match access {
            None => (
                StatusCode::BAD_REQUEST,
                nonce,
                Json(json!({"error": "use_dpop_nonce"})),
            )
                .into_response(),
            Some(_) => {
                let challenge = [(header::WWW_AUTHENTICATE, "DPoP error=\"use_dpop_nonce\"")];
                (StatusCode::UNAUTHORIZED, nonce, challenge).into_response()
            }
        })
    }
}

async fn token(
    State(fake): State<Fake>,
    headers: HeaderMap,
    Form(form): Form<Vec<(String, String)>>,
) -> Response {
    if let Some(challenge) = fake.check_proof(&headers, "POST", "/firm/token", None) {
        return challenge;
    }
    let authorization = headers.get(header::AUTHORIZATION);
    let authorization = authorization
        .map(|value| value.to_str().unwrap().to_owned())
        .unwrap_or_default();
    let is_code = value(&form, "grant_type") == "authorization_code";
    let (generation, outcome, token_type) = {
        let mut seen = fake.seen.lock().unwrap();
        seen.token.push((form, authorization));
        let outcome = if is_code { None } else { seen.refreshes.pop_front() };
        let lifetime = if is_code { seen.first_lifetime } else { 300 };
        if matches!(outcome, None | Some(Refresh::Lost)) {
            seen.generation += 1;
        }
        let token_type = if seen.binds_no_tokens { "Bearer" } else { "DPoP" };
        ((seen.generation, lifetime), outcome, token_type)
    };
    let (number, lifetime) = generation;
    let tokens = json!({
        "access_token": format!("access-{number}"),
        "refresh_token": format!("refresh-{number}"),
        "token_type": token_type,
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
    let authorization = headers[header::AUTHORIZATION].to_str().unwrap();
    let access = authorization.strip_prefix("DPoP ").unwrap();
    if let Some(challenge) = fake.check_proof(&headers, "GET", "/v1/contacts", Some(access)) {
        return challenge;
    }
    let mut seen = fake.seen.lock().unwrap();
    if seen.api_redirects {
        return Redirect::temporary("/elsewhere").into_response();
    }
    if access == format!("access-{}", seen.generation) {
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
