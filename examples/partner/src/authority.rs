//! The tenant's authority, as the `oauth2` crate talks to it: ask, redeem, refresh, revoke.

use std::time::Duration;

use oauth2::{
    AccessToken, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, TokenResponse,
    basic::{BasicClient, BasicErrorResponse, BasicTokenResponse},
};
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use crate::{
    discovery::{Metadata, discover},
    error::{CallError, StartError},
    http::Http,
    settings::Settings,
};

/// The `oauth2` crate's client with an authorization and a token endpoint.
type OauthClient = BasicClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;
type TokenError = RequestTokenError<CallError, BasicErrorResponse>;

/// What a token lives at most if the authority does not say.
const UNTOLD_LIFE: Duration = Duration::from_secs(60);

/// A request that a Tenant Admin was sent off with. Its answer is taken once, in the same browser.
#[derive(Debug)]
pub struct Pending {
    state: CsrfToken,
    verifier: PkceCodeVerifier,
}

/// What the authorization endpoint answers with, at the redirect URI.
#[derive(Default, serde::Deserialize)]
pub struct Answer {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// Tokens and how long the access token lasts. `Debug` shows neither token.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// What the Cloud API takes.
    pub access: AccessToken,
    /// What new tokens are got for. Each use brings the next one.
    pub refresh: RefreshToken,
    /// When the access token ends.
    pub ends_at: Instant,
    /// The granted scopes, which may be fewer than were asked for.
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
}

impl Authority {
    /// Finds the authority of the settings' issuer.
    ///
    /// # Errors
    /// [`StartError::Discovery`].
    pub async fn find(settings: &Settings, http: Http) -> Result<Self, StartError> {
        let metadata = discover(settings, &http).await?;
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
        })
    }

    /// The Tenant Authority URL.
    pub fn issuer(&self) -> &str {
        &self.metadata.issuer
    }

    /// Where to send the Tenant Admin, and what to keep until the answer is there.
    ///
    /// No scope is named: the setup then offers every scope that this client is registered for.
    pub fn ask(&self) -> (Url, Pending) {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let request = self.client.authorize_url(CsrfToken::new_random);
        let (url, state) = request
            .set_pkce_challenge(challenge)
            .add_extra_param("resource", &self.resource)
            .url();
        (url, Pending { state, verifier })
    }

    /// Exchanges the code of an answer for the first tokens.
    ///
    /// # Errors
    /// [`CallError::Refused`] with what the authority says (`access_denied` if the Tenant Admin did not
    /// agree), and the other cases of [`CallError`].
    pub async fn redeem(&self, answer: Answer, pending: Pending) -> Result<Tokens, CallError> {
        // Who answers comes first: the error and the code of anybody else mean nothing (RFC 9207 §2.4).
        match &answer.iss {
            Some(iss) if *iss == self.metadata.issuer => {}
            None if !self.metadata.authorization_response_iss_parameter_supported => {}
            _ => return Err(CallError::Nonsense("another issuer gave it")),
        }
        if let Some(error) = answer.error {
            let description = answer.error_description.unwrap_or_default();
            return Err(CallError::Refused { error, description });
        }
        let code = answer.code.ok_or(CallError::Nonsense("there is no code"))?;
        let request = self.client.exchange_code(AuthorizationCode::new(code));
        let issued = request
            .set_pkce_verifier(pending.verifier)
            .request_async(&self.http)
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
            request.request_async(&self.http)
        };
        let mut result = exchange().await.map_err(call_error);
        if matches!(result, Err(CallError::Unreachable(_))) {
            // The authority may have answered, and the answer got lost. For 30 seconds the refresh token
            // that was just used brings the same successor again; later, using it ends everything.
            result = exchange().await.map_err(call_error);
        }
        match result {
            Ok(issued) => tokens(&issued, Some(tokens_now)),
            Err(CallError::Refused { error, .. }) if error == "invalid_grant" => Err(CallError::NotConnected),
            Err(error) => Err(error),
        }
    }

    /// Gives a refresh token back: its family and the access tokens that came of it end (RFC 7009).
    ///
    /// The `oauth2` crate has `revoke_token`, which refuses plain HTTP even on this machine, where this
    /// sample is tried out. The request is a plain form, so it is made here.
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
            .map_err(|_| CallError::Nonsense("the revocation endpoint is no URL"))?;
        let answer = self.http.send(request).await?;
        if answer.status() == http::StatusCode::OK {
            return Ok(());
        }
        match serde_json::from_slice::<BasicErrorResponse>(answer.body()) {
            Ok(error) => Err(refused(&error)),
            Err(_) => Err(CallError::Nonsense("it is no error of OAuth")),
        }
    }
}

impl Pending {
    /// Whether an answer belongs to this request. The comparison takes the same time wherever they differ.
    pub fn is_answered_by(&self, answer: &Answer) -> bool {
        let state = answer.state.clone().unwrap_or_default();
        self.state == CsrfToken::new(state)
    }
}

/// What an answer of the token endpoint brings. A refresh token that is not replaced goes on.
fn tokens(issued: &BasicTokenResponse, before: Option<&Tokens>) -> Result<Tokens, CallError> {
    let refresh = issued.refresh_token().or(before.map(|tokens| &tokens.refresh));
    let scopes = issued
        .scopes()
        .map(|scopes| scopes.iter().map(|scope| scope.to_string()).collect());
    Ok(Tokens {
        access: issued.access_token().clone(),
        refresh: refresh
            .cloned()
            .ok_or(CallError::Nonsense("there is no refresh token"))?,
        ends_at: Instant::now() + issued.expires_in().unwrap_or(UNTOLD_LIFE),
        scopes: scopes
            .or(before.map(|tokens| tokens.scopes.clone()))
            .unwrap_or_default(),
    })
}

/// The error of an exchange. The crate's own holds the whole answer if it can't be read, and tokens might
/// be in there: that must not get into a log.
fn call_error(error: TokenError) -> CallError {
    match error {
        RequestTokenError::ServerResponse(error) => refused(&error),
        RequestTokenError::Request(error) => error,
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            CallError::Nonsense("it is no answer of a token endpoint")
        }
    }
}

fn refused(error: &BasicErrorResponse) -> CallError {
    CallError::Refused {
        error: error.error().as_ref().to_owned(),
        description: error.error_description().cloned().unwrap_or_default(),
    }
}
