//! Users.

use accord::{
    registry::v1::{self as pb, find_user_request::User as Given},
    text::{
        account_name::AccountName,
        id::{TenantId, UserId},
        opaque::{OpaqueToken, TokenKind},
        page::PageRequest,
        release_code::ReleaseCode,
        validation::Violations,
    },
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Result, reason};
use crate::model::user::{Completion, NewUser, Selector, State, User, password::Password};

accord::message_enum!(State = pb::UserState { Active, Deactivated });

/// Reads a `RegisterUserRequest`.
pub fn register(request: &pb::RegisterUserRequest) -> Result<(NewUser, Option<Uuid>)> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let account_name = v.check("account_name", AccountName::parse(&request.account_name));
    let label = v.text("label", &request.label, 1..=100);
    if let (Some(name), Some(label)) = (&account_name, &label)
        && AccountName::parse(label).is_ok_and(|label| label == *name)
    {
        v.add(
            "label",
            "must not be the account name: it is shown, and identifies nobody",
        );
    }
    v.finish(|| {
        let new = NewUser {
            tenant_id: tenant_id?,
            account_name: account_name?,
            label: label?,
            tenant_admin: request.tenant_admin,
        };
        Some((new, request_id?))
    })
}

/// Reads a tenant's id and either the id or the account name of one of its users. `unnamed` is the rule for a message with neither.
pub fn selector(tenant_id: &str, user: Option<Given>, unnamed: &'static str) -> Result<(TenantId, Selector)> {
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(tenant_id));
    let selector = match user {
        Some(Given::UserId(id)) => v.check("user_id", UserId::parse(&id)).map(Selector::Id),
        Some(Given::AccountName(name)) => {
            let name = AccountName::parse(&Zeroizing::new(name));
            v.check("account_name", name).map(Selector::AccountName)
        }
        None => {
            v.add("user", unnamed);
            None
        }
    };
    v.finish(|| Some((tenant_id?, selector?)))
}

/// Reads the ids of a tenant and of one of its users.
pub fn ids(tenant_id: &str, user_id: &str) -> Result<(TenantId, UserId)> {
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(tenant_id));
    let user_id = v.check("user_id", UserId::parse(user_id));
    v.finish(|| Some((tenant_id?, user_id?)))
}

/// Reads a `DeactivateUserRequest`.
pub fn deactivate(request: &pb::DeactivateUserRequest) -> Result<(TenantId, UserId, String)> {
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let user_id = v.check("user_id", UserId::parse(&request.user_id));
    let reason = reason(&mut v, &request.reason);
    v.finish(|| Some((tenant_id?, user_id?, reason?)))
}

/// Reads a `ListUsersRequest`.
pub fn list(request: &pb::ListUsersRequest) -> Result<(TenantId, Option<State>, PageRequest)> {
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let state = v.filter::<pb::UserState, _>("state", request.state);
    let filters = [request.tenant_id.as_str(), &request.state.to_string()];
    let (size, token) = (request.page_size, &request.page_token);
    let page = PageRequest::parse(&mut v, "users", &filters, size, token);
    v.finish(|| Some((tenant_id?, state?, page?)))
}

/// Reads a `ResetUserPasswordRequest`.
pub fn reset(request: &pb::ResetUserPasswordRequest) -> Result<(TenantId, UserId, Option<Uuid>)> {
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let user_id = v.check("user_id", UserId::parse(&request.user_id));
    let request_id = v.request_id("request_id", &request.request_id);
    v.finish(|| Some((tenant_id?, user_id?, request_id?)))
}

/// Reads a `CompleteEnrolmentRequest`.
pub fn complete_enrolment(request: pb::CompleteEnrolmentRequest) -> Result<Completion> {
    let mut v = Violations::default();
    let token = Zeroizing::new(request.enrolment_token);
    let token = v.check(
        "enrolment_token",
        OpaqueToken::parse(TokenKind::Enrolment, &token),
    );
    let password = Zeroizing::new(request.password);
    let password = v.check("password", Password::parse(&password));
    let release_code = Zeroizing::new(request.release_code);
    let release_code = v.optional("release_code", &release_code, ReleaseCode::parse);
    let request_id = v.request_id("request_id", &request.request_id);
    v.finish(|| {
        Some(Completion {
            token: token?,
            release_code: release_code?,
            password: password?,
            request_id: request_id?,
        })
    })
}

/// Writes a user.
pub fn message(user: User) -> pb::User {
    pb::User {
        user_id: user.user_id.into(),
        tenant_id: user.tenant_id.into(),
        label: user.label,
        tenant_admin: user.tenant_admin,
        state: pb::UserState::from(user.state).into(),
        enrolled: user.password.is_some(),
        create_time: Some(user.created_at.to_timestamp()),
        update_time: Some(user.updated_at.to_timestamp()),
    }
}
