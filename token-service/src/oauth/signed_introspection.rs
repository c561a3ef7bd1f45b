//! Introspection answers as signed JWTs (RFC 9701), for a client that has to show what it was told.

use accord::text::id::{ClientId, TenantId};
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{error::Error, oauth::OAuth};

/// The media type of such an answer (RFC 9701 §5).
pub const MEDIA_TYPE: &str = "application/token-introspection+jwt";
/// The `typ` of its header.
const TYPE: &str = "token-introspection+jwt";

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    iat: i64,
    token_introspection: &'a Value,
}

/// The JWT that tells a client `answer`, an introspection answer of RFC 7662.
///
/// # Errors
/// [`Error::NotFound`] for an unknown tenant, [`Error::RegistryUnavailable`], [`Error::Signing`],
/// [`Error::Unavailable`].
pub async fn sign(
    oauth: &OAuth,
    tenant_id: &TenantId,
    client_id: &ClientId,
    answer: &Value,
) -> Result<Zeroizing<String>, Error> {
    let tenant = oauth.cache.tenant(tenant_id).await?.value;
    let claims = Claims {
        iss: &tenant.issuer,
        aud: client_id.as_str(),
        iat: oauth.store.now().as_secs(),
        token_introspection: answer,
    };
    oauth.cache.keys().await?.value.signer().sign(TYPE, &claims)
}
