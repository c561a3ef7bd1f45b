//! Client authentication (RFC 6749 §2.3): what a message proves about the client that sent it.

use accord::{id::ClientId, opaque::ClientSecret};
use zeroize::Zeroizing;

use crate::{
    error::Error,
    registry::{At, AuthenticatedClient},
    service::Service,
};

/// What a message brings to prove a client. No `Debug`.
pub struct Credentials {
    /// The Client ID, as it was sent.
    pub client_id: String,
    /// The Client Secret, as it was sent.
    pub client_secret: Zeroizing<String>,
}

/// Finds out which client sent the message.
///
/// # Errors
/// [`Error::InvalidClient`], for whatever reason; [`Error::RegistryUnavailable`].
pub async fn authenticate(
    service: &Service,
    credentials: &Credentials,
) -> Result<At<AuthenticatedClient>, Error> {
    // What is malformed tells nothing about what exists, so it may be refused at once.
    let client_id = ClientId::parse(&credentials.client_id).map_err(|_| Error::InvalidClient)?;
    let secret = ClientSecret::parse(&credentials.client_secret).map_err(|_| Error::InvalidClient)?;
    let authenticated = service
        .registry
        .authenticate_client(&client_id, secret.expose())
        .await;
    if let Err(Error::InvalidClient) = authenticated {
        // Logged, not audited: a stranger must not be able to fill the database.
        tracing::warn!(%client_id, "client authentication failed");
    }
    authenticated
}
