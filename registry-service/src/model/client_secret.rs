//! Client Secrets. Several may be live at once, so that a partner replaces one without a gap.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    text::id::{ClientId, SecretId},
};
use strum::{AsRefStr, EnumString};

use super::{argon2_hash::Argon2Hash, delivery::Method};
use crate::error::{Error, Result};

/// The resolution of the time of last use. A use that follows another more closely is not written.
pub const USE_RESOLUTION: Duration = Duration::from_secs(60);
/// The most live secrets of a client.
pub const MAX_LIVE: u64 = 10;
/// A secret used this recently can be revoked only with `force`.
pub const IN_USE: Duration = Duration::from_secs(24 * 3600);

/// Why a secret was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// It was replaced.
    Rotated,
    /// Someone else may know it.
    Compromised,
    /// Its one-time link ended before it was opened.
    Unclaimed,
}

/// What is known of a secret, without the secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSecret {
    /// The secret's id.
    pub secret_id: SecretId,
    /// The client.
    pub client_id: ClientId,
    /// Its hash.
    pub hashed: Argon2Hash,
    /// Whether its one-time link has not been opened yet.
    pub awaiting_claim: bool,
    /// When it was created.
    pub created_at: UnixMillis,
    /// When it expires.
    pub expires_at: Option<UnixMillis>,
    /// When it last authenticated the client.
    pub last_used_at: Option<UnixMillis>,
    /// When and why it was revoked.
    pub revoked: Option<(UnixMillis, Reason)>,
}

impl ClientSecret {
    /// Returns whether it authenticates its client at this time: it is claimed, not revoked and not expired.
    pub fn is_live_at(&self, now: UnixMillis) -> bool {
        !self.awaiting_claim && self.revoked.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// What an operator gives to add a secret.
#[derive(Clone, Debug)]
pub struct NewSecret {
    /// The client.
    pub client_id: ClientId,
    /// When it expires.
    pub expires_at: Option<UnixMillis>,
    /// How to hand it over.
    pub delivery: Method,
}

/// What an operator gives to revoke a secret.
#[derive(Clone, Debug)]
pub struct Revocation {
    /// The client.
    pub client_id: ClientId,
    /// The secret.
    pub secret_id: SecretId,
    /// Why: [`Reason::Rotated`] or [`Reason::Compromised`].
    pub reason: Reason,
    /// Whether to revoke it although it was used within the last day.
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

impl Revocation {
    /// Returns whether it changes the secret: it ends the secret, or gives a worse reason for its end.
    ///
    /// # Errors
    /// [`Error::SecretInUse`].
    pub fn changes(&self, secret: &ClientSecret, now: UnixMillis) -> Result<bool> {
        match (secret.revoked, secret.last_used_at) {
            (Some((_, Reason::Compromised)), _) => Ok(false),
            (Some((_, before)), _) => Ok(self.reason != before && self.reason != Reason::Rotated),
            (None, Some(last_used_at)) if !self.force && now.since(last_used_at) < IN_USE => {
                Err(Error::SecretInUse { last_used_at })
            }
            (None, _) => Ok(true),
        }
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

    fn revocation(reason: Reason, force: bool) -> Revocation {
        let ClientSecret {
            client_id, secret_id, ..
        } = secret();
        Revocation {
            client_id,
            secret_id,
            reason,
            force,
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
            revocation(Reason::Compromised, false).changes(&used, now),
            Err(Error::SecretInUse { .. })
        ));
        assert!(revocation(Reason::Rotated, true).changes(&used, now).unwrap());
        let rested = ClientSecret {
            last_used_at: Some(TEST_START),
            ..secret()
        };
        assert!(revocation(Reason::Rotated, false).changes(&rested, now).unwrap());
    }

    #[test]
    fn a_reason_can_only_get_worse() {
        let ended = |reason| ClientSecret {
            revoked: Some((TEST_START, reason)),
            ..secret()
        };
        let changes = |before, reason| {
            let changes = revocation(reason, false).changes(&ended(before), TEST_START);
            changes.unwrap()
        };
        assert!(!changes(Reason::Rotated, Reason::Rotated));
        assert!(changes(Reason::Rotated, Reason::Compromised));
        assert!(!changes(Reason::Compromised, Reason::Rotated));
        assert!(!changes(Reason::Compromised, Reason::Compromised));
    }

    #[test]
    fn a_secret_is_live_from_its_claim_to_its_expiry() {
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
