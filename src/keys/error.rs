//! The errors of keys. None shows a key or the data that it protects.

use std::io;

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
    /// The master key's file can't be read or written.
    #[error("the master key file: {0}")]
    File(io::ErrorKind),
    /// The master key's file is open to its group or to others.
    #[error("the master key file must be readable only by its owner (mode 0600)")]
    FilePermissions,
    /// The master key's file does not have 32 bytes.
    #[error("the master key file must hold exactly 32 bytes")]
    FileLength,
}

impl From<io::Error> for KeyError {
    fn from(error: io::Error) -> Self {
        Self::File(error.kind())
    }
}
