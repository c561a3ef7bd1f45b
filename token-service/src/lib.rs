//! token-service owns what is allowed: a Tenant Admin's consent, the user designated for API
//! transactions, and every token issued under that consent.
//!
//! A request goes through `grpc` (one file a service) or [`gateway`] (the HTTP face), `convert`
//! (messages to nouns), a noun at the top level (the rules), and then [`store`] (one transaction a
//! method) or [`registry`] (who exists). Errors come back through [`error`].

pub mod cache;
mod command;
pub mod config;
pub mod consent;
pub mod error;
pub mod grpc;
pub mod http;
pub mod model;
pub mod oauth;
pub mod permissions;
pub mod registry;
pub mod server;
pub mod store;

pub use command::run;
