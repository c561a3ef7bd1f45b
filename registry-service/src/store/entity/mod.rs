//! The rows of registry-service's own tables. Rules live in the nouns, not here.

pub mod client;
pub mod client_secret;
pub mod client_tenant;
pub mod delivery;
pub mod enrolment;
pub mod integration_request;
pub mod operator;
pub mod scope;
pub mod tenant;
pub mod user;
pub mod workload;
