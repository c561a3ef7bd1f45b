//! Introspection (RFC 7662): whether a token is active at a tenant now, and what it allows. The response can be a
//! signed JWT (RFC 9701), which a client can show to others.

use std::sync::Arc;

use accord::{
    clock::UnixMillis,
    dpop::{ReplayError, VerifiedProof},
    error::v1::ErrorReason,
    store::audit::{Event, action},
    text::{
        id::{ClientId, GrantId, ScopeName, TenantId, UserId},
        network::AllowedNetworks,
        opaque::RefreshToken,
    },
    token::v1::IntrospectTokenResponse as Response,
    verify::{self, AccessTokenClaims, Confirmation, key_id},
};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    cache::{Cached, Entry, EntryAsOf, KnownClient},
    error::{Error, Result},
    model::{
        family::{Family, is_genuine},
        grant::Grant,
        tenant::Tenant,
        user::User,
        watermark::{ATTEMPTS, Watermark},
    },
    oauth::{
        OAuth,
        binding::{Binding, NotBound},
        note_rejected_client, revocation_names,
    },
};

/// The media type of a signed response (RFC 9701 §5).
pub const MEDIA_TYPE: &str = "application/token-introspection+jwt";
/// The `typ` of its header.
const TYPE: &str = "token-introspection+jwt";

/// The party that introspects.
#[derive(Clone, Debug)]
pub enum Requester {
    /// An internal service: it sees every token of the tenant.
    Workload,
    /// A client: it sees only its own tokens.
    Client(ClientId),
}

/// Why an attempt does not find an active token.
enum Rejection {
    /// The token is not active, whatever the reason.
    Inactive,
    /// The grant's designated user changed between two reads.
    Changed,
    /// The attempt failed, so it is unknown whether the token is active.
    Failed(Error),
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The parties of a token, and how current the facts about them are.
struct Parties {
    client: Arc<Cached<KnownClient>>,
    tenant: Arc<Cached<Tenant>>,
    user: Arc<Cached<User>>,
    watermark: Watermark,
}

impl Parties {
    fn are_active(&self) -> bool {
        let is_registered = self.client.tenants.contains_key(&self.tenant.tenant_id);
        self.client.active && is_registered && self.tenant.active && self.user.active
    }

    /// Returns which of these scopes of a grant are enabled now. Rejects a token if none is left.
    fn enabled<'a>(&self, grant: &Grant, scopes: impl Iterator<Item = &'a str>) -> Result<String, Rejection> {
        let known = self.client.scopes.iter().filter(|scope| grant.allows(scope));
        let enabled = |name: &&str| known.clone().any(|scope| scope.name.as_str() == *name);
        let left: Vec<_> = scopes.filter(enabled).collect();
        if left.is_empty() {
            return Err(Rejection::Inactive);
        }
        Ok(left.join(" "))
    }
}

/// Introspects a token. With a `binding`, only an access token is active, and only if the caller that brought it holds the token's
/// key, and comes from the networks of client and grant. For a token that is not active, the response says only that, whatever
/// the reason.
///
/// # Errors
/// [`Error::Unavailable`] also if in each of [`ATTEMPTS`] attempts a fact changes or an answer is too old.
pub async fn introspect(
    oauth: &OAuth,
    requester: &Requester,
    tenant_id: &TenantId,
    token: &str,
    binding: Option<&Binding>,
) -> Result<Response> {
    let introspection = Introspection {
        oauth,
        requester,
        tenant_id,
        binding,
    };
    let refresh = RefreshToken::parse(token).ok();
    if refresh.is_some() && binding.is_some() {
        // No call of an API is made with a refresh token.
        return Ok(inactive());
    }
    for _ in 0..ATTEMPTS {
        let found = match &refresh {
            Some(token) => {
                let found = Box::pin(introspection.refresh_token(token)).await;
                found.map(|(response, watermark)| (response, watermark, None))
            }
            None => introspection.access_token(token).await,
        };
        match found {
            Ok((response, watermark, proof)) if watermark.is_current(oauth.cache.registry_lease()) => {
                // Once the token is known to be active, so that no proof is spent on another.
                return match proof.map(|proof| spend(oauth, &response.client_id, &proof)) {
                    None | Some(Ok(true)) => Ok(response),
                    Some(Ok(false)) => {
                        let ids = [response.client_id.as_str(), &response.grant_id];
                        introspection.note_rejected_use(ids, ErrorReason::InvalidDpopProof, "used proof");
                        Ok(inactive())
                    }
                    Some(Err(error)) => Err(error),
                };
            }
            Ok(_) | Err(Rejection::Changed) => {}
            Err(Rejection::Inactive) => return Ok(inactive()),
            Err(Rejection::Failed(error)) => return Err(error),
        }
    }
    Err(Error::Unavailable)
}

/// Spends a proof. Returns whether it was not used before on this replica.
fn spend(oauth: &OAuth, client_id: &str, proof: &VerifiedProof) -> Result<bool> {
    // A client's calls to resources have a bound of their own: they don't use up the room of its token requests.
    let owner = format!("{client_id} at a resource");
    match oauth.dpop.spend(&owner, proof, oauth.store.now()) {
        Ok(()) => Ok(true),
        Err(ReplayError::Used) => Ok(false),
        Err(ReplayError::Full) => Err(Error::TooManyProofs),
    }
}

/// Signs an introspection response for the client or workload with this id (RFC 9701 §5).
pub async fn sign(
    oauth: &OAuth,
    tenant_id: &TenantId,
    audience: &str,
    response: &Response,
) -> Result<Zeroizing<String>> {
    let tenant = oauth.cache.tenant(tenant_id).await?.value;
    let claims = json!({
        "iss": tenant.issuer,
        "aud": audience,
        "iat": oauth.store.now().as_secs(),
        "token_introspection": response,
    });
    oauth.cache.keys().await?.value.signer.sign(TYPE, &claims)
}

struct Introspection<'a> {
    oauth: &'a OAuth,
    requester: &'a Requester,
    tenant_id: &'a TenantId,
    binding: Option<&'a Binding>,
}

impl Introspection<'_> {
    fn may_see(&self, client_id: &str) -> bool {
        match self.requester {
            Requester::Workload => true,
            Requester::Client(id) => id.as_str() == client_id,
        }
    }

    /// Rejects a token whose parties are unknown. Reads the tenant first, so that every introspection fails while the
    /// registry is down.
    async fn reject_unknown<T>(&self) -> Result<T, Rejection> {
        self.oauth.cache.find_tenant(self.tenant_id).await?;
        Err(Rejection::Inactive)
    }

    /// Notes the event of a call whose caller brought a live access token, and may not use it: the token was stolen, or its
    /// client is at fault. `ids` are those of client and grant.
    fn note_rejected_use(&self, [client_id, grant_id]: [&str; 2], reason: ErrorReason, why: &'static str) {
        let Ok(client_id) = ClientId::parse(client_id) else {
            return;
        };
        let address = self.binding.and_then(|binding| binding.client_address);
        let event = Event::new(action::TOKEN_USE_REFUSE)
            .tenant(self.tenant_id)
            .subject(grant_id)
            .detail("why", why)
            .detail_if("client_address", address.map(|address| address.to_string()));
        note_rejected_client(&client_id, reason, event);
    }

    /// Returns the proof of the caller, too, which is not spent yet.
    async fn access_token(
        &self,
        token: &str,
    ) -> Result<(Response, Watermark, Option<VerifiedProof>), Rejection> {
        let oauth = self.oauth;
        let keys = oauth.cache.keys().await?;
        let Ok(claims) = keys.value.set.verify_signature(token) else {
            return self.reject_unknown().await;
        };
        let kid = key_id(token).unwrap_or_default();
        let now = oauth.store.now();
        if !keys.value.is_published(&kid, now) {
            return self.reject_unknown().await;
        }
        let (mut parties, grant) = self.parties_and_grant(&claims).await?;
        parties.watermark.include_own(keys)?;
        let expected = verify::Tenant {
            tenant_id: self.tenant_id.as_str(),
            issuer: &parties.tenant.issuer,
            audience: &parties.tenant.cloud_api_url,
        };
        if claims.check(&expected, now.as_secs()).is_err() || !self.may_see(&claims.client_id) {
            return Err(Rejection::Inactive);
        }
        let rev = parties.watermark.parse_claim(&claims.rev);
        let rev = rev.ok_or(Rejection::Inactive)?;
        let ended_seq = [
            parties.client.tokens_ended_seq,
            parties.tenant.tokens_ended_seq,
            parties.user.tokens_ended_seq,
        ];
        if !parties.are_active() || ended_seq.iter().any(|seq| rev.registry_seq < *seq) {
            return Err(Rejection::Inactive);
        }
        let grant = grant.ok_or(Rejection::Inactive)?;
        let scope = parties.enabled(&grant, claims.scope.split(' '))?;
        let names = revocation_names(&claims, &kid);
        let revoked = oauth.cache.last_revocation_after(rev.token_seq, &names).await?;
        let is_revoked = parties.watermark.include_own(revoked)?.is_some();
        let is_active = grant
            .state_with(now, Some(&**parties.client), true)
            .yields_tokens();
        if is_revoked || !is_active || !grant.covers(&claims, now) {
            return Err(Rejection::Inactive);
        }
        let token_type = claims.token_type().to_owned();
        let networks = [&parties.client.allowed_networks, &grant.allowed_networks];
        let proof = self.check_use(&claims, token, networks, now)?;
        let response = Response {
            active: Some(true),
            scope,
            client_id: claims.client_id,
            sub: claims.sub,
            aud: claims.aud,
            iss: claims.iss,
            exp: claims.exp,
            iat: claims.iat,
            jti: claims.jti,
            token_type,
            tenant_id: claims.tenant_id,
            grant_id: claims.grant_id,
            cnf: claims.cnf.map(Into::into),
        };
        Ok((response, parties.watermark, proof))
    }

    /// Checks that the caller may use its token, if the service reports the call. Returns the proof of the caller, which is not
    /// spent yet.
    fn check_use(
        &self,
        claims: &AccessTokenClaims,
        token: &str,
        networks: [&AllowedNetworks; 2],
        now: UnixMillis,
    ) -> Result<Option<VerifiedProof>, Rejection> {
        let Some(binding) = self.binding else {
            return Ok(None);
        };
        let rejected = |reason, why| {
            self.note_rejected_use([&claims.client_id, &claims.grant_id], reason, why);
            Rejection::Inactive
        };
        let from = binding.check_networks(networks);
        from.map_err(|NotBound| rejected(ErrorReason::NetworkNotAllowed, "network"))?;
        let key = binding.check_key(claims.cnf.as_ref(), token, now);
        key.map_err(|NotBound| match &claims.cnf {
            Some(Confirmation::Certificate(_)) => rejected(ErrorReason::Unauthenticated, "certificate"),
            _ => rejected(ErrorReason::InvalidDpopProof, "key"),
        })
    }

    async fn refresh_token(&self, token: &RefreshToken) -> Result<(Response, Watermark), Rejection> {
        let oauth = self.oauth;
        let Some((family, grant)) = self.live_family(token).await? else {
            return self.reject_unknown().await;
        };
        let parties = self.parties(&family.client_id, &grant.designated_user_id).await?;
        // The first read only named the parties. Reads both again, because the watermark was taken after it.
        let user_id = grant.designated_user_id;
        let (family, grant) = self.live_family(token).await?.ok_or(Rejection::Inactive)?;
        if grant.designated_user_id != user_id {
            return Err(Rejection::Changed);
        }
        let state = grant.state_with(oauth.store.now(), Some(&**parties.client), parties.are_active());
        let is_live = state.yields_tokens()
            && family.registry.epoch == parties.watermark.registry.position.epoch
            && family.registry.seq >= parties.client.families_ended_seq
            && self.may_see(family.client_id.as_str());
        if !is_live {
            return Err(Rejection::Inactive);
        }
        let family_ends = family.ends_at(oauth.lifetimes.family_idle);
        let ends = grant.expires_at.map_or(family_ends, |end| end.min(family_ends));
        let response = Response {
            active: Some(true),
            scope: parties.enabled(&grant, grant.scopes.iter().map(ScopeName::as_str))?,
            client_id: family.client_id.into(),
            sub: grant.designated_user_id.into(),
            aud: parties.tenant.cloud_api_url.clone(),
            iss: parties.tenant.issuer.clone(),
            exp: u32::try_from(ends.as_secs()).unwrap_or(u32::MAX),
            iat: u32::try_from(family.generations.handed_out_at.as_secs()).unwrap_or_default(),
            jti: String::new(),
            token_type: "refresh_token".to_owned(),
            tenant_id: self.tenant_id.to_string(),
            grant_id: grant.grant_id.into(),
            cnf: None,
        };
        Ok((response, parties.watermark))
    }

    /// Reads the family whose newest token this is, and its grant; `None` unless the family is live.
    async fn live_family(&self, token: &RefreshToken) -> Result<Option<(Family, Grant)>> {
        let (store, tenant_id) = (&self.oauth.store, self.tenant_id);
        let Some(family) = store.find_family(tenant_id, token.family()).await? else {
            return Ok(None);
        };
        let keyring = store.keyring_of(Some(&*family)).await?;
        let is_genuine = is_genuine(&keyring, token, Some(&*family), &family.client_id, tenant_id)?;
        let is_newest = token.generation() >= family.generations.current;
        let idle = self.oauth.lifetimes.family_idle;
        if !(is_genuine && is_newest && family.is_live_at(store.now(), idle)) {
            return Ok(None);
        }
        let grant = store.find_grant(tenant_id, &family.grant_id).await?;
        Ok(grant.map(|grant| (family.into_value(), grant)))
    }

    /// Reads the parties of an access token, and its grant.
    async fn parties_and_grant(
        &self,
        claims: &AccessTokenClaims,
    ) -> Result<(Parties, Option<Arc<Cached<Grant>>>), Rejection> {
        let (cache, tenant_id) = (&self.oauth.cache, self.tenant_id);
        let client_id = ClientId::parse(&claims.client_id).map_err(|_| Rejection::Inactive)?;
        let user_id = UserId::parse(&claims.sub).map_err(|_| Rejection::Inactive)?;
        let grant_id = GrantId::parse(&claims.grant_id).map_err(|_| Rejection::Inactive)?;
        // The entry holds the grant that this replica knows as current. A token of another grant or user needs a read.
        let is_for_token = |entry: &Entry| entry.grant.grant_id == grant_id && entry.user.user_id == user_id;
        let found = cache.entry(&client_id, tenant_id);
        if let Some(EntryAsOf { entry, registry, own }) = found.filter(|found| is_for_token(&found.entry)) {
            let parties = Parties {
                client: entry.client.clone(),
                tenant: entry.tenant.clone(),
                user: entry.user.clone(),
                watermark: Watermark { registry, own },
            };
            return Ok((parties, Some(entry.grant.clone())));
        }
        let mut parties = Box::pin(self.parties(&client_id, &user_id)).await?;
        let grant = Box::pin(cache.grant(tenant_id, &grant_id)).await?;
        let grant = parties.watermark.include_own(grant)?;
        if let Some(grant) = &grant {
            cache.cache_entry(&parties.client, &parties.tenant, &parties.user, grant);
        }
        Ok((parties, grant))
    }

    async fn parties(&self, client_id: &ClientId, user_id: &UserId) -> Result<Parties, Rejection> {
        let (cache, tenant_id) = (&self.oauth.cache, self.tenant_id);
        let own = cache.own_position().await?;
        let (client, tenant, user) = tokio::join!(
            cache.find_client(client_id),
            cache.find_tenant(tenant_id),
            cache.find_user(tenant_id, user_id),
        );
        let (client, registry) = client?.ok_or(Rejection::Inactive)?.split();
        let mut watermark = Watermark { registry, own };
        Ok(Parties {
            client,
            tenant: watermark.include_registry(tenant?.ok_or(Rejection::Inactive)?)?,
            user: watermark.include_registry(user?.ok_or(Rejection::Inactive)?)?,
            watermark,
        })
    }
}

fn inactive() -> Response {
    Response {
        active: Some(false),
        ..Response::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inactive_token_has_no_other_member() {
        assert_eq!(json!(inactive()), json!({"active": false}));
    }
}
