//! Digests of what the tables of the record hold, so that what two persons have accepted can't change later without a word.

use aws_lc_rs::digest::{Context, SHA256};
use sea_orm::ConnectionTrait;

use super::{
    group,
    leaf_rows::{Row, rows_between},
    row,
};
use crate::{store::StoreError, text::parts::with_lengths};

/// How many rows are read at a time.
const ROWS: u64 = 500;

/// A SHA-256 over fields, each with its length.
#[derive(Clone)]
pub(super) struct Extent(Context);

impl Extent {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Adds a field.
    pub(super) fn add(&mut self, field: &[u8]) {
        with_lengths([field], |part| self.0.update(part));
    }

    /// Adds a field that may be absent.
    fn add_optional(&mut self, field: Option<&str>) {
        self.add(&[u8::from(field.is_some())]);
        self.add(field.unwrap_or_default().as_bytes());
    }

    /// Adds every column of a row.
    pub(super) fn add_row(&mut self, row: &Row) {
        match row {
            Row::Own(row) => self.add_event(row),
            Row::Group(row) => self.add_group(row),
        }
    }

    fn add_event(&mut self, row: &row::Model) {
        self.add(b"event");
        self.add(&row.number.to_be_bytes());
        for text in [&row.event_id, &row.action, &row.outcome, &row.actor_id] {
            self.add(text.as_bytes());
        }
        for text in [&row.tenant_id, &row.client_id, &row.subject] {
            self.add_optional(text.as_deref());
        }
        self.add(&row.record);
        self.add(&row.key_version.to_be_bytes());
        self.add(&row.mac);
    }

    fn add_group(&mut self, row: &group::Model) {
        self.add(b"group");
        self.add(row.writer.as_bytes());
        self.add(&row.number.to_be_bytes());
        self.add(&row.size.to_be_bytes());
        self.add(row.first_event_id.as_bytes());
        self.add(row.last_event_id.as_bytes());
        self.add(&row.root);
        self.add(&row.events);
        self.add(&row.key_version.to_be_bytes());
        self.add(&row.mac);
    }

    /// Returns the digest, in hexadecimal.
    pub(super) fn finish(self) -> String {
        hex::encode(self.0.finish())
    }
}

/// Returns the digest of the rows of a source with these numbers, as they are. Reads a bounded number at a time.
pub(super) async fn of_rows(
    conn: &impl ConnectionTrait,
    source: &str,
    (from, through): (i64, i64),
) -> Result<String, StoreError> {
    let mut extent = Extent::new();
    let mut next = Some(from);
    while let Some(from) = next {
        let rows = rows_between(conn, source, (from, through), ROWS).await?;
        rows.iter().for_each(|row| extent.add_row(row));
        let last = rows.last().map(Row::number);
        next = last.filter(|last| *last < through).map(|last| last + 1);
    }
    Ok(extent.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_has_its_length() {
        let mut extent = Extent::new();
        extent.add(b"event");
        extent.add_optional(None);
        extent.add_optional(Some("client"));
        let expected = "52b48c45c58cb7f1df8d6f4f14ab6b92ea65e1048096e20ba218ea6a3bbc9f31";
        assert_eq!(extent.finish(), expected);
    }
}
