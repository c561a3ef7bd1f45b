//! Conversions between messages and the model, one file for each resource. Reports all violations of a message at
//! once. Never reads the database.

use std::{collections::HashSet, fmt::Display, hash::Hash};

use accord::text::{
    page::PageRequest,
    validation::{Violations, list_field},
};
use prost_types::FieldMask;

pub mod caller;
pub mod client;
pub mod directory;
pub mod integration_request;
pub mod scope;
pub mod tenant;
pub mod user;

type Result<T, E = Violations> = std::result::Result<T, E>;

/// The violation of an element that a list contains twice.
const REPEATED: &str = "must be different from those before it";

/// Returns the value of a parsed field, or its violation. For messages in which no other field can be malformed.
pub fn field<T, E: Display>(name: &str, result: Result<T, E>) -> Result<T> {
    let mut v = Violations::default();
    v.check(name, result).ok_or(v)
}

/// Reads the paging fields of a list that has no filters.
pub fn unfiltered_page(list: &'static str, page_size: i32, page_token: &str) -> Result<PageRequest> {
    let mut v = Violations::default();
    let page = PageRequest::parse(&mut v, list, &[], page_size, page_token);
    v.finish(|| page)
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
        for _ in paths.iter().filter(|path| !known.contains(&path.as_str())) {
            v.add("update_mask", format!("may name {known_paths} only"));
        }
        Self(paths)
    }

    /// Reads a field if the mask names it.
    fn read<T>(&self, path: &str, read: impl FnOnce() -> Option<T>) -> Option<T> {
        self.0.iter().any(|named| named == path).then(read).flatten()
    }
}

/// Reads a list of 1 to `max` different elements. Returns those that `read` accepts, with their indexes.
fn distinct<E, T: Clone + Eq + Hash>(
    v: &mut Violations,
    field: &str,
    list: &[E],
    max: usize,
    read: impl Fn(&mut Violations, &str, &E) -> Option<T>,
) -> Vec<(usize, T)> {
    let (mut seen, mut values) = (HashSet::new(), Vec::new());
    for (index, element) in bounded(v, field, list, max) {
        let field = list_field(field, index);
        let Some(value) = read(v, &field, element) else {
            continue;
        };
        if seen.insert(value.clone()) {
            values.push((index, value));
        } else {
            v.add(field, REPEATED);
        }
    }
    values
}

/// Returns the first `max` elements of a list, with their indexes. Records a violation unless it has 1 to `max`.
fn bounded<'a, E>(
    v: &mut Violations,
    field: &str,
    list: &'a [E],
    max: usize,
) -> impl Iterator<Item = (usize, &'a E)> + use<'a, E> {
    if list.is_empty() || list.len() > max {
        v.add(field, format!("must have 1 to {max} elements"));
    }
    list.iter().take(max).enumerate()
}
