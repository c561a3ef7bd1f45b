//! The gRPC services, one file each. A method converts its request, makes one call, and converts the result.

use accord::rpc::auth::{Caller, CallerDirectory, Credential, Principal};
use tonic::{Request, Status};

use crate::{
    cache::Cache,
    consent::{ConsentCall, Consents},
};

mod audit;
mod consent;
pub mod convert;
mod setup;
mod signing_key;
mod status;
mod token;

/// Begins a call about setups or consents, and returns the message. Takes the session's token out of it, which stands in
/// `admin_session`.
fn begin<T>(
    consents: &Consents,
    request: Request<T>,
    admin_session: fn(&mut T) -> &mut String,
) -> (ConsentCall, T) {
    let principal = Principal::of(&request);
    let mut message = request.into_inner();
    let admin_session = std::mem::take(admin_session(&mut message));
    (ConsentCall::new(consents, principal, admin_session), message)
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
