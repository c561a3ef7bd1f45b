//! Revokes tokens (RFC 7009): an access token alone, or a refresh token with its family. The grant stays. An unknown
//! token, or another client's, changes nothing, and the answer is the same.

use accord::{
    clock::UnixMillis,
    store::audit::{Event, action},
    text::{
        id::{ClientId, TenantId},
        opaque::RefreshToken,
    },
    verify::{AccessTokenClaims, VerifyError},
};

use crate::{error::Result, model::family::is_genuine, oauth::OAuth, oauth::issuance::client_origin};

/// Revokes a token of the client.
pub async fn revoke(oauth: &OAuth, client_id: &ClientId, tenant_id: &TenantId, token: &str) -> Result<()> {
    let (store, origin) = (&oauth.store, client_origin(client_id));
    let event = Event::new(action::TOKEN_REVOKE)
        .tenant(tenant_id)
        .client(client_id);
    if let Ok(token) = RefreshToken::parse(token) {
        let found = store.find_family(tenant_id, token.family()).await?;
        let keyring = store.keyring_of(found.as_deref()).await?;
        let is_genuine = is_genuine(&keyring, &token, found.as_deref(), client_id, tenant_id)?;
        if let Some(family) = found.filter(|_| is_genuine) {
            let event = event.subject(family.grant_id.as_str());
            let event = event.detail("family_id", family.family_id.as_str());
            store.end_family(&origin, &family, "revoked", event).await?;
        }
    } else if let Ok(claims) = verified(oauth, token).await? {
        let ends = UnixMillis::from_millis(i64::from(claims.exp) * 1000);
        let is_theirs = claims.client_id == client_id.as_str() && claims.tenant_id == tenant_id.as_str();
        if is_theirs && ends > store.now() {
            let event = event.subject(&claims.grant_id).detail("jti", claims.jti.as_str());
            let revoked = store.revoke_access_token(&origin, tenant_id, &claims.jti, ends, event);
            revoked.await?;
        }
    }
    oauth.cache.catch_up_or_log().await;
    Ok(())
}

async fn verified(oauth: &OAuth, token: &str) -> Result<Result<AccessTokenClaims, VerifyError>> {
    let keys = oauth.cache.keys().await?.value;
    let verified = keys.set.verify_signature(token);
    if verified != Err(VerifyError::UnknownKey) {
        return Ok(verified);
    }
    // Another replica may have begun to sign with it a moment ago.
    oauth.cache.catch_up_or_log().await;
    let keys = oauth.cache.keys().await?.value;
    Ok(keys.set.verify_signature(token))
}
