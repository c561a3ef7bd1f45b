//! The claims of an access token, and those that a resource server expects.

use serde::{Deserialize, Serialize};

use super::VerifyError;
use crate::token::v1 as pb;

/// The claims of an access token (RFC 9068 §2.2, and Accord's own).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenClaims {
    /// The Tenant Authority URL.
    pub iss: String,
    /// The tenant's Cloud API URL.
    pub aud: String,
    /// The id of the designated user, for client credentials too.
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
    /// The time of issue, in seconds since 1970.
    pub iat: u32,
    /// The time of expiry, in seconds since 1970.
    pub exp: u32,
    /// `<epoch>.<registry seq>.<token seq>`: the feed positions at which the token was checked.
    pub rev: String,
    /// The key that the token is bound to; absent if whoever holds the token may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
}

/// The key that a token is bound to (RFC 7800 §3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confirmation {
    /// The thumbprint of the key of DPoP proofs (RFC 9449 §6.1): 43 base64url characters.
    #[serde(rename = "jkt")]
    Jkt(String),
    /// The SHA-256 of the client's certificate in DER (RFC 8705 §3.1): 43 base64url characters.
    #[serde(rename = "x5t#S256")]
    Certificate(String),
}

impl From<Confirmation> for pb::Confirmation {
    fn from(confirmation: Confirmation) -> Self {
        let mut message = Self::default();
        match confirmation {
            Confirmation::Jkt(thumbprint) => message.jkt = thumbprint,
            Confirmation::Certificate(thumbprint) => message.x5t_s256 = thumbprint,
        }
        message
    }
}

impl AccessTokenClaims {
    /// Checks the target and the expiry of verified claims at `now_secs` (seconds since 1970).
    ///
    /// # Errors
    /// [`VerifyError::WrongTarget`], [`VerifyError::Expired`].
    pub fn check<T: AsRef<str>>(&self, tenant: &Tenant<T>, now_secs: i64) -> Result<(), VerifyError> {
        let target_matches = self.iss == tenant.issuer.as_ref()
            && self.aud == tenant.audience.as_ref()
            && self.tenant_id == tenant.tenant_id.as_ref();
        if !target_matches {
            return Err(VerifyError::WrongTarget);
        }
        if i64::from(self.exp) <= now_secs {
            return Err(VerifyError::Expired);
        }
        Ok(())
    }

    /// Returns the token's type (RFC 9449 §5): `DPoP` if it is bound to the key of proofs, else `Bearer`, to a certificate too
    /// (RFC 8705 §3).
    pub fn token_type(&self) -> &'static str {
        match self.cnf {
            Some(Confirmation::Jkt(_)) => "DPoP",
            Some(Confirmation::Certificate(_)) | None => "Bearer",
        }
    }

    /// Returns whether the token has this scope: one scope-token, compared byte by byte (RFC 6749 §3.3).
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|granted| granted == scope)
    }
}

/// A tenant of a resource server: the claims that its tokens must have exactly, as `T`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant<T = String> {
    /// The tenant's id.
    pub tenant_id: T,
    /// The Tenant Authority URL, exactly as in the `iss` of tokens.
    pub issuer: T,
    /// The tenant's Cloud API URL, exactly as in the `aud` of tokens.
    pub audience: T,
}

#[cfg(test)]
mod tests {
    use super::super::testing::claims;

    #[test]
    fn a_scope_is_compared_as_a_whole() {
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
