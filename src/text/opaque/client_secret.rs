//! Client Secrets, and the tag that distinguishes a secret of this registry from a guess.

use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    CHECKSUM_DIGITS, MalformedToken, SECRET_DIGITS, decode, encode, join, verify_checksum, with_checksum,
};
use crate::text::{
    id::{ClientId, SecretId},
    parts::with_lengths,
};

/// Bytes of a tag.
const TAG_BYTES: usize = 8;
/// Base62 digits of a tag.
const TAG_DIGITS: usize = 11;
const TAG_LABEL: &[u8] = b"accord client secret tag";
/// Length of `acs_<secret id>_`.
const HEAD_LENGTH: usize = 4 + 30 + 1;

/// A key that computes and verifies tags, and nothing else. Cheap to clone.
#[derive(Clone, derive_more::Debug)]
#[debug("SecretTagKey(version {version}, [redacted])")]
pub struct SecretTagKey {
    version: i32,
    key: hmac::Key,
}

impl SecretTagKey {
    /// Creates the tag key of a version of the registry's data key.
    pub fn new(version: i32, key: &[u8; 32]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        Self { version, key }
    }

    /// Returns the version of the data key.
    pub fn version(&self) -> i32 {
        self.version
    }

    /// Returns the first 64 bits of HMAC-SHA-256 over the label, the client and the text before the tag, each
    /// preceded by its length.
    fn tag(&self, client_id: &ClientId, text: &str) -> [u8; TAG_BYTES] {
        let mut context = hmac::Context::with_key(&self.key);
        let parts = [TAG_LABEL, client_id.as_str().as_bytes(), text.as_bytes()];
        with_lengths(parts, |part| context.update(part));
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&context.sign().as_ref()[..TAG_BYTES]);
        tag
    }
}

/// A Client Secret, `acs_<secret id>_<256 bits><tag><checksum>`.
///
/// It holds its own id, so that one hash decides an attempt, however many secrets a client has. The tag rejects a
/// guess before any look-up; it proves nothing.
#[derive(Clone, derive_more::Debug)]
#[debug("ClientSecret({secret_id}, [redacted])")]
pub struct ClientSecret {
    secret_id: SecretId,
    tag: [u8; TAG_BYTES],
    text: Zeroizing<String>,
}

impl ClientSecret {
    /// Composes the secret of a client from 256 bits, tagged under `key`.
    pub fn compose(key: &SecretTagKey, client_id: &ClientId, secret_id: SecretId, secret: &[u8; 32]) -> Self {
        let digits = encode(*secret, SECRET_DIGITS);
        let tagged = join(&["acs_", secret_id.as_str(), "_", &digits], 0);
        let tag = key.tag(client_id, &tagged);
        Self {
            secret_id,
            tag,
            text: with_checksum(&[&tagged, &encode(tag, TAG_DIGITS)]),
        }
    }

    /// Parses a Client Secret. Does not verify its tag.
    pub fn parse(text: &str) -> Result<Self, MalformedToken> {
        if text.len() != HEAD_LENGTH + SECRET_DIGITS + TAG_DIGITS + CHECKSUM_DIGITS {
            return Err(MalformedToken);
        }
        let (head, digits) = verify_checksum(text)?.split_at(HEAD_LENGTH);
        let secret_id = head.strip_prefix("acs_").and_then(|head| head.strip_suffix('_'));
        let secret_id = SecretId::parse(secret_id.ok_or(MalformedToken)?).map_err(|_| MalformedToken)?;
        let (secret, tag) = digits.split_at(SECRET_DIGITS);
        decode::<32>(secret, SECRET_DIGITS)?;
        Ok(Self {
            secret_id,
            tag: *decode(tag, TAG_DIGITS)?,
            text: Zeroizing::new(text.to_owned()),
        })
    }

    /// Returns whether one of the keys tagged this text for this client. Takes the same time for every client.
    pub fn is_tagged_for<'a>(
        &self,
        client_id: &ClientId,
        keys: impl IntoIterator<Item = &'a SecretTagKey>,
    ) -> bool {
        let tagged = &self.text[..HEAD_LENGTH + SECRET_DIGITS];
        keys.into_iter()
            .any(|key| key.tag(client_id, tagged).ct_eq(&self.tag).into())
    }

    /// Returns the id that the secret claims.
    pub fn secret_id(&self) -> &SecretId {
        &self.secret_id
    }

    /// Returns the secret's text.
    pub fn expose(&self) -> &str {
        &self.text
    }
}
