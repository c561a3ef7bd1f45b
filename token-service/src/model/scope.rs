//! The scopes of OpenID Connect that many libraries add to those that a partner requests.

use accord::text::id::ScopeName;

use crate::error::{Error, Result};

/// Returns the requested scopes without `offline_access`, because refresh tokens come anyway. Rejects `openid`, because
/// its client would wait for an ID token. The catalogue can hold neither.
pub fn requested_scopes(scopes: &[ScopeName]) -> Result<Vec<ScopeName>> {
    if scopes.iter().any(|scope| scope.as_str() == "openid") {
        return Err(Error::OpenIdScope);
    }
    let scopes = scopes.iter().filter(|scope| scope.as_str() != "offline_access");
    Ok(scopes.cloned().collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn requested(names: &[&str]) -> Result<Vec<ScopeName>> {
        let scopes: Vec<_> = names.iter().map(|name| ScopeName::parse(name).unwrap()).collect();
        requested_scopes(&scopes)
    }

    #[test]
    fn offline_access_is_ignored_and_openid_names_its_reason() {
        assert_eq!(requested(&["offline_access"]).unwrap(), []);
        let left = requested(&["a", "offline_access", "Openid"]).unwrap();
        assert_eq!(
            left.iter().map(ScopeName::as_str).collect::<Vec<_>>(),
            ["a", "Openid"]
        );
        let error = requested(&["a", "openid"]).unwrap_err();
        assert!(error.to_string().contains("not OpenID Connect"), "{error}");
    }
}
