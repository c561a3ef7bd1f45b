//! A grant and its states. Expiry and suspension are not stored: [`Grant::state_at`] derives them.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, FamilyId, GrantId, ScopeName, TenantId, UserId},
        network::AllowedNetworks,
    },
    verify::AccessTokenClaims,
};
use strum::{AsRefStr, EnumString, IntoStaticStr};

use super::{
    client::{Client, ClientScope, DisplayInfo},
    lifetimes::Lifetimes,
    tenant::Tenant,
    user::User,
};
use crate::error::Error;

pub mod receipt;
pub mod usage;

use usage::UsageSummary;

/// The most characters of the reason for a revocation.
pub const MAX_REASON_CHARS: usize = 1000;

/// How far the clock of the replica that issued a token may be ahead.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// A change of an active grant.
#[derive(Clone, Debug)]
pub enum GrantChange {
    /// API transactions run as this user.
    DesignatedUser(UserId),
    /// Tokens may be requested from these networks.
    AllowedNetworks(AllowedNetworks),
}

impl GrantChange {
    /// Returns whether the grant is like that already.
    pub fn is_made(&self, grant: &Grant) -> bool {
        match self {
            Self::DesignatedUser(user_id) => grant.designated_user_id == *user_id,
            Self::AllowedNetworks(networks) => grant.allowed_networks == *networks,
        }
    }
}

/// A grant's state as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, EnumString)]
#[strum(serialize_all = "snake_case")]
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

/// A grant's state at a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum GrantState {
    /// Approved; its code can still be redeemed.
    Pending,
    /// Tokens are issued under it.
    Active,
    /// Active, but its client, tenant or designated user is not.
    Suspended,
    /// Ended by a Tenant Admin or an operator, or with the tenant's removal from the client.
    Revoked,
    /// Past its end, or never redeemed.
    Expired,
    /// Replaced by a newer grant.
    Superseded,
}

impl GrantState {
    /// Returns the contract's enum value without its prefix.
    pub fn contract_name(self) -> &'static str {
        self.into()
    }

    /// Returns whether tokens are issued under a grant in this state, and those that were issued are active. A PENDING grant
    /// yields nothing: only its code activates it.
    pub fn yields_tokens(self) -> bool {
        match self {
            Self::Active => true,
            Self::Pending | Self::Suspended | Self::Revoked | Self::Expired | Self::Superseded => false,
        }
    }

    /// Returns whether a grant in this state has not ended.
    pub fn is_in_force(self) -> bool {
        match self {
            Self::Pending | Self::Active | Self::Suspended => true,
            Self::Revoked | Self::Expired | Self::Superseded => false,
        }
    }

    /// Returns the error for a step that a consent in this state does not allow.
    pub fn wrong_state(self) -> Error {
        Error::WrongState {
            resource: "consent",
            state: self.contract_name(),
        }
    }

    /// Returns the stored states that a grant in this state can have.
    pub fn stored(self) -> &'static [StoredState] {
        match self {
            Self::Pending => &[StoredState::Pending],
            Self::Active | Self::Suspended => &[StoredState::Active],
            // A grant whose client lost the tenant is stored as it was.
            Self::Revoked => &[StoredState::Revoked, StoredState::Pending, StoredState::Active],
            Self::Expired => &[StoredState::Pending, StoredState::Active],
            Self::Superseded => &[StoredState::Superseded],
        }
    }
}

/// Selects the grants that match every given field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantFilter {
    /// The client.
    pub client_id: Option<ClientId>,
    /// The state.
    pub state: Option<GrantState>,
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
    /// The client's display info as the Tenant Admin saw it.
    pub display: DisplayInfo,
    /// The scopes granted.
    pub scopes: Vec<ScopeName>,
    /// The user that API transactions run as.
    pub designated_user_id: UserId,
    /// The Tenant Admin who granted it.
    pub granted_by: UserId,
    /// The stored state; [`Grant::state_at`] derives the state at a point in time.
    pub state: StoredState,
    /// The refresh family that began when its code was redeemed.
    pub family_id: Option<FamilyId>,
    /// The version of the client that the Tenant Admin saw: a position of the registry's feed.
    pub client_version: i64,
    /// When it was approved.
    pub created_at: UnixMillis,
    /// When its code expires. A pending grant expires with it.
    pub redeem_until: UnixMillis,
    /// When its code was redeemed.
    pub activated_at: Option<UnixMillis>,
    /// When it expires.
    pub expires_at: Option<UnixMillis>,
    /// When it was revoked or superseded.
    pub ended_at: Option<UnixMillis>,
    /// The networks that tokens may be requested from under it.
    pub allowed_networks: AllowedNetworks,
}

impl Grant {
    /// Returns whether this grant allows a token with these claims at `now`. A signature alone proves too little: whoever
    /// holds a signing key writes the claims that they like.
    pub fn covers(&self, claims: &AccessTokenClaims, now: UnixMillis) -> bool {
        let is_short =
            u64::from(claims.exp.saturating_sub(claims.iat)) <= Lifetimes::MAX_ACCESS_TOKEN.as_secs();
        let was_issued = i64::from(claims.iat) <= now.plus(CLOCK_TOLERANCE).as_secs();
        let is_granted = |scope| self.scopes.iter().any(|granted| granted.as_str() == scope);
        let family_id = self.family_id.as_ref().map(FamilyId::as_str);
        claims.client_id == self.client_id.as_str()
            && claims.sub == self.designated_user_id.as_str()
            && (claims.family_id.is_none() || claims.family_id.as_deref() == family_id)
            && is_short
            && was_issued
            && claims.scope.split(' ').all(is_granted)
    }

    /// Returns the state at `now`. `parties_active` says whether client, tenant and designated user are all active
    /// in the registry; only the state of an active grant depends on it.
    pub fn state_at(&self, now: UnixMillis, parties_active: bool) -> GrantState {
        match self.state {
            StoredState::Revoked => GrantState::Revoked,
            StoredState::Superseded => GrantState::Superseded,
            _ if self.lapses_at().is_some_and(|end| now >= end) => GrantState::Expired,
            StoredState::Pending => GrantState::Pending,
            StoredState::Active if parties_active => GrantState::Active,
            StoredState::Active => GrantState::Suspended,
        }
    }

    /// Returns the state at `now`. `client` is `None` if the registry has no such client. `others_active` says whether
    /// tenant and designated user are active. A grant ends with the tenant's removal from the client, for good.
    pub fn state_with(&self, now: UnixMillis, client: Option<&Client>, others_active: bool) -> GrantState {
        let parties_active = others_active && client.is_some_and(|client| client.active);
        let added_seq = client.map(|client| client.tenants.get(&self.tenant_id));
        let lost_tenant = added_seq.is_some_and(|seq| seq.is_none_or(|seq| *seq > self.client_version));
        match self.state_at(now, parties_active) {
            GrantState::Pending | GrantState::Active | GrantState::Suspended if lost_tenant => {
                GrantState::Revoked
            }
            state => state,
        }
    }

    /// Returns whether the grant covers this scope of its client. One that was removed from the client since the approval
    /// and added again is new.
    pub fn allows(&self, scope: &ClientScope) -> bool {
        scope.added_seq <= self.client_version && self.scopes.contains(&scope.name)
    }

    /// Returns when the grant expires: at the end that the Tenant Admin chose. A pending grant expires with its code,
    /// if that is earlier.
    fn lapses_at(&self) -> Option<UnixMillis> {
        match self.state {
            StoredState::Pending => self.expires_at.into_iter().chain([self.redeem_until]).min(),
            StoredState::Active => self.expires_at,
            StoredState::Revoked | StoredState::Superseded => None,
        }
    }

    /// Returns when the grant ended, by revocation, replacement or expiry; `None` before.
    pub fn ended_by(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.ended_at.or(self.lapses_at().filter(|end| now >= *end))
    }
}

/// A grant with the registry's facts about its parties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// The grant.
    pub grant: Grant,
    /// Its state.
    pub state: GrantState,
    /// When it ended; `None` before.
    pub ended_at: Option<UnixMillis>,
    /// The scopes that the grant holds now. Once it has ended: those that were granted, without description and reason where
    /// the client lost the scope.
    pub scopes: Vec<ClientScope>,
    /// The granted scopes that a grant in force no longer holds, because the client or the catalogue lost them since.
    pub removed_scopes: Vec<ScopeName>,
    /// The label of the designated user; empty if the registry does not know the user.
    pub designated_user_label: String,
    /// The label of the Tenant Admin who granted it; empty if the registry does not know the user.
    pub granted_by_label: String,
    /// How it was used lately, up to a few seconds late.
    pub usage: UsageSummary,
}

/// The parties of a grant, as far as the registry knows them.
#[derive(Clone, Copy, Debug)]
pub struct Parties<'a> {
    /// The tenant.
    pub tenant: Option<&'a Tenant>,
    /// The client.
    pub client: Option<&'a Client>,
    /// The user that API transactions run as.
    pub designated_user: Option<&'a User>,
    /// The Tenant Admin who granted it.
    pub granted_by: Option<&'a User>,
}

impl Consent {
    /// Describes the grant as it is at `now`.
    pub fn new(grant: Grant, parties: Parties<'_>, usage: UsageSummary, now: UnixMillis) -> Self {
        let others_active = parties.tenant.is_some_and(|tenant| tenant.active)
            && parties.designated_user.is_some_and(|user| user.active);
        let state = grant.state_with(now, parties.client, others_active);
        let (mut scopes, mut removed_scopes) = (Vec::new(), Vec::new());
        for name in &grant.scopes {
            let mut known = parties.client.iter().flat_map(|client| &client.scopes);
            match known.find(|scope| scope.name == *name && grant.allows(scope)) {
                Some(scope) => scopes.push(scope.clone()),
                None if state.is_in_force() => removed_scopes.push(name.clone()),
                None => scopes.push(ClientScope {
                    name: name.clone(),
                    description: String::new(),
                    reason: String::new(),
                    added_seq: 0,
                }),
            }
        }
        let label = |user: Option<&User>| user.map(|user| user.label.clone()).unwrap_or_default();
        Self {
            scopes,
            removed_scopes,
            state,
            ended_at: grant.ended_by(now),
            designated_user_label: label(parties.designated_user),
            granted_by_label: label(parties.granted_by),
            usage,
            grant,
        }
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
            display: DisplayInfo::default(),
            scopes: Vec::new(),
            designated_user_id: UserId::generate(&clock, &random),
            granted_by: UserId::generate(&clock, &random),
            state,
            family_id: None,
            client_version: 5,
            created_at: START,
            redeem_until: after(60),
            activated_at: None,
            expires_at: expires_in.map(after),
            ended_at: None,
            allowed_networks: AllowedNetworks::default(),
        }
    }

    fn after(seconds: i64) -> UnixMillis {
        UnixMillis::from_millis(START.as_millis() + seconds * 1000)
    }

    #[test]
    fn a_pending_grant_expires_with_its_code_or_at_its_end() {
        let open = grant(StoredState::Pending, None);
        assert_eq!(open.state_at(after(59), true), GrantState::Pending);
        assert_eq!(open.state_at(after(59), false), GrantState::Pending);
        assert_eq!(open.state_at(after(60), true), GrantState::Expired);
        assert_eq!(
            (open.ended_by(after(59)), open.ended_by(after(99))),
            (None, Some(after(60)))
        );
        let short = grant(StoredState::Pending, Some(10));
        assert_eq!(short.state_at(after(10), true), GrantState::Expired);
        assert_eq!(short.ended_by(after(99)), Some(after(10)));
    }

    #[test]
    fn an_active_grant_is_suspended_with_its_parties_and_expires_at_its_end() {
        let endless = grant(StoredState::Active, None);
        assert_eq!(endless.state_at(after(1_000_000), true), GrantState::Active);
        assert_eq!(endless.state_at(after(1_000_000), false), GrantState::Suspended);
        let ending = grant(StoredState::Active, Some(100));
        assert_eq!(ending.state_at(after(99), true), GrantState::Active);
        assert_eq!(ending.state_at(after(100), false), GrantState::Expired);
    }

    #[test]
    fn an_ended_grant_keeps_its_state() {
        for (stored, state) in [
            (StoredState::Revoked, GrantState::Revoked),
            (StoredState::Superseded, GrantState::Superseded),
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
    fn a_grant_allows_only_the_claims_of_its_own_tokens() {
        let scopes = ["a", "b"].map(|name| ScopeName::parse(name).unwrap());
        let family_id = FamilyId::generate(&ManualClock::new(START), &SeededRandom::new(4));
        let grant = Grant {
            scopes: scopes.to_vec(),
            family_id: Some(family_id.clone()),
            ..grant(StoredState::Active, None)
        };
        let iat = u32::try_from(START.as_secs()).unwrap();
        let claims = AccessTokenClaims {
            iss: String::new(),
            aud: String::new(),
            sub: grant.designated_user_id.to_string(),
            client_id: grant.client_id.to_string(),
            tenant_id: "acme".into(),
            grant_id: grant.grant_id.to_string(),
            family_id: Some(family_id.into()),
            scope: "b a".into(),
            jti: "1".into(),
            iat,
            exp: iat + 900,
            rev: String::new(),
            cnf: None,
        };
        assert!(grant.covers(&claims, START));
        let with = |change: fn(&mut AccessTokenClaims)| {
            let mut changed = claims.clone();
            change(&mut changed);
            grant.covers(&changed, START)
        };
        assert!(with(|claims| claims.family_id = None), "client credentials");
        assert!(with(|claims| claims.scope = "a".into()));
        assert!(with(
            |claims| (claims.iat, claims.exp) = (claims.iat + 60, claims.exp + 60)
        ));
        assert!(!with(|claims| claims.sub = "usr_other".into()));
        assert!(!with(|claims| claims.client_id = "cli_other".into()));
        assert!(!with(|claims| claims.family_id = Some("other".into())));
        assert!(!with(|claims| claims.scope = "a c".into()));
        assert!(!with(|claims| claims.scope = String::new()));
        assert!(!with(|claims| claims.exp += 1));
        assert!(!with(
            |claims| (claims.iat, claims.exp) = (claims.iat + 61, claims.exp + 61)
        ));
        assert!(!with(|claims| claims.exp = u32::MAX));
    }

    #[test]
    fn states_have_the_names_of_the_database_and_of_the_contract() {
        for (name, state) in [
            ("pending", StoredState::Pending),
            ("active", StoredState::Active),
            ("revoked", StoredState::Revoked),
            ("superseded", StoredState::Superseded),
        ] {
            assert_eq!((state.as_ref(), name.parse()), (name, Ok(state)));
        }
        assert!("PENDING".parse::<StoredState>().is_err());
        let yielding = [
            GrantState::Pending,
            GrantState::Active,
            GrantState::Suspended,
            GrantState::Revoked,
            GrantState::Expired,
            GrantState::Superseded,
        ]
        .map(GrantState::yields_tokens);
        assert_eq!(yielding, [false, true, false, false, false, false]);
        assert_eq!(GrantState::Superseded.contract_name(), "SUPERSEDED");
    }
}
