//! One-time links, which the browser pages open. Both calls are open to anyone who holds the link; this service's own
//! authority plays no part.

use accord::{
    registry::v1 as pb,
    rpc::status::{ErrorReason, reason_of},
    text::{opaque::OpaqueToken, release_code::ReleaseCode},
};
use tonic::Status;
use tonic_types::StatusExt;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Registry, failure};
use crate::error::{Error, Result};

/// What a partner needs to begin. No `Debug`.
pub struct CredentialBundle {
    /// The Client ID.
    pub client_id: String,
    /// The Client Secret.
    pub client_secret: Zeroizing<String>,
    /// Where the client reaches each tenant.
    pub endpoints: Vec<pb::Endpoint>,
}

impl Registry {
    /// Opens a claim link, if it needs one with its release code. A call with the same request id gets the same answer for a minute.
    ///
    /// # Errors
    /// [`Error::LinkInvalid`], with the time for a link that was opened before;
    /// [`Error::RegistryUnavailable`].
    pub async fn claim_delivery(
        &self,
        claim_token: &OpaqueToken,
        release_code: Option<&ReleaseCode>,
        request_id: Uuid,
    ) -> Result<CredentialBundle> {
        let request = pb::ClaimDeliveryRequest {
            claim_token: claim_token.expose().to_owned(),
            request_id: request_id.to_string(),
            release_code: exposed(release_code),
        };
        let answer = self.provisioning.clone().claim_delivery(request).await;
        let bundle = answer.map_err(link_failure)?.into_inner().bundle;
        let bundle = bundle.ok_or_else(|| super::unexpected("bundle"))?;
        Ok(CredentialBundle {
            client_id: bundle.client_id,
            client_secret: Zeroizing::new(bundle.client_secret),
            endpoints: bundle.endpoints,
        })
    }

    /// Sets the password that a Tenant Admin has chosen, by the one-time enrolment link and, if it needs one, its
    /// release code. Returns the tenant. A call with
    /// the same request id and password gets the same answer for a minute.
    ///
    /// # Errors
    /// [`Error::LinkInvalid`], with the time for a link that was used before; [`Error::PasswordRejected`], [`Error::RegistryUnavailable`].
    pub async fn complete_enrolment(
        &self,
        enrolment_token: &OpaqueToken,
        release_code: Option<&ReleaseCode>,
        password: Zeroizing<String>,
        request_id: Uuid,
    ) -> Result<String> {
        let request = pb::CompleteEnrolmentRequest {
            enrolment_token: enrolment_token.expose().to_owned(),
            password: password.to_string(),
            release_code: exposed(release_code),
            request_id: request_id.to_string(),
        };
        let answer = self.users.clone().complete_enrolment(request).await;
        Ok(answer.map_err(link_failure)?.into_inner().tenant_id)
    }
}

fn exposed(code: Option<&ReleaseCode>) -> String {
    code.map(|code| code.expose().to_owned()).unwrap_or_default()
}

fn link_failure(status: Status) -> Error {
    match reason_of(&status) {
        Some(ErrorReason::LinkInvalid) => {
            let info = status.get_details_error_info();
            let time = info.and_then(|mut info| {
                let claimed = info.metadata.remove("claim_time");
                claimed.or_else(|| info.metadata.remove("use_time"))
            });
            Error::LinkInvalid(time)
        }
        Some(ErrorReason::InvalidFields) => {
            let bad = status.get_details_bad_request();
            let violations = bad.into_iter().flat_map(|bad| bad.field_violations);
            let violations = violations.filter(|v| v.field == "password");
            Error::PasswordRejected(violations.map(|v| v.description).collect())
        }
        _ => failure(status),
    }
}
