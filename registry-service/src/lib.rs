//! registry-service owns who exists: integration requests, tenants, tenant users, third-party
//! clients and their secrets, the scope catalogue, operators and workloads.
//!
//! A call passes `grpc` (one file for each service; `grpc::convert` reads its messages) and [`store`] (one transaction
//! for each method), or [`authentication`] where it needs more than one transaction. The rules are in [`model`].

pub mod authentication;
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

pub use command::{audit_access, run};
