//! The caller that the certificate of a connection names.

use std::sync::Arc;

use tonic::Status;

use super::{Caller, WorkloadKind};

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
    /// Returns whether the certificate has expired since the connection began.
    pub(crate) fn has_expired(&self) -> bool {
        matches!(self.found, LookUpResult::Expired)
    }

    /// Returns whether it is a gateway. Only on a gateway's connection do headers about the gateway's clients count.
    ///
    /// # Errors
    /// Those of [`super::CallerDirectory::find_caller`], and DEADLINE_EXCEEDED.
    pub fn is_gateway(&self) -> Result<bool, Status> {
        let LookUpResult::Answer(found) = &self.found else {
            return Ok(false);
        };
        let caller = found.as_ref().map_err(Status::clone)?;
        let kind = WorkloadKind::Gateway;
        Ok(matches!(caller, Some(Caller::Workload { kind: found, .. }) if *found == kind))
    }
}
