//! Introspection (RFC 7662): whether a token is active at a tenant now, and what it stands for.

use accord::{
    id::{ClientId, GrantId, ScopeName, TenantId, UserId},
    opaque::RefreshToken,
    verify::{AccessTokenClaims, Expected, KeySet, key_id},
};

use crate::{
    consent::State,
    error::Error,
    family::{Presented, is_genuine},
    registry::{Client, Tenant, User, UserRef},
    revision::Revision,
    service::Service,
    signing_key,
    store::RevocationKind,
};

/// Who asks.
#[derive(Clone, Debug)]
pub enum Asker {
    /// An internal service: it sees every token of the tenant.
    Workload,
    /// A client: it sees its own tokens alone.
    Client(ClientId),
}

impl Asker {
    fn may_see(&self, client_id: &str) -> bool {
        match self {
            Self::Workload => true,
            Self::Client(id) => id.as_str() == client_id,
        }
    }
}

/// What an active token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// The scopes, separated by spaces.
    pub scope: String,
    /// The client.
    pub client_id: String,
    /// The designated user.
    pub sub: String,
    /// The tenant's Cloud API URL.
    pub aud: String,
    /// The Tenant Authority URL.
    pub iss: String,
    /// When it ends, in seconds since 1970.
    pub exp: u32,
    /// When it was issued, in seconds since 1970.
    pub iat: u32,
    /// The access token's id; empty for a refresh token.
    pub jti: String,
    /// `Bearer` or `refresh_token`.
    pub token_type: &'static str,
    /// The tenant.
    pub tenant_id: String,
    /// The grant.
    pub grant_id: String,
}

/// What the registry says of those whom a token concerns.
struct Parties {
    client: Client,
    tenant: Tenant,
    user: User,
    revision: Revision,
}

impl Parties {
    fn active(&self) -> bool {
        self.client.active && self.tenant.active && self.user.active
    }
}

/// Looks a token up; `None` for every token that is not active, whatever the reason.
///
/// # Errors
/// [`Error::RegistryUnavailable`], [`Error::Store`].
pub async fn introspect(
    service: &Service,
    asker: &Asker,
    tenant_id: &TenantId,
    token: &str,
) -> Result<Option<Active>, Error> {
    match RefreshToken::parse(token) {
        Ok(token) => refresh_token(service, asker, tenant_id, &token).await,
        Err(_) => access_token(service, asker, tenant_id, token).await,
    }
}

async fn access_token(
    service: &Service,
    asker: &Asker,
    tenant_id: &TenantId,
    token: &str,
) -> Result<Option<Active>, Error> {
    let keys = signing_key::key_set(service).await?;
    let Some((claims, ids)) = genuine(&keys, token) else {
        // The registry is asked in any case: without it no answer is to be had, not even this one.
        tenant_or_none(service, tenant_id).await?;
        return Ok(None);
    };
    let Some(parties) = parties(service, tenant_id, &ids.client_id, &ids.user_id).await? else {
        return Ok(None);
    };
    let expected = Expected {
        issuer: &parties.tenant.issuer,
        audience: &parties.tenant.cloud_api_url,
        tenant_id: tenant_id.as_str(),
    };
    let now = service.store.now();
    if keys.verify(token, &expected, now.as_secs()).is_err() || !asker.may_see(&claims.client_id) {
        return Ok(None);
    }
    let Some(rev) = parties.revision.parse_claim(&claims.rev) else {
        return Ok(None);
    };
    let ended_seq = [
        parties.client.tokens_ended_seq,
        parties.tenant.tokens_ended_seq,
        parties.user.tokens_ended_seq,
    ];
    if !parties.active() || ended_seq.iter().any(|seq| rev.registry_seq < *seq) {
        return Ok(None);
    }
    let kid = key_id(token).unwrap_or_default();
    let mut named = vec![
        (RevocationKind::Jti, claims.jti.as_str()),
        (RevocationKind::Grant, claims.grant_id.as_str()),
        (RevocationKind::Kid, kid.as_str()),
    ];
    named.extend(claims.family_id.as_deref().map(|id| (RevocationKind::Family, id)));
    let last = service.store.last_revocation(&named).await?;
    if last.is_some_and(|seq| rev.token_seq < seq) {
        return Ok(None);
    }
    let grant = service.store.find_grant(tenant_id, &ids.grant_id).await?;
    if grant.is_none_or(|grant| grant.state_at(now, true) != State::Active) {
        return Ok(None);
    }
    Ok(Some(Active {
        scope: claims.scope,
        client_id: claims.client_id,
        sub: claims.sub,
        aud: claims.aud,
        iss: claims.iss,
        exp: claims.exp,
        iat: claims.iat,
        jti: claims.jti,
        token_type: "Bearer",
        tenant_id: claims.tenant_id,
        grant_id: claims.grant_id,
    }))
}

/// The ids that genuine claims hold.
struct Ids {
    client_id: ClientId,
    user_id: UserId,
    grant_id: GrantId,
}

/// The claims of a token that one of these keys signed.
fn genuine(keys: &KeySet, token: &str) -> Option<(AccessTokenClaims, Ids)> {
    let claims = keys.verify_signature(token).ok()?;
    let ids = Ids {
        client_id: ClientId::parse(&claims.client_id).ok()?,
        user_id: UserId::parse(&claims.sub).ok()?,
        grant_id: GrantId::parse(&claims.grant_id).ok()?,
    };
    Some((claims, ids))
}

async fn refresh_token(
    service: &Service,
    asker: &Asker,
    tenant_id: &TenantId,
    token: &RefreshToken,
) -> Result<Option<Active>, Error> {
    let store = &service.store;
    let found = store.find_family(tenant_id, token.family()).await?;
    let Some(family) = found else {
        tenant_or_none(service, tenant_id).await?;
        return Ok(None);
    };
    let now = store.now();
    let genuine = is_genuine(&store.keyring, token, Some(&family), &family.client_id, tenant_id)?;
    let current = family.presented(token.generation(), now) == Presented::Current;
    let grant = store.find_grant(tenant_id, &family.grant_id).await?;
    let Some(grant) = grant.filter(|_| genuine && current && family.is_live_at(now)) else {
        tenant_or_none(service, tenant_id).await?;
        return Ok(None);
    };
    let Some(parties) = parties(service, tenant_id, &family.client_id, &grant.designated_user_id).await?
    else {
        return Ok(None);
    };
    let live = grant.state_at(now, parties.active()) == State::Active
        && family.registry.epoch == parties.revision.registry.epoch
        && family.registry.seq >= parties.client.families_ended_seq
        && asker.may_see(family.client_id.as_str());
    if !live {
        return Ok(None);
    }
    let enabled = |name: &ScopeName| parties.client.scopes.iter().any(|scope| scope.name == *name);
    let scopes: Vec<_> = grant
        .scopes
        .iter()
        .filter(|name| enabled(name))
        .cloned()
        .collect();
    let ends = grant
        .expires_at
        .map_or(family.expires_at, |end| end.min(family.expires_at));
    Ok(Some(Active {
        scope: accord::id::join_scopes(&scopes),
        client_id: family.client_id.into(),
        sub: grant.designated_user_id.into(),
        aud: parties.tenant.cloud_api_url,
        iss: parties.tenant.issuer,
        exp: u32::try_from(ends.as_secs()).unwrap_or(u32::MAX),
        iat: u32::try_from(family.advanced_at.as_secs()).unwrap_or_default(),
        jti: String::new(),
        token_type: "refresh_token",
        tenant_id: tenant_id.to_string(),
        grant_id: grant.grant_id.into(),
    }))
}

/// Reads the parties; `None` if one of them is unknown.
async fn parties(
    service: &Service,
    tenant_id: &TenantId,
    client_id: &ClientId,
    user_id: &UserId,
) -> Result<Option<Parties>, Error> {
    let token_position = service.store.position().await?;
    let Some(client) = known(service.registry.client(client_id).await)? else {
        return Ok(None);
    };
    let mut revision = Revision::new(client.position.clone(), token_position);
    let client = revision.with(client)?;
    let Some(tenant) = known(service.registry.tenant(tenant_id).await)? else {
        return Ok(None);
    };
    let tenant = revision.with(tenant)?;
    let Some(user) = known(service.registry.user(tenant_id, UserRef::Id(user_id)).await)? else {
        return Ok(None);
    };
    let user = revision.with(user)?;
    Ok(Some(Parties {
        client,
        tenant,
        user,
        revision,
    }))
}

async fn tenant_or_none(service: &Service, tenant_id: &TenantId) -> Result<(), Error> {
    known(service.registry.tenant(tenant_id).await).map(drop)
}

fn known<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
