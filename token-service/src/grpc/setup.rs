//! `SetupService`.

use accord::{
    rpc::{
        auth::{Principal, creation},
        status::Reply,
    },
    text::{
        id::SetupId,
        opaque::{OpaqueToken, TokenKind},
    },
    token::v1::{self as pb, setup_service_server::SetupService},
};
use tonic::{Request, Response};
use zeroize::Zeroizing;

use super::begin;
use crate::{
    consent::{ConsentCall, Consents, admin_session},
    grpc::convert::{only_field, setup as convert},
    model::{admin_session::EndReason, tenant::without_root},
};

#[tonic::async_trait]
impl SetupService for Consents {
    async fn start_setup(&self, request: Request<pb::StartSetupRequest>) -> Reply<pb::StartSetupResponse> {
        let mut request = request;
        let resource = &mut request.get_mut().resource;
        *resource = without_root(resource).to_owned();
        let (start, request_id) = convert::start(request.get_ref().clone())?;
        let creation = creation(&request, "StartSetup", request_id);
        let mut call = ConsentCall::new(self, Principal::of(&request), String::new());
        let setup = call.start_setup(&creation, start).await?;
        Ok(Response::new(pb::StartSetupResponse {
            setup: Some(convert::message(setup, self.store.now())),
        }))
    }

    async fn get_setup(&self, request: Request<pb::GetSetupRequest>) -> Reply<pb::GetSetupResponse> {
        let setup_id = only_field("setup_id", SetupId::parse(&request.get_ref().setup_id))?;
        let setup = self.store.get_setup(&setup_id).await?;
        Ok(Response::new(pb::GetSetupResponse {
            setup: Some(convert::message(setup, self.store.now())),
        }))
    }

    async fn sign_in_tenant_admin(
        &self,
        request: Request<pb::SignInTenantAdminRequest>,
    ) -> Reply<pb::SignInTenantAdminResponse> {
        let origin = Principal::of(&request).origin();
        let sign_in = convert::sign_in(request.into_inner())?;
        if let Some(setup_id) = &sign_in.setup_id {
            let setup = self.store.get_tenant_setup(&sign_in.tenant_id, setup_id).await?;
            setup.require_pending(self.store.now())?;
        }
        let (session, expires_at) = admin_session::sign_in(self, &origin, sign_in).await?;
        Ok(Response::new(pb::SignInTenantAdminResponse {
            admin_session: session.expose().to_owned(),
            expire_time: Some(expires_at.to_timestamp()),
        }))
    }

    async fn sign_out_tenant_admin(
        &self,
        request: Request<pb::SignOutTenantAdminRequest>,
    ) -> Reply<pb::SignOutTenantAdminResponse> {
        let origin = Principal::of(&request).origin();
        let token = Zeroizing::new(request.into_inner().admin_session);
        let session = OpaqueToken::parse(TokenKind::AdminSession, &token);
        let digest = only_field("admin_session", session)?.digest();
        let reason = EndReason::SignedOut;
        self.store.end_admin_session(&origin, &digest, reason).await?;
        Ok(Response::new(pb::SignOutTenantAdminResponse {}))
    }

    async fn approve_setup(
        &self,
        request: Request<pb::ApproveSetupRequest>,
    ) -> Reply<pb::ApproveSetupResponse> {
        let (mut call, request) = begin(self, request, |request| &mut request.admin_session);
        let approve = convert::approve(request, self.store.now())?;
        let approved = call.approve_setup(approve).await?;
        Ok(Response::new(convert::approve_response(approved)))
    }

    async fn deny_setup(&self, request: Request<pb::DenySetupRequest>) -> Reply<pb::DenySetupResponse> {
        let (mut call, request) = begin(self, request, |request| &mut request.admin_session);
        let setup_id = only_field("setup_id", SetupId::parse(&request.setup_id))?;
        let (setup, redirect_url) = call.deny_setup(&setup_id).await?;
        Ok(Response::new(pb::DenySetupResponse {
            setup: Some(convert::message(setup, self.store.now())),
            redirect_url: redirect_url.to_string(),
        }))
    }
}
