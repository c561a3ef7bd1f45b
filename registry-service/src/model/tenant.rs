//! Tenants: the customers of the cloud product that integrations can be set up for.

use accord::{
    clock::UnixMillis,
    text::id::{MalformedId, TenantId},
};
use strum::{AsRefStr, EnumString};

/// Whether a tenant's data can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum State {
    /// The usual state.
    Active,
    /// Nobody obtains tokens for its data.
    Suspended,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The slug that the operator chose.
    pub tenant_id: TenantId,
    /// The name for people.
    pub display_name: String,
    /// The base URL of the Cloud API, and the audience of the tenant's tokens.
    pub cloud_api_url: String,
    /// Whether the tenant's data can be reached.
    pub state: State,
    /// The feed position of the last suspension; 0 if there was none.
    pub tokens_ended_seq: i64,
    /// When it was added.
    pub created_at: UnixMillis,
    /// When it last changed.
    pub updated_at: UnixMillis,
    /// Grows with every change of a returned field.
    pub etag: i64,
}

/// What an operator gives to add a tenant.
#[derive(Clone, Debug)]
pub struct NewTenant {
    /// The slug.
    pub tenant_id: TenantId,
    /// The name for people.
    pub display_name: String,
    /// The base URL of the Cloud API.
    pub cloud_api_url: String,
}

/// What an operator changes. `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct TenantUpdate {
    /// The version that the update starts from; `None` for any.
    pub etag: Option<i64>,
    /// The name for people.
    pub display_name: Option<String>,
    /// The base URL of the Cloud API.
    pub cloud_api_url: Option<String>,
}

/// Slugs that no tenant can have. The Tenant Authority URL of `claim` would be the page of one-time links, and the
/// other paths are reserved for what is served beside the tenants.
pub const RESERVED_IDS: [&str; 5] = ["assets", "claim", "healthz", "oauth2", "static"];

/// The error for a text that can't be a new tenant's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableId {
    /// It is no slug.
    #[error(transparent)]
    Malformed(#[from] MalformedId),
    /// It is one of [`RESERVED_IDS`].
    #[error("must not be {}: these paths are reserved", RESERVED_IDS.join(", "))]
    Reserved,
}

/// Reads the id that an operator chose for a new tenant.
///
/// # Errors
/// [`UnusableId`].
pub fn new_id(text: &str) -> Result<TenantId, UnusableId> {
    let id = TenantId::parse(text)?;
    if RESERVED_IDS.contains(&id.as_str()) {
        return Err(UnusableId::Reserved);
    }
    Ok(id)
}

/// Returns the Tenant Authority URL, the issuer of the tenant's tokens. `public_base_url` has no trailing slash.
pub fn authority_url(public_base_url: &str, tenant_id: &TenantId) -> String {
    format!("{public_base_url}/{tenant_id}")
}

/// Returns the host of the Tenant Authority URLs.
pub fn authority_host(public_base_url: &str) -> String {
    let url = url::Url::parse(public_base_url).ok();
    url.and_then(|url| url.host_str().map(str::to_owned))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_new_tenant_takes_no_reserved_path() {
        for id in ["claim", "assets", "healthz", "static", "oauth2"] {
            assert_eq!(new_id(id), Err(UnusableId::Reserved), "{id}");
        }
        for id in ["claims", "claim-1", "oauth", "acme"] {
            assert_eq!(new_id(id).unwrap().as_str(), id);
        }
        for id in ["Claim", "claim/", "", ".well-known"] {
            assert!(matches!(new_id(id), Err(UnusableId::Malformed(_))), "{id}");
        }
    }
}
