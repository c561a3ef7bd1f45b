//! The MAC of a row: HMAC-SHA-256 over the table's name and each column's name and value.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use sea_orm::{Iterable, entity::prelude::*};
use subtle::ConstantTimeEq;

use super::Protected;
use crate::{
    keys::{DataKey, Keyring},
    store::{Keyed, StoreError},
    text::parts::with_lengths,
};

/// The purpose of the data key.
pub const KEYRING_PURPOSE: &str = "row";

/// The version of the form of MACs, the first byte of each.
const FORM: u8 = 1;
const MAC_BYTES: usize = 32;

/// Returns the key for new MACs.
///
/// # Errors
/// [`StoreError::Corrupt`] before a keyring was opened: no row is written without a MAC.
pub fn current(conn: &impl Keyed) -> Result<DataKey, StoreError> {
    Ok(keyring(conn)?.current(KEYRING_PURPOSE)?.clone())
}

/// Sets the MAC of a row.
pub fn protect<E: Protected>(key: &DataKey, row: &mut E::Model) -> Result<(), StoreError> {
    let version = key.version().to_be_bytes();
    let mac = mac::<E>(key, &columns::<E>(row)?);
    let mac = [&[FORM][..], &version, &mac].concat();
    row.try_set(E::MAC, mac.into())?;
    Ok(())
}

/// Checks the MAC of a row, of which [`columns`] are given.
///
/// # Errors
/// [`StoreError::Altered`], [`StoreError::Key`] for a version of the key that others may have, and this replica does not.
pub(super) fn check<E: Protected>(
    conn: &impl Keyed,
    row: &E::Model,
    columns: &[u8],
) -> Result<(), StoreError> {
    let altered = || StoreError::Altered(E::default().table_name());
    let Value::Bytes(Some(stored)) = row.get(E::MAC) else {
        return Err(altered());
    };
    let (head, stored) = stored.split_last_chunk::<MAC_BYTES>().ok_or_else(altered)?;
    let [FORM, version @ ..] = head else {
        return Err(altered());
    };
    let version = version
        .try_into()
        .map(i32::from_be_bytes)
        .map_err(|_| altered())?;
    let keyring = keyring(conn)?;
    let key = keyring.for_mac(KEYRING_PURPOSE, version)?.ok_or_else(altered)?;
    let expected = mac::<E>(key, columns);
    match bool::from(stored.ct_eq(&expected)) {
        true => Ok(()),
        false => Err(altered()),
    }
}

/// Returns what events and versions hold of a row: the beginning of a SHA-256 over its MAC and all that the MAC covers. Whoever
/// has the database and no key compares it with the row. Whoever has the event alone can't guess what the row holds, because no
/// event shows the MAC.
///
/// # Errors
/// [`StoreError::Corrupt`] for a column of a type that no MAC covers.
pub(super) fn row_digest<E: Protected>(row: &E::Model, columns: &[u8]) -> Result<[u8; 16], StoreError> {
    let mut content = Vec::with_capacity(512);
    append(&mut content, Some(b"row version"));
    append(&mut content, Some(E::default().table_name()));
    append_value(&mut content, row.get(E::MAC))?;
    content.extend_from_slice(columns);
    let digest = digest(&SHA256, &content);
    let beginning = digest.as_ref().first_chunk();
    beginning.copied().ok_or(StoreError::Corrupt("a digest"))
}

fn keyring(conn: &impl Keyed) -> Result<Arc<Keyring>, StoreError> {
    conn.keys().ok_or(StoreError::Corrupt("no key protects rows"))
}

fn mac<E: Protected>(key: &DataKey, columns: &[u8]) -> [u8; MAC_BYTES] {
    key.hmac(&[b"row", E::default().table_name().as_bytes(), columns])
}

/// Returns the name and value of each column that the MAC covers.
///
/// # Errors
/// [`StoreError::Corrupt`] for a column of a type that no MAC covers.
pub(super) fn columns<E: Protected>(row: &E::Model) -> Result<Vec<u8>, StoreError> {
    let mut content = Vec::with_capacity(512);
    let is = |column: &E::Column, other: &E::Column| column.as_str() == other.as_str();
    let is_covered =
        |column: &E::Column| !is(column, &E::MAC) && !E::UNPROTECTED.iter().any(|other| is(column, other));
    for column in E::Column::iter().filter(is_covered) {
        append(&mut content, Some(column.as_str()));
        append_value(&mut content, row.get(column))?;
    }
    Ok(content)
}

fn append_value(content: &mut Vec<u8>, value: Value) -> Result<(), StoreError> {
    match value {
        Value::Bool(value) => append(content, value.map(|value| [u8::from(value)])),
        Value::Int(value) => append(content, value.map(i32::to_be_bytes)),
        Value::BigInt(value) => append(content, value.map(i64::to_be_bytes)),
        Value::String(value) => append(content, value),
        Value::Bytes(value) => append(content, value),
        Value::Json(value) => {
            let text = value.map(|mut value| {
                // The order depends on the database, and on a feature of the crate.
                value.sort_all_objects();
                value.to_string()
            });
            append(content, text);
        }
        _ => return Err(StoreError::Corrupt("a column of a type that no MAC covers")),
    }
    Ok(())
}

/// Appends a value so that no two lists of values have the same bytes.
fn append(content: &mut Vec<u8>, value: Option<impl AsRef<[u8]>>) {
    let Some(value) = value else {
        return content.push(0);
    };
    content.push(1);
    with_lengths([value.as_ref()], |part| content.extend_from_slice(part));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_its_length_and_an_absent_one_a_zero() {
        let mut content = Vec::new();
        append(&mut content, None::<&str>);
        append(&mut content, Some(b"ab"));
        assert_eq!(content, b"\0\x01\0\0\0\0\0\0\0\x02ab");
    }
}
