//! registry-service owns who exists: integration requests, tenants, tenant users, third-party
//! clients and their secrets, the scope catalogue, operators and workloads.
//!
//! A request goes through `grpc` (one file a service), `convert` (messages to nouns), a noun at the
//! top level (the rules) and [`store`] (one transaction a method). Errors come back through [`error`].

mod command;
pub mod config;
pub mod directory;
pub mod error;
pub mod grpc;
pub mod hashing;
pub mod model;
pub mod permissions;
pub mod server;
pub mod store;

pub use command::run;
