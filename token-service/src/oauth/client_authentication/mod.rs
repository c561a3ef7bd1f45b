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
    store::Assertion,
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
    /// None, or one that can't be read: why, for the log.
    Missing(&'static str),
}

/// Authenticates the client of a message to the authority of `tenant_id`. Its assertion, if it sent one, is not spent
/// yet: see [`Authenticated::assertion`].
///
/// # Errors
/// [`Error::InvalidClient`], the same for whatever reason a proof is rejected; [`Error::InvalidAssertion`] for an
/// assertion that the client itself signed.
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
            (Err(_), _) => Err(Error::InvalidClient("the Client ID is malformed")),
            (_, Err(_)) if ClientSecret::parse(secret.trim()).is_ok() => {
                Err(Error::InvalidClient("the secret has white space around it"))
            }
            _ => Err(Error::InvalidClient("the secret is malformed")),
        },
        Proof::Assertion(jwt) => Box::pin(assertion::authenticate(oauth, tenant_id, client_id, jwt)).await,
        Proof::Missing(why) => Err(Error::InvalidClient(why)),
    };
    match &authenticated {
        Err(Error::InvalidClient(why)) => log_rejection(credentials, why),
        Err(error @ Error::InvalidAssertion { .. }) => log_rejection(credentials, &error.to_string()),
        _ => {}
    }
    authenticated
}

/// Logs a rejection. Does not audit it: a stranger must not be able to fill the database.
fn log_rejection(credentials: &Credentials, why: &str) {
    let claimed = match (&credentials.proof, ClientId::parse(&credentials.client_id)) {
        (_, Ok(client_id)) => Some(client_id),
        (Proof::Assertion(jwt), _) => assertion::claimed_client(jwt),
        _ => None,
    };
    let client_id = claimed.as_ref().map_or("unknown", ClientId::as_str);
    tracing::warn!(client_id, why, "client authentication failed");
}

/// Spends the assertion of an authenticated client, if it sent one. A call does this after all checks that may reject
/// it, and before it changes or reveals anything, so that a rejected call can be repeated with the same assertion.
///
/// # Errors
/// [`Error::InvalidAssertion`] if the assertion was spent before.
pub async fn spend(oauth: &OAuth, assertion: Option<Assertion>) -> Result<()> {
    let Some(assertion) = assertion else {
        return Ok(());
    };
    let client_id = assertion.client_id().to_owned();
    if Box::pin(oauth.store.spend_assertion(assertion)).await? {
        return Ok(());
    }
    let error = Error::InvalidAssertion {
        claim: "jti",
        rule: "was used before: each assertion needs another one".to_owned(),
    };
    tracing::warn!(client_id, why = %error, "client authentication failed");
    Err(error)
}
