//! Keyed hashes of account names, which are all that is stored of them.

use accord::{
    keys::{DataKey, KeyError, Keyring},
    text::{account_name::AccountName, id::TenantId},
};

use crate::model::purpose;

/// Returns the hash of a name under the current key, and the version of that key. The hash is HMAC-SHA-256 over the
/// tenant and the name, each preceded by its length.
pub fn hash(
    name: &AccountName,
    keyring: &Keyring,
    tenant_id: &TenantId,
) -> Result<([u8; 32], i32), KeyError> {
    let key = keyring.current(purpose::ACCOUNT_NAME)?;
    Ok((hash_under(key, tenant_id, name.expose()), key.version()))
}

/// Returns the hash of a name under each key that a row may name, for a look-up.
pub fn hashes(name: &AccountName, keyring: &Keyring, tenant_id: &TenantId) -> Vec<[u8; 32]> {
    let keys = keyring.versions(purpose::ACCOUNT_NAME);
    keys.map(|key| hash_under(key, tenant_id, name.expose()))
        .collect()
}

/// Returns the hash of a name in normal form.
pub fn hash_under(key: &DataKey, tenant_id: &TenantId, name: &str) -> [u8; 32] {
    key.hmac(&[tenant_id.as_str().as_bytes(), name.as_bytes()])
}
