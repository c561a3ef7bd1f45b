//! Handing credentials over: in the answer, once, or by a link that opens once.

use std::{fmt, time::Duration};

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, DeliveryId, TenantId},
        opaque::{ClientSecret, OpaqueToken},
    },
};

/// How long a link waits to be opened.
pub const LINK_LIFE: Duration = Duration::from_secs(72 * 3600);

/// How credentials are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// In the answer.
    Inline,
    /// By a link that opens once.
    Link,
}

/// Where a client reaches one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The tenant's Cloud API.
    pub cloud_api_url: String,
}

/// What a partner needs to begin.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The Client ID.
    pub client_id: ClientId,
    /// The Client Secret.
    pub client_secret: ClientSecret,
    /// Where to reach each tenant.
    pub endpoints: Vec<Endpoint>,
}

/// A link that opens once.
#[derive(Clone, Debug)]
pub struct Link {
    /// The delivery's id.
    pub delivery_id: DeliveryId,
    /// What opens it.
    pub claim_token: OpaqueToken,
    /// When it ends unopened.
    pub expires_at: UnixMillis,
}

/// Credentials, or where to fetch them.
#[derive(Clone)]
pub enum Handover {
    /// The credentials.
    Bundle(Bundle),
    /// A link to them.
    Link(Link),
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bundle(_) => "Handover::Bundle(..)",
            Self::Link(_) => "Handover::Link(..)",
        })
    }
}

/// The page that opens a link. `public_base_url` has no trailing slash.
pub fn claim_url(public_base_url: &str, claim_token: &OpaqueToken) -> String {
    format!("{public_base_url}/claim/{}", claim_token.expose())
}
