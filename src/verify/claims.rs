//! What an access token says, and what a resource server expects it to say.

use serde::{Deserialize, Serialize};

use super::VerifyError;

/// The claims of an access token (RFC 9068 §2.2, and Accord's own).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenClaims {
    /// The Tenant Authority URL.
    pub iss: String,
    /// The tenant's Cloud API URL.
    pub aud: String,
    /// The id of the user that the call runs as: the designated user, for client credentials too.
    pub sub: String,
    /// The client.
    pub client_id: String,
    /// The tenant.
    pub tenant_id: String,
    /// The grant.
    pub grant_id: String,
    /// The refresh family; absent with client credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family_id: Option<String>,
    /// The scopes, separated by spaces (RFC 8693 §4.2).
    pub scope: String,
    /// The token's id.
    pub jti: String,
    /// When it was issued, in seconds since 1970.
    pub iat: u32,
    /// When it ends, in seconds since 1970.
    pub exp: u32,
    /// `<epoch>.<registry seq>.<token seq>`: the feed positions that it was checked at.
    pub rev: String,
}

impl AccessTokenClaims {
    /// Checks target and time of genuine claims, at `now_secs` (seconds since 1970).
    ///
    /// # Errors
    /// [`VerifyError::WrongTarget`], [`VerifyError::Expired`].
    pub fn check(&self, expected: &Expected<'_>, now_secs: i64) -> Result<(), VerifyError> {
        let target_matches = self.iss == expected.issuer
            && self.aud == expected.audience
            && self.tenant_id == expected.tenant_id;
        if !target_matches {
            return Err(VerifyError::WrongTarget);
        }
        if i64::from(self.exp) <= now_secs {
            return Err(VerifyError::Expired);
        }
        Ok(())
    }

    /// Whether the token allows this scope: one scope-token, compared byte by byte (RFC 6749 §3.3).
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|granted| granted == scope)
    }
}

/// What a token must name, exactly, to count at a resource server.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The Tenant Authority URL.
    pub issuer: &'a str,
    /// The tenant's Cloud API URL.
    pub audience: &'a str,
    /// The tenant.
    pub tenant_id: &'a str,
}

/// The tenant that a resource server answers for: what its tokens must name, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The tenant.
    pub tenant_id: String,
    /// The Tenant Authority URL, exactly as the tokens' `iss` has it.
    pub issuer: String,
    /// The tenant's Cloud API URL, exactly as the tokens' `aud` has it.
    pub audience: String,
}

impl Tenant {
    /// What a token must name.
    pub fn expected(&self) -> Expected<'_> {
        Expected {
            issuer: &self.issuer,
            audience: &self.audience,
            tenant_id: &self.tenant_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::claims;

    #[test]
    fn a_scope_is_a_whole_word() {
        let claims = super::AccessTokenClaims {
            scope: "contacts.read matters.read".into(),
            ..claims()
        };
        for granted in ["contacts.read", "matters.read"] {
            assert!(claims.has_scope(granted), "{granted}");
        }
        for other in [
            "contacts",
            "read",
            "CONTACTS.READ",
            "contacts.read matters.read",
            "",
        ] {
            assert!(!claims.has_scope(other), "{other}");
        }
    }
}
