//! Admin sessions: the proof that a Tenant Admin is present.
//!
//! The registry decides who is a Tenant Admin and checks the password. Every request reads the user again, so that a
//! session ends with the user's role, password or tenant.

use std::net::IpAddr;

use accord::{
    clock::UnixMillis,
    rpc::{
        context::{self, CallContext},
        middleware::MAX_CALL_TIME,
    },
    store::audit::{Actor, ActorKind, Event, Origin, action},
    text::{
        id::{SetupId, TenantId},
        opaque::{OpaqueToken, TokenKind},
    },
};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{ConsentCall, Consents, sign_in_delay::Attempt};
use crate::{
    error::{Error, Result},
    model::admin_session::{AdminSession, EndReason, LIFETIME, NewSession, session_id},
};

/// A sign-in. No `Debug`: it holds an account name and a password.
pub struct SignIn {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The setup to decide, which the caller has found pending; `None` for a session that looks after consents.
    pub setup_id: Option<SetupId>,
    /// The account name.
    pub account_name: Zeroizing<String>,
    /// The password.
    pub password: Zeroizing<String>,
    /// The address of the browser, if it is known.
    pub address: Option<IpAddr>,
}

/// Opens a session for the workload of `origin`. Returns its token, and when it ends at the latest.
///
/// The attempt runs in its own task, under its own deadline, so that one whose caller disconnects early, or sets a short
/// deadline, takes the same steps. Failures are forgotten only here, when the caller receives the answer: otherwise a
/// guesser that hangs up could tell a right password by the delay of the next attempt.
///
/// # Errors
/// [`Error::TooManySignIns`], [`Error::SignInFailed`].
pub async fn sign_in(
    consents: &Consents,
    origin: &Origin,
    sign_in: SignIn,
) -> Result<(OpaqueToken, UnixMillis)> {
    let (store, delays) = (&consents.store, &consents.sign_in_delays);
    let (tenant_id, account_name) = (&sign_in.tenant_id, &sign_in.account_name);
    let attempt = delays.begin(tenant_id, account_name, sign_in.address, store.now())?;
    let context = CallContext {
        address: origin.address,
        request_id: origin.request_id.clone(),
        deadline: Instant::now() + attempt.delay() + MAX_CALL_TIME,
        trace: context::current().and_then(|call| call.trace),
        notes: Default::default(),
    };
    let finished = finish_sign_in(consents.clone(), origin.clone(), sign_in, attempt);
    let finished = context::run_to_completion(context::scope(context, finished));
    let (token, ends_at, attempt) = finished.await?;
    attempt.succeeded(store.now());
    Ok((token, ends_at))
}

/// Waits, checks the password, and records the attempt. Right and wrong passwords take the same steps.
async fn finish_sign_in(
    consents: Consents,
    origin: Origin,
    sign_in: SignIn,
    attempt: Attempt,
) -> Result<(OpaqueToken, UnixMillis, Attempt)> {
    tokio::time::sleep(attempt.delay()).await;
    let (tenant_id, account_name) = (sign_in.tenant_id, &sign_in.account_name);
    let registry = &consents.registry;
    let checked = registry.authenticate_tenant_admin(&tenant_id, account_name, &sign_in.password);
    let store = &consents.store;
    match checked.await {
        Ok(user) => {
            let new = NewSession {
                tenant_id,
                user_id: user.value.user_id,
                setup_id: sign_in.setup_id,
                position: user.position,
            };
            let (token, opened_at) = store.open_admin_session(&origin, new).await?;
            Ok((token, opened_at.plus(LIFETIME), attempt))
        }
        Err(Error::SignInFailed) => {
            let event = Event::new(action::ADMIN_SESSION_OPEN)
                .tenant(&tenant_id)
                .refused();
            store.record(origin, event).await?;
            Err(Error::SignInFailed)
        }
        Err(error) => Err(error),
    }
}

impl ConsentCall {
    /// Returns the call's session, and counts it as used. Ends one that the registry no longer allows.
    ///
    /// # Errors
    /// [`Error::AdminSessionInvalid`] for one that is malformed, unknown, ended, idle too long, too old or
    /// another workload's.
    pub async fn require_session(&mut self) -> Result<AdminSession> {
        if let Some(session) = &self.facts.session {
            return Ok(session.clone());
        }
        let origin = self.principal.origin();
        let token = OpaqueToken::parse(TokenKind::AdminSession, &self.admin_session);
        let digest = token.map_err(|_| Error::AdminSessionInvalid)?.digest();
        let found = self.consents.store.find_admin_session(&digest).await?;
        let session = found.ok_or(Error::AdminSessionInvalid)?;
        context::note_origin(admin_origin(&session));
        if !session.is_open(&origin.actor.id, self.consents.store.now()) {
            return Err(Error::AdminSessionInvalid);
        }
        let user = self.find_user(&session.tenant_id, &session.user_id).await?;
        let tenant = self.find_tenant(&session.tenant_id).await?;
        let facts = user.zip(tenant);
        let is_allowed = facts.is_some_and(|(user, tenant)| session.is_allowed(&user, &tenant));
        let store = &self.consents.store;
        if !is_allowed {
            let reason = EndReason::NoLongerAllowed;
            store.end_admin_session(&origin, &digest, reason).await?;
            return Err(Error::AdminSessionInvalid);
        }
        if !store.touch_admin_session(&digest).await? {
            return Err(Error::AdminSessionInvalid);
        }
        self.facts.session = Some(session.clone());
        Ok(session)
    }
}

/// Returns the Tenant Admin of a session as the origin of this call's audit events.
pub fn admin_origin(session: &AdminSession) -> Origin {
    Origin {
        certificate: None,
        session: Some(session_id(&session.digest)),
        address: context::address(),
        actor: Actor {
            kind: ActorKind::TenantAdmin,
            id: session.user_id.to_string(),
        },
        request_id: context::request_id(),
    }
}
