//! The errors of keys. None shows a key or what one protects.

use std::io;

/// A failed operation with a key.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// A sealed value doesn't open: another key made it, for another context, or it was altered.
    #[error("a sealed value does not open with this key")]
    Sealed,
    /// More plaintext than the cipher takes.
    #[error("the plaintext is too long to seal")]
    TooLong,
    /// The keyring was opened without this purpose: an error of the program.
    #[error("the keyring was not opened for the purpose `{0}`")]
    NotOpened(String),
    /// A row names a version that was not there when the keyring was opened; opening it again
    /// finds a key that another replica has made since.
    #[error("the keyring has no version {version} for the purpose `{purpose}`")]
    UnknownVersion {
        /// The purpose asked for.
        purpose: String,
        /// The version asked for.
        version: i32,
    },
    /// The keyring is wrapped by another master key than the one given.
    #[error("the keyring is wrapped by the master key `{wrapped_by}`, not by `{given}`")]
    OtherMasterKey {
        /// Id of the key that wraps the row.
        wrapped_by: String,
        /// Id of the key that was given.
        given: String,
    },
    /// The master key's file can't be read or written.
    #[error("the master key file: {0}")]
    File(io::ErrorKind),
    /// The master key's file is open to its group or to others.
    #[error("the master key file must be readable by its owner alone (mode 0600)")]
    FilePermissions,
    /// The master key's file isn't a key.
    #[error("the master key file must hold exactly 32 bytes")]
    FileLength,
}

impl From<io::Error> for KeyError {
    fn from(error: io::Error) -> Self {
        Self::File(error.kind())
    }
}
