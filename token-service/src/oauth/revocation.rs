//! Revoking tokens (RFC 7009): an access token alone, or a refresh token with its family. The grant
//! stays. What is unknown or somebody else's is left alone, and nothing is told of it.

use accord::{
    clock::UnixMillis,
    store::audit::Event,
    text::{
        id::{ClientId, TenantId},
        opaque::RefreshToken,
    },
    verify::VerifyError,
};

use crate::{error::Error, model::family::is_genuine, oauth::OAuth, oauth::issuance::client_origin};

/// Ends a token of the client, if it is one.
pub async fn revoke(
    oauth: &OAuth,
    client_id: &ClientId,
    tenant_id: &TenantId,
    token: &str,
) -> Result<(), Error> {
    match RefreshToken::parse(token) {
        Ok(token) => family(oauth, client_id, tenant_id, &token).await?,
        Err(_) => access_token(oauth, client_id, tenant_id, token).await?,
    }
    oauth.cache.learn().await;
    Ok(())
}

async fn family(
    oauth: &OAuth,
    client_id: &ClientId,
    tenant_id: &TenantId,
    token: &RefreshToken,
) -> Result<(), Error> {
    let store = &oauth.store;
    let found = store.find_family(tenant_id, token.family()).await?;
    if !is_genuine(&store.keyring, token, found.as_ref(), client_id, tenant_id)? {
        return Ok(());
    }
    let Some(family) = found else { return Ok(()) };
    let event = Event::new("token.revoke")
        .tenant(tenant_id)
        .client(client_id)
        .subject(family.grant_id.as_str())
        .detail("family_id", family.family_id.as_str());
    store
        .end_family(&client_origin(client_id), &family, "revoked", event)
        .await
}

async fn access_token(
    oauth: &OAuth,
    client_id: &ClientId,
    tenant_id: &TenantId,
    token: &str,
) -> Result<(), Error> {
    let keys = oauth.cache.keys().await?.value;
    let mut verified = keys.set().verify_signature(token);
    if verified == Err(VerifyError::UnknownKey) {
        // Another replica may have begun to sign with it a moment ago.
        oauth.cache.learn().await;
        let keys = oauth.cache.keys().await?.value;
        verified = keys.set().verify_signature(token);
    }
    let Ok(claims) = verified else {
        return Ok(());
    };
    let ends = UnixMillis::from_millis(i64::from(claims.exp) * 1000);
    let is_theirs = claims.client_id == client_id.as_str() && claims.tenant_id == tenant_id.as_str();
    if !is_theirs || ends <= oauth.store.now() {
        return Ok(());
    }
    let event = Event::new("token.revoke")
        .tenant(tenant_id)
        .client(client_id)
        .subject(claims.grant_id.as_str())
        .detail("jti", claims.jti.as_str());
    oauth
        .store
        .revoke_access_token(&client_origin(client_id), tenant_id, &claims.jti, ends, event)
        .await
}
