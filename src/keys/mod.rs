//! Keys: the data keys, the keyring that holds their versions, and the master key that wraps them.

mod data_key;
mod error;
mod keyring;
mod master_key;
mod secret_file;

pub use data_key::DataKey;
pub(crate) use data_key::KEY_LENGTH;
pub use error::KeyError;
pub use keyring::Keyring;
pub use master_key::{FileMasterKey, MasterKey, MasterKeySource, MasterKeys, Pkcs11MasterKey, Pkcs11Uri};
pub use secret_file::{read_secret, read_secret_text};
