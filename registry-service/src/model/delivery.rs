//! How credentials are handed over: in the response that creates them, or by a link that opens once.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, DeliveryId, TenantId},
        opaque::{ClientSecret, OpaqueToken},
    },
};
use strum::AsRefStr;

/// How long a link can be opened.
pub const LINK_LIFETIME: Duration = Duration::from_secs(72 * 3600);

/// How credentials are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr)]
#[strum(serialize_all = "snake_case")]
pub enum Method {
    /// In the response.
    Inline,
    /// By a link that opens once.
    Link,
}

/// The credentials of a client, and the URLs that its partner needs.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The Client ID.
    pub client_id: ClientId,
    /// The Client Secret; `None` for a client that authenticates without one.
    pub client_secret: Option<ClientSecret>,
    /// Each tenant of the client, with the base URL of its Cloud API.
    pub endpoints: Vec<(TenantId, String)>,
}

/// A link that opens once.
#[derive(Clone, Debug)]
pub struct Link {
    /// The delivery's id.
    pub delivery_id: DeliveryId,
    /// The token that opens it.
    pub claim_token: OpaqueToken,
    /// When it expires.
    pub expires_at: UnixMillis,
}

/// Credentials, or a link to them.
#[derive(Clone, Debug)]
pub enum Handover {
    /// The credentials.
    Bundle(Bundle),
    /// A link to them.
    Link(Link),
}

/// Returns the URL of the page that opens a link. `public_base_url` has no trailing slash.
pub fn claim_url(public_base_url: &str, claim_token: &OpaqueToken) -> String {
    format!("{public_base_url}/claim/{}", claim_token.expose())
}
