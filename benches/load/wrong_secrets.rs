//! `IssueToken` with secrets that must be rejected, of four kinds in equal parts: random ones, those of
//! unknown clients, a true secret with one digit changed and its checksum repaired, and ended secrets.
//! All of them are well formed.

use std::sync::Arc;

use accord::{
    clock::SystemClock,
    random::SystemRandom,
    text::{
        id::{ClientId, SecretId},
        opaque::ClientSecret,
    },
};

use super::{Calls, Credentials, Failure, grpc::Clients, pick};

/// Code and reason of the answer to a wrong secret.
pub const REJECTED: &str = "Unauthenticated/INVALID_CLIENT";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Digits of the checksum at the end.
const CHECKSUM: usize = 6;
/// Where the secret digits begin: after `acs_`, the secret's id and `_`.
const DIGITS: usize = 4 + 30 + 1;

pub struct WrongSecrets {
    pub clients: Clients,
    pub credentials: Arc<[Credentials]>,
    /// Secrets that were revoked.
    pub ended: Arc<[Credentials]>,
}

impl WrongSecrets {
    fn next(&self) -> Credentials {
        let mut credentials = pick(&self.credentials).clone();
        let secret = credentials.client_secret.clone();
        credentials.client_secret = match pick(&[0, 1, 2, 3]) {
            0 => well_formed(|| random(&secret)),
            1 => {
                credentials.client_id = ClientId::generate(&SystemClock, &SystemRandom).into();
                well_formed(|| random(&secret))
            }
            2 => well_formed(|| mutated(&secret)),
            _ => return pick(&self.ended).clone(),
        };
        credentials
    }
}

/// As long as `secret`, with another id and other digits.
fn random(secret: &str) -> String {
    let secret_id = SecretId::generate(&SystemClock, &SystemRandom);
    // A first digit of 0 keeps the number below 2^256.
    let mut body = format!("acs_{secret_id}_0");
    while body.len() < secret.len() - CHECKSUM {
        body.push(char::from(*pick(BASE62)));
    }
    with_checksum(body)
}

/// The same secret but for one digit.
fn mutated(secret: &str) -> String {
    let places: Vec<usize> = (DIGITS..secret.len() - CHECKSUM).collect();
    let (place, digit) = (*pick(&places), char::from(*pick(BASE62)));
    if secret[place..].starts_with(digit) {
        return mutated(secret);
    }
    let end = &secret[place + 1..secret.len() - CHECKSUM];
    with_checksum(format!("{}{digit}{end}", &secret[..place]))
}

/// The first of many attempts that a parser takes: not every row of digits is a number of that size. None
/// ends the run, because nothing but a rejection of the secret counts as right.
fn well_formed(secret: impl Fn() -> String) -> String {
    let mut attempts = (0..100).map(|_| secret());
    let found = attempts.find(|secret| ClientSecret::parse(secret).is_ok());
    found.unwrap_or_default()
}

#[tonic::async_trait]
impl Calls for WrongSecrets {
    async fn call(&self, caller: usize) -> Result<(), Failure> {
        match self.clients.issue_for(caller, &self.next()).await {
            Ok(_) => Err(Failure::Wrong("a wrong secret got a token".to_owned())),
            Err(Failure::Wrong(what)) if what == REJECTED => Err(Failure::Refused(what)),
            Err(failure) => Err(failure),
        }
    }
}

/// Appends the CRC-32 as base62 digits, most significant first.
fn with_checksum(mut body: String) -> String {
    let mut rest = crc32fast::hash(body.as_bytes()) as usize;
    let mut digits = [0; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[rest % 62];
        rest /= 62;
    }
    body.extend(digits.map(char::from));
    body
}
