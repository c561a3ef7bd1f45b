//! The errors of keys. None shows a key or the data that it protects.

use std::io;

use crate::tls::pem::describe;

/// A failed operation with a key.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// A sealed value does not open: it was sealed by another key or for another context, or altered.
    #[error("a sealed value does not open with this key")]
    Sealed,
    /// The plaintext exceeds the cipher's limit.
    #[error("the plaintext is too long to seal")]
    TooLong,
    /// The keyring was opened without this purpose: a bug.
    #[error("the keyring was not opened for the purpose `{0}`")]
    NotOpened(String),
    /// A row names a version that did not exist when the keyring was opened. Opening it again finds a key that
    /// another replica has added since.
    #[error("the keyring has no version {version} for the purpose `{purpose}`")]
    UnknownVersion {
        /// The purpose.
        purpose: String,
        /// The version.
        version: i32,
    },
    /// Another master key than the given one wraps the keyring.
    #[error("the keyring is wrapped by the master key `{wrapped_by}`, not by `{given}`")]
    OtherMasterKey {
        /// The id of the key that wraps the row.
        wrapped_by: String,
        /// The id of the given key.
        given: String,
    },
    /// A file with a secret can't be read or written.
    #[error("can't be read or written: {}", describe(*.0))]
    File(io::ErrorKind),
    /// A file with a secret is open to its group or to others, or belongs to somebody else.
    #[error(
        "must be readable only by its owner, the user of this process (mode 0600), or belong to root (mode 0640)"
    )]
    FilePermissions,
    /// A path leads to a directory, a pipe or a device.
    #[error("is not a regular file")]
    NotAFile,
    /// A file with a secret is empty.
    #[error("is empty")]
    FileEmpty,
    /// A file with a secret is larger than any such file.
    #[error("is too large")]
    FileTooLarge,
    /// A file with a secret does not hold UTF-8.
    #[error("is not UTF-8 text")]
    FileText,
    /// The bytes of the master key are all equal.
    #[error("holds no random bytes: all are equal")]
    NotRandom,
    /// The PKCS#11 module, its token or the key in it can't be used. The text names no secret.
    #[error("the PKCS#11 token can't be used: {0}")]
    Token(String),
    /// The master key's file does not have 32 bytes.
    #[error("must hold exactly 32 bytes and no line break")]
    FileLength,
}

impl From<io::Error> for KeyError {
    fn from(error: io::Error) -> Self {
        Self::File(error.kind())
    }
}
