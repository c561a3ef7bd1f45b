//! Between messages and nouns, one file a noun. Every violation of a message is found before any is
//! reported; nothing here looks into the database.

use accord::text::{page::PageRequest, validation::Violations};

pub mod consent;
pub mod setup;
pub mod signing_key;
pub mod token;

/// Reads the paging fields of a list call into `violations`.
pub fn page(
    violations: &mut Violations,
    list: &'static str,
    filters: &[&str],
    (page_size, page_token): (i32, &str),
) -> Option<PageRequest> {
    match PageRequest::parse(list, filters, page_size, page_token) {
        Ok(page) => Some(page),
        Err(found) => {
            violations.extend(found);
            None
        }
    }
}
