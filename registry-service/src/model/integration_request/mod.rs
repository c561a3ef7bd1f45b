//! Integration requests of partners, and their states.

use accord::{
    clock::UnixMillis,
    text::id::{ClientId, IntegrationRequestId, ScopeName, TenantId},
};
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, EnumString};

use super::client::security::Security;
use crate::error::{Error, Result};

pub mod amendment;

/// The most tenants, and the most scopes, of a request or client.
pub const MAX_REFERENCES: usize = 100;
/// The most characters of all scope names of a request or client, with a space between them. It bounds access tokens:
/// with the longest base URLs a token and its header stay below 8 KiB.
pub const MAX_SCOPE_CHARACTERS: usize = 3072;
/// The most redirect URIs of a request or client.
pub const MAX_REDIRECT_URIS: usize = 20;

/// The most amendments in a client's origin.
pub const MAX_AMENDMENTS: u64 = 100;

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum State {
    /// Waits for a decision.
    Submitted,
    /// An operator may register its client, or apply it.
    Approved,
    /// An operator rejected it. Final.
    Rejected,
    /// Its client is registered, or amended by it. Final.
    Registered,
}

/// A change of a request's state.
#[derive(Clone, Copy, Debug)]
pub struct Transition {
    /// The only state that allows it.
    pub from: State,
    /// The state after it.
    pub to: State,
}

impl Transition {
    /// An operator approves.
    pub const APPROVE: Self = Self::new(State::Submitted, State::Approved);
    /// An operator rejects.
    pub const REJECT: Self = Self::new(State::Submitted, State::Rejected);
    /// An operator registers the client, or applies the amendment.
    pub const REGISTER: Self = Self::new(State::Approved, State::Registered);

    const fn new(from: State, to: State) -> Self {
        Self { from, to }
    }

    /// Checks that a request in this state allows the transition.
    ///
    /// # Errors
    /// [`Error::WrongState`].
    pub fn check(self, state: State) -> Result<()> {
        if state == self.from {
            return Ok(());
        }
        Err(Error::WrongState {
            resource: "integration_request",
            state: state.as_ref().to_uppercase(),
        })
    }
}

/// A data scope that a partner asks for, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestedScope {
    /// The scope's name in the catalogue.
    pub name: ScopeName,
    /// What the partner needs it for, in words for a Tenant Admin.
    pub reason: String,
}

/// An integration request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegrationRequest {
    /// The request's id.
    pub integration_request_id: IntegrationRequestId,
    /// The request as it was submitted.
    pub content: NewIntegrationRequest,
    /// How far it has come.
    pub state: State,
    /// The reason of a rejection, otherwise empty.
    pub rejection_reason: String,
    /// The person who submitted it.
    pub submitter: String,
    /// The client that was registered from it, or that it amends.
    pub client_id: Option<ClientId>,
    /// When it was recorded.
    pub created_at: UnixMillis,
    /// When its state last changed.
    pub updated_at: UnixMillis,
}

/// The texts of an integration that consent pages show. Request and client store them as one value, so that a new text
/// needs no column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisplayInfo {
    /// The partner's name.
    pub partner_name: String,
    /// The integration's name.
    pub display_name: String,
    /// What the integration is for: the purpose of every consent.
    pub goals: String,
}

/// A partner's request as an operator submits it. It is stored as one value. No list holds duplicates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewIntegrationRequest {
    /// What consent pages show.
    pub presentation: DisplayInfo,
    /// The address of the partner's contact.
    pub contact_email: String,
    /// The requested tenants.
    pub tenant_ids: Vec<TenantId>,
    /// The requested scopes, with the partner's reasons.
    pub scopes: Vec<RequestedScope>,
    /// Where browsers may be redirected to, compared byte by byte.
    pub redirect_uris: Vec<String>,
    /// Further notes.
    pub notes: String,
    /// The client's public keys, as [`ClientKeys`](crate::model::client_keys::ClientKeys) writes them; empty if none.
    pub json_web_key_set: String,
    /// How the client authenticates, and what limits it. What an amendment leaves open stays.
    pub security: Security,
    /// The security profile that it asks for.
    #[serde(rename = "profile")]
    pub security_profile: RequestedSecurityProfile,
    /// The client that it amends; `None` for a request for a new one. Then the lists hold what is added and may be empty, and
    /// of the texts `display_name` is the new name, empty for the old one.
    pub amends: Option<Amends>,
}

/// What a request asks for of the FAPI 2.0 Security Profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestedSecurityProfile {
    /// Nothing: a new client follows no profile, another one the profile that it has.
    #[default]
    Unspecified,
    /// The client follows it from this time on, or from when the request is applied.
    Fapi2 {
        /// Only in an amendment.
        from: Option<UnixMillis>,
    },
    /// The client leaves it. Only in an amendment.
    None,
}

impl RequestedSecurityProfile {
    /// Returns from when on a client follows the profile, if the request is applied now to a client that follows it from
    /// `current` on.
    ///
    /// # Errors
    /// The rule for the start of a profile that has begun: a later one would bring back the secrets of before.
    pub fn applied(
        self,
        current: Option<UnixMillis>,
        now: UnixMillis,
    ) -> Result<Option<UnixMillis>, &'static str> {
        match (self, current) {
            (Self::Unspecified, current) => Ok(current),
            (Self::None, _) => Ok(None),
            (Self::Fapi2 { from: Some(_) }, Some(begun)) if begun <= now => {
                Err("must be absent, because the client follows the profile already")
            }
            (Self::Fapi2 { from: None }, Some(begun)) if begun <= now => Ok(Some(begun)),
            (Self::Fapi2 { from }, _) => Ok(Some(from.unwrap_or(now))),
        }
    }
}

/// The client that a request amends, as it was when the request was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amends {
    /// The client.
    pub client_id: ClientId,
    /// Its etag: an amendment of what has changed since is not applied.
    pub etag: i64,
}

impl NewIntegrationRequest {
    /// Returns the tenants and scopes that the request names.
    pub fn references(&self) -> References {
        let names = self.scopes.iter().map(|scope| scope.name.clone());
        References {
            prefix: "",
            tenants: self.tenant_ids.iter().cloned().enumerate().collect(),
            scopes: names.enumerate().collect(),
        }
    }
}

/// A request that took effect, and the operators behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestOrigin {
    /// The request.
    pub integration_request_id: IntegrationRequestId,
    /// The operator who submitted it.
    pub submitted_by: String,
    /// The operator who approved it.
    pub approved_by: String,
    /// When the client was registered from it, or amended by it.
    pub applied_at: UnixMillis,
}

/// The requests that made a client what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOrigin {
    /// The request that the client was registered from.
    pub registration: RequestOrigin,
    /// The amendments that were applied, the newest first; at most [`MAX_AMENDMENTS`].
    pub amendments: Vec<RequestOrigin>,
}

/// The tenants and scopes that a message names, each with its index there. The tenants must exist, the scopes must
/// exist and be enabled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// The beginning of the fields' paths: empty, or the field of a message such as `client.`.
    pub prefix: &'static str,
    /// Elements of `tenant_ids`.
    pub tenants: Vec<(usize, TenantId)>,
    /// Names of elements of `scopes`.
    pub scopes: Vec<(usize, ScopeName)>,
}

/// An operator's decision on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Approves it.
    Approve,
    /// Rejects it for this reason.
    Reject(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 4] = [
        State::Submitted,
        State::Approved,
        State::Rejected,
        State::Registered,
    ];

    #[test]
    fn a_profile_that_has_begun_does_not_begin_later() {
        let at = UnixMillis::from_millis;
        let fapi = |from: Option<i64>| RequestedSecurityProfile::Fapi2 {
            from: from.map(UnixMillis::from_millis),
        };
        let now = at(100);
        for (request, current, expected) in [
            (RequestedSecurityProfile::Unspecified, None, Ok(None)),
            (RequestedSecurityProfile::Unspecified, Some(50), Ok(Some(50))),
            (RequestedSecurityProfile::None, Some(50), Ok(None)),
            (fapi(None), None, Ok(Some(100))),
            (fapi(Some(200)), None, Ok(Some(200))),
            (fapi(Some(300)), Some(200), Ok(Some(300))),
            (fapi(None), Some(200), Ok(Some(100))),
            (fapi(None), Some(100), Ok(Some(100))),
            (fapi(None), Some(50), Ok(Some(50))),
            (fapi(Some(200)), Some(100), Err(())),
        ] {
            let applied = request.applied(current.map(at), now).map_err(|_| ());
            assert_eq!(
                applied,
                expected.map(|from: Option<i64>| from.map(at)),
                "{request:?} {current:?}"
            );
        }
    }

    #[test]
    fn a_request_is_decided_once_and_registered_once() {
        for (transition, from) in [
            (Transition::APPROVE, State::Submitted),
            (Transition::REJECT, State::Submitted),
            (Transition::REGISTER, State::Approved),
        ] {
            assert_ne!(transition.from, transition.to);
            for state in STATES {
                assert_eq!(transition.check(state).is_ok(), state == from, "{state:?}");
            }
        }
    }
}
