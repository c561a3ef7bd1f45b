//! The caller that the certificate of a connection names.

use std::{sync::Arc, time::Duration};

use tonic::{Code, Status};

use super::{Caller, WorkloadKind};
use crate::rpc::status::{ErrorReason, Problem};

/// Why a certificate names nobody any more.
pub(super) const EXPIRED: &str = "the client certificate has expired";

/// The caller that the certificate of a call's connection names, as the authorizer has found it. It is in the call's
/// extensions.
#[derive(Clone, Debug)]
pub struct ConnectionCaller {
    /// The names of the certificate.
    pub(super) names: Arc<[String]>,
    pub(super) found: LookUpResult,
}

/// What the look-up of a certificate's names has found.
#[derive(Clone, Debug)]
pub(super) enum LookUpResult {
    /// Nothing: the certificate has expired.
    Expired,
    /// Nothing: a certificate of a caller has fewer names.
    TooManyNames,
    /// What the directory answers.
    Answer(Result<Option<Caller>, Status>),
}

impl ConnectionCaller {
    /// Returns whether it is a gateway. Only on a gateway's connection do headers about the gateway's clients count.
    ///
    /// # Errors
    /// Those of [`super::CallerDirectory::find_caller`], DEADLINE_EXCEEDED, and UNAVAILABLE for a certificate that has expired
    /// since the connection began: it may be a gateway's, which has a new one for its next connection.
    pub fn is_gateway(&self) -> Result<bool, Status> {
        let caller = match &self.found {
            LookUpResult::Expired => {
                let problem = Problem::new(Code::Unavailable, ErrorReason::Unavailable, EXPIRED);
                return Err(problem.retry_after(Duration::from_secs(1)).into());
            }
            LookUpResult::TooManyNames => return Ok(false),
            LookUpResult::Answer(found) => found.as_ref().map_err(Status::clone)?,
        };
        let kind = WorkloadKind::Gateway;
        Ok(matches!(caller, Some(Caller::Workload { kind: found, .. }) if *found == kind))
    }
}
