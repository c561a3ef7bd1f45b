//! Whether statements have written what they had to.

use crate::store::StoreError;

/// Checks that a statement has written as many rows as it had to. The database may leave out rows without an error, by a trigger or a
/// rule that somebody has made.
///
/// # Errors
/// [`StoreError::Altered`].
pub fn all_written(table: &'static str, written: u64, expected: usize) -> Result<(), StoreError> {
    match written == expected as u64 {
        true => Ok(()),
        false => Err(StoreError::Altered(table)),
    }
}
