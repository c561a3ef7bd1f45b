//! A setup: a snapshot of a partner's authorization request (RFC 6749 §4.1.1, with PKCE), open for one hour. A
//! `setup_id` carries no authority.

use std::{collections::HashSet, time::Duration};

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, ScopeName, SetupId, TenantId, UserId},
        network::AllowedNetworks,
        validation::Violations,
    },
};
use strum::{AsRefStr, EnumString, IntoStaticStr};
use url::Url;
use zeroize::Zeroizing;

use self::request::{AuthorizationRequest, Parameters};
use super::{
    client::{Client, ClientScope, DisplayInfo, requested_scopes, require_known},
    tenant::Tenant,
};
use crate::error::{Error, Result};

pub mod pushed_request;
pub mod request;

/// How long a setup waits for a decision, and an authorization request for a sign-in.
pub const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// How long an authorization code, and the grant that waits for it, can be redeemed.
pub const CODE_LIFETIME: Duration = Duration::from_secs(60);

/// A setup's state at a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum SetupState {
    /// It waits for a decision.
    Pending,
    /// It was approved.
    Approved,
    /// It was denied.
    Denied,
    /// It was not decided in time.
    Expired,
}

/// A Tenant Admin's decision on a setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Decision {
    /// All or some of the scopes were granted.
    Approved,
    /// Nothing was granted.
    Denied,
}

/// A setup to store: a valid request, and the registry's facts that it was checked against.
#[derive(Clone, Debug)]
pub struct NewSetup {
    /// Its id.
    pub setup_id: SetupId,
    /// The request.
    pub request: AuthorizationRequest,
    /// The tenant's display name.
    pub tenant_display_name: String,
    /// The client's display info.
    pub display: DisplayInfo,
    /// The client's version.
    pub client_version: i64,
    /// The scopes requested; not empty.
    pub scopes: Vec<ClientScope>,
}

/// An authorization request as a Tenant Admin sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Its id.
    pub setup_id: SetupId,
    /// The tenant.
    pub tenant_id: TenantId,
    /// The tenant's display name.
    pub tenant_display_name: String,
    /// The client.
    pub client_id: ClientId,
    /// The client's display info.
    pub display: DisplayInfo,
    /// The scopes requested.
    pub scopes: Vec<ClientScope>,
    /// The URI that the response goes to.
    pub redirect_uri: String,
    /// The partner's `state`, percent-encoded; may be empty.
    pub state_parameter: String,
    /// PKCE challenge, method S256.
    pub code_challenge: String,
    /// The resource requested; may be empty.
    pub resource: String,
    /// The thumbprint of the key that the code is bound to.
    pub dpop_jkt: Option<String>,
    /// Whether the client has pushed the request (RFC 9126).
    pub pushed: bool,
    /// The client's version at the time of the request.
    pub client_version: i64,
    /// The decision, if there is one.
    pub decision: Option<Decision>,
    /// When it was started.
    pub created_at: UnixMillis,
    /// When it expires undecided.
    pub expires_at: UnixMillis,
    /// When it was decided.
    pub decided_at: Option<UnixMillis>,
}

impl Setup {
    /// Returns the state at `now`.
    pub fn state_at(&self, now: UnixMillis) -> SetupState {
        match self.decision {
            Some(Decision::Approved) => SetupState::Approved,
            Some(Decision::Denied) => SetupState::Denied,
            None if now >= self.expires_at => SetupState::Expired,
            None => SetupState::Pending,
        }
    }

    /// Rejects a setup that is decided or has expired.
    pub fn require_pending(&self, now: UnixMillis) -> Result<()> {
        match self.state_at(now) {
            SetupState::Pending => Ok(()),
            state => Err(Error::WrongState {
                resource: "setup",
                state: state.into(),
            }),
        }
    }

    /// Returns the URL that sends this response to the client; see [`response_url`].
    pub fn response_url(&self, issuer: &str, parameter: (&str, &str)) -> Result<Zeroizing<String>> {
        response_url(&self.redirect_uri, &self.state_parameter, issuer, &[parameter])
    }
}

/// An approval to store.
#[derive(Clone, Debug)]
pub struct Approval<'a> {
    /// The setup.
    pub setup: &'a Setup,
    /// The scopes granted.
    pub scopes: Vec<ScopeName>,
    /// The user that API transactions run as.
    pub designated_user_id: UserId,
    /// When the grant expires.
    pub expires_at: Option<UnixMillis>,
    /// The networks that tokens may be requested from.
    pub allowed_networks: AllowedNetworks,
}

/// Checks an authorization request against its tenant and client, redirect URI aside. Returns the scopes that it
/// requests, which are not empty.
///
/// # Errors
/// [`Error::WrongState`] when client or tenant is suspended; [`Error::ScopeNotRegistered`] or [`Error::MalformedScope`] for a
/// scope that the client is not registered for; [`Error::InvalidScope`] for a client without scopes; [`Error::OpenIdScope`];
/// [`Error::InvalidTarget`] for a resource that is not the tenant's API; [`Error::Invalid`] for a code that no key of the client
/// could redeem.
pub fn check(parameters: &Parameters, tenant: &Tenant, client: &Client) -> Result<Vec<ClientScope>> {
    require_active("tenant", tenant.active)?;
    require_active("client", client.active)?;
    let requested = requested_scopes(&parameters.scopes)?;
    let is_registered = |name: &ScopeName| client.scopes.iter().any(|scope| scope.name == *name);
    require_known(&requested, is_registered, Error::ScopeNotRegistered)?;
    let scopes = select_scopes(&client.scopes, &requested)?;
    if scopes.is_empty() {
        return Err(Error::InvalidScope);
    }
    if !tenant.is_target(&parameters.resource) {
        return Err(Error::InvalidTarget);
    }
    let dpop_jkt = parameters.dpop_jkt.as_deref();
    if dpop_jkt.is_some() && !client.may_use_dpop_key(dpop_jkt) {
        return Err(Violations::of("dpop_jkt", "must be one of the client's dpop_jkts").into());
    }
    Ok(scopes)
}

/// Rejects a client or tenant that is not active.
pub fn require_active(resource: &'static str, active: bool) -> Result<()> {
    if active {
        return Ok(());
    }
    Err(Error::WrongState {
        resource,
        state: "SUSPENDED",
    })
}

/// Selects the scopes of `offered` that `requested` names, in the order of `offered`; all if it names none.
///
/// # Errors
/// [`Error::InvalidScope`] when a requested scope is not offered.
pub fn select_scopes(offered: &[ClientScope], requested: &[ScopeName]) -> Result<Vec<ClientScope>> {
    if requested.is_empty() {
        return Ok(offered.to_vec());
    }
    let requested: HashSet<_> = requested.iter().collect();
    let selected = offered.iter().filter(|scope| requested.contains(&scope.name));
    let selected: Vec<_> = selected.cloned().collect();
    let all_offered = selected.len() == requested.len();
    all_offered.then_some(selected).ok_or(Error::InvalidScope)
}

/// Returns whether the scopes that a setup shows are still the client's, as they were shown.
pub fn is_unchanged(setup: &Setup, scopes: &[ClientScope], client: &Client) -> bool {
    // A change of the catalogue leaves the version as it is, so scopes are compared one by one.
    client.version == setup.client_version && scopes.iter().all(|scope| client.scopes.contains(scope))
}

/// Adds the parameters of a response to a registered redirect URI, with `iss` and, if the client sent one, `state`
/// (RFC 6749 §4.1.2, RFC 9207). Keeps the URI's own query. `state_parameter` is percent-encoded.
///
/// # Errors
/// [`Error::RegistryAnswer`] if `redirect_uri` is no URI.
pub fn response_url(
    redirect_uri: &str,
    state_parameter: &str,
    issuer: &str,
    parameters: &[(&str, &str)],
) -> Result<Zeroizing<String>> {
    let unreadable = |_| Error::RegistryAnswer("unreadable redirect URI".to_owned());
    let mut url = Url::parse(redirect_uri).map_err(unreadable)?;
    url.query_pairs_mut().extend_pairs(parameters);
    if !state_parameter.is_empty() {
        let query = format!("{}&state={state_parameter}", url.query().unwrap_or_default());
        url.set_query(Some(&query));
    }
    url.query_pairs_mut().append_pair("iss", issuer);
    Ok(Zeroizing::new(String::from(url)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::{clock::ManualClock, random::SeededRandom};

    use super::{request::state_of, *};

    const START: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

    fn setup() -> Setup {
        let (clock, random) = (ManualClock::new(START), SeededRandom::new(3));
        Setup {
            setup_id: SetupId::generate(&clock, &random),
            tenant_id: TenantId::parse("acme").unwrap(),
            tenant_display_name: "Acme".into(),
            client_id: ClientId::generate(&clock, &random),
            display: DisplayInfo::default(),
            scopes: Vec::new(),
            redirect_uri: "https://p.example/cb".into(),
            state_parameter: String::new(),
            code_challenge: String::new(),
            resource: String::new(),
            dpop_jkt: None,
            pushed: false,
            client_version: 1,
            decision: None,
            created_at: START,
            expires_at: START.plus(LIFETIME),
            decided_at: None,
        }
    }

    #[test]
    fn a_setup_can_be_decided_once_and_for_an_hour() {
        let open = setup();
        let last = open.expires_at.minus(Duration::from_millis(1));
        assert!(open.require_pending(last).is_ok());
        assert_eq!(open.state_at(open.expires_at), SetupState::Expired);
        for (decision, state) in [
            (Decision::Approved, SetupState::Approved),
            (Decision::Denied, SetupState::Denied),
        ] {
            let decided = Setup {
                decision: Some(decision),
                ..open.clone()
            };
            assert_eq!(decided.state_at(START.plus(LIFETIME)), state);
            assert!(matches!(
                decided.require_pending(START),
                Err(Error::WrongState {
                    resource: "setup",
                    ..
                })
            ));
        }
    }

    #[test]
    fn scopes_are_selected_from_those_offered() {
        let offered = ["a", "b", "c"].map(|name| ClientScope {
            name: ScopeName::parse(name).unwrap(),
            description: String::new(),
            reason: String::new(),
            added_seq: 0,
        });
        let select = |requested: &[&str]| {
            let requested = requested.iter().map(|name| ScopeName::parse(name).unwrap());
            let selected = select_scopes(&offered, &requested.collect::<Vec<_>>())?;
            Ok(selected
                .iter()
                .map(|scope| scope.name.to_string())
                .collect::<String>())
        };
        assert_eq!(select(&[]).unwrap(), "abc");
        assert_eq!(select(&["c", "a"]).unwrap(), "ac");
        assert!(matches!(
            select(&["a", "d"]),
            Err::<_, Error>(Error::InvalidScope)
        ));
    }

    #[test]
    fn an_answer_keeps_the_query_and_encodes_what_it_adds() {
        let issuer = "https://accord.example/acme";
        let answer = |uri, state, parameter| {
            response_url(uri, state, issuer, &[parameter])
                .unwrap()
                .to_string()
        };
        let state = state_of("state=a+b%26c%3dd%2B%é'".as_bytes());
        assert_eq!(
            answer("https://p.example/cb", &state, ("code", "acc_1")),
            "https://p.example/cb?code=acc_1&state=a+b%26c%3dd%2B%25%C3%A9%27\
             &iss=https%3A%2F%2Faccord.example%2Facme"
        );
        assert_eq!(
            answer("https://p.example/cb?x=%7e&y", "", ("error", "access_denied")),
            "https://p.example/cb?x=%7e&y&error=access_denied&iss=https%3A%2F%2Faccord.example%2Facme"
        );
        assert_eq!(
            answer("http://127.0.0.1:9/cb?", "s", ("code", "acc_1")),
            "http://127.0.0.1:9/cb?code=acc_1&state=s&iss=https%3A%2F%2Faccord.example%2Facme"
        );
    }
}
