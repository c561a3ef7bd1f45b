//! The gRPC services, one file each: convert, call the store or `authentication`, convert back.

use std::sync::Arc;

use accord::{rpc::auth::Principal, store::Creation};
use prost::Message;
use tonic::Request;
use uuid::Uuid;
use zeroize::Zeroizing;

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

/// What every service of this server works with.
#[derive(Clone, Debug)]
pub struct Api {
    /// The registry's store.
    pub store: Store,
    /// `--public-base-url`, without a trailing slash.
    pub public_base_url: Arc<str>,
}

/// The caller, method and encoded content of a creating call. The request id is filled in once it
/// was read.
fn creation<T: Message>(request: &Request<T>, method: &'static str, request_id: Option<Uuid>) -> Creation {
    Creation {
        origin: Principal::of(request).origin(),
        method,
        request_id,
        content: Zeroizing::new(request.get_ref().encode_to_vec()),
    }
}
