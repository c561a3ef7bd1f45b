//! Users between messages and the noun.

use accord::{
    registry::v1 as pb,
    text::{
        id::{TenantId, UserId},
        opaque::{OpaqueToken, TokenKind},
        page::{Page, PageRequest},
        validation::Violations,
    },
};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::model::{
    account_name::AccountName,
    user::{NewUser, Password, State, User, Which},
};

/// Reads a `RegisterUserRequest`.
///
/// # Errors
/// All violations.
pub fn register(request: &pb::RegisterUserRequest) -> Result<(NewUser, Option<Uuid>), Violations> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let account_name = v.check("account_name", AccountName::parse(&request.account_name));
    let label = v.text("label", &request.label, 1..=100);
    match (request_id, tenant_id, account_name, label) {
        (Some(request_id), Some(tenant_id), Some(account_name), Some(label)) => {
            let new = NewUser {
                tenant_id,
                account_name,
                label,
                tenant_admin: request.tenant_admin,
            };
            Ok((new, request_id))
        }
        _ => Err(v),
    }
}

/// Reads which user of which tenant is meant, by exactly one of id and account name.
///
/// # Errors
/// All violations.
pub fn which(
    tenant_id: &str,
    user: Option<pb::find_user_request::User>,
) -> Result<(TenantId, Which), Violations> {
    use pb::find_user_request::User as Given;
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(tenant_id));
    let which = match user {
        Some(Given::UserId(id)) => v.check("user_id", UserId::parse(&id)).map(Which::Id),
        Some(Given::AccountName(name)) => {
            let name = Zeroizing::new(name);
            v.check("account_name", AccountName::parse(&name))
                .map(Which::AccountName)
        }
        None => {
            v.add("user", "must be named by user_id or account_name");
            None
        }
    };
    match (tenant_id, which) {
        (Some(tenant_id), Some(which)) => Ok((tenant_id, which)),
        _ => Err(v),
    }
}

/// Reads a user's two ids.
///
/// # Errors
/// All violations.
pub fn ids(tenant_id: &str, user_id: &str) -> Result<(TenantId, UserId), Violations> {
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(tenant_id));
    let user_id = v.check("user_id", UserId::parse(user_id));
    match (tenant_id, user_id) {
        (Some(tenant_id), Some(user_id)) => Ok((tenant_id, user_id)),
        _ => Err(v),
    }
}

/// Reads a `ListUsersRequest`.
///
/// # Errors
/// All violations.
pub fn list(request: &pb::ListUsersRequest) -> Result<(TenantId, Option<State>, PageRequest), Violations> {
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let state = match pb::UserState::try_from(request.state) {
        Ok(pb::UserState::Unspecified) => Some(None),
        Ok(pb::UserState::Active) => Some(Some(State::Active)),
        Ok(pb::UserState::Deactivated) => Some(Some(State::Deactivated)),
        Err(_) => {
            v.add("state", "must be a known state");
            None
        }
    };
    let filters = [request.tenant_id.as_str(), &request.state.to_string()];
    let page = PageRequest::parse(&mut v, "users", &filters, request.page_size, &request.page_token);
    match (tenant_id, state, page) {
        (Some(tenant_id), Some(state), Some(page)) => Ok((tenant_id, state, page)),
        _ => Err(v),
    }
}

/// Reads a `ResetUserPasswordRequest`.
///
/// # Errors
/// All violations.
pub fn reset(request: &pb::ResetUserPasswordRequest) -> Result<(TenantId, UserId, Option<Uuid>), Violations> {
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let user_id = v.check("user_id", UserId::parse(&request.user_id));
    let request_id = v.request_id("request_id", &request.request_id);
    match (tenant_id, user_id, request_id) {
        (Some(tenant_id), Some(user_id), Some(request_id)) => Ok((tenant_id, user_id, request_id)),
        _ => Err(v),
    }
}

/// Reads a `CompleteEnrolmentRequest`.
///
/// # Errors
/// All violations.
pub fn complete(request: pb::CompleteEnrolmentRequest) -> Result<(OpaqueToken, Password), Violations> {
    let mut v = Violations::default();
    let enrolment_token = Zeroizing::new(request.enrolment_token);
    let token = OpaqueToken::parse(TokenKind::Enrolment, &enrolment_token);
    let token = v.check("enrolment_token", token);
    let password = v.check("password", Password::parse(Zeroizing::new(request.password)));
    match (token, password) {
        (Some(token), Some(password)) => Ok((token, password)),
        _ => Err(v),
    }
}

/// Writes a user.
pub fn message(user: User) -> pb::User {
    pb::User {
        user_id: user.user_id.into(),
        tenant_id: user.tenant_id.into(),
        label: user.label,
        tenant_admin: user.tenant_admin,
        state: state(user.state).into(),
        enrolled: user.password.is_some(),
        create_time: Some(user.created_at.to_timestamp()),
        update_time: Some(user.updated_at.to_timestamp()),
    }
}

/// Writes a user's state.
pub fn state(state: State) -> pb::UserState {
    match state {
        State::Active => pb::UserState::Active,
        State::Deactivated => pb::UserState::Deactivated,
    }
}

/// Writes a page of users.
pub fn list_response(users: Page<User>) -> pb::ListUsersResponse {
    let page = users.map(message);
    pb::ListUsersResponse {
        users: page.items,
        next_page_token: page.next_page_token,
    }
}
