//! Introspection (RFC 7662): whether a token is active at a tenant now, and what it stands for.

use std::sync::Arc;

use accord::{
    text::{
        id::{ClientId, GrantId, ScopeName, TenantId, UserId},
        opaque::RefreshToken,
    },
    verify::{AccessTokenClaims, Expected, KeySet, key_id},
};

use crate::{
    cache::lease::{ATTEMPTS, Lease},
    error::Error,
    model::{
        client::Client,
        family::{Family, is_genuine},
        grant::{Grant, GrantState as State},
        revocation::RevocationKind,
        tenant::Tenant,
        user::User,
        watermark::Revision,
    },
    oauth::OAuth,
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
    client: Arc<Client>,
    tenant: Arc<Tenant>,
    user: Arc<User>,
    revision: Revision,
}

impl Parties {
    fn active(&self) -> bool {
        let may_ask = self.client.tenant_ids.contains(&self.tenant.tenant_id);
        self.client.active && may_ask && self.tenant.active && self.user.active
    }

    /// What is left of these scopes now; `None` if nothing is.
    fn enabled<'a>(&self, scopes: impl Iterator<Item = &'a str>) -> Option<String> {
        let enabled = |name: &&str| {
            self.client
                .scopes
                .iter()
                .any(|scope| scope.name.as_str() == *name)
        };
        let left: Vec<_> = scopes.filter(enabled).collect();
        (!left.is_empty()).then(|| left.join(" "))
    }
}

/// What a look at a token shows.
enum Look {
    /// It is active, as far as what was read still holds.
    Active(Box<Active>),
    /// It is not active, whatever the reason.
    Inactive,
    /// What was asked for is not what counts any more.
    Again,
}

/// Looks a token up; `None` for every token that is not active, whatever the reason.
///
/// # Errors
/// [`Error::RegistryUnavailable`], [`Error::Store`], also when the answers keep coming too late.
pub async fn introspect(
    service: &OAuth,
    asker: &Asker,
    tenant_id: &TenantId,
    token: &str,
) -> Result<Option<Active>, Error> {
    let refresh = RefreshToken::parse(token).ok();
    for _ in 0..ATTEMPTS {
        let mut lease = Lease::begin(service.directory.life());
        let look = match &refresh {
            Some(token) => Box::pin(refresh_token(service, asker, tenant_id, token, &mut lease)).await?,
            None => access_token(service, asker, tenant_id, token, &mut lease).await?,
        };
        match look {
            Look::Active(active) if lease.holds() => return Ok(Some(*active)),
            Look::Inactive => return Ok(None),
            Look::Active(_) | Look::Again => {}
        }
    }
    Err(Error::Unavailable)
}

async fn access_token(
    service: &OAuth,
    asker: &Asker,
    tenant_id: &TenantId,
    token: &str,
    lease: &mut Lease,
) -> Result<Look, Error> {
    let keys = service.ledger.keys().await?;
    lease.on_own(&keys);
    let Some((claims, ids)) = genuine(keys.value.set(), token) else {
        // The registry is asked in any case: without it no answer is to be had, not even this one.
        tenant_or_none(service, tenant_id).await?;
        return Ok(Look::Inactive);
    };
    let Some(mut parties) = parties(service, tenant_id, (&ids.client_id, &ids.user_id), lease).await? else {
        return Ok(Look::Inactive);
    };
    let expected = Expected {
        issuer: &parties.tenant.issuer,
        audience: &parties.tenant.cloud_api_url,
        tenant_id: tenant_id.as_str(),
    };
    let now = service.store.now();
    if claims.check(&expected, now.as_secs()).is_err() || !asker.may_see(&claims.client_id) {
        return Ok(Look::Inactive);
    }
    let Some(rev) = parties.revision.parse_claim(&claims.rev) else {
        return Ok(Look::Inactive);
    };
    let ended_seq = [
        parties.client.tokens_ended_seq,
        parties.tenant.tokens_ended_seq,
        parties.user.tokens_ended_seq,
    ];
    if !parties.active() || ended_seq.iter().any(|seq| rev.registry_seq < *seq) {
        return Ok(Look::Inactive);
    }
    let Some(scope) = parties.enabled(claims.scope.split(' ')) else {
        return Ok(Look::Inactive);
    };
    // What this service itself knows is read last: it is newer than what the registry said.
    let kid = key_id(token).unwrap_or_default();
    let mut named = vec![
        (RevocationKind::Jti, claims.jti.as_str()),
        (RevocationKind::Grant, claims.grant_id.as_str()),
        (RevocationKind::Kid, kid.as_str()),
    ];
    named.extend(claims.family_id.as_deref().map(|id| (RevocationKind::Family, id)));
    let last = service.ledger.last_revocation(&named).await?;
    lease.on_own(&last);
    let last = parties.revision.with_own(last)?;
    if last.is_some_and(|seq| rev.token_seq < seq) {
        return Ok(Look::Inactive);
    }
    let grant = service.ledger.grant(tenant_id, &ids.grant_id).await?;
    lease.on_own(&grant);
    let grant = parties.revision.with_own(grant)?;
    if grant.is_none_or(|grant| grant.state_at(now, true) != State::Active) {
        return Ok(Look::Inactive);
    }
    Ok(Look::Active(Box::new(Active {
        scope,
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
    })))
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
    service: &OAuth,
    asker: &Asker,
    tenant_id: &TenantId,
    token: &RefreshToken,
    lease: &mut Lease,
) -> Result<Look, Error> {
    let Some((family, grant)) = standing(service, tenant_id, token).await? else {
        tenant_or_none(service, tenant_id).await?;
        return Ok(Look::Inactive);
    };
    let asked_for = (&family.client_id, &grant.designated_user_id);
    let Some(parties) = parties(service, tenant_id, asked_for, lease).await? else {
        return Ok(Look::Inactive);
    };
    // So far they only said whom to ask for. What counts is read after the registry's answers.
    let asked_user = grant.designated_user_id;
    let Some((family, grant)) = standing(service, tenant_id, token).await? else {
        return Ok(Look::Inactive);
    };
    if grant.designated_user_id != asked_user {
        return Ok(Look::Again);
    }
    let live = grant.state_at(service.store.now(), parties.active()) == State::Active
        && family.registry.epoch == parties.revision.registry.epoch
        && family.registry.seq >= parties.client.families_ended_seq
        && asker.may_see(family.client_id.as_str());
    let scope = parties.enabled(grant.scopes.iter().map(ScopeName::as_str));
    let Some(scope) = scope.filter(|_| live) else {
        return Ok(Look::Inactive);
    };
    let family_ends = family.ends_at(service.lifetimes.family_idle);
    let ends = grant.expires_at.map_or(family_ends, |end| end.min(family_ends));
    Ok(Look::Active(Box::new(Active {
        scope,
        client_id: family.client_id.into(),
        sub: grant.designated_user_id.into(),
        aud: parties.tenant.cloud_api_url.clone(),
        iss: parties.tenant.issuer.clone(),
        exp: u32::try_from(ends.as_secs()).unwrap_or(u32::MAX),
        iat: u32::try_from(family.generations.handed_out_at.as_secs()).unwrap_or_default(),
        jti: String::new(),
        token_type: "refresh_token",
        tenant_id: tenant_id.to_string(),
        grant_id: grant.grant_id.into(),
    })))
}

/// The family whose current token this is, and its grant; `None` unless the family is live.
async fn standing(
    service: &OAuth,
    tenant_id: &TenantId,
    token: &RefreshToken,
) -> Result<Option<(Family, Grant)>, Error> {
    let store = &service.store;
    let Some(family) = store.find_family(tenant_id, token.family()).await? else {
        return Ok(None);
    };
    let now = store.now();
    let genuine = is_genuine(&store.keyring, token, Some(&family), &family.client_id, tenant_id)?;
    let is_newest = token.generation() >= family.generations.current;
    if !(genuine && is_newest && family.is_live_at(now, service.lifetimes.family_idle)) {
        return Ok(None);
    }
    let grant = store.find_grant(tenant_id, &family.grant_id).await?;
    Ok(grant.map(|grant| (family, grant)))
}

/// Reads the parties; `None` if one of them is unknown. The lease is on what was read.
async fn parties(
    service: &OAuth,
    tenant_id: &TenantId,
    (client_id, user_id): (&ClientId, &UserId),
    lease: &mut Lease,
) -> Result<Option<Parties>, Error> {
    let own = service.ledger.position().await?;
    lease.on_own(&own);
    let directory = &service.directory;
    let (client, tenant, user) = tokio::join!(
        directory.client(client_id),
        directory.tenant(tenant_id),
        directory.user(tenant_id, user_id),
    );
    let (Some(client), Some(tenant), Some(user)) = (known(client)?, known(tenant)?, known(user)?) else {
        return Ok(None);
    };
    lease.on_registry(&client);
    lease.on_registry(&tenant);
    lease.on_registry(&user);
    let mut revision = Revision::new(client.position.clone(), own.position);
    let client = revision.with(client)?;
    let tenant = revision.with(tenant)?;
    let user = revision.with(user)?;
    Ok(Some(Parties {
        client,
        tenant,
        user,
        revision,
    }))
}

async fn tenant_or_none(service: &OAuth, tenant_id: &TenantId) -> Result<(), Error> {
    known(service.directory.tenant(tenant_id).await).map(drop)
}

fn known<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
