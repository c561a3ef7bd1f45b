//! gRPC through tonic's client: connections, and what all callers of `IssueToken` do alike.

use accord::token::v1::{
    ClientCredentialsGrant, IssueTokenRequest, IssueTokenResponse,
    issue_token_request::{ClientAuthentication, Grant},
    token_service_client::TokenServiceClient,
};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::{drive::Answer, stock::Person};

/// All callers share a few connections, as those of a gateway do.
const CONNECTIONS: usize = 4;

pub type Client = TokenServiceClient<Channel>;

/// The connections of a server's callers.
pub struct Connections(Vec<Client>);

impl Connections {
    pub async fn open(server: &str) -> anyhow::Result<Self> {
        let mut clients = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let endpoint = Endpoint::from_shared(format!("http://{server}"))?.tcp_nodelay(true);
            clients.push(TokenServiceClient::new(endpoint.connect().await?));
        }
        Ok(Self(clients))
    }

    /// A client for the caller with this number.
    pub fn client(&self, caller: usize) -> Client {
        self.0[caller % CONNECTIONS].clone()
    }
}

/// What asks for a token with client credentials.
pub fn client_credentials() -> Grant {
    Grant::ClientCredentials(ClientCredentialsGrant {})
}

/// Asks for a token, and looks whether there is one in the answer.
pub async fn issue(client: &mut Client, person: &Person, grant: Grant) -> Result<IssueTokenResponse, Answer> {
    let request = IssueTokenRequest {
        tenant_id: person.tenant_id.clone(),
        client_id: person.client_id.clone(),
        client_authentication: Some(ClientAuthentication::ClientSecret(person.client_secret.clone())),
        grant: Some(grant),
        scopes: Vec::new(),
        resource: String::new(),
    };
    match client.issue_token(request).await.map(Response::into_inner) {
        Ok(issued) if is_token(&issued.access_token) => Ok(issued),
        Ok(_) => Err(Answer::Wrong("an answer without an access token".to_owned())),
        Err(status) => Err(Answer::Wrong(describe(&status))),
    }
}

/// Whether a text has the three parts of a JWT.
pub fn is_token(text: &str) -> bool {
    let mut parts = text.split('.');
    let three = parts.by_ref().take(3).filter(|part| !part.is_empty()).count() == 3;
    three && parts.next().is_none()
}

/// A status as it is counted: code and reason.
pub fn describe(status: &Status) -> String {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    format!("{:?}/{}", status.code(), reason.unwrap_or(status.message()))
}
