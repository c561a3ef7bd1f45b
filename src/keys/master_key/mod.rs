//! The key that wraps the keyring: its trait, and the implementations over a file and over a PKCS#11 token.

use std::{fmt, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use zeroize::Zeroizing;

use super::KeyError;
use crate::random::Random;

mod file;
mod pkcs11;
mod pkcs11_uri;

pub use file::FileMasterKey;
pub use pkcs11::Pkcs11MasterKey;
pub use pkcs11_uri::Pkcs11Uri;

/// Wraps data keys.
#[async_trait]
pub trait MasterKey: Send + Sync + fmt::Debug {
    /// Returns an id that does not reveal the key. Each row of the keyring holds the id of the key that wraps it.
    fn id(&self) -> String;

    /// Encrypts a data key and authenticates it with its context.
    ///
    /// # Errors
    /// [`KeyError::TooLong`] for a plaintext beyond the cipher's limit; [`KeyError::Token`] if the key can't be reached.
    async fn wrap(&self, random: &dyn Random, plaintext: &[u8], context: &[u8]) -> Result<Vec<u8>, KeyError>;

    /// Decrypts what [`wrap`](Self::wrap) returned for the same key and context.
    ///
    /// # Errors
    /// [`KeyError::Sealed`] for another key, another context or an altered value; [`KeyError::Token`] if the key can't be
    /// reached.
    async fn unwrap(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError>;
}

/// Where a master key is.
#[derive(Clone, Debug)]
pub enum MasterKeySource {
    /// A file of 32 random bytes.
    File(PathBuf),
    /// An AES key in a PKCS#11 token.
    Pkcs11(Pkcs11Uri),
}

impl MasterKeySource {
    /// Opens the key.
    ///
    /// # Errors
    /// Those of [`FileMasterKey::load`] and [`Pkcs11MasterKey::open`].
    pub async fn open(&self) -> Result<Arc<dyn MasterKey>, KeyError> {
        Ok(match self {
            Self::File(path) => Arc::new(FileMasterKey::load(path)?),
            Self::Pkcs11(uri) => Arc::new(Pkcs11MasterKey::open(uri.clone()).await?),
        })
    }
}

/// The master keys of a service: the one in use, and during a rotation the new one, too. A row of the keyring may be
/// wrapped by either.
#[derive(Debug)]
pub struct MasterKeys {
    /// Whose data keys they wrap; empty before [`Self::for_service`].
    service: String,
    sources: Vec<MasterKeySource>,
    keys: ArcSwap<Vec<Arc<dyn MasterKey>>>,
}

impl MasterKeys {
    /// Opens the keys, the one in use first.
    ///
    /// # Errors
    /// Those of [`MasterKeySource::open`].
    pub async fn open(sources: Vec<MasterKeySource>) -> Result<Self, KeyError> {
        let keys = open_all(&sources).await?;
        Ok(Self {
            service: String::new(),
            sources,
            keys: ArcSwap::from_pointee(keys),
        })
    }

    /// Binds what the keys wrap to a service: a data key of another one does not open, even if both have the same master key.
    pub fn for_service(self, service: impl Into<String>) -> Self {
        let service = service.into();
        Self { service, ..self }
    }

    /// Returns the service whose data keys they wrap.
    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    /// Opens the keys again, because somebody may have replaced a file. Keeps the open ones after an error.
    pub(crate) async fn reopen(&self) -> Result<(), KeyError> {
        if !self.sources.is_empty() {
            self.keys.store(Arc::new(open_all(&self.sources).await?));
        }
        Ok(())
    }

    /// Returns the key with this id; without an id, or if there is none, the one in use.
    pub(crate) fn preferred(&self, id: Option<&str>) -> Result<Arc<dyn MasterKey>, KeyError> {
        let keys = self.keys.load();
        let named = keys.iter().find(|key| Some(&*key.id()) == id);
        let key = named.or(keys.first());
        key.cloned()
            .ok_or_else(|| KeyError::NotOpened("master key".to_owned()))
    }

    /// Decrypts a value that the key with this id wrapped.
    ///
    /// # Errors
    /// [`KeyError::OtherMasterKey`], and those of [`MasterKey::unwrap`].
    pub(crate) async fn unwrap(
        &self,
        id: &str,
        sealed: &[u8],
        context: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let key = self.preferred(Some(id))?;
        if key.id() != id {
            return Err(KeyError::OtherMasterKey {
                wrapped_by: id.to_owned(),
                given: key.id(),
            });
        }
        key.unwrap(sealed, context).await
    }
}

/// Makes a single key the one in use.
impl<K: MasterKey + 'static> From<K> for MasterKeys {
    fn from(key: K) -> Self {
        let key: Arc<dyn MasterKey> = Arc::new(key);
        Self {
            service: String::new(),
            sources: Vec::new(),
            keys: ArcSwap::from_pointee(vec![key]),
        }
    }
}

async fn open_all(sources: &[MasterKeySource]) -> Result<Vec<Arc<dyn MasterKey>>, KeyError> {
    let mut keys = Vec::new();
    for source in sources {
        keys.push(source.open().await?);
    }
    Ok(keys)
}
