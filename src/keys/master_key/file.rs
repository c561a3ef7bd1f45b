//! A master key in a file.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use async_trait::async_trait;
use aws_lc_rs::{
    aead::LessSafeKey,
    digest::{Context, SHA256},
};
use zeroize::Zeroizing;

use super::MasterKey;
use crate::{
    keys::{
        KeyError,
        data_key::{KEY_LENGTH, aes_256_gcm, open, seal},
        secret_file::read_secret,
    },
    random::Random,
};

/// A master key of 32 random bytes in a file, for AES-256-GCM. `Debug` shows only its id.
#[derive(derive_more::Debug)]
#[debug("FileMasterKey({id}, [redacted])")]
pub struct FileMasterKey {
    id: String,
    key: LessSafeKey,
}

impl FileMasterKey {
    /// Reads the key from a file of exactly 32 bytes that its group and others can't read.
    ///
    /// # Errors
    /// As [`read_secret`], [`KeyError::FileLength`] for another length, and [`KeyError::NotRandom`] for bytes that are all
    /// equal, as of a file that was made and never filled.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let bytes = read_secret(path, KEY_LENGTH).map_err(|error| match error {
            KeyError::FileEmpty | KeyError::FileTooLarge => KeyError::FileLength,
            error => error,
        })?;
        Self::new(&bytes)
    }

    /// Generates a key and writes it to a new file that only its owner can read (mode 0600). A file beside it, which is
    /// renamed, holds it until it is complete, so that a full disk or a crash leaves no half of a key.
    ///
    /// # Errors
    /// [`KeyError::File`] if the file exists or can't be written.
    pub fn create(path: &Path, random: &dyn Random) -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; KEY_LENGTH]);
        random.fill(bytes.as_mut_slice());
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        if path.exists() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
        }
        let partial = path.with_extension("partial");
        let _ = fs::remove_file(&partial);
        let mut file = options.open(&partial)?;
        file.write_all(bytes.as_slice())?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        Self::new(bytes.as_slice())
    }

    fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() != KEY_LENGTH {
            return Err(KeyError::FileLength);
        }
        if bytes.windows(2).all(|pair| pair[0] == pair[1]) {
            return Err(KeyError::NotRandom);
        }
        let mut digest = Context::new(&SHA256);
        digest.update(b"accord master key id");
        digest.update(bytes);
        let digest = digest.finish();
        let id = digest.as_ref()[..8].iter().map(|b| format!("{b:02x}")).collect();
        let key = aes_256_gcm(bytes)?;
        Ok(Self { id, key })
    }
}

#[async_trait]
impl MasterKey for FileMasterKey {
    fn id(&self) -> String {
        self.id.clone()
    }

    async fn wrap(&self, random: &dyn Random, plaintext: &[u8], context: &[u8]) -> Result<Vec<u8>, KeyError> {
        seal(&self.key, random, context, plaintext)
    }

    async fn unwrap(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        open(&self.key, context, sealed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{io, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::random::SeededRandom;

    #[tokio::test]
    async fn a_created_key_can_be_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        let random = SeededRandom::new(1);
        let created = FileMasterKey::create(&path, &random).unwrap();
        let loaded = FileMasterKey::load(&path).unwrap();
        assert_eq!(created.id(), loaded.id());
        assert_eq!(created.id().len(), 16);
        let sealed = created.wrap(&random, b"data key", b"context").await.unwrap();
        assert_eq!(
            loaded.unwrap(&sealed, b"context").await.unwrap().as_slice(),
            b"data key"
        );
        assert!(matches!(
            loaded.unwrap(&sealed, b"other").await,
            Err(KeyError::Sealed)
        ));
        // A second creation must not replace the first key.
        let again = FileMasterKey::create(&path, &random).unwrap_err();
        assert!(matches!(again, KeyError::File(io::ErrorKind::AlreadyExists)));
        let bytes = fs::read(&path).unwrap();
        let debug = format!("{created:?}");
        assert!(
            debug.contains("[redacted]")
                && !debug.contains(&format!("{:02x}{:02x}{:02x}", bytes[0], bytes[1], bytes[2]))
        );
    }

    #[test]
    fn a_key_that_was_written_in_part_is_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        fs::write(dir.path().join("master.partial"), [1; 7]).unwrap();
        FileMasterKey::create(&path, &SeededRandom::new(1)).unwrap();
        FileMasterKey::load(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn other_lengths_are_rejected() {
        let dir = tempfile::tempdir().unwrap();
        for length in [0, 31, 33, 64] {
            let path = dir.path().join(format!("{length}"));
            fs::write(&path, (0..length as u8).collect::<Vec<_>>()).unwrap();
            set_mode(&path, 0o600);
            assert!(matches!(FileMasterKey::load(&path), Err(KeyError::FileLength)));
        }
        let missing = FileMasterKey::load(&dir.path().join("none"));
        assert!(matches!(missing, Err(KeyError::File(io::ErrorKind::NotFound))));
    }

    #[test]
    fn a_key_of_equal_bytes_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        for byte in [0, b'x', 0xff] {
            fs::write(&path, [byte; 32]).unwrap();
            set_mode(&path, 0o600);
            assert!(matches!(FileMasterKey::load(&path), Err(KeyError::NotRandom)));
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        FileMasterKey::create(&path, &SeededRandom::new(1)).unwrap();
        for mode in [0o604, 0o660, 0o666] {
            set_mode(&path, mode);
            assert!(matches!(
                FileMasterKey::load(&path),
                Err(KeyError::FilePermissions)
            ));
        }
        set_mode(&path, 0o400);
        FileMasterKey::load(&path).unwrap();
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}
