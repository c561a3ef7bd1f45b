//! The rows of the tables of token-service. The rules are in `model`.

pub mod admin_session;
pub mod client_assertion;
pub mod code;
pub mod family;
pub mod grant;
pub mod grant_receipt;
pub mod grant_rejection;
pub mod grant_usage;
pub mod pushed_request;
pub mod revocation;
pub mod setup;
pub mod signing_key;
pub mod verified_secret;
