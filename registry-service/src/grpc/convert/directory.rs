//! The messages of `DirectoryService`.

use std::collections::BTreeSet;

use accord::{
    clock::UnixMillis,
    position::{Epoch, Position},
    registry::v1 as pb,
    store::{
        audit::{Action, EventRow, Outcome, action},
        change::ChangeRow,
    },
    text::{
        id::{ClientId, EventId, SecretId, TenantId, UserId},
        page::{DEFAULT_SIZE, MAX_SIZE},
        validation::{Violations, list_field},
    },
};

use super::{
    Result,
    security::{security_profile, with_security},
};
use crate::{
    directory::Changes,
    model::{
        change_kind,
        client::{ClientProfile, since},
        client_secret::SecretUse,
        integration_request::{ClientOrigin, RequestOrigin},
        tenant::{Tenant, authority_url},
        user::User,
    },
    store::batch::profiles::{ProfileKeys, UserKey},
};

/// The most uses that one report may hold.
pub const MAX_USES: usize = 1000;

/// The most algorithms that one report may hold.
const MAX_ALGORITHMS: usize = 10;

/// The most clients, tenants and users, each, that one request may name.
const MAX_PROFILES: usize = 1000;

/// Writes a position.
pub fn position(position: Position) -> pb::FeedPosition {
    pb::FeedPosition {
        epoch: position.epoch.into(),
        seq: position.seq,
    }
}

/// Writes a client's profile.
pub fn client_profile(profile: ClientProfile) -> pb::ClientProfile {
    let scopes = profile.scopes.into_iter().map(|scope| pb::ProfileScope {
        name: scope.name.into(),
        description: scope.description,
        reason: scope.reason,
        added_seq: scope.added_seq,
    });
    let live_secrets = profile.live_secrets.into_iter();
    let live_secrets = live_secrets.map(|(secret_id, expires_at)| pb::LiveSecret {
        secret_id: secret_id.into(),
        expire_time: expires_at.map(UnixMillis::to_timestamp),
    });
    let client = profile.client;
    let tenants = client.tenant_ids.iter().map(|tenant_id| pb::ProfileTenant {
        tenant_id: tenant_id.to_string(),
        added_seq: since(&client.added.tenants, tenant_id, i64::MAX),
    });
    with_security!(
        client.security,
        pb::ClientProfile {
            tenants: tenants.collect(),
            client_id: client.client_id.into(),
            display_name: client.presentation.display_name,
            partner_name: client.presentation.partner_name,
            purpose: client.presentation.goals,
            state: pb::ClientState::from(client.state).into(),
            scopes: scopes.collect(),
            redirect_uris: client.redirect_uris,
            version: client.version,
            tokens_ended_seq: client.tokens_ended_seq,
            families_ended_seq: client.families_ended_seq,
            json_web_key_set: client.json_web_key_set,
            live_secrets: live_secrets.collect(),
            security_profile: security_profile(client.fapi_from).into(),
            profile_start_time: client.fapi_from.map(UnixMillis::to_timestamp),
        }
    )
}

/// Writes a client's origin.
pub fn client_origin(origin: ClientOrigin) -> pb::ClientOrigin {
    let request = |request: RequestOrigin| pb::RequestOrigin {
        integration_request_id: request.integration_request_id.into(),
        submitted_by_operator_id: request.submitted_by,
        approved_by_operator_id: request.approved_by,
        apply_time: Some(request.applied_at.to_timestamp()),
    };
    pb::ClientOrigin {
        registration: Some(request(origin.registration)),
        amendments: origin.amendments.into_iter().map(request).collect(),
    }
}

/// Writes a tenant's profile.
pub fn tenant_profile(profile: Tenant, public_base_url: &str) -> pb::TenantProfile {
    pb::TenantProfile {
        tenant_authority_url: authority_url(public_base_url, &profile.tenant_id),
        tenant_id: profile.tenant_id.into(),
        display_name: profile.display_name,
        state: pb::TenantState::from(profile.state).into(),
        cloud_api_url: profile.cloud_api_url,
        tokens_ended_seq: profile.tokens_ended_seq,
    }
}

/// Writes a user's profile.
pub fn user_profile(profile: User) -> pb::UserProfile {
    pb::UserProfile {
        user_id: profile.user_id.into(),
        tenant_id: profile.tenant_id.into(),
        label: profile.label,
        tenant_admin: profile.tenant_admin,
        state: pb::UserState::from(profile.state).into(),
        tokens_ended_seq: profile.tokens_ended_seq,
        sessions_ended_seq: profile.sessions_ended_seq,
    }
}

/// Reads a `GetProfilesRequest`.
pub fn profile_keys(request: &pb::GetProfilesRequest) -> Result<ProfileKeys> {
    let mut v = Violations::default();
    let limits = 0..=MAX_PROFILES;
    let client_ids = v.distinct("client_ids", &request.client_ids, limits.clone(), |v, at, id| {
        v.check(at, ClientId::parse(id))
    });
    let tenant_ids = v.distinct("tenant_ids", &request.tenant_ids, limits.clone(), |v, at, id| {
        v.check(at, TenantId::parse(id))
    });
    let users = v.distinct("users", &request.users, limits, |v, at, key| {
        let tenant_id = v.check(&format!("{at}.tenant_id"), TenantId::parse(&key.tenant_id));
        let user_id = v.check(&format!("{at}.user_id"), UserId::parse(&key.user_id));
        let (tenant_id, user_id) = (tenant_id?, user_id?);
        Some(UserKey { tenant_id, user_id })
    });
    v.finish(|| {
        Some(ProfileKeys {
            client_ids: client_ids.into_iter().map(|(_, id)| id).collect(),
            tenant_ids: tenant_ids.into_iter().map(|(_, id)| id).collect(),
            users: users.into_iter().map(|(_, key)| key).collect(),
        })
    })
}

/// Reads a `ListChangesRequest`: the position to continue after, and the most changes to return.
pub fn list_changes(request: pb::ListChangesRequest) -> Result<(Option<Position>, u64)> {
    let mut v = Violations::default();
    let after = request.after.unwrap_or_default();
    if after.seq < 0 {
        v.add("after.seq", "must not be negative");
    }
    let limit = u64::try_from(request.page_size).map_err(|_| "must not be negative");
    let limit = v.check("page_size", limit);
    let epoch = v.optional("after.epoch", &after.epoch, Epoch::parse);
    let seq = after.seq;
    v.finish(|| Some((epoch?.map(|epoch| Position { epoch, seq }), limit?)))
}

/// Writes changes.
pub fn list_changes_response(changes: Changes, authority_host: &str) -> pb::ListChangesResponse {
    let keys = changes
        .secret_tag_keys
        .iter()
        .map(|(version, key)| pb::SecretTagKey {
            version: *version,
            key: key.to_vec(),
        });
    pb::ListChangesResponse {
        changes: changes.feed.changes.into_iter().map(change).collect(),
        position: Some(position(changes.feed.position)),
        reset: changes.feed.reset,
        more: changes.feed.more,
        recent_seq: changes.recent_seq.unwrap_or_default(),
        secret_tag_keys: keys.collect(),
        authority_host: authority_host.to_owned(),
    }
}

fn change(row: ChangeRow) -> pb::Change {
    let (kind, ends_tokens) = match row.kind.strip_suffix(change_kind::TOKENS_ENDED) {
        Some(kind) => (kind, true),
        None => (row.kind.as_str(), false),
    };
    let kind = format!("CHANGE_KIND_{}", kind.to_uppercase());
    pb::Change {
        seq: row.seq,
        kind: pb::ChangeKind::from_str_name(&kind).unwrap_or_default().into(),
        id: row.id,
        tenant_id: row.tenant_id.map(String::from).unwrap_or_default(),
        ends_tokens,
    }
}

/// Reads a `ListOperatorActionsRequest`: the tenant, the event to list before, and the most events to return.
pub fn list_operator_actions(
    request: &pb::ListOperatorActionsRequest,
) -> Result<(TenantId, Option<EventId>, u64)> {
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let before = v.optional("before_event_id", &request.before_event_id, EventId::parse);
    let limit = u64::try_from(request.page_size).map_err(|_| "must not be negative");
    let limit = v.check("page_size", limit);
    v.finish(|| {
        let limit = match limit? {
            0 => DEFAULT_SIZE,
            limit => limit.min(MAX_SIZE + 1),
        };
        Some((tenant_id?, before?, limit))
    })
}

/// Writes what an operator did. Shows only details that say nothing of other tenants: the names of changed fields without values,
/// and never `tenants`.
pub fn operator_action(event: EventRow) -> pb::OperatorAction {
    const CHANGES: [Action; 4] = [
        action::CLIENT_AMEND,
        action::CLIENT_SET_KEYS,
        action::CLIENT_UPDATE,
        action::TENANT_UPDATE,
    ];
    const FIELDS: [&str; 11] = [
        "allowed_networks",
        "cloud_api_url",
        "display_name",
        "dpop_jkts",
        "json_web_key_set",
        "jwks_uri",
        "redirect_uris",
        "scopes",
        "security_profile",
        "tls_client_auth",
        "token_endpoint_auth_method",
    ];
    // The event of a creation holds the values that it sets.
    let is_change = CHANGES.iter().any(|change| event.action == change.as_str());
    let changed = FIELDS
        .into_iter()
        .filter(|name| is_change && event.detail.contains_key(*name));
    pb::OperatorAction {
        single_person: ["same_person", "second_person"]
            .iter()
            .any(|name| event.detail.contains_key(*name)),
        changed_fields: changed.map(str::to_owned).collect(),
        event_id: event.event_id.into(),
        action: event.action,
        operator_id: event.actor.id,
        reason: event.detail.get("reason").cloned().unwrap_or_default(),
        subject: event.subject.unwrap_or_default(),
        client_id: event.client_id.map(String::from).unwrap_or_default(),
        refused: event.outcome == Outcome::Refused,
    }
}

/// Reads a `ReportSecretUseRequest`.
pub fn uses(request: pb::ReportSecretUseRequest) -> Result<Vec<SecretUse>> {
    let mut v = Violations::default();
    if !(1..=MAX_USES).contains(&request.uses.len()) {
        v.add("uses", format!("must have 1 to {MAX_USES} elements"));
        return Err(v);
    }
    let mut uses = Vec::with_capacity(request.uses.len());
    for (index, reported) in request.uses.into_iter().enumerate() {
        let path = |name: &str| format!("{}.{name}", list_field("uses", index));
        let client_id = v.check(&path("client_id"), ClientId::parse(&reported.client_id));
        let secret_id = v.check(&path("secret_id"), SecretId::parse(&reported.secret_id));
        let used_at = reported.use_time.as_ref().and_then(UnixMillis::from_timestamp);
        let used_at = v.check(&path("use_time"), used_at.ok_or("must be a time from 1970 on"));
        if let (Some(client_id), Some(secret_id), Some(used_at)) = (client_id, secret_id, used_at) {
            uses.push(SecretUse {
                client_id,
                secret_id,
                used_at,
            });
        }
    }
    v.finish(|| Some(uses))
}

/// Reads a `ReportSigningAlgorithmsRequest`.
pub fn signing_algorithms(request: &pb::ReportSigningAlgorithmsRequest) -> Result<BTreeSet<String>> {
    let mut v = Violations::default();
    let names = &request.algorithms;
    if !(1..=MAX_ALGORITHMS).contains(&names.len()) {
        v.add("algorithms", format!("must have 1 to {MAX_ALGORITHMS} elements"));
    }
    for (index, name) in names.iter().enumerate().take(MAX_ALGORITHMS) {
        let is_name = (1..=32).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_name {
            let rule = "must have 1 to 32 printable characters of ASCII without spaces";
            v.add(list_field("algorithms", index), rule);
        }
    }
    v.finish(|| Some(names.iter().cloned().collect()))
}
