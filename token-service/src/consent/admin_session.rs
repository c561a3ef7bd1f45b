//! Admin sessions: the proof that a Tenant Admin is there. A session belongs to a tenant, a user, the
//! workload that brought the sign-in and, if it was opened for one, a setup.
//!
//! Who a Tenant Admin is, and with which password, is the registry's to say. It is asked at every use,
//! so that a session ends with the user's role, password or tenant.

use std::{net::IpAddr, time::Duration};

use accord::{
    clock::UnixMillis,
    position::Position,
    store::audit::{Actor, ActorKind, Event, Origin},
    text::{
        id::{SetupId, TenantId, UserId},
        opaque::{OpaqueToken, TokenKind},
    },
};
use zeroize::Zeroizing;

use crate::{
    cache::lease::{self, ATTEMPTS, Lease},
    consent::Consents,
    consent::setup,
    error::Error,
    model::{tenant::Tenant, user::User, watermark::At},
    registry::UserRef,
};

/// A session ends after this long without use.
pub const IDLE: Duration = Duration::from_secs(15 * 60);
/// A session ends this long after the sign-in.
pub const LIFE: Duration = Duration::from_secs(60 * 60);
/// What changes who can reach data needs a sign-in no older than this.
pub const FRESH: Duration = Duration::from_secs(5 * 60);

/// A session that was found to be valid.
#[derive(Clone, Debug)]
pub struct AdminSession {
    /// SHA-256 of its token.
    pub digest: [u8; 32],
    /// The tenant.
    pub tenant_id: TenantId,
    /// The Tenant Admin.
    pub user_id: UserId,
    /// The setup it was opened for.
    pub setup_id: Option<SetupId>,
    /// When it was opened.
    pub signed_in_at: UnixMillis,
    /// The tenant as the registry has it; active.
    pub tenant: Tenant,
    /// The workload that brought it.
    pub workload: String,
    /// Where an audit event of the Tenant Admin's decision comes from.
    pub origin: Origin,
    /// On what the registry says of the Tenant Admin.
    pub(crate) lease: Lease,
}

impl AdminSession {
    /// Refuses a sign-in that is more than five minutes old.
    ///
    /// # Errors
    /// [`Error::SignInTooOld`].
    pub fn require_fresh(&self, now: UnixMillis) -> Result<(), Error> {
        if now.since(self.signed_in_at) <= FRESH {
            Ok(())
        } else {
            Err(Error::SignInTooOld)
        }
    }
}

/// A session as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The Tenant Admin.
    pub user_id: UserId,
    /// The id of the workload that brought the sign-in.
    pub workload: String,
    /// The setup it was opened for.
    pub setup_id: Option<SetupId>,
    /// The registry's position at which the password was checked.
    pub position: Position,
    /// When it was opened.
    pub signed_in_at: UnixMillis,
    /// When it was last used.
    pub last_used_at: UnixMillis,
    /// When it was ended before its time.
    pub ended_at: Option<UnixMillis>,
}

impl StoredSession {
    /// Whether it can be used by this workload, as far as this service can tell.
    pub fn is_open(&self, workload: &str, now: UnixMillis) -> bool {
        self.ended_at.is_none()
            && self.workload == workload
            && now.since(self.last_used_at) < IDLE
            && now.since(self.signed_in_at) < LIFE
    }

    /// Whether the registry still lets the Tenant Admin act, and has ended no sessions since the
    /// sign-in.
    pub fn stands(&self, user: &At<User>, tenant: &At<Tenant>) -> bool {
        user.value.active
            && user.value.tenant_admin
            && tenant.value.active
            && user.position.epoch == self.position.epoch
            && tenant.position.epoch == self.position.epoch
            && self.position.seq >= user.value.sessions_ended_seq
            && self.position.seq >= tenant.value.tokens_ended_seq
    }
}

/// A new session, to be stored.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The Tenant Admin.
    pub user_id: UserId,
    /// The setup it is for.
    pub setup_id: Option<SetupId>,
    /// The registry's position at which the password was checked.
    pub position: Position,
}

/// Why a session ended before its time, as the audit trail has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The Tenant Admin signed out.
    SignedOut,
    /// The registry lets the Tenant Admin act no more, or ended the sessions.
    NoLongerAllowed,
}

impl EndReason {
    /// The reason in words of an audit detail.
    pub fn name(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::NoLongerAllowed => "no_longer_allowed",
        }
    }
}

/// A sign-in. No `Debug`: neither text is to be shown.
pub struct SignIn {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The setup to decide; `None` for a session that looks after consents.
    pub setup_id: Option<SetupId>,
    /// The account name.
    pub account_name: Zeroizing<String>,
    /// The password.
    pub password: Zeroizing<String>,
    /// The address that the sign-in comes from, if it is known.
    pub address: Option<IpAddr>,
}

/// Opens a session for the workload of `origin`. Gives its token, and when it ends at the latest.
///
/// # Errors
/// [`Error::NotFound`] for a setup that is unknown or asks another tenant, [`Error::WrongState`] for
/// one that is decided or expired, [`Error::TooManySignIns`], [`Error::SignInFailed`],
/// [`Error::RegistryUnavailable`].
pub async fn sign_in(
    service: &Consents,
    origin: &Origin,
    sign_in: SignIn,
) -> Result<(OpaqueToken, UnixMillis), Error> {
    let SignIn {
        tenant_id,
        setup_id,
        account_name,
        password,
        address,
    } = sign_in;
    if let Some(setup_id) = &setup_id {
        let setup = setup::of_tenant(service, &tenant_id, setup_id).await?;
        setup.require_pending(service.store.now())?;
    }
    let delays = &service.sign_in_delays;
    let attempt = delays.begin(&tenant_id, &account_name, address, service.store.now());
    let attempt = attempt.map_err(|busy| Error::TooManySignIns {
        retry_after: busy.retry_after,
    })?;
    tokio::time::sleep(attempt.delay()).await;
    let user = service
        .registry
        .authenticate_tenant_admin(&tenant_id, account_name, password)
        .await;
    match user {
        Ok(user) => {
            attempt.succeeded(service.store.now());
            let new = NewSession {
                tenant_id,
                user_id: user.value.user_id,
                setup_id,
                position: user.position,
            };
            let (token, opened_at) = service.store.open_admin_session(origin, new).await?;
            Ok((token, opened_at.plus(LIFE)))
        }
        Err(Error::SignInFailed) => {
            attempt.failed(service.store.now());
            let event = Event::new("admin_session.open").tenant(&tenant_id).refused();
            service.store.record(origin.clone(), event).await?;
            Err(Error::SignInFailed)
        }
        Err(error) => Err(error),
    }
}

/// Ends a session of the workload of `origin`. Any other session: no effect.
///
/// # Errors
/// [`Error::Store`].
pub async fn sign_out(service: &Consents, origin: &Origin, session: &OpaqueToken) -> Result<(), Error> {
    service
        .store
        .end_admin_session(origin, &session.digest(), EndReason::SignedOut)
        .await
}

/// The session of this text, brought by the workload of `origin`; this counts as a use of it. One that
/// the registry lets stand no more is ended.
///
/// # Errors
/// [`Error::AdminSessionInvalid`] for one that is malformed, unknown, ended, idle too long, too old or
/// another workload's; [`Error::RegistryUnavailable`].
pub async fn require(service: &Consents, origin: &Origin, text: &str) -> Result<AdminSession, Error> {
    let workload = origin.actor.id.as_str();
    let token = OpaqueToken::parse(TokenKind::AdminSession, text).map_err(|_| Error::AdminSessionInvalid)?;
    let digest = token.digest();
    let session = service.store.find_admin_session(&digest).await?;
    let session = session
        .filter(|session| session.is_open(workload, service.store.now()))
        .ok_or(Error::AdminSessionInvalid)?;
    let lease = Lease::begin(lease::LIFE);
    let (user, tenant) = tokio::join!(
        service
            .registry
            .user(&session.tenant_id, UserRef::Id(&session.user_id)),
        service.registry.tenant(&session.tenant_id),
    );
    let tenant = match (user, tenant) {
        (Ok(user), Ok(tenant)) if session.stands(&user, &tenant) => tenant.value,
        (Err(Error::NotFound(_)) | Ok(_), Err(Error::NotFound(_)) | Ok(_)) => {
            let reason = EndReason::NoLongerAllowed;
            service.store.end_admin_session(origin, &digest, reason).await?;
            return Err(Error::AdminSessionInvalid);
        }
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    if !service.store.touch_admin_session(&digest).await? {
        return Err(Error::AdminSessionInvalid);
    }
    Ok(AdminSession {
        origin: Origin {
            actor: Actor {
                kind: ActorKind::TenantAdmin,
                id: session.user_id.to_string(),
            },
            request_id: origin.request_id.clone(),
        },
        tenant_id: session.tenant_id,
        user_id: session.user_id,
        setup_id: session.setup_id,
        signed_in_at: session.signed_in_at,
        tenant,
        workload: session.workload,
        digest,
        lease,
    })
}

/// The same session, now that it is to decide: the registry is asked again if what it said is too old.
///
/// # Errors
/// As [`require`]; [`Error::Store`] when the registry keeps answering too late.
pub async fn renewed(
    service: &Consents,
    origin: &Origin,
    text: &str,
    mut session: AdminSession,
) -> Result<AdminSession, Error> {
    for _ in 0..ATTEMPTS {
        if session.lease.holds() {
            return Ok(session);
        }
        session = require(service, origin, text).await?;
    }
    Err(Error::Unavailable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::{clock::ManualClock, random::SeededRandom};

    use super::*;

    const START: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

    fn position(epoch: &str, seq: i64) -> Position {
        Position {
            epoch: accord::testing::epoch(epoch),
            seq,
        }
    }

    fn session() -> StoredSession {
        StoredSession {
            tenant_id: TenantId::parse("acme").unwrap(),
            user_id: UserId::generate(&ManualClock::new(START), &SeededRandom::new(1)),
            workload: "pages".into(),
            setup_id: None,
            position: position("a", 10),
            signed_in_at: START,
            last_used_at: START,
            ended_at: None,
        }
    }

    fn parties() -> (At<User>, At<Tenant>) {
        let session = session();
        let user = User {
            user_id: session.user_id,
            label: "Admin 1".into(),
            tenant_admin: true,
            active: true,
            tokens_ended_seq: 0,
            sessions_ended_seq: 0,
        };
        let tenant = Tenant {
            tenant_id: session.tenant_id,
            display_name: "Acme".into(),
            active: true,
            issuer: "https://accord.example/acme".into(),
            cloud_api_url: "https://api.example/acme".into(),
            tokens_ended_seq: 0,
        };
        let at = position("a", 20);
        let user = At {
            value: user,
            asked_at: tokio::time::Instant::now(),
            position: at.clone(),
        };
        let tenant = At {
            value: tenant,
            asked_at: tokio::time::Instant::now(),
            position: at,
        };
        (user, tenant)
    }

    #[test]
    fn a_session_ends_by_idleness_age_and_sign_out() {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let open = session();
        assert!(open.is_open("pages", START.plus(minutes(15)).minus(Duration::from_millis(1))));
        assert!(!open.is_open("pages", START.plus(minutes(15))));
        assert!(!open.is_open("others", START));
        let used = StoredSession {
            last_used_at: START.plus(minutes(50)),
            ..session()
        };
        assert!(used.is_open("pages", START.plus(minutes(59))));
        assert!(!used.is_open("pages", START.plus(minutes(60))));
        let ended = StoredSession {
            ended_at: Some(START),
            ..session()
        };
        assert!(!ended.is_open("pages", START));
    }

    #[test]
    fn a_session_stands_only_while_the_registry_has_ended_nothing() {
        type Change = fn(&mut At<User>, &mut At<Tenant>);
        let cases: [(Change, bool); 10] = [
            (|_, _| {}, true),
            (|user, _| user.value.sessions_ended_seq = 10, true),
            (|_, tenant| tenant.value.tokens_ended_seq = 10, true),
            (|user, _| user.value.sessions_ended_seq = 11, false),
            (|_, tenant| tenant.value.tokens_ended_seq = 11, false),
            (|user, _| user.value.active = false, false),
            (|user, _| user.value.tenant_admin = false, false),
            (|_, tenant| tenant.value.active = false, false),
            (|user, _| user.position.epoch = accord::testing::epoch("b"), false),
            (
                |_, tenant| tenant.position.epoch = accord::testing::epoch("b"),
                false,
            ),
        ];
        for (index, (change, stands)) in cases.into_iter().enumerate() {
            let (mut user, mut tenant) = parties();
            change(&mut user, &mut tenant);
            assert_eq!(session().stands(&user, &tenant), stands, "case {index}");
        }
    }
}
