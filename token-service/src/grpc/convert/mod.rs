//! Converts between messages and the types of the model, one file for each type. Finds every violation of a message
//! before it reports any, and reads no database.

use std::{collections::HashSet, fmt::Display};

use accord::text::{
    id::ScopeName,
    validation::{Violations, list_field},
};

pub mod consent;
pub mod setup;
pub mod signing_key;
pub mod token;

/// The most scopes that a request may name.
const MAX_SCOPES: usize = 100;

/// Reads the one field of a message that can break a rule.
pub fn field<T, E: Display>(name: &str, result: Result<T, E>) -> Result<T, Violations> {
    let mut v = Violations::default();
    v.check(name, result).ok_or(v)
}

/// Reads an id that may be empty.
fn optional<T, E: Display>(
    v: &mut Violations,
    field: &str,
    text: &str,
    parse: fn(&str) -> Result<T, E>,
) -> Option<Option<T>> {
    match text {
        "" => Some(None),
        text => v.check(field, parse(text)).map(Some),
    }
}

/// Reads the scopes that a request names, all different.
fn scopes(v: &mut Violations, names: &[String]) -> Vec<ScopeName> {
    if names.len() > MAX_SCOPES {
        v.add("scopes", format!("must have at most {MAX_SCOPES} elements"));
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut scopes = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let field = list_field("scopes", index);
        let Some(name) = v.check(&field, ScopeName::parse(name)) else {
            continue;
        };
        if seen.insert(name.clone()) {
            scopes.push(name);
        } else {
            v.add(field, "must be different from those before it");
        }
    }
    scopes
}

/// Rejects an empty field.
fn present(v: &mut Violations, field: &str, value: &str) {
    if value.is_empty() {
        v.add(field, "must not be empty");
    }
}
