//! Client authentication (RFC 6749 §2.3).

use accord::text::{
    id::{ClientId, TenantId},
    opaque::ClientSecret,
};
use zeroize::Zeroizing;

use crate::{
    cache::Authenticated,
    error::{Error, Result},
    oauth::OAuth,
};

mod assertion;

pub use assertion::{ALGORITHMS, ASSERTION_TYPE};

/// The credentials of a client. No `Debug`.
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

/// Authenticates the client of a message to the authority of `tenant_id`. Fails with [`Error::InvalidClient`] for
/// whatever reason a proof is rejected.
pub async fn authenticate(
    oauth: &OAuth,
    tenant_id: &TenantId,
    credentials: &Credentials,
) -> Result<Authenticated> {
    let Credentials { client_id, proof } = credentials;
    let authenticated = match proof {
        // A malformed id or secret says nothing about what exists, so it may be rejected at once.
        Proof::Secret(secret) => match (ClientId::parse(client_id), ClientSecret::parse(secret)) {
            (Ok(client_id), Ok(secret)) => {
                let cache = &oauth.cache;
                cache.authenticate_client(&client_id, &secret, tenant_id).await
            }
            _ => Err(Error::InvalidClient),
        },
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
