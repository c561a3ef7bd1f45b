//! One-time links of the fake registry: `ProvisioningService.ClaimDelivery` and
//! `UserService.CompleteEnrolment`, which anyone who holds a link may call. It counts the calls.

use std::collections::HashMap;

use accord::{
    random::SystemRandom,
    registry::v1::{
        self as pb, provisioning_service_server::ProvisioningService, user_service_server::UserService,
    },
    rpc::status::{ErrorReason, Problem},
    text::{
        opaque::{OpaqueToken, TokenKind},
        validation::Violations,
    },
};
use tonic::{Code, Request, Response, Status};

use super::FakeRegistry;

/// When every link was opened, as far as one was.
const OPENED_TIME: &str = "2026-01-01T12:34:56Z";

#[derive(Default)]
pub(super) struct Links {
    deliveries: HashMap<String, Delivery>,
    /// By the link's token.
    pub(super) enrolments: HashMap<String, Enrolment>,
    calls: usize,
}

struct Delivery {
    bundle: pb::CredentialBundle,
    /// The request id that opened it.
    opened_by: Option<String>,
    /// The code of its release, if it needs one.
    release_code: String,
}

pub(super) struct Enrolment {
    /// The user who may choose a password.
    pub(super) user_id: String,
    /// The request id that used it.
    used_by: Option<String>,
    /// The code of its release, if it needs one.
    release_code: String,
}

impl FakeRegistry {
    /// A link to these credentials. Returns its token.
    pub fn add_delivery(&self, bundle: pb::CredentialBundle) -> String {
        let token = OpaqueToken::generate(TokenKind::Claim, &SystemRandom)
            .expose()
            .to_owned();
        let delivery = Delivery {
            bundle,
            opened_by: None,
            release_code: String::new(),
        };
        self.state().links.deliveries.insert(token.clone(), delivery);
        token
    }

    /// A link by which a user chooses a password. Returns its token.
    pub fn add_enrolment(&self, user_id: &str) -> String {
        let token = OpaqueToken::generate(TokenKind::Enrolment, &SystemRandom)
            .expose()
            .to_owned();
        let enrolment = Enrolment {
            user_id: user_id.into(),
            used_by: None,
            release_code: String::new(),
        };
        self.state().links.enrolments.insert(token.clone(), enrolment);
        token
    }

    /// Makes a link open only with this code.
    pub fn release(&self, token: &str, release_code: &str) {
        let mut state = self.state();
        if let Some(delivery) = state.links.deliveries.get_mut(token) {
            delivery.release_code = release_code.into();
        }
        if let Some(enrolment) = state.links.enrolments.get_mut(token) {
            enrolment.release_code = release_code.into();
        }
    }

    /// How often anything was asked about a link.
    pub fn calls_about_links(&self) -> usize {
        self.state().links.calls
    }

    /// Puts an end to every link, as time does.
    pub fn end_links(&self) {
        let mut state = self.state();
        state.links.deliveries.clear();
        state.links.enrolments.clear();
    }
}

/// Uses a link. Returns whether another call used it before.
fn is_refused(used_by: &mut Option<String>, request_id: &str) -> bool {
    match used_by {
        Some(first) => request_id.is_empty() || first != request_id,
        None => {
            *used_by = Some(request_id.to_owned());
            false
        }
    }
}

fn link_invalid() -> Problem {
    Problem::new(
        Code::FailedPrecondition,
        ErrorReason::LinkInvalid,
        "the link is not valid",
    )
}

fn not_faked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the fake has no such method"))
}

#[tonic::async_trait]
impl ProvisioningService for FakeRegistry {
    async fn claim_delivery(
        &self,
        request: Request<pb::ClaimDeliveryRequest>,
    ) -> Result<Response<pb::ClaimDeliveryResponse>, Status> {
        self.state().links.calls += 1;
        let mut state = self.ask()?;
        let request = request.into_inner();
        let delivery = state.links.deliveries.get_mut(&request.claim_token);
        let delivery = delivery.ok_or_else(link_invalid)?;
        if !delivery.release_code.is_empty() && delivery.release_code != request.release_code {
            return Err(link_invalid().into());
        }
        if is_refused(&mut delivery.opened_by, &request.request_id) {
            return Err(link_invalid().metadata("claim_time", OPENED_TIME).into());
        }
        Ok(Response::new(pb::ClaimDeliveryResponse {
            bundle: Some(delivery.bundle.clone()),
        }))
    }

    async fn release_delivery(
        &self,
        _: Request<pb::ReleaseDeliveryRequest>,
    ) -> Result<Response<pb::ReleaseDeliveryResponse>, Status> {
        not_faked()
    }

    async fn create_delivery(
        &self,
        _: Request<pb::CreateDeliveryRequest>,
    ) -> Result<Response<pb::CreateDeliveryResponse>, Status> {
        not_faked()
    }
}

#[tonic::async_trait]
impl UserService for FakeRegistry {
    async fn complete_enrolment(
        &self,
        request: Request<pb::CompleteEnrolmentRequest>,
    ) -> Result<Response<pb::CompleteEnrolmentResponse>, Status> {
        let request = request.into_inner();
        self.state().links.calls += 1;
        let mut violations = Violations::default();
        if request.password.chars().count() < 15 {
            violations.add("password", "must have at least 15 characters");
        }
        if request.password.chars().count() > 1024 {
            violations.add("password", "must have at most 1024 characters");
        }
        if !violations.is_empty() {
            return Err(Problem::from(violations).into());
        }
        let mut state = self.ask()?;
        let enrolment = state.links.enrolments.get_mut(&request.enrolment_token);
        let enrolment = enrolment.ok_or_else(link_invalid)?;
        if !enrolment.release_code.is_empty() && enrolment.release_code != request.release_code {
            return Err(link_invalid().into());
        }
        let is_first = enrolment.used_by.is_none();
        let is_refused = is_refused(&mut enrolment.used_by, &request.request_id);
        let user_id = enrolment.user_id.clone();
        let user = state.user(&user_id);
        if is_refused || (!is_first && user.password != request.password) {
            return Err(link_invalid().metadata("use_time", OPENED_TIME).into());
        }
        user.password = request.password;
        Ok(Response::new(pb::CompleteEnrolmentResponse {
            tenant_id: user.profile.tenant_id.clone(),
        }))
    }

    async fn release_enrolment(
        &self,
        _: Request<pb::ReleaseEnrolmentRequest>,
    ) -> Result<Response<pb::ReleaseEnrolmentResponse>, Status> {
        not_faked()
    }

    async fn register_user(
        &self,
        _: Request<pb::RegisterUserRequest>,
    ) -> Result<Response<pb::RegisterUserResponse>, Status> {
        not_faked()
    }

    async fn find_user(
        &self,
        _: Request<pb::FindUserRequest>,
    ) -> Result<Response<pb::FindUserResponse>, Status> {
        not_faked()
    }

    async fn list_users(
        &self,
        _: Request<pb::ListUsersRequest>,
    ) -> Result<Response<pb::ListUsersResponse>, Status> {
        not_faked()
    }

    async fn deactivate_user(
        &self,
        _: Request<pb::DeactivateUserRequest>,
    ) -> Result<Response<pb::DeactivateUserResponse>, Status> {
        not_faked()
    }

    async fn reactivate_user(
        &self,
        _: Request<pb::ReactivateUserRequest>,
    ) -> Result<Response<pb::ReactivateUserResponse>, Status> {
        not_faked()
    }

    async fn reset_user_password(
        &self,
        _: Request<pb::ResetUserPasswordRequest>,
    ) -> Result<Response<pb::ResetUserPasswordResponse>, Status> {
        not_faked()
    }
}
