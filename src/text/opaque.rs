//! Opaque tokens: their written forms, and nothing of their meaning.
//!
//! Every form ends in a CRC-32, so that a mistyped or truncated token is refused before anything is
//! hashed or looked up. None of the types shows its text but by `expose`.

use std::fmt;

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

/// A text that has not the form of the token asked for. It says nothing more, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a complete, well-formed token")]
pub struct MalformedToken;

/// What an [`OpaqueToken`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// An authorization code, `acc_`.
    AuthorizationCode,
    /// A claim token of a one-time link to credentials, `acl_`.
    Claim,
    /// An enrolment token, `ace_`.
    Enrolment,
    /// A Tenant Admin's session, `ads_`.
    AdminSession,
    /// An operator's bearer token, `aco_`.
    Operator,
    /// A workload's bearer token, `acw_`.
    Workload,
}

impl TokenKind {
    /// What the token's text begins with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "acc_",
            Self::Claim => "acl_",
            Self::Enrolment => "ace_",
            Self::AdminSession => "ads_",
            Self::Operator => "aco_",
            Self::Workload => "acw_",
        }
    }
}

/// A random token: prefix, 256 bits in base62, checksum. At rest only its SHA-256 is kept: it has
/// all the entropy it needs, so slow hashing would buy nothing.
#[derive(Clone)]
pub struct OpaqueToken {
    kind: TokenKind,
    text: Zeroizing<String>,
}

impl OpaqueToken {
    /// A new token.
    pub fn generate(kind: TokenKind, random: &dyn Random) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        random.fill(secret.as_mut());
        Self::from_secret(kind, &secret)
    }

    /// The token of a secret that was derived elsewhere.
    pub fn from_secret(kind: TokenKind, secret: &[u8; 32]) -> Self {
        let text = seal(&[kind.prefix(), encode_256(secret).as_str()]);
        Self { kind, text }
    }

    /// Reads a token of this kind.
    ///
    /// # Errors
    /// [`MalformedToken`] for any other text.
    pub fn parse(kind: TokenKind, text: &str) -> Result<Self, MalformedToken> {
        if text.len() != kind.prefix().len() + SECRET_DIGITS + CHECKSUM_DIGITS {
            return Err(MalformedToken);
        }
        let body = unseal(text)?;
        let digits = body.strip_prefix(kind.prefix()).ok_or(MalformedToken)?;
        decode_256(digits)?;
        Ok(Self {
            kind,
            text: Zeroizing::new(text.to_owned()),
        })
    }

    /// What the token is for.
    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// The token's text: a secret.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// SHA-256 of the token's text, as it is kept.
    pub fn digest(&self) -> [u8; 32] {
        sha256(self.text.as_bytes())
    }
}

impl fmt::Debug for OpaqueToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpaqueToken({:?}, [redacted])", self.kind)
    }
}

/// A refresh token, `acr_<family>_<generation>_<MAC><checksum>`. Whether the MAC is right is for
/// the holder of its key to say.
#[derive(Clone)]
pub struct RefreshToken {
    family: FamilyId,
    generation: u32,
    mac: Zeroizing<[u8; 32]>,
    text: Zeroizing<String>,
}

impl RefreshToken {
    /// Writes the token of a family's generation with its MAC.
    pub fn compose(family: &FamilyId, generation: u32, mac: &[u8; 32]) -> Self {
        let number = generation.to_string();
        let digits = encode_256(mac);
        Self {
            family: family.clone(),
            generation,
            mac: Zeroizing::new(*mac),
            text: seal(&["acr_", family.as_str(), "_", &number, "_", digits.as_str()]),
        }
    }

    /// Reads a refresh token.
    ///
    /// # Errors
    /// [`MalformedToken`] for any other text.
    pub fn parse(text: &str) -> Result<Self, MalformedToken> {
        // acr_ + ULID + _ + up to 10 digits + _ + digits + checksum
        if text.len() > 4 + 26 + 1 + 10 + 1 + SECRET_DIGITS + CHECKSUM_DIGITS {
            return Err(MalformedToken);
        }
        let body = unseal(text)?;
        let body = body.strip_prefix("acr_").ok_or(MalformedToken)?;
        let mut parts = body.split('_');
        let (Some(family), Some(generation), Some(mac), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(MalformedToken);
        };
        let number: u32 = generation.parse().map_err(|_| MalformedToken)?;
        if number.to_string() != generation {
            return Err(MalformedToken);
        }
        Ok(Self {
            family: FamilyId::parse(family).map_err(|_| MalformedToken)?,
            generation: number,
            mac: decode_256(mac)?,
            text: Zeroizing::new(text.to_owned()),
        })
    }

    /// The refresh family.
    pub fn family(&self) -> &FamilyId {
        &self.family
    }

    /// The generation within the family; the first is 1.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The MAC that the token carries, not yet verified.
    pub fn mac(&self) -> &[u8; 32] {
        &self.mac
    }

    /// The token's text: a secret.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RefreshToken({} {}, [redacted])", self.family, self.generation)
    }
}

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Joins the parts and appends the checksum. The buffer has its full size from the start: one that
/// grows leaves copies of the secret behind.
fn seal(parts: &[&str]) -> Zeroizing<String> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut text = Zeroizing::new(String::with_capacity(length + CHECKSUM_DIGITS));
    for part in parts {
        text.push_str(part);
    }
    let digits = checksum(&text);
    text.extend(digits.map(char::from));
    text
}

/// The CRC-32 (IEEE) of a text as 6 base62 digits, most significant first.
fn checksum(body: &str) -> [u8; CHECKSUM_DIGITS] {
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut digits = [0; CHECKSUM_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// Checks the checksum and gives what it covers.
fn unseal(text: &str) -> Result<&str, MalformedToken> {
    if !text.is_ascii() || text.len() < CHECKSUM_DIGITS {
        return Err(MalformedToken);
    }
    let (body, digits) = text.split_at(text.len() - CHECKSUM_DIGITS);
    if digits.as_bytes() == checksum(body) {
        Ok(body)
    } else {
        Err(MalformedToken)
    }
}

/// 256 bits as 43 base62 digits, most significant first.
fn encode_256(bytes: &[u8; 32]) -> Zeroizing<String> {
    let mut digits = Zeroizing::new([0; SECRET_DIGITS]);
    encode(*bytes, &mut *digits);
    Zeroizing::new(digits.iter().map(|&b| char::from(b)).collect())
}

/// Writes a big-endian number as base62 digits, most significant first.
fn encode<const BYTES: usize>(number: [u8; BYTES], digits: &mut [u8]) {
    let mut number = Zeroizing::new(number);
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in number.iter_mut() {
            let value = remainder * 256 + u32::from(*byte);
            *byte = (value / 62) as u8;
            remainder = value % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
}

/// Reads a number of 256 bits.
fn decode_256(digits: &str) -> Result<Zeroizing<[u8; 32]>, MalformedToken> {
    if digits.len() != SECRET_DIGITS {
        return Err(MalformedToken);
    }
    decode(digits)
}

/// Bytes that a multiplication takes at once.
const LIMB: usize = 8;

/// The reverse of [`encode`] for a multiple of [`LIMB`] bytes. Rejects other characters and numbers that need more bytes, so that a number has one
/// form of each length.
fn decode<const BYTES: usize>(digits: &str) -> Result<Zeroizing<[u8; BYTES]>, MalformedToken> {
    const { assert!(BYTES.is_multiple_of(LIMB)) };
    let mut number = Zeroizing::new([0; BYTES]);
    for digit in digits.bytes() {
        let mut carry = u128::from(match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'Z' => digit - b'A' + 10,
            b'a'..=b'z' => digit - b'a' + 36,
            _ => return Err(MalformedToken),
        });
        for limb in number.rchunks_exact_mut(LIMB) {
            let mut bytes = [0; LIMB];
            bytes.copy_from_slice(limb);
            let product = u128::from(u64::from_be_bytes(bytes)) * 62 + carry;
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
#[path = "opaque_tests.rs"]
mod tests;
