//! Starts environments for tests, and stops them again whatever happens.

pub mod axe;
pub mod browser;
pub mod dev;
pub mod document;
pub mod envoy;
pub mod grpcurl;
pub mod partner;
pub mod process;
pub mod services;

use std::path::Path;

/// Every byte of every file below a directory, with the file's path.
pub fn files_below(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

/// Whether `needle` stands anywhere in `haystack`.
pub fn holds(haystack: &[u8], needle: &str) -> bool {
    let needle = needle.as_bytes();
    haystack.windows(needle.len()).any(|window| window == needle)
}
