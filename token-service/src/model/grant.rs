//! A grant and its states. Expiry and suspension are never stored: they show when a grant is read.

use accord::{
    clock::UnixMillis,
    text::id::{ClientId, GrantId, ScopeName, TenantId, UserId},
};

/// A grant's state as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredState {
    /// Approved; its code is not redeemed yet.
    Pending,
    /// Its code was redeemed.
    Active,
    /// Ended by a Tenant Admin or an operator.
    Revoked,
    /// Replaced by a newer grant.
    Superseded,
}

impl StoredState {
    /// The state's name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Revoked => "revoked",
            Self::Superseded => "superseded",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pending, Self::Active, Self::Revoked, Self::Superseded]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// A grant's state at a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Approved; its code can still be redeemed.
    Pending,
    /// Tokens are issued under it.
    Active,
    /// Active, but client, tenant or designated user are not.
    Suspended,
    /// Ended by a Tenant Admin or an operator.
    Revoked,
    /// Past its end, or never redeemed.
    Expired,
    /// Replaced by a newer grant.
    Superseded,
}

impl State {
    /// The short name of the contract's enum value.
    pub fn contract_name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Active => "ACTIVE",
            Self::Suspended => "SUSPENDED",
            Self::Revoked => "REVOKED",
            Self::Expired => "EXPIRED",
            Self::Superseded => "SUPERSEDED",
        }
    }

    /// The stored states that a grant in this state can have.
    pub fn stored(self) -> &'static [StoredState] {
        match self {
            Self::Pending => &[StoredState::Pending],
            Self::Active | Self::Suspended => &[StoredState::Active],
            Self::Revoked => &[StoredState::Revoked],
            Self::Expired => &[StoredState::Pending, StoredState::Active],
            Self::Superseded => &[StoredState::Superseded],
        }
    }
}

/// What a Tenant Admin allowed a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its id; tokens carry it.
    pub grant_id: GrantId,
    /// The tenant.
    pub tenant_id: TenantId,
    /// The client.
    pub client_id: ClientId,
    /// The client's name for people, as it was shown.
    pub client_display_name: String,
    /// The scopes granted.
    pub scopes: Vec<ScopeName>,
    /// The user that API transactions run as.
    pub designated_user_id: UserId,
    /// What the integration is for, as it was shown.
    pub purpose: String,
    /// The Tenant Admin who granted it.
    pub granted_by: UserId,
    /// Its state as stored; see [`Grant::state_at`] for what counts.
    pub state: StoredState,
    /// When it was approved.
    pub created_at: UnixMillis,
    /// When it ends with its code, unless that is redeemed before.
    pub redeem_until: UnixMillis,
    /// When its code was redeemed.
    pub activated_at: Option<UnixMillis>,
    /// When it ends by itself.
    pub expires_at: Option<UnixMillis>,
    /// When it was revoked or superseded.
    pub ended_at: Option<UnixMillis>,
}

impl Grant {
    /// Where the grant stands at `now`. `parties_active` says whether client, tenant and designated
    /// user all count in the registry; it matters to an active grant alone.
    pub fn state_at(&self, now: UnixMillis, parties_active: bool) -> State {
        match self.state {
            StoredState::Revoked => State::Revoked,
            StoredState::Superseded => State::Superseded,
            StoredState::Pending | StoredState::Active if self.lapses_at().is_some_and(|end| now >= end) => {
                State::Expired
            }
            StoredState::Pending => State::Pending,
            StoredState::Active if parties_active => State::Active,
            StoredState::Active => State::Suspended,
        }
    }

    /// When the grant ends if nobody does anything: with its code while that is not redeemed, and
    /// at the end that the Tenant Admin chose.
    fn lapses_at(&self) -> Option<UnixMillis> {
        match self.state {
            StoredState::Pending => Some(
                self.expires_at
                    .map_or(self.redeem_until, |end| end.min(self.redeem_until)),
            ),
            StoredState::Active => self.expires_at,
            StoredState::Revoked | StoredState::Superseded => None,
        }
    }

    /// When the grant ended, by whichever way; `None` while it has not.
    pub fn ended_by(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.ended_at.or(self.lapses_at().filter(|end| now >= *end))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::{clock::ManualClock, random::SeededRandom};

    use super::*;

    const START: UnixMillis = UnixMillis::from_millis(1_800_000_000_000);

    fn grant(state: StoredState, expires_in: Option<i64>) -> Grant {
        let (clock, random) = (ManualClock::new(START), SeededRandom::new(3));
        Grant {
            grant_id: GrantId::generate(&clock, &random),
            tenant_id: TenantId::parse("acme").unwrap(),
            client_id: ClientId::generate(&clock, &random),
            client_display_name: "Sync".into(),
            scopes: Vec::new(),
            designated_user_id: UserId::generate(&clock, &random),
            purpose: "Sync".into(),
            granted_by: UserId::generate(&clock, &random),
            state,
            created_at: START,
            redeem_until: after(60),
            activated_at: None,
            expires_at: expires_in.map(after),
            ended_at: None,
        }
    }

    fn after(seconds: i64) -> UnixMillis {
        UnixMillis::from_millis(START.as_millis() + seconds * 1000)
    }

    #[test]
    fn a_pending_grant_expires_with_its_code_or_at_its_end() {
        let open = grant(StoredState::Pending, None);
        assert_eq!(open.state_at(after(59), true), State::Pending);
        assert_eq!(open.state_at(after(59), false), State::Pending);
        assert_eq!(open.state_at(after(60), true), State::Expired);
        assert_eq!(
            (open.ended_by(after(59)), open.ended_by(after(99))),
            (None, Some(after(60)))
        );
        let short = grant(StoredState::Pending, Some(10));
        assert_eq!(short.state_at(after(10), true), State::Expired);
        assert_eq!(short.ended_by(after(99)), Some(after(10)));
    }

    #[test]
    fn an_active_grant_is_suspended_with_its_parties_and_expires_at_its_end() {
        let endless = grant(StoredState::Active, None);
        assert_eq!(endless.state_at(after(1_000_000), true), State::Active);
        assert_eq!(endless.state_at(after(1_000_000), false), State::Suspended);
        let ending = grant(StoredState::Active, Some(100));
        assert_eq!(ending.state_at(after(99), true), State::Active);
        assert_eq!(ending.state_at(after(100), false), State::Expired);
    }

    #[test]
    fn what_was_ended_stays_so() {
        for (stored, state) in [
            (StoredState::Revoked, State::Revoked),
            (StoredState::Superseded, State::Superseded),
        ] {
            let ended = Grant {
                ended_at: Some(after(5)),
                ..grant(stored, Some(100))
            };
            assert_eq!(ended.state_at(after(200), false), state);
            assert_eq!(ended.ended_by(after(200)), Some(after(5)));
        }
    }

    #[test]
    fn states_have_names_that_read_back() {
        for state in [
            StoredState::Pending,
            StoredState::Active,
            StoredState::Revoked,
            StoredState::Superseded,
        ] {
            assert_eq!(StoredState::from_name(state.name()), Some(state));
        }
        assert_eq!(StoredState::from_name("PENDING"), None);
    }
}
