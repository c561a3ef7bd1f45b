//! Calls over gRPC, on a few connections that all callers share, as those of a gateway.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use accord::token::v1::{
    AuthorizationCodeGrant, ClientCredentialsGrant, IntrospectTokenRequest, IssueTokenRequest,
    IssueTokenResponse, RefreshTokenGrant,
    issue_token_request::{ClientAuthentication, Grant},
    token_service_client::TokenServiceClient,
};
use anyhow::{Result, anyhow};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::{Calls, Credentials, Failure, pick};

const CONNECTIONS: usize = 4;
/// A call ends after this time in any case.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many tokens are introspected again and again.
const TOKENS: usize = 256;

type IssueResult = Result<IssueTokenResponse, Failure>;

/// Connections to a server.
pub struct Clients(Vec<TokenServiceClient<Channel>>);

impl Clients {
    pub async fn connect(server: &str) -> Result<Self> {
        let mut clients = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let endpoint = Endpoint::from_shared(format!("http://{server}"))?;
            let endpoint = endpoint.tcp_nodelay(true).timeout(TIMEOUT);
            clients.push(TokenServiceClient::new(endpoint.connect().await?));
        }
        Ok(Self(clients))
    }

    fn of(&self, caller: usize) -> TokenServiceClient<Channel> {
        self.0[caller % CONNECTIONS].clone()
    }

    /// Requests a token. An answer without one is wrong.
    async fn issue(&self, caller: usize, client: &Credentials, grant: Grant) -> IssueResult {
        let secret = client.client_secret.clone();
        let request = IssueTokenRequest {
            tenant_id: client.tenant_id.clone(),
            client_id: client.client_id.clone(),
            client_authentication: Some(ClientAuthentication::ClientSecret(secret)),
            grant: Some(grant),
            ..Default::default()
        };
        let issued = self.of(caller).issue_token(request).await.map_err(failure)?;
        match issued.into_inner() {
            issued if is_token(&issued.access_token) => Ok(issued),
            _ => Err(Failure::Wrong("an answer without an access token".to_owned())),
        }
    }

    /// Requests a token with client credentials.
    pub async fn issue_for(&self, caller: usize, client: &Credentials) -> Result<String, Failure> {
        let grant = Grant::ClientCredentials(ClientCredentialsGrant {});
        Ok(self.issue(caller, client, grant).await?.access_token)
    }

    /// Has tokens issued, to be introspected.
    pub async fn tokens(&self, clients: &[Credentials]) -> Result<Vec<IntrospectTokenRequest>> {
        let mut requests = Vec::with_capacity(TOKENS);
        for client in clients.iter().cycle().take(TOKENS) {
            let token = self.issue_for(0, client).await;
            requests.push(IntrospectTokenRequest {
                tenant_id: client.tenant_id.clone(),
                token: token.map_err(|failure| anyhow!("{failure:?}"))?,
                ..Default::default()
            });
        }
        Ok(requests)
    }

    /// Requests tokens with a code or a refresh token, and returns the new refresh token.
    async fn renew(&self, caller: usize, client: &Credentials, grant: Grant) -> Result<String, Failure> {
        match self.issue(caller, client, grant).await?.refresh_token {
            token if token.is_empty() => Err(Failure::Wrong("no refresh token".to_owned())),
            token => Ok(token),
        }
    }
}

/// Whether a text has the three parts of a JWT.
pub fn is_token(text: &str) -> bool {
    text.split('.').count() == 3 && text.split('.').all(|part| !part.is_empty())
}

/// Tells overload from a wrong answer.
fn failure(status: Status) -> Failure {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    let what = format!("{:?}/{}", status.code(), reason.unwrap_or(status.message()));
    match status.code() {
        // A client's own timeout is Cancelled.
        Code::ResourceExhausted | Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
            Failure::Refused(what)
        }
        _ => Failure::Wrong(what),
    }
}

/// What `IssueToken` or `IntrospectToken` is called with.
pub enum Source {
    /// Client credentials, by clients picked uniformly.
    ClientCredentials(Arc<[Credentials]>),
    /// Client credentials, by each client once.
    Once(Arc<[Credentials]>, AtomicUsize),
    /// Refresh tokens, a family for each caller.
    Families(Arc<[Family]>),
    /// Codes, a client for each caller.
    Codes(Vec<Codes>),
    /// Tokens to introspect, and the authorization of an internal service.
    Tokens(Vec<IntrospectTokenRequest>, MetadataValue<Ascii>),
}

/// A refresh family with its newest token.
pub struct Family {
    credentials: Credentials,
    refresh_token: Mutex<String>,
}

/// Codes of one client.
pub struct Codes {
    pub credentials: Credentials,
    pub own: Mutex<Vec<AuthorizationCodeGrant>>,
}

impl Codes {
    async fn redeem(&self, clients: &Clients, caller: usize) -> Result<String, Failure> {
        let code = self.own.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let grant = Grant::AuthorizationCode(code.ok_or(Failure::NothingLeft)?);
        clients.renew(caller, &self.credentials, grant).await
    }

    /// Redeems a code, which begins a family.
    pub async fn begin_family(self, clients: &Clients) -> Result<Family> {
        let refresh_token = self.redeem(clients, 0).await;
        let refresh_token = refresh_token.map_err(|failure| anyhow!("a code: {failure:?}"))?;
        Ok(Family {
            credentials: self.credentials,
            refresh_token: Mutex::new(refresh_token),
        })
    }
}

impl Family {
    fn newest(&self) -> MutexGuard<'_, String> {
        self.refresh_token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls of token-service.
pub struct TokenCalls {
    pub clients: Clients,
    pub source: Source,
}

#[tonic::async_trait]
impl Calls for TokenCalls {
    async fn call(&self, caller: usize) -> Result<(), Failure> {
        let clients = &self.clients;
        match &self.source {
            Source::ClientCredentials(all) => clients.issue_for(caller, pick(all)).await?,
            Source::Once(all, next) => {
                let next = all.get(next.fetch_add(1, Ordering::Relaxed));
                let next = next.ok_or(Failure::NothingLeft)?;
                clients.issue_for(caller, next).await?
            }
            Source::Codes(codes) => codes[caller].redeem(clients, caller).await?,
            Source::Families(families) => {
                let family = &families[caller];
                let refresh_token = family.newest().clone();
                let grant = Grant::RefreshToken(RefreshTokenGrant { refresh_token });
                let next = clients.renew(caller, &family.credentials, grant).await?;
                std::mem::replace(&mut *family.newest(), next)
            }
            Source::Tokens(requests, authorization) => {
                let mut request = Request::new(pick(requests).clone());
                request
                    .metadata_mut()
                    .insert("authorization", authorization.clone());
                let answer = clients
                    .of(caller)
                    .introspect_token(request)
                    .await
                    .map_err(failure)?;
                match answer.into_inner() {
                    answer if answer.active == Some(true) => answer.jti,
                    _ => return Err(Failure::Wrong("a live token is inactive".to_owned())),
                }
            }
        };
        Ok(())
    }
}
