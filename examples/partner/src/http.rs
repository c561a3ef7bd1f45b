//! The HTTP client for the authority and the Cloud API.

use std::time::Duration;

use oauth2::{HttpRequest, HttpResponse};
use reqwest::{Certificate, redirect::Policy};

use crate::{
    error::{CallError, StartError},
    settings::Settings,
};

/// The timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The largest response body, in bytes.
const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

/// The HTTP client. It follows no redirects, which could send a code, a secret or a token to another server (RFC 9700
/// §4.12).
#[derive(Clone, Debug)]
pub struct Http(reqwest::Client);

impl Http {
    /// Creates a client that trusts the system's certificate authorities, and those of the settings.
    ///
    /// # Errors
    /// [`StartError::Client`].
    pub fn new(settings: &Settings) -> Result<Self, StartError> {
        let pem = settings.ca_pem.as_deref().unwrap_or_default();
        let certificates = Certificate::from_pem_bundle(pem).map_err(StartError::Client)?;
        if settings.ca_pem.is_some() && certificates.is_empty() {
            return Err(StartError::Setting("ca-file", "holds no certificate"));
        }
        reqwest::Client::builder()
            .redirect(Policy::none())
            .timeout(TIMEOUT)
            .tls_certs_merge(certificates)
            .build()
            .map(Self)
            .map_err(StartError::Client)
    }

    /// Sends a request and reads the whole response, up to a limit.
    pub(crate) async fn send(&self, request: HttpRequest) -> Result<HttpResponse, CallError> {
        // An error of reqwest names the URL, which may hold a secret.
        let unreachable = |error: reqwest::Error| CallError::Unreachable(chain(&error.without_url()));
        let request = reqwest::Request::try_from(request).map_err(unreachable)?;
        let mut response = self.0.execute(request).await.map_err(unreachable)?;
        let mut whole = http::Response::new(Vec::new());
        *whole.status_mut() = response.status();
        *whole.headers_mut() = std::mem::take(response.headers_mut());
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if whole.body().len() + chunk.len() > MAX_RESPONSE_BYTES {
                return Err(CallError::Malformed("it is too long"));
            }
            whole.body_mut().extend_from_slice(&chunk);
        }
        Ok(whole)
    }
}

/// Returns the text of an error with its causes, without which it only says "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
