//! The last look before a token leaves: what it stands on must not have changed since it was read, and
//! what the registry said must not be too old. Otherwise the token that was made never leaves, and
//! another one is made of what counts now. A code or a generation that was used up stays so: the answer
//! goes on from there, since a client that had to repeat its call would look like a thief.

use std::sync::Arc;

use accord::text::opaque::RefreshToken;

use super::{Asked, Issued, Made};
use crate::{
    cache::lease::{ATTEMPTS, Lease},
    error::Error,
    model::{
        client::Client,
        family::Family,
        revocation::RevocationKind,
        watermark::{At, Revision},
    },
    oauth::client_authentication::{Proof, authenticate},
};

impl Asked<'_> {
    /// The answer with a token that was made and whose event is committed, or with another one. `family`
    /// is the token's, with the refresh token that goes with it.
    ///
    /// # Errors
    /// What refuses a token at first; [`Error::Store`] when there is no end of changes, or the registry
    /// keeps answering too late.
    pub(super) async fn answer(
        &mut self,
        mut made: Made,
        family: Option<(&Family, RefreshToken)>,
    ) -> Result<Issued, Error> {
        let (family, refresh_token) = family.unzip();
        for attempt in 0..=ATTEMPTS {
            if !self.is_overtaken(&made).await? && self.lease.holds() {
                let claims = &made.claims;
                self.service
                    .store
                    .note_grant_use(&claims.tenant_id, &claims.grant_id);
                return Ok(Issued {
                    access_token: made.token,
                    expires_in: made.claims.exp - made.claims.iat,
                    refresh_token,
                    scope: made.claims.scope,
                    grant_id: made.claims.grant_id,
                });
            }
            if attempt == ATTEMPTS {
                break;
            }
            Box::pin(self.look_again()).await?;
            // If neither feed has moved, all that the token stands on is as it was.
            if self.revision.to_string() != made.claims.rev {
                made = Box::pin(self.make_again(&made, family)).await?;
            }
        }
        Err(Error::Unavailable)
    }

    /// Whether something that the token names was revoked since its position was read.
    async fn is_overtaken(&self, made: &Made) -> Result<bool, Error> {
        let claims = &made.claims;
        let mut named = vec![
            (RevocationKind::Grant, claims.grant_id.as_str()),
            (RevocationKind::Kid, made.kid.as_str()),
        ];
        named.extend(claims.family_id.as_deref().map(|id| (RevocationKind::Family, id)));
        let last = self.service.ledger.last_revocation(&named).await?;
        Ok(last.position.epoch != self.revision.token.epoch
            || last.value.is_some_and(|seq| seq > self.revision.token.seq))
    }

    /// Begins anew with later positions: what is read from now on reflects all changes up to them.
    async fn look_again(&mut self) -> Result<(), Error> {
        let (service, request) = (self.service, self.request);
        self.lease = Lease::begin(service.directory.life());
        let own = service.ledger.position().await?;
        self.lease.on_own(&own);
        let tenant = match service.directory.tenant(&request.tenant_id).await {
            Ok(tenant) => tenant,
            Err(Error::NotFound(_)) => return Err(request.grant.refusal()),
            Err(error) => return Err(error),
        };
        // A client is proven anew only if anything changed since: a proof is slow, and may be used up.
        if tenant.position != self.proven_at {
            let client = self.proven_again().await?;
            self.lease.on_registry(&client);
            self.client = client.value;
            self.proven_at = client.position;
        }
        self.revision = Revision::new(self.proven_at.clone(), own.position);
        self.lease.on_registry(&tenant);
        self.tenant = self.revision.with(tenant)?;
        self.require_tenant()
    }

    /// The client, if its proof still counts.
    async fn proven_again(&self) -> Result<At<Arc<Client>>, Error> {
        let (service, request) = (self.service, self.request);
        if let Proof::Secret(_) = &request.credentials.proof {
            return authenticate(service, &request.tenant_id, &request.credentials).await;
        }
        // An assertion counts once. It was signed by one of these keys.
        match service.directory.client(&self.client.client_id).await {
            Ok(client)
                if client.value.active && client.value.json_web_key_set == self.client.json_web_key_set =>
            {
                Ok(client)
            }
            Ok(_) | Err(Error::NotFound(_)) => Err(Error::InvalidClient),
            Err(error) => Err(error),
        }
    }

    /// Makes the token anew, and records that this one leaves instead of the one before.
    async fn make_again(&mut self, before: &Made, family: Option<&Family>) -> Result<Made, Error> {
        if let Some(family) = family {
            self.require_live(family).await?;
        }
        let grant = self.active_grant(family).await?;
        let (made, event) = self.make(&grant, family).await?;
        let event = event.detail("instead_of", before.claims.jti.as_str());
        self.service.store.record(self.origin(), event).await?;
        Ok(made)
    }

    /// Refuses a family that has ended since it was read.
    async fn require_live(&self, family: &Family) -> Result<(), Error> {
        let store = &self.service.store;
        let found = store.find_family(&family.tenant_id, &family.family_id).await?;
        match found {
            Some(family) if self.stands(&family) => Ok(()),
            _ => Err(Error::InvalidGrant),
        }
    }

    /// Whether a family has not ended, here or by what the registry says of the client.
    pub(super) fn stands(&self, family: &Family) -> bool {
        family.is_live_at(self.service.store.now(), self.service.lifetimes.family_idle)
            && family.registry.epoch == self.revision.registry.epoch
            && family.registry.seq >= self.client.families_ended_seq
    }
}
