//! Converts consents.

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, GrantId, TenantId},
        network::AllowedNetworks,
        page::{Page, PageRequest},
        validation::Violations,
    },
    token::v1 as pb,
};

use prost::Message;

use super::present;
use crate::model::{
    grant::{
        Consent, GrantFilter, GrantState, MAX_REASON_CHARS,
        usage::{Reuse, UsageReport},
    },
    tenant::operator_action::OperatorAction,
};

accord::message_enum! { GrantState = pb::ConsentState { Pending, Active, Suspended, Revoked, Expired, Superseded } }

/// Reads the ids of a consent.
pub fn ids(tenant_id: &str, grant_id: &str) -> Result<(TenantId, GrantId), Violations> {
    let mut v = Violations::default();
    let ids = read_ids(&mut v, tenant_id, grant_id);
    v.finish(|| ids)
}

fn read_ids(v: &mut Violations, tenant_id: &str, grant_id: &str) -> Option<(TenantId, GrantId)> {
    let tenant_id = v.check("tenant_id", TenantId::parse(tenant_id));
    let grant_id = v.check("grant_id", GrantId::parse(grant_id));
    tenant_id.zip(grant_id)
}

/// Reads a `ListConsentsRequest`.
pub fn list(request: &pb::ListConsentsRequest) -> Result<(TenantId, GrantFilter, PageRequest), Violations> {
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let client_id = v.optional("client_id", &request.client_id, ClientId::parse);
    let state = v.filter::<pb::ConsentState, _>("state", request.state);
    let state_text = request.state.to_string();
    let filters = [request.tenant_id.as_str(), &request.client_id, &state_text];
    let (size, token) = (request.page_size, &request.page_token);
    let page = PageRequest::parse(&mut v, "consents", &filters, size, token);
    v.finish(|| {
        let filter = GrantFilter {
            client_id: client_id?,
            state: state?,
        };
        Some((tenant_id?, filter, page?))
    })
}

/// Reads a `RevokeConsentRequest`. An operator must give a reason.
pub fn revoke(
    request: &pb::RevokeConsentRequest,
    by_operator: bool,
) -> Result<(TenantId, GrantId, String), Violations> {
    let mut v = Violations::default();
    let ids = read_ids(&mut v, &request.tenant_id, &request.grant_id);
    let reason = v.multiline(
        "reason",
        &request.reason,
        usize::from(by_operator)..=MAX_REASON_CHARS,
    );
    v.finish(|| {
        let (tenant_id, grant_id) = ids?;
        Some((tenant_id, grant_id, reason?))
    })
}

/// Reads the ids of a `ChangeDesignatedUserRequest`. Rejects one that names no user.
pub fn change_designated_user(
    request: &pb::ChangeDesignatedUserRequest,
) -> Result<(TenantId, GrantId), Violations> {
    let mut v = Violations::default();
    let ids = read_ids(&mut v, &request.tenant_id, &request.grant_id);
    present(
        &mut v,
        "designated_account_name",
        &request.designated_account_name,
    );
    v.finish(|| ids)
}

/// Reads a `ChangeAllowedNetworksRequest`.
pub fn change_allowed_networks(
    request: &pb::ChangeAllowedNetworksRequest,
) -> Result<(TenantId, GrantId, AllowedNetworks), Violations> {
    let mut v = Violations::default();
    let ids = read_ids(&mut v, &request.tenant_id, &request.grant_id);
    let networks = v.merge(AllowedNetworks::parse(&request.allowed_networks));
    v.finish(|| {
        let (tenant_id, grant_id) = ids?;
        Some((tenant_id, grant_id, networks?))
    })
}

/// Writes a consent.
pub fn message(consent: Consent) -> pb::Consent {
    let grant = consent.grant;
    pb::Consent {
        grant_id: grant.grant_id.into(),
        tenant_id: grant.tenant_id.into(),
        client_id: grant.client_id.into(),
        client_display_name: grant.display.display_name,
        scopes: consent
            .scopes
            .into_iter()
            .map(|scope| scope.name.into())
            .collect(),
        designated_user_id: grant.designated_user_id.into(),
        designated_user_label: consent.designated_user_label,
        purpose: grant.display.purpose,
        granted_by_user_id: grant.granted_by.into(),
        state: pb::ConsentState::from(consent.state).into(),
        create_time: Some(grant.created_at.to_timestamp()),
        activate_time: grant.activated_at.map(UnixMillis::to_timestamp),
        expire_time: grant.expires_at.map(UnixMillis::to_timestamp),
        end_time: consent.ended_at.map(UnixMillis::to_timestamp),
        allowed_networks: grant.allowed_networks.to_texts(),
    }
}

/// Reads a `ListOperatorActionsRequest`.
pub fn list_operator_actions(
    request: &pb::ListOperatorActionsRequest,
) -> Result<(TenantId, PageRequest), Violations> {
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let (size, token) = (request.page_size, &request.page_token);
    let page = PageRequest::parse(&mut v, "operator_actions", &[&request.tenant_id], size, token);
    v.finish(|| Some((tenant_id?, page?)))
}

/// Writes a page of what operators did.
pub fn operator_actions(actions: Page<OperatorAction>) -> pb::ListOperatorActionsResponse {
    let message = |action: OperatorAction| pb::OperatorAction {
        description: action.description(),
        occur_time: Some(action.event_id.time().to_timestamp()),
        event_id: action.event_id.into(),
        action: action.action,
        operator_id: action.operator_id,
        reason: action.reason,
        subject: action.subject,
        client_id: action.client_id,
        refused: action.is_refused,
    };
    let (operator_actions, next_page_token) = actions.map(message).fit(Message::encoded_len);
    pb::ListOperatorActionsResponse {
        operator_actions,
        next_page_token,
    }
}

/// Writes how a consent was used.
pub fn usage(UsageReport { days, reuse }: UsageReport) -> pb::GetGrantUsageResponse {
    let (reused_at, reused) = reuse.unzip();
    let reused = match reused {
        Some(Reuse::RefreshToken) => pb::ReusedCredential::RefreshToken,
        Some(Reuse::AuthorizationCode) => pb::ReusedCredential::AuthorizationCode,
        None => pb::ReusedCredential::Unspecified,
    };
    let last_used_at = days.iter().filter_map(|(_, usage)| usage.last_used_at).max();
    pb::GetGrantUsageResponse {
        last_use_time: last_used_at.map(UnixMillis::to_timestamp),
        reuse_time: reused_at.map(UnixMillis::to_timestamp),
        reused_credential: reused.into(),
        days: days
            .into_iter()
            .map(|(day, usage)| pb::GrantUsageDay {
                day: day.to_string(),
                issued_tokens: usage.issued,
                rejected_requests: usage.rejected(),
                scopes: usage.scopes.into_iter().collect(),
                addresses: usage.addresses.iter().map(ToString::to_string).collect(),
                has_more_addresses: usage.has_more_addresses,
                rejections: usage
                    .rejected
                    .into_iter()
                    .map(|(reason, count)| pb::GrantRejections { reason, count })
                    .collect(),
            })
            .collect(),
    }
}

/// Writes a page of consents.
pub fn list_response(consents: Page<Consent>) -> pb::ListConsentsResponse {
    let (consents, next_page_token) = consents.map(message).fit(Message::encoded_len);
    pb::ListConsentsResponse {
        consents,
        next_page_token,
    }
}
