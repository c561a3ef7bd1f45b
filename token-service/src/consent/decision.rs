//! Decides setups: a Tenant Admin approves or denies.

use accord::{
    clock::UnixMillis,
    store::audit::Origin,
    text::{
        id::{ScopeName, SetupId},
        opaque::OpaqueToken,
    },
};
use zeroize::Zeroizing;

use super::{
    Consents, Facts,
    admin_session::{self, admin_origin},
    setup::require_active,
};
use crate::{
    error::Error,
    model::{
        admin_session::AdminSession,
        grant::Consent,
        setup::{Approval, Setup, is_unchanged, select_scopes},
        watermark::ATTEMPTS,
    },
};

/// A Tenant Admin's approval. No `Debug`: it holds an account name.
pub struct Approve {
    /// The setup.
    pub setup_id: SetupId,
    /// The scopes to grant, all different; empty means all that the setup requests.
    pub scopes: Vec<ScopeName>,
    /// The account name of the user that API transactions run as.
    pub designated_account_name: Zeroizing<String>,
    /// When the grant expires.
    pub expires_at: Option<UnixMillis>,
}

/// The result of an approval.
#[derive(Debug)]
pub struct Approved {
    /// The grant, pending.
    pub consent: Consent,
    /// The authorization code.
    pub code: OpaqueToken,
    /// Where to send the browser; holds the code.
    pub redirect_url: Zeroizing<String>,
}

/// Grants all or some of the scopes requested, and designates the user that API transactions run as. Reads
/// the facts again when they are too old by the time of the commit.
///
/// # Errors
/// [`Error::AdminSessionInvalid`], [`Error::AdminSessionMismatch`], [`Error::SignInTooOld`],
/// [`Error::NotFound`] (setup, or designated user), [`Error::WrongState`] for a setup that is not pending and
/// a suspended client, [`Error::ClientChanged`], [`Error::InvalidScope`], [`Error::Unavailable`] when the
/// registry keeps answering too late.
pub async fn approve(
    consents: &Consents,
    facts: &mut Facts,
    origin: &Origin,
    admin_session: &str,
    approve: Approve,
) -> Result<Approved, Error> {
    for _ in 0..ATTEMPTS {
        let (session, setup) =
            session_and_setup(consents, facts, origin, admin_session, &approve.setup_id).await?;
        let now = consents.store.now();
        session.require_fresh(now)?;
        setup.require_pending(now)?;
        let scopes = select_scopes(&setup.scopes, &approve.scopes)?;
        let client = facts.client(&setup.client_id).await?;
        let client = client.ok_or(Error::ClientChanged)?;
        require_active("client", client.value.active)?;
        if !is_unchanged(&setup, &scopes, &client.value) {
            return Err(Error::ClientChanged);
        }
        let user = facts
            .designated_user(&session.tenant_id, &approve.designated_account_name)
            .await?;
        if !facts.are_fresh() {
            facts.forget();
            continue;
        }
        let approval = Approval {
            setup: &setup,
            scopes: scopes.into_iter().map(|scope| scope.name).collect(),
            designated_user_id: user.value.user_id.clone(),
            expires_at: approve.expires_at,
        };
        let origin = admin_origin(&session, origin);
        let (grant, code) = consents.store.approve_setup(&origin, &session, approval).await?;
        let redirect_url = answer_url(facts, &setup, ("code", code.expose())).await?;
        return Ok(Approved {
            consent: facts.consent(&consents.store, grant).await?,
            code,
            redirect_url,
        });
    }
    Err(Error::Unavailable)
}

/// Denies a setup. Returns the setup, and where to send the browser.
///
/// # Errors
/// [`Error::AdminSessionInvalid`], [`Error::AdminSessionMismatch`], [`Error::NotFound`],
/// [`Error::WrongState`].
pub async fn deny(
    consents: &Consents,
    facts: &mut Facts,
    origin: &Origin,
    admin_session: &str,
    setup_id: &SetupId,
) -> Result<(Setup, Zeroizing<String>), Error> {
    let (session, setup) = session_and_setup(consents, facts, origin, admin_session, setup_id).await?;
    setup.require_pending(consents.store.now())?;
    let origin = admin_origin(&session, origin);
    let setup = consents.store.deny_setup(&origin, &session, &setup).await?;
    let redirect_url = answer_url(facts, &setup, ("error", "access_denied")).await?;
    Ok((setup, redirect_url))
}

/// Reads a setup, and the session that was opened to decide it.
async fn session_and_setup(
    consents: &Consents,
    facts: &mut Facts,
    origin: &Origin,
    admin_session: &str,
    setup_id: &SetupId,
) -> Result<(AdminSession, Setup), Error> {
    let session = admin_session::require(consents, facts, origin, admin_session).await?;
    let setup = consents
        .store
        .get_tenant_setup(&session.tenant_id, setup_id)
        .await?;
    if session.setup_id.as_ref() != Some(setup_id) {
        return Err(Error::AdminSessionMismatch);
    }
    Ok((session, setup))
}

async fn answer_url(
    facts: &mut Facts,
    setup: &Setup,
    parameter: (&str, &str),
) -> Result<Zeroizing<String>, Error> {
    let tenant = facts
        .tenant(&setup.tenant_id)
        .await?
        .ok_or(Error::NotFound("tenant"))?;
    setup.answer_url(&tenant.value.issuer, parameter)
}
