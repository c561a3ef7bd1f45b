//! Issues tokens: the steps that the three grants share. Each grant has a file for its own rules.
//!
//! The order is always: authenticate the client, check the key that it proves to hold and its network, read the positions of
//! both feeds, read what the decision needs, decide, sign, commit the audit event with the changes, check again, respond. If
//! the last check finds that something has changed meanwhile, it signs another token; see `recheck`.

use std::sync::Arc;

use accord::{
    position::Position,
    rpc::context,
    store::audit::{Action, Actor, ActorKind, Event, GrantType, Origin},
    text::{
        id::{ClientId, GrantId, ScopeName, TenantId, UserId},
        opaque::RefreshToken,
        page::PageRequest,
    },
};
use zeroize::Zeroizing;

use crate::{
    cache::{Authenticated, Cached, Entry, KnownClient},
    error::{Error, Result},
    model::{
        client::Client,
        family::Family,
        grant::{Grant, GrantFilter, GrantState, usage::Reuse},
        tenant::Tenant,
        user::User,
        watermark::{AsOf, Watermark},
    },
    oauth::{
        OAuth,
        client_authentication::{Credentials, authenticate, spend},
        dpop::{self, BoundKey},
        metadata::endpoint_urls,
    },
    store::Assertion,
};

mod access_token;
mod authorization_code;
mod client_credentials;
mod network;
mod outcome;
mod recheck;
mod refresh_token;

use access_token::SignedToken;
use network::check_network;
pub use outcome::{begin_counts, count_rejected};

/// A token request. No `Debug`: it must not show the credentials.
pub struct Request {
    /// The tenant whose data the client requests.
    pub tenant_id: TenantId,
    /// The client's credentials.
    pub credentials: Credentials,
    /// The grant.
    pub grant: GrantRequest,
    /// The scopes requested; empty means all that is granted.
    pub scopes: Vec<ScopeName>,
    /// The tenant's Cloud API URL, or empty.
    pub resource: String,
    /// The DPoP proof (RFC 9449 §4), as it was sent; `None` without one.
    pub dpop_proof: Option<String>,
}

/// The grant of a token request. Its strings are as the client sent them, not validated.
pub enum GrantRequest {
    /// RFC 6749 §4.1.3 with RFC 7636 §4.5.
    AuthorizationCode(CodeRequest),
    /// RFC 6749 §6.
    RefreshToken(Zeroizing<String>),
    /// RFC 6749 §4.4.
    ClientCredentials,
}

/// An authorization code with its redirect URI and PKCE verifier. No `Debug`: it must not show them.
pub struct CodeRequest {
    /// The code.
    pub code: Zeroizing<String>,
    /// The redirect URI of the authorization request.
    pub redirect_uri: String,
    /// The PKCE verifier.
    pub code_verifier: Zeroizing<String>,
}

impl GrantRequest {
    /// The `grant_type` of RFC 6749.
    fn kind(&self) -> GrantType {
        match self {
            Self::AuthorizationCode(_) => GrantType::AuthorizationCode,
            Self::RefreshToken(_) => GrantType::RefreshToken,
            Self::ClientCredentials => GrantType::ClientCredentials,
        }
    }

    /// Returns the error without a usable grant. It also answers a client that must not learn whether the tenant exists.
    fn no_grant_error(&self) -> Error {
        match self {
            Self::ClientCredentials => Error::ConsentRequired(None),
            Self::AuthorizationCode(_) | Self::RefreshToken(_) => Error::InvalidGrant,
        }
    }
}

/// The response to a token request.
pub struct Issued {
    /// The access token.
    pub access_token: Zeroizing<String>,
    /// `DPoP` or `Bearer` (RFC 9449 §5).
    pub token_type: &'static str,
    /// Its lifetime in seconds.
    pub expires_in: u32,
    /// The refresh token; `None` for client credentials.
    pub refresh_token: Option<RefreshToken>,
    /// The access token's scopes, separated by spaces (RFC 6749 §3.3).
    pub scope: String,
    /// The grant.
    pub grant_id: String,
    /// The nonce for the client's next DPoP proof, if it needs one.
    pub dpop_nonce: Option<String>,
}

/// Issues a token, and counts the outcome.
pub async fn issue(oauth: &OAuth, request: &Request) -> Result<Issued> {
    let outcome = try_issue(oauth, request).await;
    outcome::count(
        request.grant.kind().into(),
        outcome.as_ref().err().map(Error::reason),
    );
    outcome
}

async fn try_issue(oauth: &OAuth, request: &Request) -> Result<Issued> {
    let authenticated = authenticate(oauth, &request.tenant_id, &request.credentials).await?;
    let mut issuance = Issuance::for_client(oauth, request, authenticated).await?;
    let issued = issuance.issue().await;
    issued.inspect_err(|error| {
        issuance.count_rejection(error);
        issuance.note_rejection_event(error);
    })
}

/// A token request whose client is authenticated and whose tenant is known.
struct Issuance<'a> {
    oauth: &'a OAuth,
    request: &'a Request,
    client: Arc<Cached<KnownClient>>,
    tenant: Arc<Cached<Tenant>>,
    /// The cache entry of this client and tenant, with its user and grant; `None` if memory did not hold one.
    entry: Option<Arc<Cached<Entry>>>,
    /// The grant that the request is about, once it is known to be one of the client's. For the count of rejections.
    grant_id: Option<GrantId>,
    watermark: Watermark,
    /// The client's assertion, until it is spent.
    assertion: Option<Assertion>,
    /// The key that the client has proven to hold, and that the token is bound to.
    bound_key: Option<BoundKey>,
    /// The registry's position when the client was authenticated.
    authenticated_at: Position,
}

impl<'a> Issuance<'a> {
    /// Reads the tenant, and rejects a client that is not registered at it.
    async fn for_client(
        oauth: &'a OAuth,
        request: &'a Request,
        authenticated: Authenticated,
    ) -> Result<Self> {
        let (client, registry) = authenticated.client.split();
        let authenticated_at = registry.position.clone();
        let (entry, own) = match authenticated.entry {
            Some(found) => (Some(found.entry), found.own),
            None => (None, oauth.cache.own_position().await?),
        };
        let mut watermark = Watermark { registry, own };
        let tenant = match &entry {
            Some(entry) => entry.tenant.clone(),
            None => watermark.include_registry(find_tenant(oauth, request).await?)?,
        };
        if !client.tenants.contains_key(&tenant.tenant_id) {
            return Err(request.grant.no_grant_error());
        }
        let is_current = matches!(request.grant, GrantRequest::ClientCredentials);
        let current = entry.as_ref().filter(|_| is_current);
        Ok(Self {
            oauth,
            request,
            client,
            tenant,
            grant_id: current.map(|entry| entry.grant.grant_id.clone()),
            entry,
            watermark,
            assertion: authenticated.assertion,
            bound_key: None,
            authenticated_at,
        })
    }

    /// Checks what the client shows to prove that it holds a key, and where it calls from. Then issues by the rules of the grant.
    async fn issue(&mut self) -> Result<Issued> {
        let proof = self.request.dpop_proof.as_deref();
        if proof.is_some() || !self.client.may_use_dpop_key(None) {
            let urls = endpoint_urls(self.oauth, &self.tenant, "token");
            let tenant_id = &self.tenant.tenant_id;
            self.bound_key = Box::pin(dpop::check(self.oauth, &self.client, tenant_id, proof, &urls)).await?;
        }
        self.check_client_network().await?;
        // Before anything is spent: a call that fails here can be repeated.
        let dpop_nonce = match &self.bound_key {
            Some(key) => dpop::next_nonce(self.oauth, key).await?,
            None => None,
        };
        let issued = match &self.request.grant {
            GrantRequest::AuthorizationCode(code) => Box::pin(authorization_code::issue(self, code)).await,
            GrantRequest::RefreshToken(token) => Box::pin(refresh_token::issue(self, token)).await,
            GrantRequest::ClientCredentials => client_credentials::issue(self).await,
        }?;
        Ok(Issued { dpop_nonce, ..issued })
    }

    /// Spends the client's proof and its assertion. Call it after all checks that may reject the call, so that a rejected
    /// call can be repeated, and before anything changes or counts as a replay.
    async fn spend_single_use(&mut self) -> Result<()> {
        if let Some(key) = &mut self.bound_key {
            key.spend(self.oauth, &self.client.client_id)?;
        }
        spend(self.oauth, self.assertion.take()).await
    }

    /// Ends a family after a replay of its code or of one of its tokens, and tells operators.
    async fn end_family(&self, family: Family, reuse: Reuse, event: Event) -> Result<()> {
        let (oauth, origin) = (self.oauth.clone(), self.origin());
        context::run_to_completion(async move {
            let ending = oauth.store.end_family(&origin, &family, reuse.into(), event);
            // Of two replays at a time one ends it.
            if ending.await? {
                outcome::count_reuse(reuse, &family);
            }
            oauth.cache.catch_up_or_log().await;
            Ok(())
        })
        .await
    }

    fn origin(&self) -> Origin {
        client_origin(&self.client.client_id)
    }

    /// Begins an event about a grant.
    fn event(&self, action: Action, grant_id: &GrantId) -> Event {
        Event::new(action)
            .tenant(&self.tenant.tenant_id)
            .client(&self.client.client_id)
            .subject(grant_id.as_str())
    }

    /// Reads the tenant's user, if there is one.
    async fn user(&mut self, user_id: &UserId) -> Result<Option<Arc<Cached<User>>>> {
        let user = self.oauth.cache.find_user(&self.tenant.tenant_id, user_id);
        user.await?
            .map(|user| self.watermark.include_registry(user))
            .transpose()
    }

    /// Rejects any other target than the tenant's API (RFC 8707 §2).
    fn check_target(&self) -> Result<()> {
        let is_target = self.tenant.is_target(&self.request.resource);
        is_target.then_some(()).ok_or(Error::InvalidTarget)
    }

    /// Returns the active grant to issue under: the family's, or the client's current grant without a family. Fails if
    /// the grant yields no tokens, such as a PENDING one.
    async fn active_grant(&mut self, family: Option<&Family>) -> Result<Arc<Cached<Grant>>> {
        let is_for_family = |grant: &Grant| family.is_none_or(|family| family.grant_id == grant.grant_id);
        let (grant, user_is_active) = match self.entry.take().filter(|entry| is_for_family(&entry.grant)) {
            Some(entry) => (entry.grant.clone(), entry.user.active),
            None => Box::pin(self.read_grant(family)).await?,
        };
        let others_active = self.tenant.active && user_is_active;
        let state = grant.state_with(self.oauth.store.now(), Some(&**self.client), others_active);
        if state.yields_tokens() {
            check_network(&grant.allowed_networks)?;
            return Ok(grant);
        }
        Err(match family {
            Some(_) if state != GrantState::Suspended => Error::InvalidGrant,
            _ => Error::ConsentRequired(Some(state.contract_name())),
        })
    }

    /// Reads the grant, and whether its designated user is active.
    async fn read_grant(&mut self, family: Option<&Family>) -> Result<(Arc<Cached<Grant>>, bool)> {
        let (cache, tenant_id) = (&self.oauth.cache, &self.tenant.tenant_id);
        let found = match family {
            Some(family) => cache.grant(tenant_id, &family.grant_id).await?,
            None => cache.current_grant(&self.client.client_id, tenant_id).await?,
        };
        let Some(grant) = self.watermark.include_own(found)? else {
            return Err(no_grant(self.oauth, self.request, &self.client).await);
        };
        self.grant_id = Some(grant.grant_id.clone());
        let user = self.user(&grant.designated_user_id).await?;
        if let Some(user) = &user {
            cache.cache_entry(&self.client, &self.tenant, user, &grant);
        }
        Ok((grant, user.is_some_and(|user| user.active)))
    }
}

/// Reads the tenant of a request.
async fn find_tenant(oauth: &OAuth, request: &Request) -> Result<AsOf<Arc<Cached<Tenant>>>> {
    let tenant = oauth.cache.find_tenant(&request.tenant_id).await?;
    tenant.ok_or_else(|| request.grant.no_grant_error())
}

/// Returns the error without a usable grant, with the state of the client's newest grant if it has one at the tenant.
async fn no_grant(oauth: &OAuth, request: &Request, client: &Client) -> Error {
    let error = request.grant.no_grant_error();
    if !matches!(error, Error::ConsentRequired(None)) {
        return error;
    }
    let filter = GrantFilter {
        client_id: Some(client.client_id.clone()),
        state: None,
    };
    let page = PageRequest::first(1);
    match oauth.store.list_grants(&request.tenant_id, &filter, &page).await {
        Ok(grants) => {
            let newest = grants.into_parts().0.into_iter().next();
            let state = newest.map(|grant| grant.state_with(oauth.store.now(), Some(client), true));
            // Another replica may have made it active meanwhile.
            let state = state.filter(|state| !state.yields_tokens());
            Error::ConsentRequired(state.map(GrantState::contract_name))
        }
        // The client has no grant all the same.
        Err(_) => error,
    }
}

/// Returns the origin of audit events that a client causes.
pub fn client_origin(client_id: &ClientId) -> Origin {
    Origin {
        certificate: None,
        session: None,
        address: context::address(),
        actor: Actor {
            kind: ActorKind::Client,
            id: client_id.to_string(),
        },
        request_id: context::request_id(),
    }
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
        model::client::SecretLocation,
        oauth::{
            client_authentication::ClientCredential,
            introspection::{Requester, introspect},
        },
    };

    #[tokio::test]
    async fn issuing_takes_at_most_two_locks() {
        let (cache, registry, _database) = cache().await;
        cache.insert_grant(&registry).await;
        let oauth = OAuth::for_test(cache.clone());
        let request = Request {
            tenant_id: TenantId::parse(TENANT).unwrap(),
            credentials: Credentials::new(
                registry.client_id.to_string(),
                Some(ClientCredential::Secret(
                    SecretLocation::Field,
                    Zeroizing::new(registry.secret().expose().to_owned()),
                )),
                None,
            ),
            grant: GrantRequest::ClientCredentials,
            scopes: Vec::new(),
            resource: String::new(),
            dpop_proof: None,
        };
        for token in 1..=3 {
            locks_taken();
            let issued = issue(&oauth, &request).await.unwrap();
            let locks = locks_taken();
            assert_eq!(issued.scope, SCOPE);
            // The first call reads and keeps the facts and records the use of the secret, so it takes more locks.
            assert!(token == 1 || locks <= 2, "token {token}: {locks} locks");
            let requester = Requester::Client(registry.client_id.clone());
            let introspected = introspect(&oauth, &requester, &request.tenant_id, &issued.access_token, None);
            assert_eq!(introspected.await.unwrap().active, Some(true));
            let locks = locks_taken();
            assert!(token == 1 || locks <= 2, "introspection {token}: {locks} locks");
        }
    }
}
