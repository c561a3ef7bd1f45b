//! What an access token says: its claims, its key and its scopes.

use accord::{
    clock::UnixMillis,
    store::audit::{Event, IssuedToken, next_id},
    text::id::{ScopeName, join_scopes},
    verify::{AccessTokenClaims, Confirmation},
};
use zeroize::Zeroizing;

use super::Issuance;
use crate::{
    error::{Error, Result},
    model::{
        client::{requested_scopes, require_known},
        family::Family,
        grant::{Grant, GrantState},
    },
};

/// A signed access token.
pub(super) struct SignedToken {
    pub(super) token: Zeroizing<String>,
    pub(super) kid: String,
    pub(super) claims: AccessTokenClaims,
}

impl Issuance<'_> {
    /// Returns the key that the token is bound to: that of the client's proof (RFC 9449 §6.1), else its certificate
    /// (RFC 8705 §3).
    fn confirmation(&self) -> Option<Confirmation> {
        if let Some(key) = &self.bound_key {
            return Some(key.confirmation());
        }
        let certificate = self.request.credentials.certificate.as_ref()?;
        Some(Confirmation::Certificate(certificate.thumbprint()))
    }

    /// Signs an access token, and prepares its event. The grant must be active, or the caller activates it in the
    /// transaction that commits the event.
    pub(super) async fn sign(
        &mut self,
        grant: &Grant,
        family: Option<&Family>,
    ) -> Result<(SignedToken, Event)> {
        let known = &self.client.scopes;
        let enabled = |name: &ScopeName| {
            known
                .iter()
                .any(|scope| scope.name == *name && grant.allows(scope))
        };
        let scopes = effective_scopes(&grant.scopes, enabled, &self.request.scopes)?;
        let keys = self.watermark.include_own(self.oauth.cache.keys().await?)?;
        let store = &self.oauth.store;
        let now = store.now();
        let bounds = [grant.expires_at, family.map(|family| family.expires_at)];
        let life_ends = now.plus(self.oauth.lifetimes.access_token);
        let ends = bounds.into_iter().flatten().fold(life_ends, UnixMillis::min);
        let jti = next_id(&*store.clock, &*store.random);
        let claims = AccessTokenClaims {
            iss: self.tenant.issuer.clone(),
            aud: self.tenant.cloud_api_url.clone(),
            sub: grant.designated_user_id.to_string(),
            client_id: self.client.client_id.to_string(),
            tenant_id: self.tenant.tenant_id.to_string(),
            grant_id: grant.grant_id.to_string(),
            family_id: family.map(|family| family.family_id.to_string()),
            scope: join_scopes(scopes),
            jti: jti.to_string(),
            iat: numeric_date(now)?,
            exp: numeric_date(ends)?,
            rev: self.watermark.to_string(),
            cnf: self.confirmation(),
        };
        if claims.exp <= claims.iat {
            // Less than a second of the grant or family is left.
            return Err(match family {
                Some(_) => Error::InvalidGrant,
                None => Error::ConsentRequired(Some(GrantState::Expired.contract_name())),
            });
        }
        let signer = &keys.signer;
        self.client
            .require_token(claims.cnf.as_ref(), signer.algorithm, now)?;
        let token = signer.sign_access_token(&claims)?;
        let kid = signer.kid.clone();
        let issued = IssuedToken {
            jti,
            grant_id: grant.grant_id.clone(),
            user_id: grant.designated_user_id.clone(),
            grant_type: self.request.grant.kind(),
            key_thumbprint: signer.thumbprint,
            scope: claims.scope.clone(),
        };
        let mut event = Event::issued(issued)
            .tenant(&self.tenant.tenant_id)
            .client(&self.client.client_id);
        event = match &claims.cnf {
            Some(Confirmation::Jkt(thumbprint)) => event.detail("jkt", thumbprint.as_str()),
            Some(Confirmation::Certificate(thumbprint)) => event.detail("x5t#S256", thumbprint.as_str()),
            None => event,
        };
        Ok((SignedToken { token, kid, claims }, event))
    }
}

/// Returns the scopes of a token: the granted ones that are enabled for the client now, limited to the requested ones
/// if there are any. Fails if a requested scope is missing, or if none is left.
fn effective_scopes<'g>(
    granted: &'g [ScopeName],
    enabled: impl Fn(&ScopeName) -> bool,
    requested: &[ScopeName],
) -> Result<Vec<&'g ScopeName>> {
    let requested = requested_scopes(requested)?;
    let mut effective: Vec<_> = granted.iter().filter(|scope| enabled(scope)).collect();
    require_known(
        &requested,
        |scope| effective.contains(&scope),
        Error::InvalidScope,
    )?;
    effective.retain(|scope| requested.is_empty() || requested.contains(scope));
    if effective.is_empty() {
        return Err(Error::InvalidScope);
    }
    Ok(effective)
}

/// Returns the seconds since 1970, in 32 bits because JSON gateways print wider numbers as strings. They last until
/// 2106.
fn numeric_date(time: UnixMillis) -> Result<u32> {
    u32::try_from(time.as_secs()).map_err(|_| Error::Signing)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn scopes(names: &str) -> Vec<ScopeName> {
        let names = names.split_whitespace();
        names.map(|name| ScopeName::parse(name).unwrap()).collect()
    }

    #[test]
    fn a_token_gets_the_scopes_of_grant_client_and_catalogue() {
        let effective = |granted, enabled, requested| {
            let (granted, enabled) = (scopes(granted), scopes(enabled));
            let effective = effective_scopes(&granted, |scope| enabled.contains(scope), &scopes(requested));
            effective.map(join_scopes)
        };
        assert_eq!(effective("a b", "a b c", "").unwrap(), "a b");
        assert_eq!(effective("a b", "b c", "").unwrap(), "b");
        assert_eq!(effective("a b", "a b", "b").unwrap(), "b");
        for (granted, enabled, requested) in [
            ("a", "a b", "b"),
            ("a b", "a", "b"),
            ("a", "b", ""),
            ("a", "a", "a b"),
        ] {
            assert!(matches!(
                effective(granted, enabled, requested),
                Err(Error::InvalidScope)
            ));
        }
        // A name may hold a comma. Where it is unknown, somebody has separated names by it.
        assert_eq!(effective("a,b", "a,b", "a,b").unwrap(), "a,b");
        let error = effective("a b", "a b", "a,b").unwrap_err();
        assert!(error.to_string().contains("not by commas"), "{error}");
        let error = effective("a,b", "a,b", "a,b x").unwrap_err();
        assert!(matches!(error, Error::InvalidScope), "{error}");
    }
}
