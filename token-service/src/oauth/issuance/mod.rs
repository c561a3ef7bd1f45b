//! Issuing tokens: what the three grants share. Each grant's own rules are in a file of its own.
//!
//! The order is always: authenticate the client, read where the feeds are, read what the decision needs,
//! decide, sign, commit the event with whatever changes, look once more, answer. If that last look shows
//! that something changed meanwhile, the token is made again; see `answer`.

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
    cache::lease::Lease,
    error::Error,
    model::{
        client::Client,
        family::Family,
        grant::{Grant, GrantState as State},
        tenant::Tenant,
        watermark::Revision,
    },
    oauth::OAuth,
    oauth::client_authentication::{Credentials, authenticate},
};

mod authorization_code;
mod client_credentials;
mod recheck;
mod refresh_token;

/// What a client asks for. No `Debug`.
pub struct Request {
    /// The tenant whose data is wanted.
    pub tenant_id: TenantId,
    /// The client's proof.
    pub credentials: Credentials,
    /// What the token is asked for.
    pub grant: GrantRequest,
    /// The scopes wanted; empty means all that is granted.
    pub scopes: Vec<ScopeName>,
    /// The tenant's Cloud API URL, or empty.
    pub resource: String,
}

/// What the token is asked for. Texts are as they were sent.
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

    /// What a client learns that may not know whether the tenant exists.
    fn refusal(&self) -> Error {
        match self {
            Self::ClientCredentials => Error::ConsentRequired(None),
            Self::AuthorizationCode { .. } | Self::RefreshToken(_) => Error::InvalidGrant,
        }
    }
}

/// What a client gets.
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
///
/// # Errors
/// [`Error::InvalidClient`], [`Error::InvalidGrant`], [`Error::InvalidScope`], [`Error::InvalidTarget`],
/// [`Error::ConsentRequired`], [`Error::RegistryUnavailable`], [`Error::Store`].
pub async fn issue(service: &OAuth, request: &Request) -> Result<Issued, Error> {
    let mut asked = Asked::begin(service, request).await?;
    match &request.grant {
        GrantRequest::AuthorizationCode {
            code,
            redirect_uri,
            code_verifier,
        } => {
            let issue = authorization_code::issue(&mut asked, code, redirect_uri, code_verifier);
            Box::pin(issue).await
        }
        GrantRequest::RefreshToken(token) => Box::pin(refresh_token::issue(&mut asked, token)).await,
        GrantRequest::ClientCredentials => client_credentials::issue(&mut asked).await,
    }
}

/// A request whose client is proven and whose tenant is known.
struct Asked<'a> {
    service: &'a OAuth,
    request: &'a Request,
    client: Arc<Client>,
    tenant: Arc<Tenant>,
    revision: Revision,
    /// On the oldest answers that count.
    lease: Lease,
    /// The registry's position at which the client was proven.
    proven_at: Position,
}

/// A signed access token and what is told of it.
struct Made {
    token: Zeroizing<String>,
    kid: String,
    claims: AccessTokenClaims,
}

impl<'a> Asked<'a> {
    /// Proves the client, and reads the tenant.
    async fn begin(service: &'a OAuth, request: &'a Request) -> Result<Self, Error> {
        let mut lease = Lease::begin(service.directory.life());
        let own = service.ledger.position().await?;
        lease.on_own(&own);
        let client = authenticate(service, &request.tenant_id, &request.credentials).await?;
        lease.on_registry(&client);
        let proven_at = client.position;
        let mut revision = Revision::new(proven_at.clone(), own.position);
        let tenant = match service.directory.tenant(&request.tenant_id).await {
            Ok(tenant) => {
                lease.on_registry(&tenant);
                revision.with(tenant)?
            }
            Err(Error::NotFound(_)) => return Err(request.grant.refusal()),
            Err(error) => return Err(error),
        };
        let asked = Self {
            service,
            request,
            client: client.value,
            tenant,
            revision,
            lease,
            proven_at,
        };
        asked.require_tenant()?;
        Ok(asked)
    }

    /// Refuses a client that may not ask the tenant.
    fn require_tenant(&self) -> Result<(), Error> {
        if self.client.tenant_ids.contains(&self.tenant.tenant_id) {
            Ok(())
        } else {
            Err(self.request.grant.refusal())
        }
    }

    fn origin(&self) -> Origin {
        client_origin(&self.client.client_id)
    }

    /// The grant's state, with what the registry says of its parties.
    async fn state_of(&mut self, grant: &Grant) -> Result<State, Error> {
        let user_is_active = self.user_is_active(&grant.designated_user_id).await?;
        let parties_active = self.client.active && self.tenant.active && user_is_active;
        Ok(grant.state_at(self.service.store.now(), parties_active))
    }

    async fn user_is_active(&mut self, user_id: &UserId) -> Result<bool, Error> {
        let directory = &self.service.directory;
        match directory.user(&self.tenant.tenant_id, user_id).await {
            Ok(user) => {
                self.lease.on_registry(&user);
                Ok(self.revision.with(user)?.active)
            }
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Refuses any other target than the tenant's API (RFC 8707 §2).
    fn check_target(&self) -> Result<(), Error> {
        let resource = &self.request.resource;
        if resource.is_empty() || *resource == self.tenant.cloud_api_url {
            Ok(())
        } else {
            Err(Error::InvalidTarget)
        }
    }

    /// The scopes that the token gets.
    fn effective_scopes<'g>(&self, grant: &'g Grant) -> Result<Vec<&'g ScopeName>, Error> {
        let enabled = |name: &ScopeName| self.client.scopes.iter().any(|scope| scope.name == *name);
        effective_scopes(&grant.scopes, enabled, &self.request.scopes)
    }

    /// The grant to issue under, if it is active: the family's, or without one the client's current
    /// grant.
    async fn active_grant(&mut self, family: Option<&Family>) -> Result<Arc<Grant>, Error> {
        let (ledger, tenant_id) = (&self.service.ledger, &self.tenant.tenant_id);
        let (found, none) = match family {
            Some(family) => {
                let found = ledger.grant(tenant_id, &family.grant_id).await?;
                (found, Error::InvalidGrant)
            }
            None => {
                let found = ledger.current_grant(tenant_id, &self.client.client_id).await?;
                (found, Error::ConsentRequired(None))
            }
        };
        self.lease.on_own(&found);
        let grant = self.revision.with_own(found)?.ok_or(none)?;
        match self.state_of(&grant).await? {
            State::Active => Ok(grant),
            state if family.is_none() || state == State::Suspended => {
                Err(Error::ConsentRequired(Some(state.contract_name())))
            }
            _ => Err(Error::InvalidGrant),
        }
    }

    /// Signs an access token under a grant that was found to be active, and prepares its event.
    async fn make(&mut self, grant: &Grant, family: Option<&Family>) -> Result<(Made, Event), Error> {
        let scopes = self.effective_scopes(grant)?;
        let keys = self.service.ledger.keys().await?;
        self.lease.on_own(&keys);
        let keys = self.revision.with_own(keys)?;
        let now = self.service.store.now();
        let life_ends = now.plus(self.service.lifetimes.access_token);
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
            jti: EventId::generate(&*self.service.store.clock, &*self.service.store.random).into(),
            iat: numeric_date(now)?,
            exp: numeric_date(ends)?,
            rev: self.revision.to_string(),
        };
        if claims.exp <= claims.iat {
            // Less than a second of the grant or family is left: it has as good as ended.
            return Err(match family {
                Some(_) => Error::InvalidGrant,
                None => Error::ConsentRequired(Some(State::Expired.contract_name())),
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
        Ok((Made { token, kid, claims }, event))
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

/// The scopes of a token: what is granted, as far as the client may still have it and the catalogue
/// enables it; of these the ones asked for, if any are.
fn effective_scopes<'g>(
    granted: &'g [ScopeName],
    enabled: impl Fn(&ScopeName) -> bool,
    asked: &[ScopeName],
) -> Result<Vec<&'g ScopeName>, Error> {
    let mut effective: Vec<_> = granted.iter().filter(|scope| enabled(scope)).collect();
    if asked.iter().any(|scope| !effective.contains(&scope)) {
        return Err(Error::InvalidScope);
    }
    effective.retain(|scope| asked.is_empty() || asked.contains(scope));
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

    fn scopes(names: &str) -> Vec<ScopeName> {
        accord::text::id::parse_scope_list(names).unwrap()
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
}
