//! The contents of an event: who acted, on what, and the outcome. Knows no table.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use strum::{AsRefStr, EnumString};
use ulid::Ulid;

use crate::{
    clock::Clock,
    random::Random,
    store::StoreError,
    text::id::{ClientId, EventId, TenantId},
};

/// The kind of a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, AsRefStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum ActorKind {
    /// A person who runs Accord.
    Operator,
    /// A service of the platform.
    Workload,
    /// A third-party client, by its own credentials.
    Client,
    /// A tenant's admin, by a session.
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
    /// It was done.
    Success,
    /// It was refused, and nothing but this event changed.
    Refused,
}

/// Who acted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The kind of principal.
    pub kind: ActorKind,
    /// Its id within the kind; empty for an anonymous one.
    pub id: String,
}

/// The origin of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who acted.
    pub actor: Actor,
    /// The transport's id of the request, which its log lines have too. Not the caller's `request_id`, from which
    /// secrets derive.
    pub request_id: String,
}

impl Origin {
    /// Returns the origin of what Accord does itself, outside of any request. `id` names the part of Accord.
    pub fn system(id: &str) -> Self {
        Self {
            actor: Actor {
                kind: ActorKind::System,
                id: id.to_owned(),
            },
            request_id: String::new(),
        }
    }
}

/// An event to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The action, as `noun.verb`.
    pub action: &'static str,
    /// The outcome.
    pub outcome: Outcome,
    /// The tenant concerned.
    pub tenant_id: Option<TenantId>,
    /// The client concerned.
    pub client_id: Option<ClientId>,
    /// The id of what was acted on.
    pub subject: Option<String>,
    /// Further facts for an investigation.
    pub detail: BTreeMap<&'static str, String>,
}

impl Event {
    /// Creates a successful action without tenant, client or subject.
    pub fn new(action: &'static str) -> Self {
        Self {
            action,
            outcome: Outcome::Success,
            tenant_id: None,
            client_id: None,
            subject: None,
            detail: BTreeMap::new(),
        }
    }

    /// Sets the tenant.
    #[must_use]
    pub fn tenant(mut self, tenant_id: &TenantId) -> Self {
        self.tenant_id = Some(tenant_id.clone());
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

    /// Marks the action as refused.
    #[must_use]
    pub fn refused(mut self) -> Self {
        self.outcome = Outcome::Refused;
        self
    }
}

/// An event with its id and time, ready to insert.
#[derive(Clone, Debug)]
pub struct Record {
    pub(in crate::store) event_id: EventId,
    pub(in crate::store) occurred_at: i64,
    pub(in crate::store) action: &'static str,
    pub(in crate::store) outcome: Outcome,
    pub(in crate::store) actor: Actor,
    pub(in crate::store) tenant_id: Option<TenantId>,
    pub(in crate::store) client_id: Option<ClientId>,
    pub(in crate::store) subject: Option<String>,
    pub(in crate::store) request_id: String,
    /// A JSON object.
    pub(in crate::store) detail: String,
}

impl Record {
    /// Gives the event an id and the present time.
    pub fn new(
        clock: &dyn Clock,
        random: &dyn Random,
        origin: Origin,
        event: Event,
    ) -> Result<Self, StoreError> {
        let id = next_id(clock, random);
        let detail = serde_json::to_string(&event.detail)
            .map_err(|_| StoreError::Corrupt("detail of an audit event"))?;
        Ok(Self {
            event_id: EventId::of(id),
            occurred_at: i64::try_from(id.timestamp_ms()).unwrap_or(i64::MAX),
            action: event.action,
            outcome: event.outcome,
            actor: origin.actor,
            tenant_id: event.tenant_id,
            client_id: event.client_id,
            subject: event.subject,
            request_id: origin.request_id,
            detail,
        })
    }
}

/// Returns a new id. Ids of one process and one millisecond keep the order of their creation: the upper half of
/// the random part is a counter. The other 40 bits tell replicas apart.
fn next_id(clock: &dyn Clock, random: &dyn Random) -> Ulid {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    const RANDOM_BITS: u32 = 40;
    const RANDOM_MASK: u128 = (1 << RANDOM_BITS) - 1;

    let mut bits = [0; 16];
    random.fill(&mut bits[..5]);
    let count = u128::from(COUNT.fetch_add(1, Ordering::Relaxed)) & RANDOM_MASK;
    let rest = count << RANDOM_BITS | u128::from_le_bytes(bits) & RANDOM_MASK;
    let millis = u64::try_from(clock.now().as_millis()).unwrap_or(0);
    Ulid::from_parts(millis.min((1 << 48) - 1), rest)
}
