//! Client Secrets: several may live at once, so that a partner changes over without a gap.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    text::id::{ClientId, SecretId},
};
use strum::{AsRefStr, EnumString};

use super::{argon2_hash::Argon2Hash, delivery::Method};
use crate::error::Error;

/// Uses closer together than this are not worth a write.
pub const USE_RESOLUTION: Duration = Duration::from_secs(60);
/// How many secrets of a client may live at once.
pub const MAX_LIVE: u64 = 10;
/// A secret used this recently is revoked with `force` only.
pub const IN_USE: Duration = Duration::from_secs(24 * 3600);

/// Why a secret ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// Replaced in good order.
    Rotated,
    /// Known to somebody who should not know it.
    Compromised,
    /// Its one-time link ended unopened.
    Unclaimed,
}

/// What is known of a secret; never the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSecret {
    /// The secret's id.
    pub secret_id: SecretId,
    /// The client.
    pub client_id: ClientId,
    /// Its hash.
    pub hashed: Argon2Hash,
    /// Whether it waits for its one-time link to be opened.
    pub awaiting_claim: bool,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it ends by itself.
    pub expires_at: Option<UnixMillis>,
    /// When it last authenticated the client.
    pub last_used_at: Option<UnixMillis>,
    /// When and why it was revoked.
    pub revoked: Option<(UnixMillis, Reason)>,
}

impl ClientSecret {
    /// Whether it authenticates its client at this time: claimed, not revoked, not expired.
    pub fn is_live_at(&self, now: UnixMillis) -> bool {
        !self.awaiting_claim && self.revoked.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// A secret that authenticates its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSecret {
    /// The secret's id.
    pub secret_id: SecretId,
    /// When it ends by itself.
    pub expires_at: Option<UnixMillis>,
}

/// What an operator gives to add a secret.
#[derive(Clone, Debug)]
pub struct NewSecret {
    /// The client.
    pub client_id: ClientId,
    /// When it shall end by itself.
    pub expires_at: Option<UnixMillis>,
    /// How to hand it over.
    pub delivery: Method,
}

/// What an operator gives to end a secret.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// The client.
    pub client_id: ClientId,
    /// The secret.
    pub secret_id: SecretId,
    /// Why: [`Reason::Rotated`] or [`Reason::Compromised`].
    pub reason: Reason,
    /// Also if it was used in the last day.
    pub force: bool,
}

/// When a secret was used, as token-service reports it.
#[derive(Clone, Debug)]
pub struct SecretUse {
    /// The client.
    pub client_id: ClientId,
    /// The secret.
    pub secret_id: SecretId,
    /// When.
    pub used_at: UnixMillis,
}

/// What revoking does to a secret as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it ended for this reason, or a worse one, before.
    None,
    /// It ends; or the reason for which it ended turns out to be worse.
    Revoke,
}

/// Whether a secret may be revoked, and what that does.
///
/// # Errors
/// [`Error::SecretInUse`].
pub fn revocation_effect(
    secret: &ClientSecret,
    reason: Reason,
    force: bool,
    now: UnixMillis,
) -> Result<Effect, Error> {
    match secret.revoked {
        Some((_, before))
            if before == reason || before == Reason::Compromised || reason == Reason::Rotated =>
        {
            Ok(Effect::None)
        }
        Some(_) => Ok(Effect::Revoke),
        None => match secret.last_used_at {
            Some(last_used_at) if !force && now.since(last_used_at) < IN_USE => {
                Err(Error::SecretInUse { last_used_at })
            }
            _ => Ok(Effect::Revoke),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::testing::{TEST_START, test_clock, test_random};

    use super::*;

    fn secret() -> ClientSecret {
        let (clock, random) = (test_clock(), test_random());
        ClientSecret {
            secret_id: SecretId::generate(&*clock, &*random),
            client_id: ClientId::generate(&*clock, &*random),
            hashed: Argon2Hash {
                phc: String::new(),
                pepper_version: 1,
            },
            awaiting_claim: false,
            created_at: TEST_START,
            expires_at: None,
            last_used_at: None,
            revoked: None,
        }
    }

    #[test]
    fn a_secret_in_use_needs_force() {
        let now = TEST_START.plus(IN_USE);
        let used = ClientSecret {
            last_used_at: Some(TEST_START.plus(Duration::from_millis(1))),
            ..secret()
        };
        assert!(matches!(
            revocation_effect(&used, Reason::Compromised, false, now),
            Err(Error::SecretInUse { .. })
        ));
        assert_eq!(
            revocation_effect(&used, Reason::Rotated, true, now).unwrap(),
            Effect::Revoke
        );
        let rested = ClientSecret {
            last_used_at: Some(TEST_START),
            ..secret()
        };
        assert_eq!(
            revocation_effect(&rested, Reason::Rotated, false, now).unwrap(),
            Effect::Revoke
        );
    }

    #[test]
    fn a_reason_can_only_get_worse() {
        let ended = |reason| ClientSecret {
            revoked: Some((TEST_START, reason)),
            ..secret()
        };
        let effect = |before, reason| revocation_effect(&ended(before), reason, false, TEST_START).unwrap();
        assert_eq!(effect(Reason::Rotated, Reason::Rotated), Effect::None);
        assert_eq!(effect(Reason::Rotated, Reason::Compromised), Effect::Revoke);
        assert_eq!(effect(Reason::Compromised, Reason::Rotated), Effect::None);
        assert_eq!(effect(Reason::Compromised, Reason::Compromised), Effect::None);
    }

    #[test]
    fn a_secret_counts_from_its_claim_to_its_end() {
        assert!(secret().is_live_at(TEST_START));
        let waiting = ClientSecret {
            awaiting_claim: true,
            ..secret()
        };
        assert!(!waiting.is_live_at(TEST_START));
        let ending = ClientSecret {
            expires_at: Some(TEST_START.plus(Duration::from_secs(1))),
            ..secret()
        };
        assert!(ending.is_live_at(TEST_START) && !ending.is_live_at(TEST_START.plus(Duration::from_secs(1))));
    }
}
