//! The receipt of a consent: what was granted to whom, for what purpose, by whom, when, and until when. Members have the
//! names of ISO/IEC TS 27560:2023 where they fit. No member is an account name.

use accord::{
    clock::UnixMillis,
    text::{id::UserId, network::AllowedNetworks},
};
use serde::{Deserialize, Serialize};

use super::{Consent, GrantState};
use crate::model::{client::ClientScope, tenant::Tenant};

/// The version of the members.
const SCHEMA_VERSION: &str = "accord-1";

/// How many changes of a kind are kept: the newest ones.
pub const MAX_CHANGES: usize = 100;

/// What a receipt says beside the grant, stored when it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantHistory {
    /// The scopes granted, with their texts as the consent page showed them.
    pub scopes: Vec<ClientScope>,
    /// The changes of the designated user, the oldest first.
    pub user_changes: Vec<UserChange>,
    /// The changes of the allowed networks, the oldest first.
    pub network_changes: Vec<NetworkChange>,
}

/// A change of the designated user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserChange {
    /// When, in milliseconds since 1970.
    pub changed_at: i64,
    /// The Tenant Admin who changed it.
    pub changed_by: UserId,
    /// The user that API transactions have run as since.
    pub user_id: UserId,
}

/// A change of the allowed networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkChange {
    /// When, in milliseconds since 1970.
    pub changed_at: i64,
    /// The Tenant Admin who changed them.
    pub changed_by: UserId,
    /// The networks that tokens may be requested from since.
    pub allowed_networks: AllowedNetworks,
}

/// The claims of a receipt.
#[derive(Clone, Debug, Serialize)]
pub struct ConsentReceipt {
    /// The Tenant Authority URL.
    iss: String,
    /// When the receipt was signed, in seconds since 1970. It does not expire.
    iat: i64,
    schema_version: &'static str,
    /// The grant.
    record_id: String,
    /// The event of the approval in the audit record of token-service.
    audit_event_id: String,
    parties: Vec<Party>,
    purposes: Vec<Purpose>,
    designated_user: Person,
    /// The networks that tokens may be requested from; absent if any.
    #[serde(skip_serializing_if = "AllowedNetworks::allow_any")]
    allowed_networks: AllowedNetworks,
    events: Vec<ReceiptEvent>,
    /// When the consent ends by itself; absent if never.
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_time: Option<String>,
}

/// Who takes part.
#[derive(Clone, Debug, Serialize)]
struct Party {
    party_id: String,
    party_type: &'static str,
    party_name: String,
    /// The integration's name, as the consent page showed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
}

/// What the data is for.
#[derive(Clone, Debug, Serialize)]
struct Purpose {
    /// In the partner's words, as the consent page showed it.
    purpose: String,
    /// What was granted.
    scopes: Vec<Scope>,
}

#[derive(Clone, Debug, Serialize)]
struct Scope {
    name: String,
    /// From the catalogue, as the consent page showed it.
    description: String,
    /// What the partner needs it for, as the consent page showed it.
    reason: String,
}

#[derive(Clone, Debug, Serialize)]
struct Person {
    user_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    label: String,
}

/// What happened to the consent.
#[derive(Clone, Debug, Serialize)]
struct ReceiptEvent {
    event_state: &'static str,
    /// RFC 3339. Absent if the client or another party has ended or suspended the consent: only the registry has that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_time: Option<String>,
    /// Who did it; absent for an end, about which the audit record tells more.
    #[serde(skip_serializing_if = "Option::is_none")]
    entity: Option<Person>,
    /// Whom API transactions have run as since.
    #[serde(skip_serializing_if = "Option::is_none")]
    designated_user: Option<Person>,
    /// The networks that tokens may be requested from since; empty for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_networks: Option<AllowedNetworks>,
}

impl ConsentReceipt {
    /// Describes a consent as it is at `now`. `audit_event_id` is the id of the event of its approval.
    pub fn new(
        consent: Consent,
        history: GrantHistory,
        tenant: &Tenant,
        audit_event_id: String,
        now: UnixMillis,
    ) -> Self {
        let grant = consent.grant;
        let given = ReceiptEvent {
            event_state: "given",
            event_time: Some(rfc3339(grant.created_at)),
            entity: Some(Person {
                user_id: grant.granted_by.into(),
                label: consent.granted_by_label,
            }),
            designated_user: None,
            allowed_networks: None,
        };
        let changed = changes(history.user_changes, history.network_changes);
        let end_state = match consent.state {
            GrantState::Revoked => Some("withdrawn"),
            GrantState::Expired => Some("expired"),
            GrantState::Superseded => Some("superseded"),
            // Client, tenant or designated user is not active.
            GrantState::Suspended => Some("suspended"),
            GrantState::Pending | GrantState::Active => None,
        };
        let ended = end_state.map(|event_state| ReceiptEvent {
            event_state,
            event_time: consent.ended_at.map(rfc3339),
            entity: None,
            designated_user: None,
            allowed_networks: None,
        });
        let scopes = history.scopes.into_iter().map(|scope| Scope {
            name: scope.name.into(),
            description: scope.description,
            reason: scope.reason,
        });
        Self {
            iss: tenant.issuer.clone(),
            iat: now.as_secs(),
            schema_version: SCHEMA_VERSION,
            record_id: grant.grant_id.into(),
            audit_event_id,
            parties: vec![
                Party {
                    party_id: grant.tenant_id.into(),
                    party_type: "pii_controller",
                    party_name: tenant.display_name.clone(),
                    service: None,
                },
                Party {
                    party_id: grant.client_id.into(),
                    party_type: "recipient_third_party",
                    party_name: grant.display.partner_name,
                    service: Some(grant.display.display_name),
                },
            ],
            purposes: vec![Purpose {
                purpose: grant.display.purpose,
                scopes: scopes.collect(),
            }],
            designated_user: Person {
                user_id: grant.designated_user_id.into(),
                label: consent.designated_user_label,
            },
            allowed_networks: grant.allowed_networks,
            events: [given].into_iter().chain(changed).chain(ended).collect(),
            expire_time: grant.expires_at.map(rfc3339),
        }
    }
}

/// Returns the events of all changes, the oldest first.
fn changes(users: Vec<UserChange>, networks: Vec<NetworkChange>) -> impl Iterator<Item = ReceiptEvent> {
    let event = |event_state, changed_at, changed_by| ReceiptEvent {
        event_state,
        event_time: Some(rfc3339(UnixMillis::from_millis(changed_at))),
        entity: Some(unlabelled(changed_by)),
        designated_user: None,
        allowed_networks: None,
    };
    let users = users.into_iter().map(|change| {
        let event = ReceiptEvent {
            designated_user: Some(unlabelled(change.user_id)),
            ..event("designated_user_changed", change.changed_at, change.changed_by)
        };
        (change.changed_at, event)
    });
    let networks = networks.into_iter().map(|change| {
        let event = ReceiptEvent {
            allowed_networks: Some(change.allowed_networks),
            ..event("allowed_networks_changed", change.changed_at, change.changed_by)
        };
        (change.changed_at, event)
    });
    let mut changes: Vec<_> = users.chain(networks).collect();
    changes.sort_by_key(|(changed_at, _)| *changed_at);
    changes.into_iter().map(|(_, event)| event)
}

fn unlabelled(user_id: UserId) -> Person {
    Person {
        user_id: user_id.into(),
        label: String::new(),
    }
}

fn rfc3339(at: UnixMillis) -> String {
    at.to_timestamp().to_string()
}
