//! The gRPC services, one file each. A method converts its request, makes one call, and converts the result.

use accord::{
    rpc::{
        auth::{Caller, CallerDirectory, Credential, Principal},
        codec::{self, Checked},
    },
    store::Creation,
};
use tonic::{Request, Status};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::cache::Cache;

mod audit;
mod consent;
pub mod convert;
mod setup;
mod signing_key;
mod status;
mod token;

/// Describes a creating call: its origin, method and encoded content.
fn creation<T: Checked + Clone>(
    request: &Request<T>,
    method: &'static str,
    request_id: Option<Uuid>,
) -> Creation {
    Creation {
        origin: Principal::of(request).origin(),
        method,
        request_id,
        content: Zeroizing::new(codec::content(request.get_ref())),
    }
}

#[tonic::async_trait]
impl CallerDirectory for Cache {
    async fn find_caller(&self, credential: Credential<'_>) -> Result<Option<Caller>, Status> {
        Ok(self.caller(credential).await?)
    }

    /// The registry records whose it was, whenever it is asked.
    async fn find_revoked(&self, credential: Credential<'_>) -> Result<Option<Caller>, Status> {
        self.forget_caller(credential);
        Ok(None)
    }
}
