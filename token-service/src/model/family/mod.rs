//! Refresh families: what presenting a generation does, and the MAC that proves a token. The tokens themselves are
//! not stored.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    keys::{DataKey, KeyError, Keyring},
    position::Position,
    text::{
        id::{ClientId, FamilyId, GrantId, TenantId},
        opaque::RefreshToken,
    },
};
use subtle::ConstantTimeEq;

use crate::model::purpose;

/// How long a generation that was used yields the same successor again. Responses get lost, and callers race.
pub const REPEAT_WINDOW: Duration = Duration::from_secs(30);

/// A refresh family.
#[derive(Clone, Debug)]
pub struct Family {
    /// Its id.
    pub family_id: FamilyId,
    /// The tenant.
    pub tenant_id: TenantId,
    /// The grant.
    pub grant_id: GrantId,
    /// The client.
    pub client_id: ClientId,
    /// Its generations.
    pub generations: Generations,
    /// The version of the data key that makes its tokens' MACs.
    pub key_version: i32,
    /// The registry's feed position when the family began.
    pub registry: Position,
    /// The absolute end.
    pub expires_at: UnixMillis,
    /// When it was ended; `None` for a family that was not ended before it expires.
    pub ended_at: Option<UnixMillis>,
}

/// The two numbers that decide what a refresh token does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generations {
    /// The newest generation that a client presented; 0 at first.
    pub used: u32,
    /// The newest generation that was handed out; 1 at first.
    pub current: u32,
    /// When `current` was first handed out.
    pub handed_out_at: UnixMillis,
}

/// What presenting a refresh token does to its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Moves the family to these generations and hands out the new `current`.
    HandOut(Generations),
    /// Hands out the same `current` again; nothing moves.
    Repeat,
    /// Hands out the same `current` again, as often as it is presented; nothing moves.
    Same,
    /// Ends the family: two parties hold its tokens.
    Replay,
}

impl Generations {
    /// Returns the generations of a family whose first refresh token is handed out now.
    pub fn first(now: UnixMillis) -> Self {
        Self {
            used: 0,
            current: 1,
            handed_out_at: now,
        }
    }

    /// Returns what a genuine token of generation `presented` does.
    ///
    /// A generation above `current` was handed out by a commit that the database lost in a failover. A client that
    /// presents `used` has not used the successor: the response got lost, callers race, or somebody copied the
    /// token. After [`REPEAT_WINDOW`] a copy and the original get different successors, and the older one of these ends
    /// the family when it is presented.
    pub fn renew(&self, presented: u32, now: UnixMillis) -> Renewal {
        let hand_out = |current: u32| {
            Renewal::HandOut(Self {
                used: presented,
                current: current.saturating_add(1),
                handed_out_at: now,
            })
        };
        if presented >= self.current {
            hand_out(presented)
        } else if presented != self.used || presented == 0 {
            Renewal::Replay
        } else if now.since(self.handed_out_at) <= REPEAT_WINDOW {
            Renewal::Repeat
        } else {
            hand_out(self.current)
        }
    }
}

impl Generations {
    /// Returns what a genuine token of generation `presented` does for a client that keeps its refresh token, because its key
    /// protects it (FAPI 2.0 Security Profile §5.3.2.1). A token that it kept counts as used at most every
    /// [`REPEAT_WINDOW`]. Its predecessor counts, too: its successor may have been lost before the client began to keep it.
    pub fn renew_without_rotation(&self, presented: u32, now: UnixMillis) -> Renewal {
        if presented < self.current && (presented != self.used || presented == 0) {
            return Renewal::Replay;
        }
        let current = presented.max(self.current);
        if current == self.current && now.since(self.handed_out_at) <= REPEAT_WINDOW {
            return Renewal::Same;
        }
        Renewal::HandOut(Self {
            used: self.used,
            current,
            handed_out_at: now,
        })
    }
}

impl Family {
    /// Returns when the family expires: at its absolute end, or `idle` after its newest token was handed out.
    pub fn ends_at(&self, idle: Duration) -> UnixMillis {
        self.expires_at.min(self.generations.handed_out_at.plus(idle))
    }

    /// Returns whether the family can be used.
    pub fn is_live_at(&self, now: UnixMillis, idle: Duration) -> bool {
        self.ended_at.is_none() && now < self.ends_at(idle)
    }

    /// Returns the token of a generation. It is the same each time.
    pub fn token(&self, keyring: &Keyring, generation: u32) -> Result<RefreshToken, KeyError> {
        let key = keyring.require(purpose::REFRESH, self.key_version)?;
        let mac = mac(key, &self.tenant_id, &self.client_id, &self.family_id, generation);
        Ok(RefreshToken::compose(&self.family_id, generation, &mac))
    }
}

fn mac(
    key: &DataKey,
    tenant_id: &TenantId,
    client_id: &ClientId,
    family_id: &FamilyId,
    generation: u32,
) -> [u8; 32] {
    key.hmac(&[
        tenant_id.as_str().as_bytes(),
        client_id.as_str().as_bytes(),
        family_id.as_str().as_bytes(),
        &generation.to_be_bytes(),
    ])
}

/// Returns whether `token` belongs to this family and to this client at this tenant. Takes the same time
/// for an unknown family.
pub fn is_genuine(
    keyring: &Keyring,
    token: &RefreshToken,
    family: Option<&Family>,
    client_id: &ClientId,
    tenant_id: &TenantId,
) -> Result<bool, KeyError> {
    let key = match family {
        Some(family) => keyring.require(purpose::REFRESH, family.key_version)?,
        None => keyring.current(purpose::REFRESH)?,
    };
    let expected = mac(key, tenant_id, client_id, token.family(), token.generation());
    let is_theirs = |family: &Family| family.client_id == *client_id && family.tenant_id == *tenant_id;
    Ok(bool::from(expected.ct_eq(token.mac())) && family.is_some_and(is_theirs))
}

#[cfg(test)]
mod tests;
