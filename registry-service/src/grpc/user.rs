//! `UserService`.

use accord::{
    registry::v1::{self as pb, user_service_server::UserService},
    rpc::{auth::Principal, status::Problem},
};
use tonic::{Request, Response, Status};

use super::{Api, creation};
use crate::{
    authentication::enrolment::complete_enrolment,
    error::Error,
    grpc::convert::user as convert,
    model::user::{State, enrolment_link},
};

#[tonic::async_trait]
impl UserService for Api {
    async fn register_user(
        &self,
        request: Request<pb::RegisterUserRequest>,
    ) -> Result<Response<pb::RegisterUserResponse>, Status> {
        let (new, request_id) = convert::register(request.get_ref())?;
        let creation = creation(&request, "RegisterUser", request_id);
        let (user, token) = self.store.create_user(&creation, new).await?;
        let link = token
            .as_ref()
            .map(|token| enrolment_link(&self.public_base_url, &user.tenant_id, token));
        Ok(Response::new(pb::RegisterUserResponse {
            user: Some(convert::message(user)),
            enrolment_token: token.map(|token| token.expose().to_owned()).unwrap_or_default(),
            enrolment_link: link.unwrap_or_default(),
        }))
    }

    async fn find_user(
        &self,
        request: Request<pb::FindUserRequest>,
    ) -> Result<Response<pb::FindUserResponse>, Status> {
        let request = request.into_inner();
        let (tenant_id, which) = convert::which(&request.tenant_id, request.user)?;
        let user = self.store.find_user(&tenant_id, &which).await?;
        let user = user.ok_or(Error::NotFound("user"))?;
        Ok(Response::new(pb::FindUserResponse {
            user: Some(convert::message(user)),
        }))
    }

    async fn list_users(
        &self,
        request: Request<pb::ListUsersRequest>,
    ) -> Result<Response<pb::ListUsersResponse>, Status> {
        let (tenant_id, state, page) = convert::list(request.get_ref())?;
        let users = self.store.list_users(&tenant_id, state, &page).await?;
        Ok(Response::new(convert::list_response(users)))
    }

    async fn deactivate_user(
        &self,
        request: Request<pb::DeactivateUserRequest>,
    ) -> Result<Response<pb::DeactivateUserResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let request = request.into_inner();
        let (tenant_id, user_id) = convert::ids(&request.tenant_id, &request.user_id)?;
        let user = self
            .store
            .set_user_state(&origin, &tenant_id, &user_id, State::Deactivated)
            .await?;
        Ok(Response::new(pb::DeactivateUserResponse {
            user: Some(convert::message(user)),
        }))
    }

    async fn reactivate_user(
        &self,
        request: Request<pb::ReactivateUserRequest>,
    ) -> Result<Response<pb::ReactivateUserResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let request = request.into_inner();
        let (tenant_id, user_id) = convert::ids(&request.tenant_id, &request.user_id)?;
        let user = self
            .store
            .set_user_state(&origin, &tenant_id, &user_id, State::Active)
            .await?;
        Ok(Response::new(pb::ReactivateUserResponse {
            user: Some(convert::message(user)),
        }))
    }

    async fn reset_user_password(
        &self,
        request: Request<pb::ResetUserPasswordRequest>,
    ) -> Result<Response<pb::ResetUserPasswordResponse>, Status> {
        let (tenant_id, user_id, request_id) = convert::reset(request.get_ref())?;
        let creation = creation(&request, "ResetUserPassword", request_id);
        let (user, token) = self
            .store
            .reset_user_password(&creation, &tenant_id, &user_id)
            .await?;
        Ok(Response::new(pb::ResetUserPasswordResponse {
            enrolment_link: enrolment_link(&self.public_base_url, &user.tenant_id, &token),
            enrolment_token: token.expose().to_owned(),
            user: Some(convert::message(user)),
        }))
    }

    async fn complete_enrolment(
        &self,
        request: Request<pb::CompleteEnrolmentRequest>,
    ) -> Result<Response<pb::CompleteEnrolmentResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let (token, password) = convert::complete(request.into_inner())?;
        let tenant_id = complete_enrolment(&self.store, origin, token, password).await?;
        Ok(Response::new(pb::CompleteEnrolmentResponse {
            tenant_id: tenant_id.into(),
        }))
    }

    async fn release_enrolment(
        &self,
        _: Request<pb::ReleaseEnrolmentRequest>,
    ) -> Result<Response<pb::ReleaseEnrolmentResponse>, Status> {
        Err(Problem::not_available("ReleaseEnrolment").into())
    }
}
