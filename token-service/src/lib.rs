//! token-service owns what is allowed: a Tenant Admin's consent, the user designated for API
//! transactions, and every token issued under that consent.
//!
//! A call enters through [`grpc`] or [`http`], which convert it. [`oauth`] (tokens) and [`consent`] (setups and
//! grants) decide, by the types and rules of [`model`] and by facts from [`cache`], [`store`] (one transaction a
//! method) and [`registry`] (who exists). Errors return through [`error`].

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

pub use command::{audit_access, run};
