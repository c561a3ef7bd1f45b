//! registry-service owns who exists: integration requests, tenants, tenant users, third-party
//! clients and their secrets, the scope catalogue, operators and workloads.
//!
//! A request goes through `grpc` (one file a service), `convert` (messages to nouns), a noun at the
//! top level (the rules) and [`store`] (one transaction a method). Errors come back through [`error`].

pub mod account_name;
pub mod caller;
pub mod client;
pub mod client_keys;
pub mod client_secret;
mod command;
pub mod config;
pub mod convert;
pub mod delivery;
pub mod directory;
pub mod error;
pub mod grpc;
pub mod hashing;
pub mod integration_request;
pub mod permissions;
pub mod scope;
pub mod server;
pub mod store;
pub mod tenant;
pub mod user;

pub use command::run;
