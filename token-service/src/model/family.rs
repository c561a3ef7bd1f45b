//! Refresh families: one generation counts at a time, and a token proves itself by a MAC, so that only
//! the current generation's number is kept.

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

/// How long after an advance the generation before may come again, and get the same successor: answers
/// get lost, and callers race.
pub const RETRY_WINDOW: Duration = Duration::from_secs(30);

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
    /// The generation that counts; the first is 1.
    pub generation: u32,
    /// When that generation was made.
    pub advanced_at: UnixMillis,
    /// The version of the key of its tokens' MACs.
    pub key_version: i32,
    /// The registry's feed position when the family began.
    pub registry: Position,
    /// The absolute end.
    pub expires_at: UnixMillis,
    /// When it ended before that.
    pub ended_at: Option<UnixMillis>,
}

/// What presenting a generation's token means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presented {
    /// The generation that counts: the family advances.
    Current,
    /// The one just before, within the window: the same successor again.
    Retry,
    /// One that was used up: somebody else has it, and the family ends.
    Reused,
    /// One that was never made.
    Unknown,
}

impl Family {
    /// What presenting this generation means now.
    pub fn presented(&self, generation: u32, now: UnixMillis) -> Presented {
        if generation == self.generation {
            Presented::Current
        } else if generation > self.generation || generation == 0 {
            Presented::Unknown
        } else if generation + 1 == self.generation && now.since(self.advanced_at) <= RETRY_WINDOW {
            Presented::Retry
        } else {
            Presented::Reused
        }
    }

    /// Whether the family can be used at this time.
    pub fn is_live_at(&self, now: UnixMillis) -> bool {
        self.ended_at.is_none() && now < self.expires_at
    }

    /// The token of a generation; the same each time.
    ///
    /// # Errors
    /// When the keyring lacks the family's key.
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

/// What a refresh token's MAC speaks of, beside the generation.
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

/// Whether `token` is genuine: of this family, and of this client at this tenant. Without a family the
/// answer is no, at the same cost.
///
/// # Errors
/// When the keyring lacks the family's key.
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
mod tests {
    use accord::testing::{TEST_START, test_clock, test_random};

    use super::*;

    fn family(generation: u32) -> Family {
        let (clock, random) = (test_clock(), test_random());
        Family {
            family_id: FamilyId::generate(&*clock, &*random),
            tenant_id: TenantId::parse("firm").unwrap_or_else(|_| unreachable!()),
            grant_id: GrantId::generate(&*clock, &*random),
            client_id: ClientId::generate(&*clock, &*random),
            generation,
            advanced_at: TEST_START,
            key_version: 1,
            registry: Position {
                epoch: accord::testing::epoch("e"),
                seq: 0,
            },
            expires_at: TEST_START.plus(Duration::from_secs(3600)),
            ended_at: None,
        }
    }

    #[test]
    fn only_the_generation_just_before_may_come_again_and_not_for_long() {
        let family = family(5);
        let soon = TEST_START.plus(RETRY_WINDOW);
        let late = soon.plus(Duration::from_millis(1));
        assert_eq!(family.presented(5, late), Presented::Current);
        assert_eq!(family.presented(4, soon), Presented::Retry);
        assert_eq!(family.presented(4, late), Presented::Reused);
        assert_eq!(family.presented(3, soon), Presented::Reused);
        assert_eq!(family.presented(6, soon), Presented::Unknown);
        assert_eq!(family.presented(0, soon), Presented::Unknown);
    }
}
