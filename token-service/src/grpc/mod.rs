//! The gRPC services, one file each: convert, call the noun, convert back.

use accord::{rpc::auth::Principal, store::Creation};
use prost::Message;
use tonic::Request;
use uuid::Uuid;
use zeroize::Zeroizing;

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
