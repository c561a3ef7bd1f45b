//! Refresh families: what presenting a generation does, and the MAC that makes a token genuine. The tokens
//! themselves are not stored.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    keys::{KeyError, Keyring},
    position::Position,
    text::{
        id::{ClientId, FamilyId, GrantId, TenantId},
        opaque::RefreshToken,
    },
};
use subtle::ConstantTimeEq;

use crate::model::purpose;

/// How long the generation before the current one may come again and get the same successor, because
/// answers get lost and callers race.
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
    /// Where its generations are.
    pub generations: Generations,
    /// The version of the key of its tokens' MACs.
    pub key_version: i32,
    /// The registry's feed position when the family began.
    pub registry: Position,
    /// The absolute end.
    pub expires_at: UnixMillis,
    /// When it ended before that.
    pub ended_at: Option<UnixMillis>,
}

/// The two numbers that decide what a refresh token is worth.
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
    /// Ends the family: two parties hold its tokens.
    Replay,
}

impl Generations {
    /// The first refresh token, handed out now.
    pub fn first(now: UnixMillis) -> Self {
        Self {
            used: 0,
            current: 1,
            handed_out_at: now,
        }
    }

    /// Judges a genuine token of this generation.
    ///
    /// A generation above `current` was handed out by a commit that the database lost in a failover. While
    /// `used` is presented, its successor has not come back: the answer got lost, callers race, or
    /// somebody copied the token. After [`REPEAT_WINDOW`] a copy and the original part, and whichever is
    /// left behind ends the family.
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

impl Family {
    /// When the family ends by itself: at its absolute end, or `idle` after its newest token was handed out.
    pub fn ends_at(&self, idle: Duration) -> UnixMillis {
        self.expires_at.min(self.generations.handed_out_at.plus(idle))
    }

    /// Whether the family can be used.
    pub fn is_live_at(&self, now: UnixMillis, idle: Duration) -> bool {
        self.ended_at.is_none() && now < self.ends_at(idle)
    }

    /// The token of a generation; the same each time.
    pub fn token(&self, keyring: &Keyring, generation: u32) -> Result<RefreshToken, KeyError> {
        let mac = mac(keyring, self.key_version, &self.whose(), generation)?;
        Ok(RefreshToken::compose(&self.family_id, generation, &mac))
    }

    fn whose(&self) -> Whose<'_> {
        Whose {
            tenant_id: &self.tenant_id,
            client_id: &self.client_id,
            family_id: &self.family_id,
        }
    }
}

/// What a refresh token's MAC covers, beside the generation.
struct Whose<'a> {
    tenant_id: &'a TenantId,
    client_id: &'a ClientId,
    family_id: &'a FamilyId,
}

fn mac(
    keyring: &Keyring,
    key_version: i32,
    whose: &Whose<'_>,
    generation: u32,
) -> Result<[u8; 32], KeyError> {
    let key = keyring.require(purpose::REFRESH, key_version)?;
    Ok(key.hmac(&[
        whose.tenant_id.as_str().as_bytes(),
        whose.client_id.as_str().as_bytes(),
        whose.family_id.as_str().as_bytes(),
        &generation.to_be_bytes(),
    ]))
}

/// Whether `token` belongs to this family and to this client at this tenant. An unknown family costs the
/// same time.
pub fn is_genuine(
    keyring: &Keyring,
    token: &RefreshToken,
    family: Option<&Family>,
    client_id: &ClientId,
    tenant_id: &TenantId,
) -> Result<bool, KeyError> {
    let key_version = match family {
        Some(family) => family.key_version,
        None => keyring.current(purpose::REFRESH)?.version(),
    };
    let whose = Whose {
        tenant_id,
        client_id,
        family_id: token.family(),
    };
    let expected = mac(keyring, key_version, &whose, token.generation())?;
    let matches: bool = expected.ct_eq(token.mac()).into();
    Ok(matches
        && family.is_some_and(|family| family.client_id == *client_id && family.tenant_id == *tenant_id))
}

#[cfg(test)]
#[path = "family_tests.rs"]
mod tests;
