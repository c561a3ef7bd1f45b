//! Between messages and nouns, one file a noun. Every violation of a message is found before any is
//! reported; nothing here looks into the database.

use accord::text::validation::Violations;

pub mod caller;
pub mod client;
pub mod directory;
pub mod integration_request;
pub mod scope;
pub mod tenant;
pub mod user;

/// The version of a row that an update asks for; `None` asks for none. A text that is no etag is no row's version.
pub fn etag(text: &str) -> Option<i64> {
    (!text.is_empty()).then(|| text.parse().unwrap_or(-1))
}

/// Checks the paths of an update mask: at least one, each of `known`.
pub fn mask(
    violations: &mut Violations,
    mask: Option<prost_types::FieldMask>,
    known: &[&str],
) -> Vec<String> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        violations.add(
            "update_mask",
            format!("must name at least one of {}", known.join(", ")),
        );
    }
    for path in &paths {
        if !known.contains(&path.as_str()) {
            violations.add("update_mask", format!("may name {} only", known.join(", ")));
        }
    }
    paths
}
