//! Consents between messages and the noun.

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, GrantId, ScopeName, TenantId},
        page::{Page, PageRequest},
        validation::Violations,
    },
    token::v1 as pb,
};

use crate::model::grant::{Consent, GrantFilter, GrantState};

/// Characters of the reason for a revocation.
const MAX_REASON: usize = 1000;

/// Reads the ids of a consent.
///
/// # Errors
/// All violations.
pub fn ids(tenant_id: &str, grant_id: &str) -> Result<(TenantId, GrantId), Violations> {
    let mut v = Violations::default();
    match read_ids(&mut v, tenant_id, grant_id) {
        Some(ids) => Ok(ids),
        None => Err(v),
    }
}

fn read_ids(v: &mut Violations, tenant_id: &str, grant_id: &str) -> Option<(TenantId, GrantId)> {
    let tenant_id = v.check("tenant_id", TenantId::parse(tenant_id));
    let grant_id = v.check("grant_id", GrantId::parse(grant_id));
    tenant_id.zip(grant_id)
}

/// Reads a `ListConsentsRequest`.
///
/// # Errors
/// All violations.
pub fn list(request: &pb::ListConsentsRequest) -> Result<(TenantId, GrantFilter, PageRequest), Violations> {
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let client_id = match request.client_id.as_str() {
        "" => Some(None),
        text => v.check("client_id", ClientId::parse(text)).map(Some),
    };
    let state = match pb::ConsentState::try_from(request.state) {
        Ok(state) => Some(filter_state(state)),
        Err(_) => {
            v.add("state", "must be a known state");
            None
        }
    };
    let state_text = request.state.to_string();
    let filters = [request.tenant_id.as_str(), &request.client_id, &state_text];
    let page = PageRequest::parse(
        &mut v,
        "consents",
        &filters,
        request.page_size,
        &request.page_token,
    );
    match (tenant_id, client_id, state, page) {
        (Some(tenant_id), Some(client_id), Some(state), Some(page)) => {
            Ok((tenant_id, GrantFilter { client_id, state }, page))
        }
        _ => Err(v),
    }
}

fn filter_state(state: pb::ConsentState) -> Option<GrantState> {
    match state {
        pb::ConsentState::Unspecified => None,
        pb::ConsentState::Pending => Some(GrantState::Pending),
        pb::ConsentState::Active => Some(GrantState::Active),
        pb::ConsentState::Suspended => Some(GrantState::Suspended),
        pb::ConsentState::Revoked => Some(GrantState::Revoked),
        pb::ConsentState::Expired => Some(GrantState::Expired),
        pb::ConsentState::Superseded => Some(GrantState::Superseded),
    }
}

/// Reads a `RevokeConsentRequest`. An operator must give a reason.
///
/// # Errors
/// All violations.
pub fn revoke(
    request: &pb::RevokeConsentRequest,
    by_operator: bool,
) -> Result<(TenantId, GrantId, String), Violations> {
    let mut v = Violations::default();
    let ids = read_ids(&mut v, &request.tenant_id, &request.grant_id);
    let reason = v.multiline("reason", &request.reason, usize::from(by_operator)..=MAX_REASON);
    match (ids, reason) {
        (Some((tenant_id, grant_id)), Some(reason)) => Ok((tenant_id, grant_id, reason)),
        _ => Err(v),
    }
}

/// Reads the ids of a `ChangeDesignatedUserRequest`, and sees that it names a user.
///
/// # Errors
/// All violations.
pub fn change_designated_user(
    request: &pb::ChangeDesignatedUserRequest,
) -> Result<(TenantId, GrantId), Violations> {
    let mut v = Violations::default();
    let ids = read_ids(&mut v, &request.tenant_id, &request.grant_id);
    if request.designated_account_name.is_empty() {
        v.add("designated_account_name", "must not be empty");
    }
    match ids {
        Some(ids) if v.is_empty() => Ok(ids),
        _ => Err(v),
    }
}

/// Writes a consent.
pub fn message(consent: Consent) -> pb::Consent {
    let grant = consent.grant;
    pb::Consent {
        grant_id: grant.grant_id.into(),
        tenant_id: grant.tenant_id.into(),
        client_id: grant.client_id.into(),
        client_display_name: grant.profile.display_name,
        scopes: grant.scopes.into_iter().map(ScopeName::into).collect(),
        designated_user_id: grant.designated_user_id.into(),
        designated_user_label: consent.designated_user_label,
        purpose: grant.profile.purpose,
        granted_by_user_id: grant.granted_by.into(),
        state: state(consent.state).into(),
        create_time: Some(grant.created_at.to_timestamp()),
        activate_time: grant.activated_at.map(UnixMillis::to_timestamp),
        expire_time: grant.expires_at.map(UnixMillis::to_timestamp),
        end_time: consent.ended_at.map(UnixMillis::to_timestamp),
    }
}

/// Writes a consent's state.
pub fn state(state: GrantState) -> pb::ConsentState {
    match state {
        GrantState::Pending => pb::ConsentState::Pending,
        GrantState::Active => pb::ConsentState::Active,
        GrantState::Suspended => pb::ConsentState::Suspended,
        GrantState::Revoked => pb::ConsentState::Revoked,
        GrantState::Expired => pb::ConsentState::Expired,
        GrantState::Superseded => pb::ConsentState::Superseded,
    }
}

/// Writes a page of consents.
pub fn list_response(consents: Page<Consent>) -> pb::ListConsentsResponse {
    let page = consents.map(message);
    pb::ListConsentsResponse {
        consents: page.items,
        next_page_token: page.next_page_token,
    }
}
