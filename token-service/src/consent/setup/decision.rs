//! A Tenant Admin's decision on a setup, and the answer that it sends to the client.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    store::audit::Origin,
    text::{
        id::{ScopeName, SetupId, UserId},
        opaque::OpaqueToken,
    },
};
use zeroize::Zeroizing;

use super::{Setup, answer_url, of_tenant, require_active};
use crate::{
    consent::Consents,
    consent::{
        Consent,
        admin_session::{self, AdminSession},
        designated_user,
    },
    error::Error,
};

/// How long an authorization code, and the grant that waits for it, can be redeemed.
pub const CODE_LIFE: Duration = Duration::from_secs(60);

/// What a Tenant Admin decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// All or some of the scopes were granted.
    Approved,
    /// Nothing was granted.
    Denied,
}

/// A Tenant Admin's approval. No `Debug`: an account name is not to be shown.
pub struct Approve {
    /// The setup.
    pub setup_id: SetupId,
    /// The scopes granted, all different; empty means all that were asked for.
    pub scopes: Vec<ScopeName>,
    /// The account name of the user that API transactions run as.
    pub designated_account_name: Zeroizing<String>,
    /// When the grant ends by itself.
    pub expires_at: Option<UnixMillis>,
}

/// A decision for the store to write down.
#[derive(Clone, Debug)]
pub struct Approval<'a> {
    /// The setup.
    pub setup: &'a Setup,
    /// The scopes granted.
    pub scopes: Vec<ScopeName>,
    /// The user that API transactions run as.
    pub designated_user_id: UserId,
    /// When the grant ends by itself.
    pub expires_at: Option<UnixMillis>,
    /// The Tenant Admin's session, which must still be open.
    pub by: &'a AdminSession,
}

/// An approved setup.
#[derive(Debug)]
pub struct Approved {
    /// The grant, pending.
    pub consent: Consent,
    /// The authorization code.
    pub code: OpaqueToken,
    /// Where to send the browser; holds the code.
    pub redirect_url: Zeroizing<String>,
}

/// Grants all or some of the scopes asked for, and designates the user that API transactions run as.
///
/// # Errors
/// [`Error::AdminSessionInvalid`], [`Error::AdminSessionMismatch`], [`Error::SignInTooOld`],
/// [`Error::NotFound`] (setup, or designated user), [`Error::WrongState`] for a setup that can't be decided
/// any more and a suspended client, [`Error::ClientChanged`], [`Error::InvalidScope`],
/// [`Error::RegistryUnavailable`].
pub async fn approve(
    service: &Consents,
    origin: &Origin,
    admin_session: &str,
    approve: Approve,
) -> Result<Approved, Error> {
    let (session, setup) = decide(service, origin, admin_session, &approve.setup_id).await?;
    let now = service.store.now();
    session.require_fresh(now)?;
    setup.require_pending(now)?;
    let scopes = setup.grantable(&approve.scopes)?;
    let client = match service.registry.client(&setup.client_id).await {
        Ok(client) => client.value,
        Err(Error::NotFound(_)) => return Err(Error::ClientChanged),
        Err(error) => return Err(error),
    };
    require_active("client", client.active)?;
    // The version does not follow the catalogue: what a scope allows, and whether it is enabled, is
    // compared here.
    if client.version != setup.client_version || scopes.iter().any(|scope| !client.scopes.contains(scope)) {
        return Err(Error::ClientChanged);
    }
    let user = designated_user(
        &service.registry,
        &session.tenant_id,
        &approve.designated_account_name,
    )
    .await?;
    let session = admin_session::renewed(service, origin, admin_session, session).await?;
    let approval = Approval {
        setup: &setup,
        scopes: scopes.into_iter().map(|scope| scope.name).collect(),
        designated_user_id: user.user_id,
        expires_at: approve.expires_at,
        by: &session,
    };
    let (grant, code) = service.store.approve_setup(approval).await?;
    let redirect_url = answer(&setup, ("code", code.expose()), &session)?;
    Ok(Approved {
        consent: Consent::approved(grant, user.label),
        code,
        redirect_url,
    })
}

/// Refuses what was asked for. Gives the setup, and where to send the browser.
///
/// # Errors
/// [`Error::AdminSessionInvalid`], [`Error::AdminSessionMismatch`], [`Error::NotFound`], [`Error::WrongState`],
/// [`Error::RegistryUnavailable`].
pub async fn deny(
    service: &Consents,
    origin: &Origin,
    admin_session: &str,
    setup_id: &SetupId,
) -> Result<(Setup, Zeroizing<String>), Error> {
    let (session, setup) = decide(service, origin, admin_session, setup_id).await?;
    setup.require_pending(service.store.now())?;
    let setup = service.store.deny_setup(&session, &setup).await?;
    let redirect_url = answer(&setup, ("error", "access_denied"), &session)?;
    Ok((setup, redirect_url))
}

/// The session that is to decide a setup, and the setup.
async fn decide(
    service: &Consents,
    origin: &Origin,
    admin_session: &str,
    setup_id: &SetupId,
) -> Result<(AdminSession, Setup), Error> {
    let session = admin_session::require(service, origin, admin_session).await?;
    let setup = of_tenant(service, &session.tenant_id, setup_id).await?;
    if session.setup_id.as_ref() != Some(setup_id) {
        return Err(Error::AdminSessionMismatch);
    }
    Ok((session, setup))
}

fn answer(setup: &Setup, says: (&str, &str), session: &AdminSession) -> Result<Zeroizing<String>, Error> {
    let issuer = &session.tenant.issuer;
    answer_url(&setup.redirect_uri, &setup.state_parameter, issuer, &[says])
}
