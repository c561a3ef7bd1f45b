//! `UserService`.

use accord::{
    registry::v1::{user_service_server::UserService, *},
    rpc::status::Reply,
};
use prost::Message;
use tonic::{Request, Response};

use super::{Api, convert::user as convert, creation, parts};
use crate::{
    authentication::tenant_admin::complete_enrolment,
    error::Error,
    model::user::{State, enrolment_link},
};

#[tonic::async_trait]
impl UserService for Api {
    async fn register_user(&self, call: Request<RegisterUserRequest>) -> Reply<RegisterUserResponse> {
        let (new, request_id) = convert::register(call.get_ref())?;
        let creation = creation(&call, "RegisterUser", request_id);
        let (user, token) = self.store.create_user(&creation, new).await?;
        let mut response = RegisterUserResponse::default();
        if let Some(token) = token {
            response.enrolment_link = enrolment_link(&self.public_base_url, &user.tenant_id, &token);
            response.enrolment_token = token.expose().to_owned();
        }
        response.user = Some(convert::message(user));
        Ok(Response::new(response))
    }

    async fn find_user(&self, call: Request<FindUserRequest>) -> Reply<FindUserResponse> {
        let message = call.into_inner();
        let unnamed = "must be named by user_id or account_name";
        let (tenant_id, selector) = convert::selector(&message.tenant_id, message.user, unnamed)?;
        let user = self.store.find_user(&tenant_id, &selector).await?;
        let user = Some(convert::message(user.ok_or(Error::NotFound("user"))?));
        Ok(Response::new(FindUserResponse { user }))
    }

    async fn list_users(&self, call: Request<ListUsersRequest>) -> Reply<ListUsersResponse> {
        let (tenant_id, state, page) = convert::list(call.get_ref())?;
        let page = self.store.list_users(&tenant_id, state, &page).await?;
        let (users, next_page_token) = page.map(convert::message).fit(Message::encoded_len);
        Ok(Response::new(ListUsersResponse {
            users,
            next_page_token,
        }))
    }

    async fn deactivate_user(&self, call: Request<DeactivateUserRequest>) -> Reply<DeactivateUserResponse> {
        let (origin, message) = parts(call);
        let (tenant_id, user_id, reason) = convert::deactivate(&message)?;
        let deactivating =
            self.store
                .set_user_state(&origin, &tenant_id, &user_id, State::Deactivated, &reason);
        let user = Some(convert::message(deactivating.await?));
        Ok(Response::new(DeactivateUserResponse { user }))
    }

    async fn reactivate_user(&self, call: Request<ReactivateUserRequest>) -> Reply<ReactivateUserResponse> {
        let (origin, message) = parts(call);
        let (tenant_id, user_id) = convert::ids(&message.tenant_id, &message.user_id)?;
        let reactivating = self
            .store
            .set_user_state(&origin, &tenant_id, &user_id, State::Active, "");
        let user = Some(convert::message(reactivating.await?));
        Ok(Response::new(ReactivateUserResponse { user }))
    }

    async fn reset_user_password(
        &self,
        call: Request<ResetUserPasswordRequest>,
    ) -> Reply<ResetUserPasswordResponse> {
        let (tenant_id, user_id, request_id) = convert::reset(call.get_ref())?;
        let creation = creation(&call, "ResetUserPassword", request_id);
        let reset = self.store.reset_user_password(&creation, &tenant_id, &user_id);
        let (user, token) = reset.await?;
        Ok(Response::new(ResetUserPasswordResponse {
            enrolment_link: enrolment_link(&self.public_base_url, &user.tenant_id, &token),
            enrolment_token: token.expose().to_owned(),
            user: Some(convert::message(user)),
        }))
    }

    async fn complete_enrolment(
        &self,
        call: Request<CompleteEnrolmentRequest>,
    ) -> Reply<CompleteEnrolmentResponse> {
        let (origin, message) = parts(call);
        let completion = convert::complete_enrolment(message)?;
        let tenant_id = complete_enrolment(&self.store, origin, completion).await?;
        let tenant_id = tenant_id.into();
        Ok(Response::new(CompleteEnrolmentResponse { tenant_id }))
    }

    async fn release_enrolment(
        &self,
        call: Request<ReleaseEnrolmentRequest>,
    ) -> Reply<ReleaseEnrolmentResponse> {
        let (origin, message) = parts(call);
        let (tenant_id, user_id) = convert::ids(&message.tenant_id, &message.user_id)?;
        let released = self
            .store
            .release_enrolment(&origin, &tenant_id, &user_id)
            .await?;
        Ok(Response::new(ReleaseEnrolmentResponse {
            release_code: released.code.grouped().to_string(),
            label: released.recipient,
            creator: released.creator,
            create_time: Some(released.created_at.to_timestamp()),
        }))
    }
}
