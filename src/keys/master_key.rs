//! The key that wraps the keyring: what any kind of it does, and the kind that lies in a file.

use std::{fmt, fs, io, io::Read, path::Path};

use aws_lc_rs::{
    aead::LessSafeKey,
    digest::{Context, SHA256},
};
use zeroize::Zeroizing;

use super::{
    KeyError,
    data_key::{KEY_LENGTH, aes_256_gcm, open, seal},
};
use crate::random::Random;

/// Wraps data keys. A key management service is another implementation.
pub trait MasterKey: Send + Sync + fmt::Debug {
    /// Names the key without giving it away. Each row of the keyring holds the id of the key that
    /// wraps it.
    fn id(&self) -> String;

    /// Encrypts and authenticates a data key together with its context.
    ///
    /// # Errors
    /// [`KeyError::TooLong`] for what no cipher takes.
    fn wrap(&self, random: &dyn Random, plaintext: &[u8], context: &[u8]) -> Result<Vec<u8>, KeyError>;

    /// Gives back what [`wrap`](Self::wrap) was given, by the same key for the same context.
    ///
    /// # Errors
    /// [`KeyError::Sealed`] for another key, another context or an altered value.
    fn unwrap(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError>;
}

/// A master key of 32 random bytes in a file: AES-256-GCM. `Debug` shows its id alone.
pub struct FileMasterKey {
    id: String,
    key: LessSafeKey,
}

impl FileMasterKey {
    /// Reads the key from a file of exactly 32 bytes that its group and others can't read.
    ///
    /// # Errors
    /// [`KeyError::File`] when it can't be read, [`KeyError::FilePermissions`] when it is open to
    /// others (on Unix), [`KeyError::FileLength`] when it isn't 32 bytes.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let file = fs::File::open(path)?;
        // Of the file that is open, not of the path, which may change meanwhile.
        refuse_shared(&file.metadata()?)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_LENGTH + 1));
        file.take(KEY_LENGTH as u64 + 1).read_to_end(&mut bytes)?;
        Self::new(&bytes)
    }

    /// Makes a new random key in a new file, readable by its owner alone (mode 0600).
    ///
    /// # Errors
    /// [`KeyError::File`] when there is a file already, or it can't be written.
    pub fn create(path: &Path, random: &dyn Random) -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; KEY_LENGTH]);
        random.fill(bytes.as_mut_slice());
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        io::Write::write_all(&mut file, bytes.as_slice())?;
        file.sync_all()?;
        Self::new(bytes.as_slice())
    }

    fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() != KEY_LENGTH {
            return Err(KeyError::FileLength);
        }
        let mut digest = Context::new(&SHA256);
        digest.update(b"accord master key id");
        digest.update(bytes);
        let id = digest
            .finish()
            .as_ref()
            .iter()
            .take(8)
            .map(|b| format!("{b:02x}"))
            .collect();
        Ok(Self {
            id,
            key: aes_256_gcm(bytes)?,
        })
    }
}

impl MasterKey for FileMasterKey {
    fn id(&self) -> String {
        self.id.clone()
    }

    fn wrap(&self, random: &dyn Random, plaintext: &[u8], context: &[u8]) -> Result<Vec<u8>, KeyError> {
        seal(&self.key, random, context, plaintext)
    }

    fn unwrap(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        open(&self.key, context, sealed)
    }
}

impl fmt::Debug for FileMasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileMasterKey({}, [redacted])", self.id)
    }
}

#[cfg(unix)]
fn refuse_shared(metadata: &fs::Metadata) -> Result<(), KeyError> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(KeyError::FilePermissions)
    }
}

#[cfg(not(unix))]
fn refuse_shared(_: &fs::Metadata) -> Result<(), KeyError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn a_created_key_is_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        let random = SeededRandom::new(1);
        let made = FileMasterKey::create(&path, &random).unwrap();
        let loaded = FileMasterKey::load(&path).unwrap();
        assert_eq!(made.id(), loaded.id());
        assert_eq!(made.id().len(), 16);
        let sealed = made.wrap(&random, b"data key", b"context").unwrap();
        assert_eq!(
            loaded.unwrap(&sealed, b"context").unwrap().as_slice(),
            b"data key"
        );
        assert!(matches!(loaded.unwrap(&sealed, b"other"), Err(KeyError::Sealed)));
        // A second creation must not replace the first key.
        let again = FileMasterKey::create(&path, &random).unwrap_err();
        assert!(matches!(again, KeyError::File(io::ErrorKind::AlreadyExists)));
        let bytes = fs::read(&path).unwrap();
        let debug = format!("{made:?}");
        assert!(
            debug.contains("[redacted]")
                && !debug.contains(&format!("{:02x}{:02x}{:02x}", bytes[0], bytes[1], bytes[2]))
        );
    }

    #[test]
    fn other_lengths_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for length in [0, 31, 33, 64] {
            let path = dir.path().join(format!("{length}"));
            fs::write(&path, vec![1; length]).unwrap();
            #[cfg(unix)]
            set_mode(&path, 0o600);
            assert!(matches!(FileMasterKey::load(&path), Err(KeyError::FileLength)));
        }
        let missing = FileMasterKey::load(&dir.path().join("none"));
        assert!(matches!(missing, Err(KeyError::File(io::ErrorKind::NotFound))));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        FileMasterKey::create(&path, &SeededRandom::new(1)).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o666] {
            set_mode(&path, mode);
            assert!(matches!(
                FileMasterKey::load(&path),
                Err(KeyError::FilePermissions)
            ));
        }
        set_mode(&path, 0o400);
        FileMasterKey::load(&path).unwrap();
    }

    #[cfg(unix)]
    fn set_mode(path: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}
