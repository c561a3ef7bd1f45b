//! The gRPC services, one file each: convert, call the store or `authentication`, convert back.

use std::sync::Arc;

use accord::{
    rpc::auth::{Principal, creation},
    store::audit::Origin,
};
use tonic::Request;

use crate::store::Store;

mod client;
pub mod convert;
mod directory;
mod integration_request;
mod operator;
mod provisioning;
mod scope;
mod status;
mod tenant;
mod user;

/// Implements every service of this server.
#[derive(Clone, Debug)]
pub struct Api {
    /// The registry's store.
    pub store: Store,
    /// `--public-base-url`, without a trailing slash.
    pub public_base_url: Arc<str>,
    /// Whether `--client-ca` is set.
    pub has_client_ca: bool,
}

/// Splits a call into its origin, for the audit event, and its message.
fn parts<T>(call: Request<T>) -> (Origin, T) {
    (Principal::of(&call).origin(), call.into_inner())
}
