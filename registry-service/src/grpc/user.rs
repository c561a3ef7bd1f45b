//! `UserService`.

use accord::{
    registry::v1::{self as pb, user_service_server::UserService},
    rpc::{auth::Principal, status::Problem},
};
use tonic::{Request, Response, Status};

use super::{Api, creation};
use crate::{error::Error, grpc::convert::user as convert, model::user};

#[tonic::async_trait]
impl UserService for Api {
    async fn register_user(
        &self,
        request: Request<pb::RegisterUserRequest>,
    ) -> Result<Response<pb::RegisterUserResponse>, Status> {
        let (new, request_id) = convert::register(request.get_ref()).map_err(Error::from)?;
        let creation = creation(&request, "RegisterUser", request_id);
        let (user, token) = user::register(&self.store, &creation, new).await?;
        let link = token
            .as_ref()
            .map(|token| user::enrolment_link(&self.public_base_url, &user.tenant_id, token));
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
        let (tenant_id, which) = convert::which(&request.tenant_id, request.user).map_err(Error::from)?;
        let user = user::find(&self.store, &tenant_id, &which).await?;
        Ok(Response::new(pb::FindUserResponse {
            user: Some(convert::message(user)),
        }))
    }

    async fn list_users(
        &self,
        request: Request<pb::ListUsersRequest>,
    ) -> Result<Response<pb::ListUsersResponse>, Status> {
        let (tenant_id, state, page) = convert::list(request.get_ref()).map_err(Error::from)?;
        let users = user::list(&self.store, &tenant_id, state, &page).await?;
        Ok(Response::new(convert::list_response(users)))
    }

    async fn deactivate_user(
        &self,
        request: Request<pb::DeactivateUserRequest>,
    ) -> Result<Response<pb::DeactivateUserResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let request = request.into_inner();
        let (tenant_id, user_id) = convert::ids(&request.tenant_id, &request.user_id).map_err(Error::from)?;
        let user = user::deactivate(&self.store, &origin, &tenant_id, &user_id).await?;
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
        let (tenant_id, user_id) = convert::ids(&request.tenant_id, &request.user_id).map_err(Error::from)?;
        let user = user::reactivate(&self.store, &origin, &tenant_id, &user_id).await?;
        Ok(Response::new(pb::ReactivateUserResponse {
            user: Some(convert::message(user)),
        }))
    }

    async fn reset_user_password(
        &self,
        request: Request<pb::ResetUserPasswordRequest>,
    ) -> Result<Response<pb::ResetUserPasswordResponse>, Status> {
        let (tenant_id, user_id, request_id) = convert::reset(request.get_ref()).map_err(Error::from)?;
        let creation = creation(&request, "ResetUserPassword", request_id);
        let (user, token) = user::reset_password(&self.store, &creation, &tenant_id, &user_id).await?;
        Ok(Response::new(pb::ResetUserPasswordResponse {
            enrolment_link: user::enrolment_link(&self.public_base_url, &user.tenant_id, &token),
            enrolment_token: token.expose().to_owned(),
            user: Some(convert::message(user)),
        }))
    }

    async fn complete_enrolment(
        &self,
        request: Request<pb::CompleteEnrolmentRequest>,
    ) -> Result<Response<pb::CompleteEnrolmentResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let (token, password) = convert::complete(request.into_inner()).map_err(Error::from)?;
        let tenant_id = user::complete_enrolment(&self.store, &origin, &token, password).await?;
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
