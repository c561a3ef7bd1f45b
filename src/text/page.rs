//! Paging of lists by the key of the last row, with page tokens that fit one list and filter alone.
//!
//! A page token is no authority: it says where to go on, and what may be seen is decided anew.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::text::{opaque::sha256, validation::Violations};

/// The size of a page when the caller does not say.
pub const DEFAULT_SIZE: u64 = 50;
/// The size of the largest page.
pub const MAX_SIZE: u64 = 500;
const MAX_TOKEN_BYTES: usize = 512;
const MARK_BYTES: usize = 8;

/// Which page of which list is asked for.
#[derive(Clone, Debug)]
pub struct PageRequest {
    mark: [u8; MARK_BYTES],
    size: u64,
    after: Option<String>,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// The token of the next page; empty on the last one.
    pub next_page_token: String,
}

impl<T> Page<T> {
    /// The same page with each row converted.
    pub fn map<U>(self, convert: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(convert).collect(),
            next_page_token: self.next_page_token,
        }
    }
}

impl PageRequest {
    /// Reads the two paging fields of a list call. `filters` are all of its other fields. Records a violation for
    /// a negative size, and for a token that another list or filter gave.
    pub fn parse(
        violations: &mut Violations,
        list: &'static str,
        filters: &[&str],
        page_size: i32,
        page_token: &str,
    ) -> Option<Self> {
        let mark = mark(list, filters);
        let size = match u64::try_from(page_size) {
            Ok(0) => Some(DEFAULT_SIZE),
            Ok(size) => Some(size.min(MAX_SIZE)),
            Err(_) => {
                violations.add("page_size", "must not be negative");
                None
            }
        };
        let after = match page_token {
            "" => None,
            token => {
                let key = cursor(&mark, token);
                if key.is_none() {
                    violations.add(
                        "page_token",
                        "must be the next_page_token of this list with the same filters",
                    );
                }
                Some(key?)
            }
        };
        Some(Self {
            mark,
            size: size?,
            after,
        })
    }

    /// How many rows a page has at most.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many rows to fetch: one more than a page has, to know whether another page follows.
    pub fn fetch(&self) -> u64 {
        self.size + 1
    }

    /// The key of the last row of the page before; `None` for the first page.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Makes the page of up to [`Self::fetch`] rows. `cursor` gives a row's key.
    pub fn finish<T>(&self, mut rows: Vec<T>, cursor: impl Fn(&T) -> String) -> Page<T> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        let next_page_token = match rows.last() {
            Some(last) if more => {
                let mut bytes = self.mark.to_vec();
                bytes.extend_from_slice(cursor(last).as_bytes());
                URL_SAFE_NO_PAD.encode(bytes)
            }
            _ => String::new(),
        };
        Page {
            items: rows,
            next_page_token,
        }
    }
}

fn mark(list: &str, filters: &[&str]) -> [u8; MARK_BYTES] {
    let mut bytes = Vec::new();
    for part in std::iter::once(&list).chain(filters) {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    let mut mark = [0; MARK_BYTES];
    mark.copy_from_slice(&sha256(&bytes)[..MARK_BYTES]);
    mark
}

/// The key that a page token of this list and filter holds.
fn cursor(mark: &[u8; MARK_BYTES], page_token: &str) -> Option<String> {
    if page_token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(page_token).ok()?;
    let cursor = std::str::from_utf8(bytes.strip_prefix(mark)?).ok()?;
    (!cursor.is_empty() && !cursor.contains('\0')).then(|| cursor.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(
        list: &'static str,
        filters: &[&str],
        size: i32,
        token: &str,
    ) -> Result<PageRequest, Violations> {
        let mut violations = Violations::default();
        let page = PageRequest::parse(&mut violations, list, filters, size, token);
        violations.finish(|| page)
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let all: Vec<u32> = (0..7).collect();
        let mut seen = Vec::new();
        let mut token = String::new();
        loop {
            let request = parse("numbers", &["f"], 3, &token).unwrap();
            let start = request
                .after()
                .map_or(0, |after| after.parse::<usize>().unwrap() + 1);
            let rows = all[start..]
                .iter()
                .copied()
                .take(request.fetch() as usize)
                .collect();
            let page = request.finish(rows, |n| n.to_string());
            seen.extend(page.items);
            if page.next_page_token.is_empty() {
                break;
            }
            token = page.next_page_token;
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn sizes_have_a_default_and_a_ceiling() {
        let size = |n| parse("l", &[], n, "").map(|r| r.size());
        assert_eq!(size(0), Ok(50));
        assert_eq!(size(501), Ok(500));
        let both = parse("l", &[], -1, "x").unwrap_err();
        let fields: Vec<_> = both.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["page_size", "page_token"]);
    }

    #[test]
    fn a_foreign_page_token_is_refused() {
        let first = parse("l", &["a", "b"], 1, "").unwrap();
        let token = first.finish(vec![1, 2], |n| n.to_string()).next_page_token;
        assert!(parse("l", &["a", "b"], 9, &token).is_ok());
        for (list, filters) in [("m", ["a", "b"]), ("l", ["ab", ""]), ("l", ["a", "c"])] {
            let error = parse(list, &filters, 1, &token).unwrap_err();
            assert_eq!(error.into_vec()[0].field, "page_token");
        }
        for bad in ["x", "####", "AAAAAAAAAAA", &"A".repeat(600), "\0"] {
            assert!(parse("l", &["a", "b"], 1, bad).is_err(), "{bad}");
        }
    }
}
