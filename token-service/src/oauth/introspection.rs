//! Introspection (RFC 7662): whether a token is active at a tenant now, and what it stands for.

use std::sync::Arc;

use accord::{
    text::{
        id::{ClientId, GrantId, ScopeName, TenantId, UserId},
        opaque::RefreshToken,
    },
    verify::{self, AccessTokenClaims, KeySet, key_id},
};

use crate::{
    cache::{Cached, Entry, EntryAsOf, KnownClient},
    error::Error,
    model::{
        family::{Family, is_genuine},
        grant::{Grant, GrantState},
        revocation::RevocationKind,
        tenant::Tenant,
        user::User,
        watermark::{ATTEMPTS, Watermark},
    },
    oauth::OAuth,
};

/// The party that introspects.
#[derive(Clone, Debug)]
pub enum Requester {
    /// An internal service: it sees every token of the tenant.
    Workload,
    /// A client: it sees its own tokens alone.
    Client(ClientId),
}

impl Requester {
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

/// The parties of a token, and how current the facts about them are.
struct Parties {
    client: Arc<Cached<KnownClient>>,
    tenant: Arc<Cached<Tenant>>,
    user: Arc<Cached<User>>,
    watermark: Watermark,
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

/// What an attempt finds.
enum Introspection {
    /// The token is active, if the facts still count.
    Active(Box<Active>, Watermark),
    /// The token is not active, whatever the reason.
    Inactive,
    /// What was read first has changed.
    Changed,
}

/// Introspects a token; `None` for every token that is not active, whatever the reason. Fails with
/// [`Error::Unavailable`] also when the answers keep coming too late.
pub async fn introspect(
    oauth: &OAuth,
    requester: &Requester,
    tenant_id: &TenantId,
    token: &str,
) -> Result<Option<Active>, Error> {
    let refresh = RefreshToken::parse(token).ok();
    for _ in 0..ATTEMPTS {
        let found = match &refresh {
            Some(token) => Box::pin(refresh_token(oauth, requester, tenant_id, token)).await?,
            None => access_token(oauth, requester, tenant_id, token).await?,
        };
        match found {
            Introspection::Active(active, watermark)
                if watermark.is_current(oauth.cache.registry_lease()) =>
            {
                return Ok(Some(*active));
            }
            Introspection::Inactive => return Ok(None),
            Introspection::Active(..) | Introspection::Changed => {}
        }
    }
    Err(Error::Unavailable)
}

async fn access_token(
    oauth: &OAuth,
    requester: &Requester,
    tenant_id: &TenantId,
    token: &str,
) -> Result<Introspection, Error> {
    let keys = oauth.cache.keys().await?;
    let Some((claims, ids)) = genuine(keys.value.set(), token) else {
        // Without the registry there is no answer, not even this one.
        known(oauth.cache.tenant(tenant_id).await)?;
        return Ok(Introspection::Inactive);
    };
    let Some((mut parties, grant)) = parties_and_grant(oauth, tenant_id, &ids).await? else {
        return Ok(Introspection::Inactive);
    };
    parties.watermark.own(keys)?;
    let expected = verify::Tenant {
        tenant_id: tenant_id.as_str().to_owned(),
        issuer: parties.tenant.issuer.clone(),
        audience: parties.tenant.cloud_api_url.clone(),
    };
    let now = oauth.store.now();
    if claims.check(&expected, now.as_secs()).is_err() || !requester.may_see(&claims.client_id) {
        return Ok(Introspection::Inactive);
    }
    let Some(rev) = parties.watermark.parse_claim(&claims.rev) else {
        return Ok(Introspection::Inactive);
    };
    let ended_seq = [
        parties.client.tokens_ended_seq,
        parties.tenant.tokens_ended_seq,
        parties.user.tokens_ended_seq,
    ];
    if !parties.active() || ended_seq.iter().any(|seq| rev.registry_seq < *seq) {
        return Ok(Introspection::Inactive);
    }
    let Some(scope) = parties.enabled(claims.scope.split(' ')) else {
        return Ok(Introspection::Inactive);
    };
    let kid = key_id(token).unwrap_or_default();
    let named = [
        (RevocationKind::Jti, claims.jti.as_str()),
        (RevocationKind::Grant, claims.grant_id.as_str()),
        (RevocationKind::Kid, kid.as_str()),
        // No family has this id.
        (
            RevocationKind::Family,
            claims.family_id.as_deref().unwrap_or_default(),
        ),
    ];
    let revoked = oauth.cache.last_revocation_after(rev.token_seq, &named).await?;
    let is_revoked = parties.watermark.own(revoked)?.is_some();
    if is_revoked || grant.is_none_or(|grant| grant.state_at(now, true) != GrantState::Active) {
        return Ok(Introspection::Inactive);
    }
    let active = Active {
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
    };
    Ok(Introspection::Active(Box::new(active), parties.watermark))
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
    oauth: &OAuth,
    requester: &Requester,
    tenant_id: &TenantId,
    token: &RefreshToken,
) -> Result<Introspection, Error> {
    let Some((family, grant)) = live_family(oauth, tenant_id, token).await? else {
        known(oauth.cache.tenant(tenant_id).await)?;
        return Ok(Introspection::Inactive);
    };
    let found = parties(oauth, tenant_id, &family.client_id, &grant.designated_user_id).await?;
    let Some(parties) = found else {
        return Ok(Introspection::Inactive);
    };
    // So far they only named the parties. What counts is read after the registry's answers.
    let user_id = grant.designated_user_id;
    let Some((family, grant)) = live_family(oauth, tenant_id, token).await? else {
        return Ok(Introspection::Inactive);
    };
    if grant.designated_user_id != user_id {
        return Ok(Introspection::Changed);
    }
    let live = grant.state_at(oauth.store.now(), parties.active()) == GrantState::Active
        && family.registry.epoch == parties.watermark.registry.position.epoch
        && family.registry.seq >= parties.client.families_ended_seq
        && requester.may_see(family.client_id.as_str());
    let scope = parties.enabled(grant.scopes.iter().map(ScopeName::as_str));
    let Some(scope) = scope.filter(|_| live) else {
        return Ok(Introspection::Inactive);
    };
    let family_ends = family.ends_at(oauth.lifetimes.family_idle);
    let ends = grant.expires_at.map_or(family_ends, |end| end.min(family_ends));
    let active = Active {
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
    };
    Ok(Introspection::Active(Box::new(active), parties.watermark))
}

/// The family whose current token this is, and its grant; `None` unless the family is live.
async fn live_family(
    oauth: &OAuth,
    tenant_id: &TenantId,
    token: &RefreshToken,
) -> Result<Option<(Family, Grant)>, Error> {
    let store = &oauth.store;
    let Some(family) = store.find_family(tenant_id, token.family()).await? else {
        return Ok(None);
    };
    let now = store.now();
    let genuine = is_genuine(&store.keyring, token, Some(&family), &family.client_id, tenant_id)?;
    let is_newest = token.generation() >= family.generations.current;
    if !(genuine && is_newest && family.is_live_at(now, oauth.lifetimes.family_idle)) {
        return Ok(None);
    }
    let grant = store.find_grant(tenant_id, &family.grant_id).await?;
    Ok(grant.map(|grant| (family, grant)))
}

/// The parties of an access token, and its grant; `None` if a party is unknown.
async fn parties_and_grant(
    oauth: &OAuth,
    tenant_id: &TenantId,
    ids: &Ids,
) -> Result<Option<(Parties, Option<Arc<Cached<Grant>>>)>, Error> {
    let Ids {
        client_id,
        user_id,
        grant_id,
    } = ids;
    let found = oauth.cache.entry(client_id, tenant_id);
    // Another grant's token, or another user's: this replica may not know yet that it is the current one.
    let is_meant = |entry: &Entry| entry.grant.grant_id == *grant_id && entry.user.user_id == *user_id;
    if let Some(found) = found.filter(|found| is_meant(&found.entry)) {
        let EntryAsOf { entry, registry, own } = found;
        let parties = Parties {
            client: entry.client.clone(),
            tenant: entry.tenant.clone(),
            user: entry.user.clone(),
            watermark: Watermark { registry, own },
        };
        return Ok(Some((parties, Some(entry.grant.clone()))));
    }
    let Some(mut parties) = Box::pin(parties(oauth, tenant_id, client_id, user_id)).await? else {
        return Ok(None);
    };
    let grant = Box::pin(oauth.cache.grant(tenant_id, grant_id)).await?;
    let grant = parties.watermark.own(grant)?;
    if let Some(grant) = &grant {
        oauth
            .cache
            .keep_entry(&parties.client, &parties.tenant, &parties.user, grant);
    }
    Ok(Some((parties, grant)))
}

/// Reads the parties; `None` if one of them is unknown.
async fn parties(
    oauth: &OAuth,
    tenant_id: &TenantId,
    client_id: &ClientId,
    user_id: &UserId,
) -> Result<Option<Parties>, Error> {
    let cache = &oauth.cache;
    let own = cache.own_position().await?;
    let (client, tenant, user) = tokio::join!(
        cache.client(client_id),
        cache.tenant(tenant_id),
        cache.user(tenant_id, user_id),
    );
    let (Some(client), Some(tenant), Some(user)) = (known(client)?, known(tenant)?, known(user)?) else {
        return Ok(None);
    };
    let (client, registry) = client.split();
    let mut watermark = Watermark { registry, own };
    Ok(Some(Parties {
        client,
        tenant: watermark.registry(tenant)?,
        user: watermark.registry(user)?,
        watermark,
    }))
}

fn known<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
