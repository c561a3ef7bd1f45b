//! The gRPC services, one file each: convert, call the noun, convert back.

use std::sync::Arc;

use accord::{
    rpc::auth::{Caller, CallerDirectory, Principal},
    store::Creation,
    text::opaque::OpaqueToken,
};
use prost::Message;
use tonic::{Request, Status};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::cache::Cache;

mod consent;
pub mod convert;
mod setup;
mod signing_key;
mod status;
mod token;

/// The caller, method and encoded content of a creating call.
fn creation<T: Message>(request: &Request<T>, method: &'static str, request_id: Option<Uuid>) -> Creation {
    Creation {
        origin: Principal::of(request).origin(),
        method,
        request_id,
        content: Zeroizing::new(request.get_ref().encode_to_vec()),
    }
}

/// Operators and workloads, which the registry knows.
#[derive(Debug)]
pub(crate) struct Callers(pub(crate) Arc<Cache>);

#[tonic::async_trait]
impl CallerDirectory for Callers {
    async fn find_caller(&self, token: &OpaqueToken) -> Result<Option<Caller>, Status> {
        Ok(self.0.caller(token).await?)
    }
}
