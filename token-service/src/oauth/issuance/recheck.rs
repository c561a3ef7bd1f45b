//! The check after the commit: what a token rests on must not have changed since it was read, and what the registry
//! said must not be too old. Otherwise the token never leaves, and another one is signed at a later watermark. A code
//! or a generation that was used up stays so: the answer goes on from there, since a client that had to repeat its
//! call would look like a thief.

use accord::text::opaque::RefreshToken;

use super::{Issuance, Issued, SignedToken, find_tenant};
use crate::{
    cache::Authenticated,
    error::Error,
    model::{family::Family, revocation::RevocationKind, watermark::ATTEMPTS},
    oauth::client_authentication::{Proof, authenticate},
};

impl Issuance<'_> {
    /// The answer with a token whose event is committed, or with another one. `family` is the token's, with the
    /// refresh token that goes with it. Fails with [`Error::Unavailable`] when there is no end of changes, or the
    /// registry keeps answering too late.
    pub(super) async fn recheck(
        &mut self,
        mut token: SignedToken,
        family: Option<(&Family, RefreshToken)>,
    ) -> Result<Issued, Error> {
        let (family, refresh_token) = family.unzip();
        for attempt in 0..=ATTEMPTS {
            let is_revoked = self.is_revoked(&token).await?;
            if !is_revoked && self.watermark.is_current(self.oauth.cache.registry_lease()) {
                let claims = &token.claims;
                self.oauth
                    .store
                    .record_grant_use(&claims.tenant_id, &claims.grant_id);
                return Ok(Issued {
                    access_token: token.token,
                    expires_in: token.claims.exp - token.claims.iat,
                    refresh_token,
                    scope: token.claims.scope,
                    grant_id: token.claims.grant_id,
                });
            }
            if attempt == ATTEMPTS {
                break;
            }
            Box::pin(self.renew()).await?;
            // If neither feed has moved, all that the token rests on is as it was.
            if self.watermark.to_string() != token.claims.rev {
                token = Box::pin(self.sign_again(&token, family)).await?;
            }
        }
        Err(Error::Unavailable)
    }

    /// Whether something that the token names was revoked after its watermark.
    async fn is_revoked(&self, token: &SignedToken) -> Result<bool, Error> {
        let claims = &token.claims;
        let named = [
            (RevocationKind::Grant, claims.grant_id.as_str()),
            (RevocationKind::Kid, token.kid.as_str()),
            // No family has this id.
            (
                RevocationKind::Family,
                claims.family_id.as_deref().unwrap_or_default(),
            ),
        ];
        let own = &self.watermark.own.position;
        let last = self.oauth.cache.last_revocation_after(own.seq, &named).await?;
        Ok(last.position.epoch != own.epoch || last.value.is_some())
    }

    /// Begins again at later positions: what is read from now on reflects all changes up to them.
    async fn renew(&mut self) -> Result<(), Error> {
        let tenant = find_tenant(self.oauth, self.request).await?;
        let authenticated = if tenant.position == self.proven_at {
            // Nothing has changed since the proof, which is slow or may be used up.
            Authenticated {
                client: tenant.map(|_| self.client.clone()),
                entry: None,
            }
        } else {
            self.authenticate_again().await?
        };
        *self = Self::for_client(self.oauth, self.request, authenticated).await?;
        Ok(())
    }

    /// The client, if its proof still counts.
    async fn authenticate_again(&self) -> Result<Authenticated, Error> {
        let (oauth, request) = (self.oauth, self.request);
        if let Proof::Secret(_) = &request.credentials.proof {
            return authenticate(oauth, &request.tenant_id, &request.credentials).await;
        }
        // An assertion counts once. It was signed by one of these keys.
        match oauth.cache.client(&self.client.client_id).await {
            Ok(client)
                if client.value.active && client.value.json_web_key_set == self.client.json_web_key_set =>
            {
                Ok(Authenticated { client, entry: None })
            }
            Ok(_) | Err(Error::NotFound(_)) => Err(Error::InvalidClient),
            Err(error) => Err(error),
        }
    }

    /// Signs another token, and records that it leaves instead of the one before.
    async fn sign_again(
        &mut self,
        before: &SignedToken,
        family: Option<&Family>,
    ) -> Result<SignedToken, Error> {
        let store = &self.oauth.store;
        if let Some(family) = family {
            let found = store.find_family(&family.tenant_id, &family.family_id).await?;
            if !found.is_some_and(|family| self.is_live(&family)) {
                return Err(Error::InvalidGrant);
            }
        }
        let grant = self.active_grant(family).await?;
        let (token, event) = self.sign(&grant, family).await?;
        let event = event.detail("instead_of", before.claims.jti.as_str());
        store.record(self.origin(), event).await?;
        Ok(token)
    }

    /// Whether a family has not ended, here or by what the registry says of the client.
    pub(super) fn is_live(&self, family: &Family) -> bool {
        family.is_live_at(self.oauth.store.now(), self.oauth.lifetimes.family_idle)
            && family.registry.epoch == self.watermark.registry.position.epoch
            && family.registry.seq >= self.client.families_ended_seq
    }
}
