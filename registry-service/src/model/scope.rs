//! The catalogue of data scopes that integrations can ask for.

use accord::{clock::UnixMillis, text::id::ScopeName};

/// Names of OpenID Connect that libraries add to a request. The authority treats them apart, so the catalogue can't hold
/// them.
const RESERVED: [&str; 2] = ["openid", "offline_access"];

/// Returns the name of a new scope, or the rule that it breaks.
pub fn new_name(text: &str) -> Result<ScopeName, String> {
    if RESERVED.contains(&text) {
        return Err("must not be a scope of OpenID Connect".to_owned());
    }
    ScopeName::parse(text).map_err(|error| error.to_string())
}

/// A kind of access to a tenant's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The name.
    pub name: ScopeName,
    /// What it allows, in words for a Tenant Admin.
    pub description: String,
    /// Whether clients can ask for it, and tokens can hold it.
    pub enabled: bool,
    /// When it was added.
    pub created_at: UnixMillis,
    /// When it last changed.
    pub updated_at: UnixMillis,
    /// Grows with every change of a returned field.
    pub etag: i64,
}

/// What an operator gives to add a scope.
#[derive(Clone, Debug)]
pub struct NewScope {
    /// The name.
    pub name: ScopeName,
    /// What it allows.
    pub description: String,
}

/// What an operator changes. `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct ScopeUpdate {
    /// The version that the update starts from; `None` for any.
    pub etag: Option<i64>,
    /// What it allows.
    pub description: Option<String>,
    /// Whether clients can ask for it, and tokens can hold it.
    pub enabled: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_of_openid_connect_stay_out_of_the_catalogue() {
        for reserved in ["openid", "offline_access"] {
            assert!(new_name(reserved).is_err(), "{reserved}");
        }
        for name in ["openid.read", "Offline_Access", "profile"] {
            assert_eq!(new_name(name).map(String::from), Ok(name.to_owned()));
        }
    }
}
