//! Checks a token again after its commit: no fact behind it may have changed since it was read, and no answer may be
//! too old. Otherwise discards the token, and signs another one at a later watermark. The call must not simply fail:
//! its code or generation is used already, so a client that repeats the call would look like a thief.

use accord::text::opaque::RefreshToken;

use super::{Issuance, Issued, SignedToken, find_tenant};
use crate::{
    cache::Authenticated,
    error::{Error, Result},
    model::{client::CredentialKind, family::Family, watermark::ATTEMPTS},
    oauth::{
        client_authentication::{ClientCredential, verify},
        dpop::{self, BoundKey},
        revocation_names,
    },
};

impl Issuance<'_> {
    /// Returns the token, whose event is committed, or another one in its place. `family` is the token's, with the
    /// refresh token to return. Fails with [`Error::Unavailable`] if each of [`ATTEMPTS`] more attempts meets a change
    /// or an answer that is too old.
    pub(super) async fn recheck(
        &mut self,
        mut token: SignedToken,
        family: Option<(&Family, RefreshToken)>,
    ) -> Result<Issued> {
        let (family, refresh_token) = family.unzip();
        let mut attempts = 0..ATTEMPTS;
        loop {
            let is_revoked = self.is_revoked(&token).await?;
            if !is_revoked && self.watermark.is_current(self.oauth.cache.registry_lease()) {
                let claims = token.claims;
                return Ok(Issued {
                    access_token: token.token,
                    token_type: claims.token_type(),
                    expires_in: claims.exp - claims.iat,
                    refresh_token,
                    scope: claims.scope,
                    grant_id: claims.grant_id,
                    dpop_nonce: None,
                });
            }
            attempts.next().ok_or(Error::Unavailable)?;
            Box::pin(self.begin_again()).await?;
            // If neither feed has moved, no fact has changed, and the token is still right.
            if self.watermark.to_string() != token.claims.rev {
                token = Box::pin(self.sign_again(&token, family)).await?;
            }
        }
    }

    /// Returns whether something that the token names was revoked after its watermark.
    async fn is_revoked(&self, token: &SignedToken) -> Result<bool> {
        let names = revocation_names(&token.claims, &token.kid);
        let own = &self.watermark.own.position;
        let last = self.oauth.cache.last_revocation_after(own.seq, &names).await?;
        Ok(last.position.epoch != own.epoch || last.value.is_some())
    }

    /// Begins again at later positions. Facts that are read from now on reflect all changes up to them.
    async fn begin_again(&mut self) -> Result<()> {
        let tenant = find_tenant(self.oauth, self.request).await?;
        let authenticated = if tenant.position == self.authenticated_at {
            // Nothing has changed since. Checking the credential again is slow, and an assertion counts only once.
            Authenticated {
                client: tenant.map(|_| self.client.clone()),
                entry: None,
                assertion: None,
            }
        } else {
            self.authenticate_again().await?
        };
        let again = Self::for_client(self.oauth, self.request, authenticated).await?;
        let bound_key = self.bound_key.take();
        // The client may have got other keys meanwhile.
        dpop::require_known_key(
            &again.client,
            &again.tenant.tenant_id,
            bound_key.as_ref().map(BoundKey::jkt),
        )?;
        *self = Self {
            grant_id: self.grant_id.take(),
            bound_key,
            ..again
        };
        Ok(())
    }

    /// Authenticates the client again, without counting its call a second time: a call that has changed something must not
    /// meet a limit.
    async fn authenticate_again(&self) -> Result<Authenticated> {
        let (oauth, request) = (self.oauth, self.request);
        if !matches!(request.credentials.credential, ClientCredential::Assertion(_)) {
            return verify(oauth, &request.tenant_id, &request.credentials).await;
        }
        // An assertion counts only once, so this compares what verified it instead.
        let client = oauth.cache.find_client(&self.client.client_id).await?;
        let client = client.filter(|client| client.value.active && client.value.has_keys_of(&self.client));
        let client = client.ok_or(Error::InvalidClient("the client or its keys changed"))?;
        client
            .value
            .require_credential(CredentialKind::Assertion, oauth.store.now())?;
        Ok(Authenticated {
            client,
            entry: None,
            assertion: None,
        })
    }

    /// Signs another token, and records that it replaces `before`.
    async fn sign_again(&mut self, before: &SignedToken, family: Option<&Family>) -> Result<SignedToken> {
        self.check_client_network().await?;
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

    /// Returns whether a family can be used: this database has not ended it, nor has the registry with its client.
    pub(super) fn is_live(&self, family: &Family) -> bool {
        family.is_live_at(self.oauth.store.now(), self.oauth.lifetimes.family_idle)
            && family.registry.epoch == self.watermark.registry.position.epoch
            && family.registry.seq >= self.client.families_ended_seq
    }
}
