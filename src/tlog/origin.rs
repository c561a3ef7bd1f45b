//! The name of a log.

use std::{fmt, str::FromStr};

use super::ProofError;

/// The most bytes of an origin.
const MAX_LENGTH: usize = 255;

/// The name of a log, which is also the name of its key: `<base host>/<service>/<epoch>`. It has 1 to 255 printable ASCII
/// characters, without space and plus.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(String);

impl Origin {
    /// Returns the origin of the log with this number in its epoch. The first log has the number 1; each resume after a
    /// fault starts the next one, whose origin ends in its number: `accord.example/registry/k7q2/2`.
    ///
    /// # Errors
    /// [`ProofError::MalformedOrigin`].
    pub fn of_log(base_host: &str, service: &str, epoch: &str, number: u32) -> Result<Self, ProofError> {
        match number {
            1 => format!("{base_host}/{service}/{epoch}").parse(),
            _ => format!("{base_host}/{service}/{epoch}/{number}").parse(),
        }
    }

    /// Returns the origin of the next log of the same epoch.
    ///
    /// # Errors
    /// [`ProofError::MalformedOrigin`] for an origin that is not one of [`Self::of_log`].
    pub fn next(&self) -> Result<Self, ProofError> {
        let parts: Vec<_> = self.0.split('/').collect();
        let (host, service, epoch, number) = match parts[..] {
            [host, service, epoch] => (host, service, epoch, 1),
            [host, service, epoch, number] => {
                let number: u32 = number.parse().map_err(|_| ProofError::MalformedOrigin)?;
                (host, service, epoch, number)
            }
            _ => return Err(ProofError::MalformedOrigin),
        };
        let next = number.checked_add(1).ok_or(ProofError::MalformedOrigin)?;
        Self::of_log(host, service, epoch, next)
    }

    /// Returns the origin of the first log of another epoch of the same service.
    ///
    /// # Errors
    /// [`ProofError::MalformedOrigin`] for an origin that is not one of [`Self::of_log`].
    pub fn of_epoch(&self, epoch: &str) -> Result<Self, ProofError> {
        let mut parts = self.0.split('/');
        match (parts.next(), parts.next()) {
            (Some(host), Some(service)) => Self::of_log(host, service, epoch, 1),
            _ => Err(ProofError::MalformedOrigin),
        }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = ProofError;

    fn from_str(text: &str) -> Result<Self, ProofError> {
        let is_valid = |byte: u8| byte.is_ascii_graphic() && byte != b'+';
        match (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(is_valid) {
            true => Ok(Self(text.to_owned())),
            false => Err(ProofError::MalformedOrigin),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
