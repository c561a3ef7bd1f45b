//! The types and states of the registry, and its rules as plain functions.

pub mod account_name;
pub mod argon2_hash;
pub mod caller;
pub mod change_kind;
pub mod client;
pub mod client_keys;
pub mod client_secret;
pub mod delivery;
pub mod integration_request;
pub mod link;
pub mod purpose;
pub mod scope;
pub mod tenant;
pub mod user;
