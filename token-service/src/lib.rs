//! token-service owns what is allowed: a Tenant Admin's consent, the user designated for API
//! transactions, and every token issued under that consent.
//!
//! A request goes through `grpc` (one file a service) or [`gateway`] (the HTTP face), `convert`
//! (messages to nouns), a noun at the top level (the rules), and then [`store`] (one transaction a
//! method) or [`registry`] (who exists). Errors come back through [`error`].

pub mod admin_session;
mod bounded;
pub mod client_authentication;
pub mod code;
mod command;
pub mod config;
pub mod consent;
pub mod convert;
pub mod directory;
pub mod error;
pub mod family;
mod feed;
pub mod gateway;
pub mod grpc;
pub mod introspection;
pub mod issuance;
mod lease;
pub mod ledger;
pub mod metadata;
pub mod permissions;
pub mod recent;
pub mod registry;
pub mod revision;
pub mod revocation;
pub mod revocation_feed;
pub mod server;
pub mod service;
pub mod setup;
pub mod sign_in_delay;
pub mod signed_introspection;
pub mod signing_key;
pub mod store;

pub use command::run;
