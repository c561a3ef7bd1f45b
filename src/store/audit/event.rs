//! What an event says: who acted, on what, and how it ended. Knows no table.

use std::collections::BTreeMap;

use crate::text::id::{ClientId, TenantId};

/// An enum kept as text, with one table for both directions.
macro_rules! text_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant,)* }

        impl $name {
            /// The text that the database keeps.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The value for a text of [`as_str`](Self::as_str).
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

text_enum! {
    /// What kind of principal acted.
    ActorKind {
        /// A person who runs Accord.
        Operator = "operator",
        /// A service of the platform.
        Workload = "workload",
        /// A third-party client, by its own credentials.
        Client = "client",
        /// A tenant's admin, by a session.
        TenantAdmin = "tenant_admin",
        /// Someone who proved nothing.
        Anonymous = "anonymous",
        /// Accord itself, on its own schedule.
        System = "system",
    }
}

text_enum! {
    /// How it ended.
    Outcome {
        /// It was done.
        Success = "success",
        /// It was refused, and nothing but this event changed.
        Refused = "refused",
    }
}

/// Who acted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The kind of principal.
    pub kind: ActorKind,
    /// Its id within the kind; empty for an anonymous one.
    pub id: String,
}

/// Where an event comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who acted.
    pub actor: Actor,
    /// The transport's id for the request, under which the log has its lines. Not the caller's
    /// `request_id`, from which secrets derive.
    pub request_id: String,
}

/// Something that happened, to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What was done, as `noun.verb`.
    pub action: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// The tenant concerned.
    pub tenant_id: Option<TenantId>,
    /// The client concerned.
    pub client_id: Option<ClientId>,
    /// The id of what was acted on.
    pub subject: Option<String>,
    /// What else an investigator wants to know.
    pub detail: BTreeMap<&'static str, String>,
}

impl Event {
    /// A successful action that concerns nobody yet.
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

    /// Names the tenant concerned.
    #[must_use]
    pub fn tenant(mut self, tenant_id: &TenantId) -> Self {
        self.tenant_id = Some(tenant_id.clone());
        self
    }

    /// Names the client concerned.
    #[must_use]
    pub fn client(mut self, client_id: &ClientId) -> Self {
        self.client_id = Some(client_id.clone());
        self
    }

    /// Names what was acted on.
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

    /// Says that the action was refused.
    #[must_use]
    pub fn refused(mut self) -> Self {
        self.outcome = Outcome::Refused;
        self
    }
}
