//! The rows of registry-service's own tables. Rules are in `model`.

pub mod caller;
pub mod client;
pub mod client_secret;
pub mod client_tenant;
pub mod delivery;
pub mod enrolment;
pub mod integration_request;
pub mod scope;
pub mod signing_algorithms;
pub mod tenant;
pub mod user;
