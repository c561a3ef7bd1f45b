//! What the store has read for a change that is decided before its transaction begins.

use std::ops::Deref;

use accord::store::rows::Authentic;
use sea_orm::EntityTrait;

/// A value with the row that it was read from. The change compares the row's MAC, so that it changes the row that was read
/// and checked, and no other.
#[derive(Clone, derive_more::Debug)]
#[debug("{value:?}")]
pub struct Stored<T, E: EntityTrait> {
    value: T,
    row: Authentic<E>,
}

impl<T, E: EntityTrait> Stored<T, E> {
    /// Converts a row.
    pub(in crate::store) fn read<X>(
        row: Authentic<E>,
        convert: impl FnOnce(&Authentic<E>) -> Result<T, X>,
    ) -> Result<Self, X> {
        let value = convert(&row)?;
        Ok(Self { value, row })
    }

    /// Returns the row.
    pub(in crate::store) fn row(&self) -> &E::Model {
        &self.row
    }

    /// Returns the value alone.
    pub fn into_value(self) -> T {
        self.value
    }
}

impl<T, E: EntityTrait> Deref for Stored<T, E> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
