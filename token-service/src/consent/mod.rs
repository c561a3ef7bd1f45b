//! Consent of a Tenant Admin to a client: setups, decisions, connected integrations, and the sessions and sign-ins of
//! Tenant Admins. A consent is the grant of OAuth 2.0.

use std::sync::Arc;

use crate::{cache::Cache, registry::Registry, store::Store};

pub mod admin_session;
mod call;
pub mod connected;
mod operator_actions;
pub mod receipt;
pub mod setup;
pub mod sign_in_delay;
pub mod signed_request;
mod trace;

pub use call::ConsentCall;
use sign_in_delay::SignInDelays;

/// The parts of token-service that handle consents. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Consents {
    /// token-service's own store.
    pub store: Store,
    /// The registry.
    pub registry: Registry,
    /// The cache, which learns at once what ends here.
    pub cache: Arc<Cache>,
    /// The delays after failed sign-ins.
    pub sign_in_delays: SignInDelays,
}
