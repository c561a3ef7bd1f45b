//! token-service's questions and answers between messages and nouns.

use accord::{
    clock::UnixMillis,
    position::{Epoch, Position},
    registry::v1 as pb,
    store::change::ChangeRow,
    text::{
        id::{ClientId, SecretId, TenantId},
        validation::{Violations, list_field},
    },
};

use super::{client, tenant, user};
use crate::{
    directory::Changes,
    model::{
        change_kind,
        client::ClientProfile,
        client_secret::{LiveSecret, SecretUse},
        tenant::{Tenant, authority_url},
        user::User,
    },
};

/// The most uses that one report may hold.
pub const MAX_USES: usize = 1000;

/// Writes a position.
pub fn position(position: Position) -> pb::FeedPosition {
    pb::FeedPosition {
        epoch: position.epoch.into(),
        seq: position.seq,
    }
}

/// Reads a client's id.
///
/// # Errors
/// The violation.
pub fn client_id(client_id: &str) -> Result<ClientId, Violations> {
    let mut v = Violations::default();
    v.check("client_id", ClientId::parse(client_id)).ok_or(v)
}

/// Writes a client's profile.
pub fn client_profile(profile: ClientProfile) -> pb::ClientProfile {
    let scopes = profile.scopes.into_iter().map(|scope| pb::ProfileScope {
        name: scope.name.into(),
        description: scope.description,
        reason: scope.reason,
    });
    let client = profile.client;
    pb::ClientProfile {
        client_id: client.client_id.into(),
        display_name: client.presentation.display_name,
        partner_name: client.presentation.partner_name,
        purpose: client.presentation.goals,
        state: client::state(client.state).into(),
        tenant_ids: client.tenant_ids.into_iter().map(String::from).collect(),
        scopes: scopes.collect(),
        redirect_uris: client.redirect_uris,
        version: client.version,
        tokens_ended_seq: client.tokens_ended_seq,
        families_ended_seq: client.families_ended_seq,
        json_web_key_set: client.json_web_key_set,
        live_secrets: profile.live_secrets.into_iter().map(live_secret).collect(),
    }
}

fn live_secret(secret: LiveSecret) -> pb::LiveSecret {
    pb::LiveSecret {
        secret_id: secret.secret_id.into(),
        expire_time: secret.expires_at.map(UnixMillis::to_timestamp),
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
        state: user::state(profile.state).into(),
        tokens_ended_seq: profile.tokens_ended_seq,
        sessions_ended_seq: profile.sessions_ended_seq,
    }
}

/// Reads a `ListChangesRequest`: after which position, and how many at most.
///
/// # Errors
/// All violations.
pub fn list_changes(request: pb::ListChangesRequest) -> Result<(Option<Position>, u64), Violations> {
    let mut v = Violations::default();
    let after = request.after.unwrap_or_default();
    if after.seq < 0 {
        v.add("after.seq", "must not be negative");
    }
    let limit = u64::try_from(request.page_size);
    if limit.is_err() {
        v.add("page_size", "must not be negative");
    }
    let epoch = (!after.epoch.is_empty()).then(|| v.check("after.epoch", Epoch::parse(&after.epoch)));
    let (Ok(limit), true) = (limit, v.is_empty()) else {
        return Err(v);
    };
    let after = epoch.flatten().map(|epoch| Position {
        epoch,
        seq: after.seq,
    });
    Ok((after, limit))
}

/// Writes changes.
pub fn list_changes_response(changes: Changes) -> pb::ListChangesResponse {
    pb::ListChangesResponse {
        changes: changes.changes.into_iter().map(change).collect(),
        position: Some(position(changes.position)),
        reset: changes.reset,
        more: changes.more,
        recent_seq: changes.recent_seq.unwrap_or_default(),
        secret_tag_keys: changes
            .secret_tag_keys
            .iter()
            .map(|(version, key)| pb::SecretTagKey {
                version: *version,
                key: key.to_vec(),
            })
            .collect(),
    }
}

fn change(row: ChangeRow) -> pb::Change {
    let (kind, ends_tokens) = match row.kind.as_str() {
        change_kind::TENANT => (pb::ChangeKind::Tenant, false),
        change_kind::TENANT_TOKENS_ENDED => (pb::ChangeKind::Tenant, true),
        change_kind::USER => (pb::ChangeKind::User, false),
        change_kind::USER_TOKENS_ENDED => (pb::ChangeKind::User, true),
        change_kind::CLIENT => (pb::ChangeKind::Client, false),
        change_kind::CLIENT_TOKENS_ENDED => (pb::ChangeKind::Client, true),
        change_kind::SCOPE => (pb::ChangeKind::Scope, false),
        change_kind::CALLER => (pb::ChangeKind::Caller, false),
        _ => (pb::ChangeKind::Unspecified, false),
    };
    pb::Change {
        seq: row.seq,
        kind: kind.into(),
        id: row.id,
        tenant_id: row.tenant_id.map(String::from).unwrap_or_default(),
        ends_tokens,
    }
}

/// Reads a `ReportSecretUseRequest`.
///
/// # Errors
/// All violations.
pub fn uses(request: pb::ReportSecretUseRequest) -> Result<Vec<SecretUse>, Violations> {
    let mut v = Violations::default();
    if request.uses.len() > MAX_USES {
        v.add("uses", "must have at most 1000 elements");
        return Err(v);
    }
    let mut uses = Vec::with_capacity(request.uses.len());
    for (index, used) in request.uses.into_iter().enumerate() {
        let field = list_field("uses", index);
        let client_id = v.check(&format!("{field}.client_id"), ClientId::parse(&used.client_id));
        let secret_id = v.check(&format!("{field}.secret_id"), SecretId::parse(&used.secret_id));
        let used_at = used.use_time.as_ref().and_then(UnixMillis::from_timestamp);
        if used_at.is_none() {
            v.add(format!("{field}.use_time"), "must be a time from 1970 on");
        }
        if let (Some(client_id), Some(secret_id), Some(used_at)) = (client_id, secret_id, used_at) {
            uses.push(SecretUse {
                client_id,
                secret_id,
                used_at,
            });
        }
    }
    if v.is_empty() { Ok(uses) } else { Err(v) }
}

/// Reads a tenant's id.
///
/// # Errors
/// The violation.
pub fn tenant_id(tenant_id: &str) -> Result<TenantId, Violations> {
    tenant::tenant_id(tenant_id)
}
