//! The OAuth 2.0 operations: issuance, introspection, revocation, and the public documents.

pub mod client_authentication;
pub mod introspection;
pub mod issuance;
pub mod metadata;
pub mod revocation;
pub mod revocation_feed;
pub mod signed_introspection;
