//! `SetupService`.

use accord::{
    rpc::auth::Principal,
    token::v1::{self as pb, setup_service_server::SetupService},
};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::creation;
use crate::{
    consent::{Consents, Facts, admin_session, decision, setup},
    error::Error,
    grpc::convert::setup as convert,
    model::admin_session::EndReason,
};

#[tonic::async_trait]
impl SetupService for Consents {
    async fn start_setup(
        &self,
        request: Request<pb::StartSetupRequest>,
    ) -> Result<Response<pb::StartSetupResponse>, Status> {
        let (start, request_id) = convert::start(request.get_ref().clone()).map_err(Error::from)?;
        let creation = creation(&request, "StartSetup", request_id);
        let setup = setup::start(self, &mut Facts::new(&self.registry), &creation, start).await?;
        Ok(Response::new(pb::StartSetupResponse {
            setup: Some(convert::message(setup, self.store.now())),
        }))
    }

    async fn get_setup(
        &self,
        request: Request<pb::GetSetupRequest>,
    ) -> Result<Response<pb::GetSetupResponse>, Status> {
        let setup_id = convert::setup_id(&request.get_ref().setup_id).map_err(Error::from)?;
        let setup = self.store.get_setup(&setup_id).await?;
        Ok(Response::new(pb::GetSetupResponse {
            setup: Some(convert::message(setup, self.store.now())),
        }))
    }

    async fn sign_in_tenant_admin(
        &self,
        request: Request<pb::SignInTenantAdminRequest>,
    ) -> Result<Response<pb::SignInTenantAdminResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let sign_in = convert::sign_in(request.into_inner()).map_err(Error::from)?;
        let (session, expires_at) = admin_session::sign_in(self, &origin, sign_in).await?;
        Ok(Response::new(pb::SignInTenantAdminResponse {
            admin_session: session.expose().to_owned(),
            expire_time: Some(expires_at.to_timestamp()),
        }))
    }

    async fn sign_out_tenant_admin(
        &self,
        request: Request<pb::SignOutTenantAdminRequest>,
    ) -> Result<Response<pb::SignOutTenantAdminResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let session = convert::sign_out(request.into_inner()).map_err(Error::from)?;
        self.store
            .end_admin_session(&origin, &session.digest(), EndReason::SignedOut)
            .await?;
        Ok(Response::new(pb::SignOutTenantAdminResponse {}))
    }

    async fn approve_setup(
        &self,
        request: Request<pb::ApproveSetupRequest>,
    ) -> Result<Response<pb::ApproveSetupResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let (approve, session) =
            convert::approve(request.into_inner(), self.store.now()).map_err(Error::from)?;
        let mut facts = Facts::new(&self.registry);
        let approved = decision::approve(self, &mut facts, &origin, &session, approve).await?;
        Ok(Response::new(convert::approve_response(approved)))
    }

    async fn deny_setup(
        &self,
        request: Request<pb::DenySetupRequest>,
    ) -> Result<Response<pb::DenySetupResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let request = request.into_inner();
        let session = Zeroizing::new(request.admin_session);
        let setup_id = convert::setup_id(&request.setup_id).map_err(Error::from)?;
        let mut facts = Facts::new(&self.registry);
        let (setup, redirect_url) = decision::deny(self, &mut facts, &origin, &session, &setup_id).await?;
        Ok(Response::new(pb::DenySetupResponse {
            setup: Some(convert::message(setup, self.store.now())),
            redirect_url: redirect_url.to_string(),
        }))
    }
}
