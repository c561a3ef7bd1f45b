//! Calls over gRPC, on a few connections that all callers share, as those of a gateway.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use accord::token::v1::{
    AuthorizationCodeGrant, ClientCredentialsGrant, IntrospectTokenRequest, IssueTokenRequest,
    IssueTokenResponse, PushAuthorizationRequestRequest, RefreshTokenGrant, RevokeTokenRequest,
    issue_token_request::{ClientAuthentication, Grant},
    push_authorization_request_request, revoke_token_request,
    token_service_client::TokenServiceClient,
};
use anyhow::{Result, anyhow};
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt;

use super::{Calls, Credentials, Failure, pick, proofs::Proofs};

const CONNECTIONS: usize = 4;
/// A call ends after this time in any case.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many tokens are introspected again and again.
const TOKENS: usize = 256;

type IssueResult = Result<IssueTokenResponse, Failure>;

/// Connections to one or more servers.
pub struct Clients(Vec<Connection>);

struct Connection {
    client: TokenServiceClient<Channel>,
    /// False once the server has said that it stops.
    serves: Arc<AtomicBool>,
}

impl Clients {
    /// Connects to each server.
    pub async fn connect(servers: &[Endpoint]) -> Result<Self> {
        let mut connections = Vec::with_capacity(servers.len() * CONNECTIONS);
        for _ in 0..CONNECTIONS {
            for server in servers {
                let endpoint = server.clone().tcp_nodelay(true).timeout(TIMEOUT);
                let client = TokenServiceClient::new(endpoint.connect().await?);
                let serves = Arc::new(AtomicBool::new(true));
                connections.push(Connection { client, serves });
            }
        }
        Ok(Self(connections))
    }

    /// Watches the health of a server, as balancers do: once it stops, it gets no more calls.
    pub fn follow(&self, server: usize, servers: usize, endpoint: &Endpoint) {
        let all = self.0.iter().skip(server).step_by(servers);
        let flags: Vec<_> = all.map(|connection| connection.serves.clone()).collect();
        let mut health = HealthClient::new(endpoint.connect_lazy());
        tokio::spawn(async move {
            let watched = health.watch(HealthCheckRequest::default()).await;
            if let Ok(mut states) = watched.map(Response::into_inner) {
                while let Ok(Some(state)) = states.message().await {
                    if state.status() != ServingStatus::Serving {
                        break;
                    }
                }
            }
            flags
                .iter()
                .for_each(|serves| serves.store(false, Ordering::Relaxed));
        });
    }

    fn of(&self, caller: usize) -> TokenServiceClient<Channel> {
        let count = self.0.len();
        let turns = (0..count).map(|turn| &self.0[(caller + turn) % count]);
        let mut serving = turns.filter(|connection| connection.serves.load(Ordering::Relaxed));
        serving.next().unwrap_or(&self.0[caller % count]).client.clone()
    }

    /// Requests a token. An answer without one is wrong, and so is one that ignores the proof.
    async fn issue(
        &self,
        caller: usize,
        client: &Credentials,
        grant: Grant,
        dpop_proof: String,
    ) -> IssueResult {
        let secret = client.client_secret.clone();
        let token_type = if dpop_proof.is_empty() { "Bearer" } else { "DPoP" };
        let request = IssueTokenRequest {
            tenant_id: client.tenant_id.clone(),
            client_id: client.client_id.clone(),
            client_authentication: Some(ClientAuthentication::ClientSecret(secret)),
            grant: Some(grant),
            dpop_proof,
            ..Default::default()
        };
        let issued = self.of(caller).issue_token(request).await.map_err(failure)?;
        match issued.into_inner() {
            issued if is_token(&issued.access_token) && issued.token_type == token_type => Ok(issued),
            _ => Err(Failure::Wrong(format!("an answer without a {token_type} token"))),
        }
    }

    /// Requests a token with client credentials.
    pub async fn issue_for(&self, caller: usize, client: &Credentials) -> Result<String, Failure> {
        self.issue_bound(caller, client, String::new()).await
    }

    /// Requests a token with client credentials, bound to the key of a proof.
    async fn issue_bound(
        &self,
        caller: usize,
        client: &Credentials,
        proof: String,
    ) -> Result<String, Failure> {
        let grant = Grant::ClientCredentials(ClientCredentialsGrant {});
        Ok(self.issue(caller, client, grant, proof).await?.access_token)
    }

    /// Pushes an authorization request in a client's name.
    async fn push(
        &self,
        caller: usize,
        client: &Credentials,
        request: PushAuthorizationRequestRequest,
    ) -> Result<String, Failure> {
        let secret = client.client_secret.clone();
        let request = PushAuthorizationRequestRequest {
            tenant_id: client.tenant_id.clone(),
            client_id: client.client_id.clone(),
            client_authentication: Some(
                push_authorization_request_request::ClientAuthentication::ClientSecret(secret),
            ),
            ..request
        };
        let pushed = self.of(caller).push_authorization_request(request).await;
        match pushed.map_err(failure)?.into_inner().request_uri {
            uri if uri.is_empty() => Err(Failure::Wrong("an answer without a request_uri".to_owned())),
            uri => Ok(uri),
        }
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

    /// Revokes a token.
    pub async fn revoke(&self, caller: usize, client: &Credentials, token: String) -> Result<(), Failure> {
        let secret = client.client_secret.clone();
        let request = RevokeTokenRequest {
            tenant_id: client.tenant_id.clone(),
            client_id: client.client_id.clone(),
            client_authentication: Some(revoke_token_request::ClientAuthentication::ClientSecret(secret)),
            token,
        };
        let revoked = self.of(caller).revoke_token(request).await;
        revoked.map(drop).map_err(failure)
    }

    /// Requests tokens with a code or a refresh token, and returns the new refresh token.
    async fn renew(&self, caller: usize, client: &Credentials, grant: Grant) -> Result<String, Failure> {
        match self
            .issue(caller, client, grant, String::new())
            .await?
            .refresh_token
        {
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
pub fn failure(status: Status) -> Failure {
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

/// What a method is called with: `IssueToken`, if it doesn't say otherwise.
pub enum Source {
    /// Client credentials, by clients picked uniformly.
    ClientCredentials(Arc<[Credentials]>),
    /// Client credentials, by each client once.
    Once(Arc<[Credentials]>, AtomicUsize),
    /// Refresh tokens, a family for each caller.
    Families(Arc<[Family]>),
    /// Codes, a client for each caller.
    Codes(Vec<Codes>),
    /// Client credentials with proofs.
    Proofs(Proofs),
    /// An authorization request to push, by clients picked uniformly.
    Pushes(Arc<[Credentials]>, PushAuthorizationRequestRequest),
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

    /// Renews with the newest token.
    pub async fn renew(&self, clients: &Clients, caller: usize) -> Result<(), Failure> {
        let refresh_token = self.newest().clone();
        let grant = Grant::RefreshToken(RefreshTokenGrant { refresh_token });
        *self.newest() = clients.renew(caller, &self.credentials, grant).await?;
        Ok(())
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
            Source::Proofs(proofs) => {
                let (client, proof) = proofs.take(caller)?;
                clients.issue_bound(caller, &client, proof).await?
            }
            Source::Pushes(all, request) => clients.push(caller, pick(all), request.clone()).await?,
            Source::Families(families) => return families[caller].renew(clients, caller).await,
            Source::Tokens(requests, authorization) => {
                let mut request = Request::new(pick(requests).clone());
                let metadata = request.metadata_mut();
                metadata.insert("authorization", authorization.clone());
                let mut client = clients.of(caller);
                let answer = client.introspect_token(request).await.map_err(failure)?;
                match answer.into_inner() {
                    answer if answer.active == Some(true) => answer.jti,
                    _ => return Err(Failure::Wrong("a live token is inactive".to_owned())),
                }
            }
        };
        Ok(())
    }
}
