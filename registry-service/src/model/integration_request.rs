//! Integration requests: what a partner asks for, and the decision on it.

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, IntegrationRequestId, ScopeName, TenantId},
        validation::Violations,
    },
};
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, EnumString};

use crate::error::Error;

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum State {
    /// Waits for a decision.
    Submitted,
    /// May be registered as a client.
    Approved,
    /// Final.
    Rejected,
    /// Has become a client; final.
    Registered,
}

/// A step that a request's state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTransition {
    /// The state that it is in.
    pub from: State,
}

impl From<InvalidTransition> for Error {
    fn from(invalid: InvalidTransition) -> Self {
        Self::WrongState {
            resource: "integration_request",
            state: invalid.from.contract_name(),
        }
    }
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Submitted, Self::Approved, Self::Rejected, Self::Registered];

    /// The state's name in the contract, without the prefix of its type.
    pub fn contract_name(self) -> &'static str {
        match self {
            Self::Submitted => "SUBMITTED",
            Self::Approved => "APPROVED",
            Self::Rejected => "REJECTED",
            Self::Registered => "REGISTERED",
        }
    }

    /// The state after an operator approves.
    ///
    /// # Errors
    /// [`InvalidTransition`] unless it waits for a decision.
    pub fn approve(self) -> Result<Self, InvalidTransition> {
        self.step(Self::Submitted, Self::Approved)
    }

    /// The state after an operator rejects.
    ///
    /// # Errors
    /// [`InvalidTransition`] unless it waits for a decision.
    pub fn reject(self) -> Result<Self, InvalidTransition> {
        self.step(Self::Submitted, Self::Rejected)
    }

    /// The state after the client is registered.
    ///
    /// # Errors
    /// [`InvalidTransition`] unless it is approved, and no client came of it yet.
    pub fn register(self) -> Result<Self, InvalidTransition> {
        self.step(Self::Approved, Self::Registered)
    }

    fn step(self, from: Self, to: Self) -> Result<Self, InvalidTransition> {
        if self == from {
            Ok(to)
        } else {
            Err(InvalidTransition { from: self })
        }
    }
}

/// A data scope that a partner asks for, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedScope {
    /// The scope's name in the catalogue.
    pub name: ScopeName,
    /// What the partner needs it for, in words for a Tenant Admin.
    pub reason: String,
}

/// What a partner asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegrationRequest {
    /// The request's id.
    pub integration_request_id: IntegrationRequestId,
    /// What the partner asks for.
    pub content: NewIntegrationRequest,
    /// Where it stands.
    pub state: State,
    /// Why it was rejected; empty otherwise.
    pub rejection_reason: String,
    /// The client it became.
    pub client_id: Option<ClientId>,
    /// When it was recorded.
    pub created_at: UnixMillis,
    /// When its state last changed.
    pub updated_at: UnixMillis,
}

/// What consent pages show of an integration. It is stored as one value, here and in the client, so that a new text
/// needs no column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presentation {
    /// The partner's name.
    pub partner_name: String,
    /// The integration's name.
    pub display_name: String,
    /// What the integration is for: the purpose of every consent.
    pub goals: String,
}

/// A partner's request as an operator takes it in, stored as one value. Every list is free of duplicates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewIntegrationRequest {
    /// What consent pages show.
    pub presentation: Presentation,
    /// The address of the partner's contact.
    pub contact_email: String,
    /// The tenants whose data is asked for.
    pub tenant_ids: Vec<TenantId>,
    /// The scopes asked for.
    pub scopes: Vec<RequestedScope>,
    /// Where browsers may be redirected to, compared byte by byte.
    pub redirect_uris: Vec<String>,
    /// Anything else.
    pub notes: String,
}

impl NewIntegrationRequest {
    /// What the request refers to, at the places where a message has it.
    pub fn references(&self) -> References {
        References {
            prefix: "",
            tenants: self.tenant_ids.iter().cloned().enumerate().collect(),
            scopes: self
                .scopes
                .iter()
                .map(|scope| scope.name.clone())
                .enumerate()
                .collect(),
        }
    }
}

/// Tenants and scopes that a message refers to, each with its index there. They have to exist, and
/// the scopes to be enabled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// What the fields' paths begin with: nothing, or a message's field such as `client.`.
    pub prefix: &'static str,
    /// Elements of `tenant_ids`.
    pub tenants: Vec<(usize, TenantId)>,
    /// Names of elements of `scopes`.
    pub scopes: Vec<(usize, ScopeName)>,
}

/// A message that breaks rules of its own, and what it refers to as far as that can be read.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// What is wrong with it.
    pub violations: Violations,
    /// What may be wrong beyond that.
    pub references: References,
}

/// What an operator decides about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be registered.
    Approve,
    /// It may not, for this reason.
    Reject(String),
}

impl Decision {
    /// The state after this decision on a request that is in `state`.
    ///
    /// # Errors
    /// [`InvalidTransition`].
    pub fn apply(&self, state: State) -> Result<State, InvalidTransition> {
        match self {
            Self::Approve => state.approve(),
            Self::Reject(_) => state.reject(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_decided_once_and_registered_once() {
        type Step = fn(State) -> Result<State, InvalidTransition>;
        let steps: [(Step, State, State); 3] = [
            (State::approve, State::Submitted, State::Approved),
            (State::reject, State::Submitted, State::Rejected),
            (State::register, State::Approved, State::Registered),
        ];
        for (step, from, to) in steps {
            for state in State::ALL {
                let expected = if state == from {
                    Ok(to)
                } else {
                    Err(InvalidTransition { from: state })
                };
                assert_eq!(step(state), expected);
            }
        }
    }

    #[test]
    fn the_contract_s_names_are_ours() {
        for state in State::ALL {
            assert_eq!(state.contract_name(), state.as_ref().to_uppercase());
        }
    }
}
