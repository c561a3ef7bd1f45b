//! Signed notes with Ed25519 signatures (<https://c2sp.org/signed-note>), and the keys that sign and verify them.

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    digest,
    signature::{ED25519, ED25519_PUBLIC_KEY_LEN, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Origin, ProofError};

/// The most bytes of a note, and the most signatures of one. Witnesses may add theirs.
const MAX_LENGTH: usize = 16 * 1024;
const MAX_SIGNATURES: usize = 32;

/// What an Ed25519 key begins with in a verifier key.
const ALGORITHM: u8 = 1;
/// What a signature's line begins with: an em dash and a space.
const SIGNATURE: &str = "\u{2014} ";

/// The key that signs the heads of one log. `Debug` shows the origin alone.
pub struct Signer {
    key: VerifierKey,
    pair: Ed25519KeyPair,
}

impl Signer {
    /// Creates the signer of a log from the 32-byte seed of its Ed25519 key (RFC 8032 §5.1.5).
    ///
    /// # Errors
    /// [`ProofError::MalformedKey`], for no seed that was seen.
    pub fn new(origin: Origin, seed: &[u8; 32]) -> Result<Self, ProofError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| ProofError::MalformedKey)?;
        let public = pair.public_key().as_ref().try_into();
        let public = public.map_err(|_| ProofError::MalformedKey)?;
        Ok(Self {
            key: VerifierKey::new(origin, public),
            pair,
        })
    }

    /// Returns the key that verifies what this one signs.
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.key
    }

    /// Signs a text that ends in a line break, and returns the note.
    pub(super) fn sign_text(&self, text: &str) -> String {
        let signature = self.pair.sign(text.as_bytes());
        let signature = STANDARD.encode([&self.key.id[..], signature.as_ref()].concat());
        format!("{text}\n{SIGNATURE}{} {signature}\n", self.key.origin)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, [redacted])", self.key.origin)
    }
}

/// The public key of a log. Its text is `<name>+<hash>+<base64>`, where the name is the log's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    origin: Origin,
    /// Names the key in a signature.
    id: [u8; 4],
    public: [u8; ED25519_PUBLIC_KEY_LEN],
}

impl VerifierKey {
    fn new(origin: Origin, public: [u8; ED25519_PUBLIC_KEY_LEN]) -> Self {
        let named = [origin.as_str().as_bytes(), b"\n", &[ALGORITHM], &public].concat();
        let mut id = [0; 4];
        id.copy_from_slice(&digest::digest(&digest::SHA256, &named).as_ref()[..4]);
        Self { origin, id, public }
    }

    /// Returns the origin of the log that the key signs.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns the text of a note that this key has signed. Signatures of other keys are not checked.
    pub(super) fn open<'a>(&self, note: &'a str) -> Result<&'a str, ProofError> {
        const MALFORMED: ProofError = ProofError::MalformedCheckpoint;
        let is_control = |byte: u8| byte < b' ' && byte != b'\n';
        if note.len() > MAX_LENGTH || note.bytes().any(is_control) {
            return Err(MALFORMED);
        }
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(MALFORMED)?;
        let text = &note[..=text.len()];
        let signatures = signatures.strip_suffix('\n').ok_or(MALFORMED)?;
        let mut is_signed = false;
        for (count, line) in signatures.split('\n').enumerate() {
            let (name, signature) = signature(line)
                .filter(|_| count < MAX_SIGNATURES)
                .ok_or(MALFORMED)?;
            let (id, signature) = signature.split_first_chunk().ok_or(MALFORMED)?;
            if name == self.origin.as_str() && *id == self.id {
                let key = UnparsedPublicKey::new(&ED25519, self.public);
                let verified = key.verify(text.as_bytes(), signature);
                verified.map_err(|_| ProofError::WrongSignature)?;
                is_signed = true;
            }
        }
        is_signed.then_some(text).ok_or(ProofError::NotSigned)
    }
}

/// Returns the name and the decoded signature of a line.
fn signature(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, signature) = line.strip_prefix(SIGNATURE)?.split_once(' ')?;
    let is_name = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+');
    Some((name, STANDARD.decode(signature).ok().filter(|_| is_name)?))
}

impl FromStr for VerifierKey {
    type Err = ProofError;

    /// Parses `<name>+<hash>+<base64>`. There is one form of each key only.
    fn from_str(text: &str) -> Result<Self, ProofError> {
        const MALFORMED: ProofError = ProofError::MalformedKey;
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(_), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(MALFORMED);
        };
        let key = STANDARD.decode(key).map_err(|_| MALFORMED)?;
        let public = match key.split_first() {
            Some((&ALGORITHM, public)) => public.try_into().map_err(|_| MALFORMED)?,
            _ => return Err(MALFORMED),
        };
        let key = Self::new(name.parse()?, public);
        match key.to_string() == text {
            true => Ok(key),
            false => Err(MALFORMED),
        }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode([&[ALGORITHM], &self.public[..]].concat());
        let id = u32::from_be_bytes(self.id);
        write!(f, "{}+{id:08x}+{key}", self.origin)
    }
}
