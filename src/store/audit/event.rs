//! The content of an audit event: who acted, on what, and the outcome. Knows no table.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use strum::{AsRefStr, EnumString};

use crate::{
    clock::Clock,
    random::Random,
    store::StoreError,
    text::id::{ClientId, EventId, TenantId, ulid_at},
};

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

/// The origin of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who acted.
    pub actor: Actor,
    /// The names of the client certificate that authenticated the actor, separated by spaces; `None` for another
    /// credential.
    pub certificate: Option<String>,
    /// The transport's request id, which the log lines of the call have too. Not the caller's `request_id`, from
    /// which secrets derive.
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
            certificate: None,
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
    /// Creates the event of a successful action.
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

    /// Marks the action as rejected.
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
    /// Milliseconds since the epoch.
    pub(in crate::store) occurred_at: i64,
    pub(in crate::store) origin: Origin,
    pub(in crate::store) event: Event,
    /// The event's detail as a JSON object.
    pub(in crate::store) detail: String,
}

impl Record {
    /// Gives the event an id and the current time.
    ///
    /// Ids of one process and one millisecond have the order of their creation: the upper half of the random part is
    /// a counter. The other 40 bits distinguish replicas.
    pub fn new(
        clock: &dyn Clock,
        random: &dyn Random,
        origin: Origin,
        event: Event,
    ) -> Result<Self, StoreError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);

        let mut bits = [0; 8];
        random.fill(&mut bits[..5]);
        let count = COUNT.fetch_add(1, Ordering::Relaxed) & ((1 << 40) - 1);
        let id = ulid_at(
            clock.now(),
            u128::from(count) << 40 | u128::from(u64::from_le_bytes(bits)),
        );
        let event = match &origin.certificate {
            Some(names) => event.detail("certificate", names.as_str()),
            None => event,
        };
        let detail = serde_json::to_string(&event.detail);
        Ok(Self {
            event_id: EventId::of(id),
            occurred_at: i64::try_from(id.timestamp_ms()).unwrap_or(i64::MAX),
            origin,
            event,
            detail: detail.map_err(|_| StoreError::Corrupt("detail of an audit event"))?,
        })
    }
}
