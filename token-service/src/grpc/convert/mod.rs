//! Converts between messages and the types of the model, one file for each type. Finds every violation of a message
//! before it reports any, and reads no database.

use std::net::IpAddr;

use accord::text::{
    id::ScopeName,
    validation::{Violations, list_field},
};

pub use accord::text::validation::only_field;

use crate::{error::SCOPES, model::client::MAX_SCOPES};

pub mod consent;
pub mod setup;
pub mod signing_key;
pub mod token;

/// Parses the address of a caller, for [`Violations::optional`].
fn address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(|_| "must be an IP address, or empty")
}

/// Reads the scopes that a request names, without duplicates, which RFC 6749 §3.3 does not forbid.
fn scopes(v: &mut Violations, names: &[String]) -> Vec<ScopeName> {
    let mut scopes = Vec::new();
    for (index, name) in v.bounded_list(SCOPES, names, 0..=MAX_SCOPES) {
        let scope = v.check(&list_field(SCOPES, index), ScopeName::parse(name));
        scopes.extend(scope.filter(|scope| !scopes.contains(scope)));
    }
    scopes
}

/// Rejects an empty field.
fn present(v: &mut Violations, field: &str, value: &str) {
    if value.is_empty() {
        v.add(field, "must not be empty");
    }
}
