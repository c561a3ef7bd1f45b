//! The content of an audit event: who acted, on what, and the outcome. Knows no table.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::Deserialize;
use strum::{AsRefStr, EnumString, IntoStaticStr};

use crate::{
    clock::Clock,
    random::Random,
    text::{
        id::{ClientId, EventId, FamilyId, GrantId, TenantId, UserId, ulid_at},
        opaque::sha256,
    },
};

pub mod action;

use action::Action;

/// The kind of a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, AsRefStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum ActorKind {
    /// A person who runs Accord.
    Operator,
    /// A service of the platform.
    Workload,
    /// A third-party client with its own credentials.
    Client,
    /// A Tenant Admin with a session.
    TenantAdmin,
    /// A caller without credentials.
    Anonymous,
    /// Accord itself, on its own schedule.
    System,
}

/// The outcome of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, AsRefStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Outcome {
    /// The action took effect.
    Success,
    /// The action was rejected and changed nothing.
    Refused,
}

/// Who acted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The kind of principal.
    pub kind: ActorKind,
    /// The principal's id; empty for an anonymous one.
    pub id: String,
}

/// The address of a caller, in canonical form: no IPv4 address is one of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallerAddress {
    /// A gateway forwarded it. On a listener without TLS, any process of the host can write it.
    Forwarded(IpAddr),
    /// The other end of the connection.
    Peer(IpAddr),
}

impl CallerAddress {
    /// Returns the address, whoever says so.
    pub fn ip(self) -> IpAddr {
        match self {
            Self::Forwarded(ip) | Self::Peer(ip) => ip,
        }
    }

    /// Returns the address if a gateway forwarded it.
    pub fn forwarded(self) -> Option<IpAddr> {
        match self {
            Self::Forwarded(ip) => Some(ip),
            Self::Peer(_) => None,
        }
    }
}

/// The origin of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who acted.
    pub actor: Actor,
    /// The names of the client certificate that authenticated the actor, separated by spaces; `None` for another
    /// credential.
    pub certificate: Option<String>,
    /// The id of the session that a Tenant Admin acts in, which is no secret; `None` for everybody else.
    pub session: Option<String>,
    /// The address of the caller; `None` for what Accord does itself.
    pub address: Option<CallerAddress>,
    /// The transport's request id, which the log lines of the call have too. Not the caller's `request_id`, from
    /// which secrets derive.
    pub request_id: String,
}

impl Origin {
    /// Returns the origin of what Accord does itself, outside of any request. `id` names the part of Accord.
    pub fn system(id: &str) -> Self {
        Self::outside_of_calls(ActorKind::System, id)
    }

    /// Returns the origin of what belongs to no call.
    pub(crate) fn outside_of_calls(kind: ActorKind, id: &str) -> Self {
        let id = id.to_owned();
        Self {
            actor: Actor { kind, id },
            certificate: None,
            session: None,
            address: None,
            request_id: String::new(),
        }
    }
}

/// The grant types of RFC 6749 that tokens are issued for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum GrantType {
    /// §4.1.
    AuthorizationCode,
    /// §6.
    RefreshToken,
    /// §4.4.
    ClientCredentials,
}

/// The facts of an access token that was issued. None of them is the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedToken {
    /// The token's `jti`, which is the id of its event too.
    pub jti: EventId,
    /// The grant that it was issued under.
    pub grant_id: GrantId,
    /// The user whom it runs as.
    pub user_id: UserId,
    /// The grant type.
    pub grant_type: GrantType,
    /// The SHA-256 thumbprint of the signing key (RFC 7638).
    pub key_thumbprint: [u8; 32],
    /// The scopes, separated by spaces.
    pub scope: String,
}

/// A refresh token that nobody had got before: its family, and its generation there, which is the greatest so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The family.
    pub family_id: FamilyId,
    /// The generation.
    pub generation: u32,
}

/// An event to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The action.
    pub action: Action,
    /// The outcome.
    pub outcome: Outcome,
    /// The tenant concerned.
    pub tenant_id: Option<TenantId>,
    /// Further tenants whom the action concerns, such as those of a client. The encoded event does not hold them.
    pub tenants: Vec<TenantId>,
    /// The client concerned.
    pub client_id: Option<ClientId>,
    /// The id of what was acted on.
    pub subject: Option<String>,
    /// Further facts for an investigation.
    pub detail: BTreeMap<&'static str, String>,
    /// The token that was issued, in place of subject and detail.
    pub issued_token: Option<IssuedToken>,
    /// The refresh token that was handed out with it.
    pub renewal: Option<Renewal>,
}

impl Event {
    /// Creates the event of a successful action.
    pub fn new(action: Action) -> Self {
        Self {
            action,
            outcome: Outcome::Success,
            tenant_id: None,
            tenants: Vec::new(),
            client_id: None,
            subject: None,
            detail: BTreeMap::new(),
            issued_token: None,
            renewal: None,
        }
    }

    /// Creates the event of an issued token.
    pub fn issued(token: IssuedToken) -> Self {
        Self {
            issued_token: Some(token),
            ..Self::new(action::TOKEN_ISSUE)
        }
    }

    /// Creates an event with an action that only tests record.
    #[cfg(feature = "testing")]
    pub fn test(action: &'static str) -> Self {
        Self::new(Action::test(action))
    }

    /// Sets the tenant.
    #[must_use]
    pub fn tenant(mut self, tenant_id: &TenantId) -> Self {
        self.tenant_id = Some(tenant_id.clone());
        self
    }

    /// Adds further tenants whom the action concerns. If an operator acts, their Tenant Admins see it.
    #[must_use]
    pub fn concerning(mut self, tenants: impl IntoIterator<Item = TenantId>) -> Self {
        self.tenants.extend(tenants);
        self
    }

    /// Sets the client.
    #[must_use]
    pub fn client(mut self, client_id: &ClientId) -> Self {
        self.client_id = Some(client_id.clone());
        self
    }

    /// Sets the id of what was acted on.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Adds a detail; a second value for the same key replaces the first.
    #[must_use]
    pub fn detail(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.detail.insert(key, value.into());
        self
    }

    /// Says that somebody without the keys had edited a table, or several.
    #[must_use]
    pub fn altered(mut self, table: &str) -> Self {
        self.add_altered(table);
        self
    }

    pub(in crate::store) fn add_altered(&mut self, table: &str) {
        let tables = self.detail.entry("altered").or_default();
        if !tables.is_empty() {
            tables.push_str(", ");
        }
        tables.push_str(table);
    }

    /// Adds a detail if there is a value for it.
    #[must_use]
    pub fn detail_if(self, key: &'static str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.detail(key, value),
            None => self,
        }
    }

    /// Returns the id of what was acted on: for an issued token, its grant.
    pub(in crate::store) fn subject_id(&self) -> Option<String> {
        match &self.issued_token {
            Some(token) => Some(token.grant_id.to_string()),
            None => self.subject.clone(),
        }
    }

    /// Marks the action as rejected.
    #[must_use]
    pub fn refused(mut self) -> Self {
        self.outcome = Outcome::Refused;
        self
    }
}

/// The most bytes of an event's details. The rest of a record is small, so that it stays below 64 KiB: some forms of a log hold the
/// length of an entry in 16 bits (C2SP tlog-tiles).
const MAX_DETAIL_BYTES: usize = 56 * 1024;

/// More bytes than a hash takes in place of a value.
const HASHED_BYTES: usize = 128;

/// Shortens the longest details, until all fit: an update of a list to the elements that it added and removed, all else to its
/// SHA-256. A row of the database, or the event before, holds the value itself: the hash shows that it is the one.
fn fit(detail: &mut BTreeMap<&'static str, String>) {
    while detail
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum::<usize>()
        > MAX_DETAIL_BYTES
    {
        let longest = detail.values_mut().max_by_key(|value| value.len());
        let Some(longest) = longest.filter(|longest| longest.len() > HASHED_BYTES) else {
            return;
        };
        if let Some(difference) = difference(longest) {
            *longest = difference;
            continue;
        }
        let hash = hex::encode(sha256(longest.as_bytes()));
        *longest = format!(r#"{{"sha256":"{hash}","bytes":{}}}"#, longest.len());
    }
}

/// Returns what an update of a list has added and removed, for its old and new value.
fn difference(replaced: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Replaced {
        old: Vec<serde_json::Value>,
        new: Vec<serde_json::Value>,
    }
    let Replaced { old, new } = serde_json::from_str(replaced).ok()?;
    let without = |these: &[serde_json::Value], those: &[serde_json::Value]| {
        let those: HashSet<_> = those.iter().collect();
        these
            .iter()
            .filter(|value| !those.contains(value))
            .cloned()
            .collect::<Vec<_>>()
    };
    let (added, removed) = (without(&new, &old), without(&old, &new));
    let difference = serde_json::json!({ "added": added, "removed": removed }).to_string();
    (difference.len() < replaced.len()).then_some(difference)
}

/// A row that confers authority, and the beginning of the digest over its MAC and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowVersion {
    /// `<table>/<key>`.
    pub(in crate::store) row: String,
    pub(in crate::store) digest: [u8; 16],
    /// The one before the change; `None` for a new row.
    pub(in crate::store) before: Option<[u8; 16]>,
}

/// An event with its id and time, ready to insert.
#[derive(Clone, Debug)]
pub struct Record {
    pub(in crate::store) event_id: EventId,
    pub(in crate::store) origin: Origin,
    pub(in crate::store) event: Event,
    /// The rows that the transaction of the event has written.
    pub(in crate::store) rows: Vec<RowVersion>,
}

impl Record {
    /// Gives the event an id and the current time. The event of an issued token has the token's id.
    pub fn new(clock: &dyn Clock, random: &dyn Random, origin: Origin, event: Event) -> Self {
        let event_id = match &event.issued_token {
            Some(token) => token.jti.clone(),
            None => next_id(clock, random),
        };
        let mut event = event
            .detail_if("certificate", origin.certificate.as_deref())
            .detail_if("session", origin.session.as_deref());
        fit(&mut event.detail);
        Self {
            event_id,
            origin,
            event,
            rows: Vec::new(),
        }
    }
}

/// Returns the id of a new event.
///
/// Ids of one process and one millisecond have the order of their creation: the upper half of the random part is a counter.
/// The other 40 bits distinguish replicas.
pub fn next_id(clock: &dyn Clock, random: &dyn Random) -> EventId {
    static COUNT: AtomicU64 = AtomicU64::new(0);

    let mut bits = [0; 8];
    random.fill(&mut bits[..5]);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) & ((1 << 40) - 1);
    let random = u128::from(count) << 40 | u128::from(u64::from_le_bytes(bits));
    EventId::of(ulid_at(clock.now(), random))
}
