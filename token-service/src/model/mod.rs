//! What token-service decides about: types, states, and rules as plain functions.

pub mod admin_session;
pub mod change;
pub mod client;
pub mod code;
pub mod dpop_nonce;
pub mod family;
pub mod grant;
pub mod lifetimes;
pub mod purpose;
pub mod revocation;
pub mod setup;
pub mod signing_key;
pub mod tenant;
pub mod user;
pub mod watermark;
