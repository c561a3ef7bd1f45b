//! A Tenant Admin's session. It belongs to a tenant, a user, the workload that sent the sign-in and, if it was
//! opened for one, a setup.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    position::Position,
    text::{
        id::{SetupId, TenantId, UserId},
        opaque::sha256,
    },
};
use strum::AsRefStr;

use super::{tenant::Tenant, user::User, watermark::AsOf};
use crate::error::{Error, Result};

/// A session ends after this long without use.
pub const IDLE: Duration = Duration::from_secs(15 * 60);
/// A session ends this long after the sign-in.
pub const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Approving, and changing the designated user, need a sign-in no older than this.
pub const FRESH: Duration = Duration::from_secs(5 * 60);

/// A session of a Tenant Admin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSession {
    /// SHA-256 of its token.
    pub digest: [u8; 32],
    /// The tenant.
    pub tenant_id: TenantId,
    /// The Tenant Admin.
    pub user_id: UserId,
    /// The id of the workload that sent the sign-in.
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

/// How many bytes of a hash make the id of a session.
const ID_BYTES: usize = 8;

/// Returns the id of the session with this digest, for the audit record: the beginning of a hash of the digest. Neither the token nor
/// the digest, which is the key of the row, can be found from it.
pub fn session_id(digest: &[u8; 32]) -> String {
    hex::encode(&sha256(digest)[..ID_BYTES])
}

impl AdminSession {
    /// Returns whether this workload can use the session, as far as token-service knows.
    pub fn is_open(&self, workload: &str, now: UnixMillis) -> bool {
        self.ended_at.is_none()
            && self.workload == workload
            && now.since(self.last_used_at) < IDLE
            && now.since(self.signed_in_at) < LIFETIME
    }

    /// Returns whether the registry still lets the Tenant Admin act, and has ended no sessions since the sign-in.
    pub fn is_allowed(&self, user: &AsOf<User>, tenant: &AsOf<Tenant>) -> bool {
        user.value.active
            && user.value.tenant_admin
            && tenant.value.active
            && user.position.epoch == self.position.epoch
            && tenant.position.epoch == self.position.epoch
            && self.position.seq >= user.value.sessions_ended_seq
            && self.position.seq >= tenant.value.tokens_ended_seq
    }

    /// Rejects a sign-in that is more than five minutes old.
    pub fn require_fresh(&self, now: UnixMillis) -> Result<()> {
        let is_fresh = now.since(self.signed_in_at) <= FRESH;
        is_fresh.then_some(()).ok_or(Error::SignInTooOld)
    }
}

/// A session to be stored.
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

/// Why a session ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr)]
#[strum(serialize_all = "snake_case")]
pub enum EndReason {
    /// The Tenant Admin signed out.
    SignedOut,
    /// The registry no longer lets the Tenant Admin act, or ended the sessions.
    NoLongerAllowed,
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

    fn session() -> AdminSession {
        AdminSession {
            digest: [0; 32],
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

    fn parties() -> (AsOf<User>, AsOf<Tenant>) {
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
        let user = AsOf {
            value: user,
            sent_at: tokio::time::Instant::now(),
            position: at.clone(),
        };
        let tenant = AsOf {
            value: tenant,
            sent_at: tokio::time::Instant::now(),
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
        let used = AdminSession {
            last_used_at: START.plus(minutes(50)),
            ..session()
        };
        assert!(used.is_open("pages", START.plus(minutes(59))));
        assert!(!used.is_open("pages", START.plus(minutes(60))));
        let ended = AdminSession {
            ended_at: Some(START),
            ..session()
        };
        assert!(!ended.is_open("pages", START));
    }

    #[test]
    fn a_session_is_allowed_only_while_the_registry_has_ended_nothing() {
        type Change = fn(&mut AsOf<User>, &mut AsOf<Tenant>);
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
        for (index, (change, allowed)) in cases.into_iter().enumerate() {
            let (mut user, mut tenant) = parties();
            change(&mut user, &mut tenant);
            assert_eq!(session().is_allowed(&user, &tenant), allowed, "case {index}");
        }
    }
}
