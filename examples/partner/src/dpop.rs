//! Proofs of possession (DPoP, RFC 9449): tokens are bound to a key of this application, and each request proves that it
//! holds the key. Whoever copies a token from a log can't use it.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, Uri, header};
use jsonwebtoken::{Algorithm, EncodingKey, Header, get_current_timestamp, jwk::Jwk};
use oauth2::{AccessToken, AsyncHttpClient, HttpRequest, HttpResponse, basic::BasicErrorResponse};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    error::{CallError, StartError},
    http::Http,
};

/// The error of a server that requires a nonce in proofs (RFC 9449 §8).
const USE_DPOP_NONCE: &str = "use_dpop_nonce";

/// An HTTP client whose requests carry proofs. The `oauth2` crate uses it at the token endpoint.
///
/// The key is only in memory, as the tokens are, so that this sample stays small.
#[derive(Debug)]
pub struct Dpop {
    http: Http,
    key: EncodingKey,
    jwk: Jwk,
    /// The newest nonce of each server, by its origin.
    nonces: Mutex<HashMap<String, String>>,
}

/// The claims of a proof (RFC 9449 §4.2).
#[derive(Serialize)]
struct Claims<'a> {
    jti: String,
    htm: &'a str,
    htu: String,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
}

impl Dpop {
    /// Generates a key.
    ///
    /// # Errors
    /// [`StartError::Key`].
    pub fn new(http: Http) -> Result<Self, StartError> {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| StartError::Key)?;
        let key = EncodingKey::from_ec_der(pkcs8.as_ref());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).map_err(|_| StartError::Key)?;
        Ok(Self {
            http,
            key,
            jwk,
            nonces: Mutex::default(),
        })
    }

    /// Sends a request with a proof, and with the access token if there is one (RFC 9449 §7.1). Repeats it once if the server
    /// requires a nonce in the proof.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn send(
        &self,
        request: HttpRequest,
        access: Option<&AccessToken>,
    ) -> Result<HttpResponse, CallError> {
        let response = self.send_once(request.clone(), access).await?;
        if requires_nonce(&response) {
            return self.send_once(request, access).await;
        }
        Ok(response)
    }

    async fn send_once(
        &self,
        mut request: HttpRequest,
        access: Option<&AccessToken>,
    ) -> Result<HttpResponse, CallError> {
        let server = origin(request.uri());
        let nonce = self.nonces().get(&server).cloned();
        let proof = self.proof(&request, access, nonce)?;
        let headers = request.headers_mut();
        headers.insert("dpop", sensitive(proof)?);
        if let Some(access) = access {
            let authorization = sensitive(format!("DPoP {}", access.secret()))?;
            headers.insert(header::AUTHORIZATION, authorization);
        }
        let response = self.http.send(request).await?;
        // Successes bring nonces, too (RFC 9449 §8.2). A client that keeps the newest one is rarely challenged.
        let nonce = response.headers().get("dpop-nonce");
        if let Some(nonce) = nonce.and_then(|nonce| nonce.to_str().ok()) {
            self.nonces().insert(server, nonce.to_owned());
        }
        Ok(response)
    }

    /// Signs a proof for one request. A server accepts it once.
    fn proof(
        &self,
        request: &HttpRequest,
        access: Option<&AccessToken>,
        nonce: Option<String>,
    ) -> Result<String, CallError> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("dpop+jwt".to_owned());
        header.jwk = Some(self.jwk.clone());
        let claims = Claims {
            jti: Uuid::new_v4().to_string(),
            htm: request.method().as_str(),
            // Without the query (RFC 9449 §4.2).
            htu: format!("{}{}", origin(request.uri()), request.uri().path()),
            iat: get_current_timestamp(),
            ath: access.map(|access| URL_SAFE_NO_PAD.encode(digest(&SHA256, access.secret().as_bytes()))),
            nonce,
        };
        jsonwebtoken::encode(&header, &claims, &self.key)
            .map_err(|_| CallError::Malformed("no proof can be signed for it"))
    }

    fn nonces(&self) -> MutexGuard<'_, HashMap<String, String>> {
        // No code in this file panics during a change.
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'c> AsyncHttpClient<'c> for Dpop {
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, CallError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request, None))
    }
}

/// Returns whether a response is a challenge: an authority says so in the body (RFC 9449 §8), an API in a header (§9).
fn requires_nonce(response: &HttpResponse) -> bool {
    if response.status().is_success() || !response.headers().contains_key("dpop-nonce") {
        return false;
    }
    let challenges = response.headers().get_all(header::WWW_AUTHENTICATE);
    let is_challenge = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains(USE_DPOP_NONCE));
    let error = serde_json::from_slice::<BasicErrorResponse>(response.body());
    challenges.iter().any(is_challenge) || error.is_ok_and(|error| error.error().as_ref() == USE_DPOP_NONCE)
}

fn origin(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    let authority = uri.authority().map(|authority| authority.as_str());
    format!("{scheme}://{}", authority.unwrap_or_default())
}

/// Returns a header that no log shows.
fn sensitive(text: String) -> Result<HeaderValue, CallError> {
    let mut value =
        HeaderValue::try_from(text).map_err(|_| CallError::Malformed("the access token fits no header"))?;
    value.set_sensitive(true);
    Ok(value)
}
