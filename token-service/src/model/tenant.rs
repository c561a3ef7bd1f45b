//! A tenant as the registry describes it.

use accord::text::id::TenantId;

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
