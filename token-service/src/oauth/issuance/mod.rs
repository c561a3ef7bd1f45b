//! Issuing tokens: what the three grants share. Each grant's own rules are in a file of its own.
//!
//! The order is always: authenticate the client, read the positions of both feeds, read what the decision needs,
//! decide, sign, commit the event with whatever changes, check again, answer. If that last check finds that something
//! has changed meanwhile, another token is signed; see `recheck`.

use std::sync::Arc;

use accord::{
    clock::UnixMillis,
    position::Position,
    rpc::{auth::Principal, context},
    store::audit::{Actor, ActorKind, Event, ISSUE, Origin},
    text::{
        id::{ClientId, EventId, ScopeName, TenantId, UserId, join_scopes},
        opaque::RefreshToken,
    },
    verify::AccessTokenClaims,
};
use zeroize::Zeroizing;

use crate::{
    cache::{Authenticated, Cached, Entry, KnownClient},
    error::Error,
    model::{
        family::Family,
        grant::{Grant, GrantState},
        tenant::Tenant,
        user::User,
        watermark::{AsOf, Watermark},
    },
    oauth::{
        OAuth,
        client_authentication::{Credentials, authenticate},
        complete,
    },
};

mod authorization_code;
mod client_credentials;
mod recheck;
mod refresh_token;

/// A token request. No `Debug`.
pub struct Request {
    /// The tenant whose data is wanted.
    pub tenant_id: TenantId,
    /// The client's proof.
    pub credentials: Credentials,
    /// The grant.
    pub grant: GrantRequest,
    /// The scopes wanted; empty means all that is granted.
    pub scopes: Vec<ScopeName>,
    /// The tenant's Cloud API URL, or empty.
    pub resource: String,
}

/// The grant of a token request. Texts are as they were sent.
pub enum GrantRequest {
    /// RFC 6749 §4.1.3 with RFC 7636 §4.5.
    AuthorizationCode {
        /// The code.
        code: Zeroizing<String>,
        /// The redirect URI of the authorization request.
        redirect_uri: String,
        /// The PKCE verifier.
        code_verifier: Zeroizing<String>,
    },
    /// RFC 6749 §6.
    RefreshToken(Zeroizing<String>),
    /// RFC 6749 §4.4.
    ClientCredentials,
}

impl GrantRequest {
    /// The `grant_type` of RFC 6749.
    fn name(&self) -> &'static str {
        match self {
            Self::AuthorizationCode { .. } => "authorization_code",
            Self::RefreshToken(_) => "refresh_token",
            Self::ClientCredentials => "client_credentials",
        }
    }

    /// The error for a client that must not learn whether the tenant exists.
    fn refusal(&self) -> Error {
        match self {
            Self::ClientCredentials => Error::ConsentRequired(None),
            Self::AuthorizationCode { .. } | Self::RefreshToken(_) => Error::InvalidGrant,
        }
    }
}

/// The answer to a token request.
pub struct Issued {
    /// The access token.
    pub access_token: Zeroizing<String>,
    /// Its life in seconds.
    pub expires_in: u32,
    /// The refresh token; none with client credentials.
    pub refresh_token: Option<RefreshToken>,
    /// The access token's scopes, separated by spaces (RFC 6749 §3.3).
    pub scope: String,
    /// The grant.
    pub grant_id: String,
}

/// Issues a token.
pub async fn issue(oauth: &OAuth, request: &Request) -> Result<Issued, Error> {
    let mut issuance = Issuance::begin(oauth, request).await?;
    match &request.grant {
        GrantRequest::AuthorizationCode {
            code,
            redirect_uri,
            code_verifier,
        } => {
            let issue = authorization_code::issue(&mut issuance, code, redirect_uri, code_verifier);
            Box::pin(issue).await
        }
        GrantRequest::RefreshToken(token) => Box::pin(refresh_token::issue(&mut issuance, token)).await,
        GrantRequest::ClientCredentials => client_credentials::issue(&mut issuance).await,
    }
}

/// A request whose client is proven and whose tenant is known.
struct Issuance<'a> {
    oauth: &'a OAuth,
    request: &'a Request,
    client: Arc<Cached<KnownClient>>,
    tenant: Arc<Cached<Tenant>>,
    /// The user and grant that were found with these, if they were.
    entry: Option<Arc<Cached<Entry>>>,
    watermark: Watermark,
    /// The registry's position at which the client was proven.
    proven_at: Position,
}

/// A signed access token.
struct SignedToken {
    token: Zeroizing<String>,
    kid: String,
    claims: AccessTokenClaims,
}

impl<'a> Issuance<'a> {
    async fn begin(oauth: &'a OAuth, request: &'a Request) -> Result<Self, Error> {
        let authenticated = authenticate(oauth, &request.tenant_id, &request.credentials).await?;
        Self::for_client(oauth, request, authenticated).await
    }

    /// Reads the tenant, and rejects a client that may not reach it.
    async fn for_client(
        oauth: &'a OAuth,
        request: &'a Request,
        authenticated: Authenticated,
    ) -> Result<Self, Error> {
        let (client, registry) = authenticated.client.split();
        let proven_at = registry.position.clone();
        let (entry, own) = match authenticated.entry {
            Some(found) => (Some(found.entry), found.own),
            None => (None, oauth.cache.own_position().await?),
        };
        let mut watermark = Watermark { registry, own };
        let tenant = match &entry {
            Some(entry) => entry.tenant.clone(),
            None => watermark.registry(find_tenant(oauth, request).await?)?,
        };
        if !client.tenant_ids.contains(&tenant.tenant_id) {
            return Err(request.grant.refusal());
        }
        Ok(Self {
            oauth,
            request,
            client,
            tenant,
            entry,
            watermark,
            proven_at,
        })
    }

    /// Ends a family whose token, or whose code, came a second time.
    async fn end_family(&self, family: Family, reason: &'static str, event: Event) -> Result<(), Error> {
        let (oauth, origin) = (self.oauth.clone(), self.origin());
        complete(async move {
            oauth.store.end_family(&origin, &family, reason, event).await?;
            oauth.cache.learn().await;
            Ok(())
        })
        .await
    }

    fn origin(&self) -> Origin {
        client_origin(&self.client.client_id)
    }

    /// The tenant's user, if there is one.
    async fn user(&mut self, user_id: &UserId) -> Result<Option<Arc<Cached<User>>>, Error> {
        match self.oauth.cache.user(&self.tenant.tenant_id, user_id).await {
            Ok(user) => self.watermark.registry(user).map(Some),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Rejects any other target than the tenant's API (RFC 8707 §2).
    fn check_target(&self) -> Result<(), Error> {
        let resource = &self.request.resource;
        if resource.is_empty() || *resource == self.tenant.cloud_api_url {
            Ok(())
        } else {
            Err(Error::InvalidTarget)
        }
    }

    /// The grant to issue under, if it is active: the family's, or without one the client's current grant.
    async fn active_grant(&mut self, family: Option<&Family>) -> Result<Arc<Cached<Grant>>, Error> {
        let is_meant = |grant: &Grant| family.is_none_or(|family| family.grant_id == grant.grant_id);
        let (grant, user_is_active) = match self.entry.take().filter(|entry| is_meant(&entry.grant)) {
            Some(entry) => (entry.grant.clone(), entry.user.active),
            None => Box::pin(self.read_grant(family)).await?,
        };
        let parties_active = self.client.active && self.tenant.active && user_is_active;
        match grant.state_at(self.oauth.store.now(), parties_active) {
            GrantState::Active => Ok(grant),
            state if family.is_none() || state == GrantState::Suspended => {
                Err(Error::ConsentRequired(Some(state.contract_name())))
            }
            _ => Err(Error::InvalidGrant),
        }
    }

    /// Reads the grant, and whether its designated user is active.
    async fn read_grant(&mut self, family: Option<&Family>) -> Result<(Arc<Cached<Grant>>, bool), Error> {
        let (cache, tenant_id) = (&self.oauth.cache, &self.tenant.tenant_id);
        let (found, none) = match family {
            Some(family) => (
                cache.grant(tenant_id, &family.grant_id).await?,
                Error::InvalidGrant,
            ),
            None => {
                let found = cache.current_grant(&self.client.client_id, tenant_id).await?;
                (found, Error::ConsentRequired(None))
            }
        };
        let grant = self.watermark.own(found)?.ok_or(none)?;
        let user = self.user(&grant.designated_user_id).await?;
        if let Some(user) = &user {
            cache.keep_entry(&self.client, &self.tenant, user, &grant);
        }
        Ok((grant, user.is_some_and(|user| user.active)))
    }

    /// Signs an access token under an active grant, and prepares its event.
    async fn sign(&mut self, grant: &Grant, family: Option<&Family>) -> Result<(SignedToken, Event), Error> {
        let enabled = |name: &ScopeName| self.client.scopes.iter().any(|scope| scope.name == *name);
        let scopes = effective_scopes(&grant.scopes, enabled, &self.request.scopes)?;
        let keys = self.watermark.own(self.oauth.cache.keys().await?)?;
        let store = &self.oauth.store;
        let now = store.now();
        let life_ends = now.plus(self.oauth.lifetimes.access_token);
        let ends = [grant.expires_at, family.map(|family| family.expires_at)]
            .into_iter()
            .flatten()
            .fold(life_ends, UnixMillis::min);
        let claims = AccessTokenClaims {
            iss: self.tenant.issuer.clone(),
            aud: self.tenant.cloud_api_url.clone(),
            sub: grant.designated_user_id.to_string(),
            client_id: self.client.client_id.to_string(),
            tenant_id: self.tenant.tenant_id.to_string(),
            grant_id: grant.grant_id.to_string(),
            family_id: family.map(|family| family.family_id.to_string()),
            scope: join_scopes(scopes),
            jti: EventId::generate(&*store.clock, &*store.random).into(),
            iat: numeric_date(now)?,
            exp: numeric_date(ends)?,
            rev: self.watermark.to_string(),
        };
        if claims.exp <= claims.iat {
            // Less than a second of the grant or family is left: it has as good as ended.
            return Err(match family {
                Some(_) => Error::InvalidGrant,
                None => Error::ConsentRequired(Some(GrantState::Expired.contract_name())),
            });
        }
        let token = keys.signer().sign_access_token(&claims)?;
        let kid = keys.signer().kid().to_owned();
        let event = Event::new(ISSUE)
            .tenant(&self.tenant.tenant_id)
            .client(&self.client.client_id)
            .subject(grant.grant_id.as_str())
            .detail("grant_type", self.request.grant.name())
            .detail("jti", claims.jti.as_str())
            .detail("kid", kid.as_str())
            .detail("scope", claims.scope.as_str())
            .detail("sub", claims.sub.as_str());
        Ok((SignedToken { token, kid, claims }, event))
    }
}

/// The tenant of a request.
async fn find_tenant(oauth: &OAuth, request: &Request) -> Result<AsOf<Arc<Cached<Tenant>>>, Error> {
    match oauth.cache.tenant(&request.tenant_id).await {
        Err(Error::NotFound(_)) => Err(request.grant.refusal()),
        tenant => tenant,
    }
}

/// A client as the actor of an audit event.
pub fn client_origin(client_id: &ClientId) -> Origin {
    Origin {
        actor: Actor {
            kind: ActorKind::Client,
            id: client_id.to_string(),
        },
        request_id: context::request_id(),
    }
}

/// Where an event of a call comes from: the client if one is proven, else the caller on the channel.
pub fn origin(principal: &Principal, client_id: Option<&ClientId>) -> Origin {
    client_id.map_or_else(|| principal.origin(), client_origin)
}

/// The scopes of a token: those granted that the client still has and the catalogue enables; of these the requested
/// ones, if any are requested.
fn effective_scopes<'g>(
    granted: &'g [ScopeName],
    enabled: impl Fn(&ScopeName) -> bool,
    requested: &[ScopeName],
) -> Result<Vec<&'g ScopeName>, Error> {
    let mut effective: Vec<_> = granted.iter().filter(|scope| enabled(scope)).collect();
    if requested.iter().any(|scope| !effective.contains(&scope)) {
        return Err(Error::InvalidScope);
    }
    effective.retain(|scope| requested.is_empty() || requested.contains(scope));
    if effective.is_empty() {
        return Err(Error::InvalidScope);
    }
    Ok(effective)
}

/// Seconds since 1970 as 32 bits hold them, until 2106: JSON gateways print wider numbers as strings.
fn numeric_date(time: UnixMillis) -> Result<u32, Error> {
    u32::try_from(time.as_secs()).map_err(|_| Error::Signing)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        cache::{
            fixture::{SCOPE, TENANT, cache},
            locks_taken,
        },
        model::lifetimes::Lifetimes,
        oauth::{
            client_authentication::Proof,
            introspection::{Requester, introspect},
        },
    };

    fn scopes(names: &str) -> Vec<ScopeName> {
        let names = names.split_whitespace();
        names.map(|name| ScopeName::parse(name).unwrap()).collect()
    }

    #[test]
    fn a_token_gets_what_grant_client_and_catalogue_agree_on() {
        let effective = |granted, enabled, asked| {
            let (granted, enabled) = (scopes(granted), scopes(enabled));
            let effective = effective_scopes(&granted, |scope| enabled.contains(scope), &scopes(asked));
            effective.map(join_scopes)
        };
        assert_eq!(effective("a b", "a b c", "").unwrap(), "a b");
        assert_eq!(effective("a b", "b c", "").unwrap(), "b");
        assert_eq!(effective("a b", "a b", "b").unwrap(), "b");
        for (granted, enabled, asked) in [
            ("a", "a b", "b"),
            ("a b", "a", "b"),
            ("a", "b", ""),
            ("a", "a", "a b"),
        ] {
            assert!(matches!(
                effective(granted, enabled, asked),
                Err(Error::InvalidScope)
            ));
        }
    }

    #[tokio::test]
    async fn issuing_takes_at_most_two_locks() {
        let (cache, registry, _database) = cache().await;
        cache.insert_grant(&registry).await;
        let oauth = OAuth {
            store: cache.store().clone(),
            cache,
            lifetimes: Lifetimes::default(),
        };
        let request = Request {
            tenant_id: TenantId::parse(TENANT).unwrap(),
            credentials: Credentials {
                client_id: registry.client_id.to_string(),
                proof: Proof::Secret(Zeroizing::new(registry.secret().expose().to_owned())),
            },
            grant: GrantRequest::ClientCredentials,
            scopes: Vec::new(),
            resource: String::new(),
        };
        for token in 1..=3 {
            locks_taken();
            let issued = issue(&oauth, &request).await.unwrap();
            let locks = locks_taken();
            assert_eq!(issued.scope, SCOPE);
            // The first one reads and keeps the facts, and its secret counts as used.
            assert!(token == 1 || locks <= 2, "token {token}: {locks} locks");
            let requester = Requester::Client(registry.client_id.clone());
            let active = introspect(&oauth, &requester, &request.tenant_id, &issued.access_token);
            assert!(active.await.unwrap().is_some());
            let locks = locks_taken();
            assert!(token == 1 || locks <= 2, "introspection {token}: {locks} locks");
        }
    }
}
