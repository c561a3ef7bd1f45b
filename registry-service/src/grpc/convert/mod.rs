//! Conversions between messages and the model, one file for each resource. Reports all violations of a message at
//! once. Never reads the database.

use std::fmt::Display;

pub use accord::text::validation::only_field;
use accord::text::{page::PageRequest, validation::Violations};
use prost_types::FieldMask;

pub mod caller;
pub mod client;
pub mod directory;
pub mod integration_request;
pub mod scope;
mod security;
pub mod tenant;
pub mod user;

type Result<T, E = Violations> = std::result::Result<T, E>;

/// Reads the paging fields of a list that has no filters.
pub fn unfiltered_page(list: &'static str, page_size: i32, page_token: &str) -> Result<PageRequest> {
    let mut v = Violations::default();
    let page = PageRequest::parse(&mut v, list, &[], page_size, page_token);
    v.finish(|| page)
}

/// Reads why something ends or is suspended.
fn reason(v: &mut Violations, text: &str) -> Option<String> {
    v.multiline("reason", text, 1..=1000)
}

/// Reads an id, which a message names in `field`, and the reason for what happens to it.
pub fn id_and_reason<T, E: Display>(field: &str, id: Result<T, E>, text: &str) -> Result<(T, String)> {
    let mut v = Violations::default();
    let id = v.check(field, id);
    let reason = reason(&mut v, text);
    v.finish(|| Some((id?, reason?)))
}

/// Reads the etag that an update starts from. An empty text becomes `None`, which matches any row; a malformed one
/// becomes an etag that no row has.
fn etag(text: &str) -> Option<i64> {
    (!text.is_empty()).then(|| text.parse().unwrap_or(-1))
}

/// The paths that an update names.
struct UpdateMask(Vec<String>);

impl UpdateMask {
    /// Reads a mask of at least one path, each of which is in `known`.
    fn parse(v: &mut Violations, mask: Option<FieldMask>, known: &[&str]) -> Self {
        let paths = mask.map(|mask| mask.paths).unwrap_or_default();
        let known_paths = known.join(", ");
        if paths.is_empty() {
            v.add("update_mask", format!("must name at least one of {known_paths}"));
        }
        if paths.iter().any(|path| !known.contains(&path.as_str())) {
            v.add("update_mask", format!("may name {known_paths} only"));
        }
        Self(paths)
    }

    /// Reads a field if the mask names it.
    fn read<T>(&self, path: &str, read: impl FnOnce() -> Option<T>) -> Option<T> {
        self.0.iter().any(|named| named == path).then(read).flatten()
    }
}
