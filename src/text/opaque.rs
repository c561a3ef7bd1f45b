//! The text forms of opaque tokens. What a token means is not decided here.
//!
//! Every form ends in a CRC-32, so that a mistyped or truncated token is rejected before anything is hashed or
//! looked up. Only `expose` returns a token's text.

use aws_lc_rs::digest;
use zeroize::Zeroizing;

pub use self::client_secret::{ClientSecret, SecretTagKey};
use crate::{random::Random, text::id::FamilyId};

mod client_secret;

/// Base62 digits of a 256-bit number.
const SECRET_DIGITS: usize = 43;
/// Base62 digits of a CRC-32.
const CHECKSUM_DIGITS: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The error for a text that does not have the form of a token. It tells a guesser nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a complete, well-formed token")]
pub struct MalformedToken;

/// The purpose of an [`OpaqueToken`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// An authorization code, `acc_`.
    AuthorizationCode,
    /// A claim token of a one-time link to credentials, `acl_`.
    Claim,
    /// An enrolment token, `ace_`.
    Enrolment,
    /// The reference to a pushed authorization request (RFC 9126), `acq_`.
    PushedRequest,
    /// A Tenant Admin's session, `ads_`.
    AdminSession,
    /// An operator's bearer token, `aco_`.
    Operator,
    /// A workload's bearer token, `acw_`.
    Workload,
}

impl TokenKind {
    /// Returns the prefix of the token's text.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "acc_",
            Self::Claim => "acl_",
            Self::Enrolment => "ace_",
            Self::PushedRequest => "acq_",
            Self::AdminSession => "ads_",
            Self::Operator => "aco_",
            Self::Workload => "acw_",
        }
    }
}

/// A random token: prefix, 256 bits in base62, checksum. Databases hold only its SHA-256: against 256 random bits
/// slow hashing adds nothing.
#[derive(Clone, derive_more::Debug)]
#[debug("OpaqueToken({kind:?}, [redacted])")]
pub struct OpaqueToken {
    kind: TokenKind,
    text: Zeroizing<String>,
}

impl OpaqueToken {
    /// Generates a token.
    pub fn generate(kind: TokenKind, random: &dyn Random) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        random.fill(secret.as_mut());
        Self::from_secret(kind, &secret)
    }

    /// Returns the token of 256 given bits.
    pub fn from_secret(kind: TokenKind, secret: &[u8; 32]) -> Self {
        let text = with_checksum(&[kind.prefix(), &encode(*secret, SECRET_DIGITS)]);
        Self { kind, text }
    }

    /// Parses a token of this kind.
    pub fn parse(kind: TokenKind, text: &str) -> Result<Self, MalformedToken> {
        if text.len() != kind.prefix().len() + SECRET_DIGITS + CHECKSUM_DIGITS {
            return Err(MalformedToken);
        }
        let body = verify_checksum(text)?;
        let digits = body.strip_prefix(kind.prefix()).ok_or(MalformedToken)?;
        decode::<32>(digits, SECRET_DIGITS)?;
        let text = Zeroizing::new(text.to_owned());
        Ok(Self { kind, text })
    }

    /// Returns the token's purpose.
    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// Returns the token's text, which is a secret.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Returns the SHA-256 of the token's text.
    pub fn digest(&self) -> [u8; 32] {
        sha256(self.text.as_bytes())
    }
}

/// A refresh token, `acr_<family>_<generation>_<MAC><checksum>`. Parsing does not verify the MAC.
#[derive(Clone, derive_more::Debug)]
#[debug("RefreshToken({family} {generation}, [redacted])")]
pub struct RefreshToken {
    family: FamilyId,
    generation: u32,
    mac: Zeroizing<[u8; 32]>,
    text: Zeroizing<String>,
}

impl RefreshToken {
    /// Composes the token of a family's generation with its MAC.
    pub fn compose(family: &FamilyId, generation: u32, mac: &[u8; 32]) -> Self {
        let number = generation.to_string();
        let digits = encode(*mac, SECRET_DIGITS);
        Self {
            family: family.clone(),
            generation,
            mac: Zeroizing::new(*mac),
            text: with_checksum(&["acr_", family.as_str(), "_", &number, "_", &digits]),
        }
    }

    /// Parses a refresh token.
    pub fn parse(text: &str) -> Result<Self, MalformedToken> {
        // acr_ + ULID + _ + up to 10 digits + _ + digits + checksum
        if text.len() > 4 + 26 + 1 + 10 + 1 + SECRET_DIGITS + CHECKSUM_DIGITS {
            return Err(MalformedToken);
        }
        let parts: Vec<_> = verify_checksum(text)?.split('_').collect();
        let ["acr", family, generation, mac] = parts[..] else {
            return Err(MalformedToken);
        };
        let number: u32 = generation.parse().map_err(|_| MalformedToken)?;
        // A generation has one form: no sign, no leading zero.
        if number.to_string() != generation {
            return Err(MalformedToken);
        }
        Ok(Self {
            family: FamilyId::parse(family).map_err(|_| MalformedToken)?,
            generation: number,
            mac: decode(mac, SECRET_DIGITS)?,
            text: Zeroizing::new(text.to_owned()),
        })
    }

    /// Returns the refresh family.
    pub fn family(&self) -> &FamilyId {
        &self.family
    }

    /// Returns the generation within the family; the first is 1.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Returns the MAC that the token carries, not verified.
    pub fn mac(&self) -> &[u8; 32] {
        &self.mac
    }

    /// Returns the token's text, which is a secret.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

/// Returns the SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Returns the SHA-256 of some texts, with NUL between them. One of them is a secret.
pub fn sha256_of_parts(parts: &[&str]) -> [u8; 32] {
    sha256(Zeroizing::new(parts.join("\0")).as_bytes())
}

/// Joins the parts and appends their checksum.
fn with_checksum(parts: &[&str]) -> Zeroizing<String> {
    let mut text = join(parts, CHECKSUM_DIGITS);
    let digits = checksum(&text);
    text.extend(digits.map(char::from));
    text
}

/// Joins the parts, with room for `spare` more bytes: a buffer that grows leaves copies of the secret behind.
fn join(parts: &[&str], spare: usize) -> Zeroizing<String> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut text = Zeroizing::new(String::with_capacity(length + spare));
    for part in parts {
        text.push_str(part);
    }
    text
}

/// Returns the CRC-32 (IEEE) of a text as 6 base62 digits, most significant first.
fn checksum(body: &str) -> [u8; CHECKSUM_DIGITS] {
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut digits = [0; CHECKSUM_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// Verifies the checksum and returns the text before it, which is ASCII.
fn verify_checksum(text: &str) -> Result<&str, MalformedToken> {
    let length = text
        .len()
        .checked_sub(CHECKSUM_DIGITS)
        .filter(|_| text.is_ascii());
    let (body, digits) = text.split_at(length.ok_or(MalformedToken)?);
    let is_intact = digits.as_bytes() == checksum(body);
    is_intact.then_some(body).ok_or(MalformedToken)
}

/// Writes a big-endian number as base62 digits, most significant first.
fn encode<const BYTES: usize>(number: [u8; BYTES], length: usize) -> Zeroizing<String> {
    let mut number = Zeroizing::new(number);
    let mut digits = Zeroizing::new(vec![0; length]);
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in number.iter_mut() {
            let value = remainder * 256 + u32::from(*byte);
            *byte = (value / 62) as u8;
            remainder = value % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
    Zeroizing::new(digits.iter().map(|&digit| char::from(digit)).collect())
}

/// Bytes that a multiplication takes at once.
const LIMB: usize = 8;

/// Reverses [`encode`] for a multiple of [`LIMB`] bytes. Rejects other characters, and numbers that need more bytes: so each number has one form of
/// this length.
fn decode<const BYTES: usize>(digits: &str, length: usize) -> Result<Zeroizing<[u8; BYTES]>, MalformedToken> {
    if digits.len() != length {
        return Err(MalformedToken);
    }
    const { assert!(BYTES.is_multiple_of(LIMB)) };
    let mut number = Zeroizing::new([0; BYTES]);
    // As many digits at a time as a limb can hold.
    for group in digits.as_bytes().chunks(10) {
        let (mut carry, mut scale) = (0, 1);
        for digit in group {
            let digit = match digit {
                b'0'..=b'9' => digit - b'0',
                b'A'..=b'Z' => digit - b'A' + 10,
                b'a'..=b'z' => digit - b'a' + 36,
                _ => return Err(MalformedToken),
            };
            carry = carry * 62 + u128::from(digit);
            scale *= 62;
        }
        for limb in number.rchunks_exact_mut(LIMB) {
            let mut bytes = [0; LIMB];
            bytes.copy_from_slice(limb);
            let product = u128::from(u64::from_be_bytes(bytes)) * scale + carry;
            // The lower half; the rest is carried.
            limb.copy_from_slice(&(product as u64).to_be_bytes());
            carry = product >> 64;
        }
        if carry > 0 {
            return Err(MalformedToken);
        }
    }
    Ok(number)
}

#[cfg(test)]
#[path = "opaque/tests.rs"]
mod tests;
