//! A tenant as the registry describes it.

use accord::text::id::TenantId;

pub mod operator_action;

/// A tenant, as far as consent and issuance need it.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The id.
    pub tenant_id: TenantId,
    /// The display name.
    pub display_name: String,
    /// Whether its data can be reached.
    pub active: bool,
    /// The issuer of its tokens: the Tenant Authority URL.
    pub issuer: String,
    /// The audience of its tokens.
    pub cloud_api_url: String,
    /// Access tokens and admin sessions of a lower position have ended.
    pub tokens_ended_seq: i64,
}

impl Tenant {
    /// Returns whether a `resource` (RFC 8707 §2) is this tenant's API. None is, too.
    pub fn is_target(&self, resource: &str) -> bool {
        resource.is_empty() || is_same_url(resource, &self.cloud_api_url)
    }
}

/// Returns whether two URLs are equal, byte for byte, except that an empty path is the same as `/` (RFC 3986 §6.2.3).
pub fn is_same_url(one: &str, other: &str) -> bool {
    without_root(one) == without_root(other)
}

/// Returns a URL without the slash of a path that has nothing else.
pub fn without_root(url: &str) -> &str {
    let origin = url
        .strip_suffix('/')
        .filter(|origin| origin.matches('/').count() == 2);
    origin.unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_path_is_the_same_as_a_slash() {
        let same = [
            ("https://api.example", "https://api.example/"),
            ("https://api.example/v1", "https://api.example/v1"),
        ];
        for (one, other) in same {
            assert!(
                is_same_url(one, other) && is_same_url(other, one),
                "{one} {other}"
            );
        }
        for (one, other) in [
            ("https://api.example/v1", "https://api.example/v1/"),
            ("https://api.example", "https://api.example//"),
            ("https://api.example", "https:/"),
            ("https://api.example", "https://API.example"),
            ("https://api.example", "https://api.example?"),
            ("https://api.example", "https://api.example/#"),
        ] {
            assert!(
                !is_same_url(one, other) && !is_same_url(other, one),
                "{one} {other}"
            );
        }
    }
}
