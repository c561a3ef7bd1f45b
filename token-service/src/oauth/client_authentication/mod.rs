//! Client authentication (RFC 6749 §2.3): what a message proves about the client that sent it.

use accord::text::{
    id::{ClientId, TenantId},
    opaque::ClientSecret,
};
use zeroize::Zeroizing;

use crate::{cache::Authenticated, error::Error, oauth::OAuth};

mod assertion;

pub use assertion::{ASSERTION_TYPE, SIGNING_ALGORITHMS};

/// What a message brings to prove a client. No `Debug`.
pub struct Credentials {
    /// The Client ID, as it was sent. May be empty beside an assertion, which names the client itself.
    pub client_id: String,
    /// The proof.
    pub proof: Proof,
}

/// A client's proof. No `Debug`.
pub enum Proof {
    /// The Client Secret, as it was sent.
    Secret(Zeroizing<String>),
    /// A JWT that the client signed (RFC 7523 §2.2), as it was sent.
    Assertion(Zeroizing<String>),
}

/// Finds out which client sent a message to the authority of `tenant_id`. Fails with [`Error::InvalidClient`] for
/// whatever reason a proof is refused.
pub async fn authenticate(
    oauth: &OAuth,
    tenant_id: &TenantId,
    credentials: &Credentials,
) -> Result<Authenticated, Error> {
    let Credentials { client_id, proof } = credentials;
    let authenticated = match proof {
        Proof::Secret(secret) => by_secret(oauth, tenant_id, client_id, secret).await,
        Proof::Assertion(jwt) => Box::pin(assertion::authenticate(oauth, tenant_id, client_id, jwt)).await,
    };
    if let Err(Error::InvalidClient) = authenticated {
        // Logged, not audited: a stranger must not be able to fill the database.
        match ClientId::parse(client_id) {
            Ok(client_id) => tracing::warn!(%client_id, "client authentication failed"),
            Err(_) => tracing::warn!("client authentication failed"),
        }
    }
    authenticated
}

async fn by_secret(
    oauth: &OAuth,
    tenant_id: &TenantId,
    client_id: &str,
    secret: &str,
) -> Result<Authenticated, Error> {
    // What is malformed tells nothing about what exists, so it may be refused at once.
    let client_id = ClientId::parse(client_id).map_err(|_| Error::InvalidClient)?;
    let secret = ClientSecret::parse(secret).map_err(|_| Error::InvalidClient)?;
    oauth
        .cache
        .authenticate_client(&client_id, &secret, tenant_id)
        .await
}
