//! The tenant's authority, by the `oauth2` crate: authorize, redeem, refresh, revoke.

use std::{sync::Arc, time::Duration};

use oauth2::{
    AccessToken, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, TokenResponse,
    basic::{BasicClient, BasicErrorResponse, BasicTokenResponse},
};
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use crate::{
    discovery::{self, Metadata},
    dpop::Dpop,
    error::{CallError, StartError},
    http::Http,
    settings::Settings,
};

/// The `oauth2` crate's client with an authorization and a token endpoint.
type OauthClient = BasicClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;
type TokenError = RequestTokenError<CallError, BasicErrorResponse>;

/// The lifetime of an access token without `expires_in`.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// A pending authorization request. Its response is accepted once, in the same browser.
#[derive(Debug)]
pub struct Pending {
    state: CsrfToken,
    verifier: PkceCodeVerifier,
}

/// The response of the authorization endpoint, at the redirect URI.
#[derive(Default, serde::Deserialize)]
pub struct AuthorizationResponse {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// Tokens and their expiry. `Debug` shows neither token.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The access token, for the Cloud API.
    pub access: AccessToken,
    /// The refresh token. Each use returns the next one.
    pub refresh: RefreshToken,
    /// When the access token expires.
    pub expires_at: Instant,
    /// The granted scopes, which may be fewer than requested.
    pub scopes: Vec<String>,
}

/// A tenant's authority.
#[derive(Debug)]
pub struct Authority {
    metadata: Metadata,
    client: OauthClient,
    client_id: ClientId,
    client_secret: ClientSecret,
    resource: String,
    http: Http,
    dpop: Arc<Dpop>,
}

impl Authority {
    /// Discovers the authority of the settings' issuer. Its tokens will be bound to the key of `dpop`.
    ///
    /// # Errors
    /// [`StartError::Discovery`].
    pub async fn discover(settings: &Settings, http: Http, dpop: Arc<Dpop>) -> Result<Self, StartError> {
        let metadata = discovery::discover(settings, &http).await?;
        let client = BasicClient::new(settings.client_id.clone())
            .set_client_secret(settings.client_secret.clone())
            .set_auth_uri(metadata.authorization_endpoint.clone())
            .set_token_uri(metadata.token_endpoint.clone())
            .set_redirect_uri(RedirectUrl::from_url(settings.redirect_uri.clone()));
        Ok(Self {
            metadata,
            client,
            client_id: settings.client_id.clone(),
            client_secret: settings.client_secret.clone(),
            resource: settings.cloud_api_url.clone(),
            http,
            dpop,
        })
    }

    /// Returns the Tenant Authority URL.
    pub fn issuer(&self) -> &str {
        &self.metadata.issuer
    }

    /// Returns the URL for the Tenant Admin's browser, and the pending request.
    ///
    /// It requests no scope, so that the consent page offers every scope that this client is registered for.
    pub fn authorize(&self) -> (Url, Pending) {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let request = self.client.authorize_url(CsrfToken::new_random);
        let (url, state) = request
            .set_pkce_challenge(challenge)
            .add_extra_param("resource", &self.resource)
            .url();
        (url, Pending { state, verifier })
    }

    /// Exchanges the code of a response for the first tokens.
    ///
    /// # Errors
    /// [`CallError::Rejected`] with the authority's error (`access_denied` if the Tenant Admin denied the request), and the
    /// other cases of [`CallError`].
    pub async fn redeem(
        &self,
        response: AuthorizationResponse,
        pending: Pending,
    ) -> Result<Tokens, CallError> {
        // The issuer first: neither an error nor a code of another issuer counts (RFC 9207 §2.4).
        match &response.iss {
            Some(iss) if *iss == self.metadata.issuer => {}
            None if !self.metadata.authorization_response_iss_parameter_supported => {}
            _ => return Err(CallError::Malformed("another issuer sent it")),
        }
        if let Some(error) = response.error {
            let description = response.error_description.unwrap_or_default();
            return Err(CallError::Rejected { error, description });
        }
        let code = response.code.ok_or(CallError::Malformed("there is no code"))?;
        let request = self.client.exchange_code(AuthorizationCode::new(code));
        let issued = request
            .set_pkce_verifier(pending.verifier)
            .request_async(&*self.dpop)
            .await
            .map_err(call_error)?;
        tokens(&issued, None)
    }

    /// Exchanges a refresh token for new tokens.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::NotConnected`] if the connection has ended for good.
    pub async fn refresh(&self, tokens_now: &Tokens) -> Result<Tokens, CallError> {
        let exchange = || {
            let request = self.client.exchange_refresh_token(&tokens_now.refresh);
            request.request_async(&*self.dpop)
        };
        let mut result = exchange().await.map_err(call_error);
        if matches!(result, Err(CallError::Unreachable(_))) {
            // The authority may have responded, and the response got lost. Then a repetition with the same token
            // returns the next one.
            result = exchange().await.map_err(call_error);
        }
        match result {
            Ok(issued) => tokens(&issued, Some(tokens_now)),
            Err(CallError::Rejected { error, .. }) if error == "invalid_grant" => {
                Err(CallError::NotConnected)
            }
            Err(error) => Err(error),
        }
    }

    /// Revokes a refresh token, which ends its family and that family's access tokens (RFC 7009).
    ///
    /// `revoke_token` of the `oauth2` crate rejects plain HTTP, on loopback too, where this sample runs. So this method
    /// sends the form itself.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn revoke(&self, refresh: &RefreshToken) -> Result<(), CallError> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("token", refresh.secret())
            .append_pair("token_type_hint", "refresh_token")
            .append_pair("client_id", self.client_id.as_str())
            .append_pair("client_secret", self.client_secret.secret())
            .finish();
        let request = http::Request::post(self.metadata.revocation_endpoint.as_str())
            .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.into_bytes())
            .map_err(|_| CallError::Malformed("the revocation endpoint is no URL"))?;
        let response = self.http.send(request).await?;
        if response.status() == http::StatusCode::OK {
            return Ok(());
        }
        match serde_json::from_slice::<BasicErrorResponse>(response.body()) {
            Ok(error) => Err(rejected(&error)),
            Err(_) => Err(CallError::Malformed("it is no error of OAuth")),
        }
    }
}

impl Pending {
    /// Returns whether a response belongs to this request. Compares in constant time.
    pub fn matches(&self, response: &AuthorizationResponse) -> bool {
        let state = response.state.clone().unwrap_or_default();
        self.state == CsrfToken::new(state)
    }
}

/// Returns the tokens of a token response. A refresh token that is not replaced stays valid.
fn tokens(issued: &BasicTokenResponse, before: Option<&Tokens>) -> Result<Tokens, CallError> {
    // Another type would be a token that anybody can use (RFC 9449 §5).
    if !issued.token_type().as_ref().eq_ignore_ascii_case("DPoP") {
        return Err(CallError::Malformed("the access token is not bound to the key"));
    }
    let refresh = issued.refresh_token().or(before.map(|tokens| &tokens.refresh));
    let scopes = issued
        .scopes()
        .map(|scopes| scopes.iter().map(|scope| scope.to_string()).collect());
    Ok(Tokens {
        access: issued.access_token().clone(),
        refresh: refresh
            .cloned()
            .ok_or(CallError::Malformed("there is no refresh token"))?,
        expires_at: Instant::now() + issued.expires_in().unwrap_or(DEFAULT_LIFETIME),
        scopes: scopes
            .or(before.map(|tokens| tokens.scopes.clone()))
            .unwrap_or_default(),
    })
}

/// Converts the error of an exchange. The crate's own error holds the whole response if it can't be parsed, and may hold
/// tokens, which must not be logged.
fn call_error(error: TokenError) -> CallError {
    match error {
        RequestTokenError::ServerResponse(error) => rejected(&error),
        RequestTokenError::Request(error) => error,
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            CallError::Malformed("it is no response of a token endpoint")
        }
    }
}

fn rejected(error: &BasicErrorResponse) -> CallError {
    CallError::Rejected {
        error: error.error().as_ref().to_owned(),
        description: error.error_description().cloned().unwrap_or_default(),
    }
}
