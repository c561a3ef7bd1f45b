//! Consents: what a Tenant Admin allowed a client, and what becomes of it. A consent is the grant of
//! OAuth 2.0: one thing, two words.

use accord::{
    rpc::auth::{Caller, Principal},
    store::audit::Origin,
    text::{
        id::{ClientId, GrantId, TenantId},
        page::{Page, PageRequest},
    },
};

use crate::{
    cache::grants::Ledger,
    consent::admin_session::AdminSession,
    consent::sign_in_delay::SignInDelays,
    error::Error,
    model::{
        grant::{Grant, State},
        user::User,
    },
    registry::{Registry, UserRef},
    store::Store,
};

pub mod admin_session;
mod connected;
pub mod setup;
pub mod sign_in_delay;
mod view;

pub use connected::{Connected, current, get_connected, list_connected};
pub use view::Consent;
use view::Parties;

/// What the operations on consents work with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Consents {
    /// token-service's own store.
    pub store: Store,
    /// The registry, asked each time.
    pub registry: Registry,
    /// What the store says of grants through a memory, which learns what ends here.
    pub ledger: Ledger,
    /// Failed sign-ins, which make later ones wait.
    pub sign_in_delays: SignInDelays,
}

/// Who asks, by which proof, and for which tenant.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    /// The caller on the channel.
    pub principal: &'a Principal,
    /// The text of a Tenant Admin's session; empty for operators.
    pub admin_session: &'a str,
    /// The tenant.
    pub tenant_id: &'a TenantId,
}

/// Which consents to list: those for which everything given holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Given to this client.
    pub client_id: Option<ClientId>,
    /// In this state.
    pub state: Option<State>,
}

/// How a grant is ended for good.
#[derive(Clone, Debug)]
pub struct Revoke {
    /// The grant.
    pub grant_id: GrantId,
    /// Why; may be empty when a Tenant Admin revokes.
    pub reason: String,
}

/// Reads a consent.
///
/// # Errors
/// [`Error::AdminSessionInvalid`], [`Error::PermissionDenied`] for an operator that brings a session,
/// [`Error::NotFound`] (another tenant's too), [`Error::RegistryUnavailable`].
pub async fn get(service: &Consents, access: Access<'_>, grant_id: &GrantId) -> Result<Consent, Error> {
    authority(service, access, "consent").await?;
    let grant = service.store.find_grant(access.tenant_id, grant_id).await?;
    view(service, grant.ok_or(Error::NotFound("consent"))?).await
}

/// Lists a tenant's consents, newest first. A page may hold fewer than asked for while more follow.
///
/// # Errors
/// As [`get`]; [`Error::NotFound`] for a tenant that is unknown or not the session's.
pub async fn list(
    service: &Consents,
    access: Access<'_>,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Page<Consent>, Error> {
    authority(service, access, "tenant").await?;
    let mut parties = Parties::new(&service.registry, access.tenant_id);
    if !parties.tenant_exists().await? {
        return Err(Error::NotFound("tenant"));
    }
    let grants = service.store.list_grants(access.tenant_id, filter, page).await?;
    let mut consents = Vec::with_capacity(grants.items.len());
    for grant in grants.items {
        let consent = parties.view(grant, service.store.now()).await?;
        if filter.state.is_none_or(|state| state == consent.state) {
            consents.push(consent);
        }
    }
    Ok(Page {
        items: consents,
        next_page_token: grants.next_page_token,
    })
}

/// Ends a consent for good, with its refresh families and access tokens. Repeated, no change.
///
/// # Errors
/// As [`get`]; [`Error::WrongState`] when it ended otherwise.
pub async fn revoke(service: &Consents, access: Access<'_>, revoke: &Revoke) -> Result<Consent, Error> {
    let authority = authority(service, access, "consent").await?;
    let grant = service
        .store
        .revoke_grant(&authority.origin(), access.tenant_id, revoke, authority.session())
        .await?;
    service.ledger.learn().await;
    view(service, grant).await
}

/// Lets API transactions run as another user from now on: access tokens end, refresh families go on.
/// The same user again is no change.
///
/// # Errors
/// [`Error::AdminSessionInvalid`], [`Error::SignInTooOld`], [`Error::PermissionDenied`] for an operator,
/// [`Error::NotFound`] (consent, or user), [`Error::WrongState`] unless it is active or suspended,
/// [`Error::RegistryUnavailable`].
pub async fn change_designated_user(
    service: &Consents,
    access: Access<'_>,
    grant_id: &GrantId,
    account_name: &str,
) -> Result<Consent, Error> {
    let Authority::TenantAdmin(session) = authority(service, access, "consent").await? else {
        return Err(Error::PermissionDenied);
    };
    session.require_fresh(service.store.now())?;
    let grant = service.store.find_grant(access.tenant_id, grant_id).await?;
    let grant = grant.ok_or(Error::NotFound("consent"))?;
    // Whether the parties count is of no matter here: active and suspended are both allowed.
    match grant.state_at(service.store.now(), true) {
        State::Active => {}
        state => return Err(wrong_state(state)),
    }
    let user = designated_user(&service.registry, access.tenant_id, account_name).await?;
    let origin = access.principal.origin();
    let session = admin_session::renewed(service, &origin, access.admin_session, *session).await?;
    let grant = service
        .store
        .change_designated_user(&session, &grant, &user.user_id)
        .await?;
    service.ledger.learn().await;
    view(service, grant).await
}

/// The user of an account name, as far as API transactions can run as them.
///
/// # Errors
/// [`Error::NotFound`] for nobody and for a deactivated user; [`Error::RegistryUnavailable`].
pub async fn designated_user(
    registry: &Registry,
    tenant_id: &TenantId,
    account_name: &str,
) -> Result<User, Error> {
    let user = registry
        .user(tenant_id, UserRef::AccountName(account_name))
        .await?
        .value;
    if user.active {
        Ok(user)
    } else {
        Err(Error::NotFound("user"))
    }
}

/// The refusal that names a consent's state.
pub fn wrong_state(state: State) -> Error {
    Error::WrongState {
        resource: "consent",
        state: state.contract_name(),
    }
}

enum Authority {
    Operator(Origin),
    TenantAdmin(Box<AdminSession>),
}

impl Authority {
    fn origin(&self) -> Origin {
        match self {
            Self::Operator(origin) => origin.clone(),
            Self::TenantAdmin(session) => session.origin.clone(),
        }
    }

    fn session(&self) -> Option<&AdminSession> {
        match self {
            Self::Operator(_) => None,
            Self::TenantAdmin(session) => Some(session),
        }
    }
}

/// By what right a call is made. A session of another tenant finds nothing: no such `resource`.
async fn authority(
    service: &Consents,
    access: Access<'_>,
    resource: &'static str,
) -> Result<Authority, Error> {
    let origin = access.principal.origin();
    match access.principal {
        Principal::Anonymous => Err(Error::Unauthenticated),
        Principal::Caller(Caller::Operator { .. }) if access.admin_session.is_empty() => {
            Ok(Authority::Operator(origin))
        }
        Principal::Caller(Caller::Operator { .. }) => Err(Error::PermissionDenied),
        Principal::Caller(Caller::Workload { .. }) => {
            let session = admin_session::require(service, &origin, access.admin_session).await?;
            if session.tenant_id == *access.tenant_id {
                Ok(Authority::TenantAdmin(Box::new(session)))
            } else {
                Err(Error::NotFound(resource))
            }
        }
    }
}

async fn view(service: &Consents, grant: Grant) -> Result<Consent, Error> {
    let tenant_id = grant.tenant_id.clone();
    let mut parties = Parties::new(&service.registry, &tenant_id);
    parties.view(grant, service.store.now()).await
}
