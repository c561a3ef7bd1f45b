//! Setups: a partner's authorization request (RFC 6749 §4.1.1, with PKCE), as it was when it came in,
//! open for one hour. The id of a setup is no authority.

use std::{collections::HashSet, time::Duration};

use accord::{
    clock::UnixMillis,
    store::Creation,
    text::{
        id::{ClientId, ScopeName, SetupId, TenantId},
        validation::Violations,
    },
};

use crate::{
    consent::Consents,
    error::Error,
    model::{
        client::{Client, ClientScope},
        tenant::Tenant,
    },
};

mod answer;
mod decision;

pub use answer::answer_url;
pub use decision::{Approval, Approve, Approved, CODE_LIFE, Decision, approve, deny};

/// How long a setup waits for a decision.
pub const LIFE: Duration = Duration::from_secs(60 * 60);

/// A setup's state at a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for a decision.
    Pending,
    /// It was approved.
    Approved,
    /// It was denied.
    Denied,
    /// It was not decided in time.
    Expired,
}

impl State {
    /// The short name of the contract's enum value.
    pub fn contract_name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Approved => "APPROVED",
            Self::Denied => "DENIED",
            Self::Expired => "EXPIRED",
        }
    }
}

/// An authorization request, its fields sound in themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationRequest {
    /// The tenant that is asked.
    pub tenant_id: TenantId,
    /// The client that asks.
    pub client_id: ClientId,
    /// Where the decision goes.
    pub redirect_uri: String,
    /// The scopes asked for, all different; empty means all of the client's.
    pub scopes: Vec<ScopeName>,
    /// The partner's `state`; may be empty.
    pub state_parameter: String,
    /// PKCE challenge, method S256.
    pub code_challenge: String,
    /// The resource asked for; may be empty (RFC 8707).
    pub resource: String,
}

/// A setup to be stored: a sound request, and the registry's answers that it was checked by.
#[derive(Clone, Debug)]
pub struct NewSetup {
    /// The request.
    pub request: AuthorizationRequest,
    /// The tenant's name for people.
    pub tenant_display_name: String,
    /// The client.
    pub client: Client,
    /// The scopes asked for; not empty.
    pub scopes: Vec<ClientScope>,
}

/// An authorization request as it was shown to a Tenant Admin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Its id.
    pub setup_id: SetupId,
    /// The tenant that is asked.
    pub tenant_id: TenantId,
    /// The tenant's name for people.
    pub tenant_display_name: String,
    /// The client that asks.
    pub client_id: ClientId,
    /// The client's name for people.
    pub client_display_name: String,
    /// The partner behind it.
    pub partner_name: String,
    /// What the integration is for.
    pub purpose: String,
    /// The scopes asked for.
    pub scopes: Vec<ClientScope>,
    /// Where the decision goes.
    pub redirect_uri: String,
    /// The partner's `state`; may be empty.
    pub state_parameter: String,
    /// PKCE challenge, method S256.
    pub code_challenge: String,
    /// The resource asked for; may be empty.
    pub resource: String,
    /// The client's version when it was shown.
    pub client_version: i64,
    /// What was decided, if anything was.
    pub decision: Option<Decision>,
    /// When it was started.
    pub created_at: UnixMillis,
    /// When it ends undecided.
    pub expires_at: UnixMillis,
    /// When it was decided.
    pub decided_at: Option<UnixMillis>,
}

impl Setup {
    /// Where the setup stands at `now`.
    pub fn state_at(&self, now: UnixMillis) -> State {
        match self.decision {
            Some(Decision::Approved) => State::Approved,
            Some(Decision::Denied) => State::Denied,
            None if now >= self.expires_at => State::Expired,
            None => State::Pending,
        }
    }

    /// Refuses a setup that can't be decided any more.
    ///
    /// # Errors
    /// [`Error::WrongState`].
    pub fn require_pending(&self, now: UnixMillis) -> Result<(), Error> {
        match self.state_at(now) {
            State::Pending => Ok(()),
            state => Err(Error::WrongState {
                resource: "setup",
                state: state.contract_name(),
            }),
        }
    }

    /// The scopes that are granted when `wanted` are, in the order of the setup; empty means all.
    fn grantable(&self, wanted: &[ScopeName]) -> Result<Vec<ClientScope>, Error> {
        select(&self.scopes, wanted)
    }
}

/// Takes an authorization request in.
///
/// # Errors
/// As [`asked`]; [`Error::WrongState`] when client or tenant is suspended, [`Error::InvalidScope`] for a
/// scope that is not the client's or when it has none, [`Error::InvalidTarget`],
/// [`Error::RequestIdReused`], [`Error::RegistryUnavailable`].
pub async fn start(
    service: &Consents,
    creation: &Creation,
    request: AuthorizationRequest,
) -> Result<Setup, Error> {
    // What was answered once is answered so again, whatever the registry says by now.
    if let Some(setup) = service.store.replay_setup(creation).await? {
        return Ok(setup);
    }
    let (tenant, client) = asked(
        service,
        &request.tenant_id,
        &request.client_id,
        &request.redirect_uri,
    )
    .await?;
    require_active("tenant", tenant.active)?;
    require_active("client", client.active)?;
    let scopes = select(&client.scopes, &request.scopes)?;
    if scopes.is_empty() {
        return Err(Error::InvalidScope);
    }
    if !request.resource.is_empty() && request.resource != tenant.cloud_api_url {
        return Err(Error::InvalidTarget);
    }
    let new = NewSetup {
        request,
        tenant_display_name: tenant.display_name,
        client,
        scopes,
    };
    service.store.create_setup(creation, new).await
}

/// Tenant and client of an authorization request, whose redirect URI is one of the client's byte for byte. Once this succeeds, further errors may be told to the
/// client at its redirect URI; before, they must not (RFC 6749 §4.1.2.1).
///
/// # Errors
/// [`Error::NotFound`] for an unknown tenant or client, and for a client that may not ask the tenant;
/// [`Error::Invalid`] for a redirect URI that is not registered, [`Error::RegistryUnavailable`].
pub async fn asked(
    service: &Consents,
    tenant_id: &TenantId,
    client_id: &ClientId,
    redirect_uri: &str,
) -> Result<(Tenant, Client), Error> {
    let (tenant, client) = tokio::join!(
        service.registry.tenant(tenant_id),
        service.registry.client(client_id),
    );
    let (tenant, client) = (tenant?.value, client?.value);
    if !client.tenant_ids.contains(tenant_id) {
        return Err(Error::NotFound("client"));
    }
    if !client.redirect_uris.iter().any(|known| known == redirect_uri) {
        let mut violations = Violations::default();
        violations.add(
            "redirect_uri",
            "must be one that is registered for the client, byte for byte",
        );
        return Err(violations.into());
    }
    Ok((tenant, client))
}

/// Reads a setup.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(service: &Consents, setup_id: &SetupId) -> Result<Setup, Error> {
    service
        .store
        .find_setup(setup_id)
        .await?
        .ok_or(Error::NotFound("setup"))
}

/// Reads a setup that asks this tenant.
///
/// # Errors
/// [`Error::NotFound`], also for one that asks another tenant.
pub async fn of_tenant(service: &Consents, tenant_id: &TenantId, setup_id: &SetupId) -> Result<Setup, Error> {
    let setup = get(service, setup_id).await?;
    if setup.tenant_id == *tenant_id {
        Ok(setup)
    } else {
        Err(Error::NotFound("setup"))
    }
}

fn require_active(resource: &'static str, active: bool) -> Result<(), Error> {
    if active {
        return Ok(());
    }
    Err(Error::WrongState {
        resource,
        state: "SUSPENDED",
    })
}

/// Those of `offered` that are wanted, in the order of the offer; all if none are named.
fn select(offered: &[ClientScope], wanted: &[ScopeName]) -> Result<Vec<ClientScope>, Error> {
    if wanted.is_empty() {
        return Ok(offered.to_vec());
    }
    let wanted: HashSet<_> = wanted.iter().collect();
    let selected: Vec<_> = offered
        .iter()
        .filter(|scope| wanted.contains(&scope.name))
        .cloned()
        .collect();
    if selected.len() == wanted.len() {
        Ok(selected)
    } else {
        Err(Error::InvalidScope)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::{clock::ManualClock, random::SeededRandom};

    use super::*;

    const START: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

    fn scope(name: &str) -> ClientScope {
        ClientScope {
            name: ScopeName::parse(name).unwrap(),
            description: "What it allows".into(),
            reason: "Why".into(),
        }
    }

    /// A setup of three scopes, pending.
    pub(crate) fn setup(redirect_uri: &str, state_parameter: &str) -> Setup {
        let (clock, random) = (ManualClock::new(START), SeededRandom::new(3));
        Setup {
            setup_id: SetupId::generate(&clock, &random),
            tenant_id: TenantId::parse("acme").unwrap(),
            tenant_display_name: "Acme".into(),
            client_id: ClientId::generate(&clock, &random),
            client_display_name: "Sync".into(),
            partner_name: "Partner".into(),
            purpose: "Sync".into(),
            scopes: vec![scope("a"), scope("b"), scope("c")],
            redirect_uri: redirect_uri.into(),
            state_parameter: state_parameter.into(),
            code_challenge: String::new(),
            resource: String::new(),
            client_version: 1,
            decision: None,
            created_at: START,
            expires_at: START.plus(LIFE),
            decided_at: None,
        }
    }

    #[test]
    fn a_setup_can_be_decided_once_and_for_an_hour() {
        let open = setup("https://p.example/cb", "");
        let last = open.expires_at.minus(Duration::from_millis(1));
        assert_eq!(open.state_at(last), State::Pending);
        assert_eq!(open.state_at(open.expires_at), State::Expired);
        for (decision, state) in [
            (Decision::Approved, State::Approved),
            (Decision::Denied, State::Denied),
        ] {
            let decided = Setup {
                decision: Some(decision),
                ..open.clone()
            };
            assert_eq!(decided.state_at(START.plus(LIFE)), state);
            let refused = decided.require_pending(START);
            assert!(matches!(
                refused,
                Err(Error::WrongState {
                    resource: "setup",
                    ..
                })
            ));
        }
    }

    #[test]
    fn scopes_are_chosen_from_those_asked_for() {
        let setup = setup("https://p.example/cb", "");
        let names = |wanted: &[&str]| {
            let wanted: Vec<_> = wanted
                .iter()
                .map(|name| ScopeName::parse(name).unwrap())
                .collect();
            setup.grantable(&wanted).map(|scopes| {
                scopes
                    .into_iter()
                    .map(|scope| scope.name.to_string())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(names(&[]).unwrap(), ["a", "b", "c"]);
        assert_eq!(names(&["c", "a"]).unwrap(), ["a", "c"]);
        assert!(matches!(names(&["a", "d"]), Err(Error::InvalidScope)));
    }
}
