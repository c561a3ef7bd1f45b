//! `IssueToken` with secrets that must be rejected, of four kinds in equal parts: random ones, those of
//! unknown clients, a true secret with one digit changed and its checksum repaired, and ended secrets.
//! All of them are well formed.

use std::sync::Arc;

use accord::{
    clock::SystemClock,
    random::{Random, SystemRandom},
    text::{
        id::{ClientId, SecretId},
        opaque::{ClientSecret, SecretTagKey},
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
            0 => random(),
            1 => {
                credentials.client_id = ClientId::generate(&SystemClock, &SystemRandom).into();
                random()
            }
            2 => mutated(&secret),
            _ => return pick(&self.ended).clone(),
        };
        credentials
    }
}

/// A secret with a random tag.
fn random() -> String {
    let (mut tag_key, mut secret) = ([0; 32], [0; 32]);
    SystemRandom.fill(&mut tag_key);
    SystemRandom.fill(&mut secret);
    let client_id = ClientId::generate(&SystemClock, &SystemRandom);
    let secret_id = SecretId::generate(&SystemClock, &SystemRandom);
    let secret = ClientSecret::compose(&SecretTagKey::new(1, &tag_key), &client_id, secret_id, &secret);
    secret.expose().to_owned()
}

/// The same secret but for one digit: the first of many attempts that a parser takes, because not every row of digits is a
/// number of that size. None ends the run, because nothing but a rejection of the secret counts as right.
fn mutated(secret: &str) -> String {
    let end = secret.len() - CHECKSUM;
    let places: Vec<usize> = (DIGITS..end).collect();
    let mut attempts = (0..100).map(|_| {
        let (place, digit) = (*pick(&places), char::from(*pick(BASE62)));
        with_checksum(format!("{}{digit}{}", &secret[..place], &secret[place + 1..end]))
    });
    let found = attempts.find(|other| other != secret && ClientSecret::parse(other).is_ok());
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
