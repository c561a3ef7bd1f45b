//! Pages of lists. A page token holds the key of the last row. It is valid only for the same list with the same
//! filters.
//!
//! A page token grants no access: each call checks again what its caller may see.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::text::{opaque::sha256, parts::with_lengths, validation::Violations};

/// The number of rows in a page if the caller sets none.
pub const DEFAULT_SIZE: u64 = 50;
/// The most rows in a page.
pub const MAX_SIZE: u64 = 500;
/// The most bytes of encoded rows in a page. gRPC libraries reject a message above 4 MiB by default.
pub const MAX_BYTES: usize = 3 * 1024 * 1024;
const MAX_TOKEN_BYTES: usize = 512;
const LIST_HASH_BYTES: usize = 8;

/// A page of a list, as a caller requests it.
#[derive(Clone, Debug)]
pub struct PageRequest {
    list_hash: [u8; LIST_HASH_BYTES],
    size: u64,
    after: Option<String>,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows, each with its key.
    rows: Vec<(T, String)>,
    /// The key after which the next page begins; `None` on the last page.
    next: Option<String>,
    list_hash: [u8; LIST_HASH_BYTES],
}

impl<T> Page<T> {
    /// Converts each row.
    pub fn map<U>(self, mut convert: impl FnMut(T) -> U) -> Page<U> {
        let rows = self.rows.into_iter().map(|(row, key)| (convert(row), key));
        Page {
            rows: rows.collect(),
            next: self.next,
            list_hash: self.list_hash,
        }
    }

    /// Converts all rows at once. `convert` must return one row for each, in the same order.
    ///
    /// # Errors
    /// Returns the error of `convert`.
    pub async fn try_map<U, E>(
        self,
        convert: impl AsyncFnOnce(Vec<T>) -> Result<Vec<U>, E>,
    ) -> Result<Page<U>, E> {
        let (rows, keys): (_, Vec<_>) = self.rows.into_iter().unzip();
        Ok(Page {
            rows: convert(rows).await?.into_iter().zip(keys).collect(),
            next: self.next,
            list_hash: self.list_hash,
        })
    }

    /// Removes the rows for which `keep` returns `false`. The next page stays the same.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.rows.retain(|(row, _)| keep(row));
    }

    /// Returns the rows that together fit into [`MAX_BYTES`], but at least the first one, and the token of the page
    /// after them, as [`Self::into_parts`] does. `bytes` returns the encoded size of a row.
    pub fn fit(mut self, bytes: impl Fn(&T) -> usize) -> (Vec<T>, String) {
        let mut sum = 0;
        let exceeds = |(row, _): &(T, String)| {
            sum += bytes(row);
            sum > MAX_BYTES
        };
        if let Some(first_out) = self.rows.iter().position(exceeds)
            && first_out.max(1) < self.rows.len()
        {
            self.rows.truncate(first_out.max(1));
            self.next = self.rows.last().map(|(_, key)| key.clone());
        }
        self.into_parts()
    }

    /// Returns the rows and the token of the next page, which is empty on the last page.
    pub fn into_parts(self) -> (Vec<T>, String) {
        let token = |key: String| URL_SAFE_NO_PAD.encode([&self.list_hash[..], key.as_bytes()].concat());
        let rows = self.rows.into_iter().map(|(row, _)| row);
        (rows.collect(), self.next.map(token).unwrap_or_default())
    }
}

impl PageRequest {
    /// Parses the two paging fields of a list call. `filters` holds all of its other fields. Records a violation for
    /// a negative size, and for a token that belongs to another list or to other filters.
    pub fn parse(
        violations: &mut Violations,
        list: &'static str,
        filters: &[&str],
        page_size: i32,
        page_token: &str,
    ) -> Option<Self> {
        let list_hash = list_hash(list, filters);
        let size = u64::try_from(page_size).map(|size| match size {
            0 => DEFAULT_SIZE,
            size => size.min(MAX_SIZE),
        });
        let size = violations.check("page_size", size.or(Err("must not be negative")));
        let after = match page_token {
            "" => Ok(None),
            token => cursor(&list_hash, token)
                .map(Some)
                .ok_or("must be the next_page_token of this list with the same filters"),
        };
        let after = violations.check("page_token", after)?;
        let size = size?;
        Some(Self {
            list_hash,
            size,
            after,
        })
    }

    /// The first page of a list that is never continued, with up to `size` rows.
    pub fn first(size: u64) -> Self {
        Self {
            list_hash: [0; LIST_HASH_BYTES],
            size,
            after: None,
        }
    }

    /// Does the same, and goes on after the page that this token came with, unless the token is empty.
    #[cfg(feature = "testing")]
    pub fn test(size: u64, token: &str) -> Self {
        let first = Self::first(size);
        let after = cursor(&first.list_hash, token);
        assert_eq!(after.is_none(), token.is_empty(), "{token}");
        Self { after, ..first }
    }

    /// Returns the most rows that the page may have.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the number of rows to fetch: one more than the page holds, to learn whether another page follows.
    pub fn fetch(&self) -> u64 {
        self.size + 1
    }

    /// Returns the key of the previous page's last row; `None` for the first page.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Builds the page from up to [`Self::fetch`] rows. `key` returns a row's key.
    pub fn finish<T>(&self, rows: Vec<T>, key: impl Fn(&T) -> String) -> Page<T> {
        self.finish_before(rows, None, key)
    }

    /// Does the same for a search that stopped before it came to the end: `next` is the key after which it goes on.
    pub fn finish_before<T>(
        &self,
        mut rows: Vec<T>,
        next: Option<String>,
        key: impl Fn(&T) -> String,
    ) -> Page<T> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let has_next = rows.len() > size;
        rows.truncate(size);
        let with_key = |row| {
            let key = key(&row);
            (row, key)
        };
        let rows: Vec<_> = rows.into_iter().map(with_key).collect();
        let last = rows.last().filter(|_| has_next);
        Page {
            next: last.map(|(_, key)| key.clone()).or(next),
            rows,
            list_hash: self.list_hash,
        }
    }
}

/// Returns a hash of a list and its filters. Each page token begins with it, so that another list rejects the token.
fn list_hash(list: &str, filters: &[&str]) -> [u8; LIST_HASH_BYTES] {
    let mut bytes = Vec::new();
    with_lengths(std::iter::once(&list).chain(filters), |part| {
        bytes.extend_from_slice(part);
    });
    let mut list_hash = [0; LIST_HASH_BYTES];
    list_hash.copy_from_slice(&sha256(&bytes)[..LIST_HASH_BYTES]);
    list_hash
}

/// Returns the key in a page token, or `None` for a token of another list or of other filters.
fn cursor(list_hash: &[u8; LIST_HASH_BYTES], page_token: &str) -> Option<String> {
    if page_token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(page_token).ok()?;
    let cursor = std::str::from_utf8(bytes.strip_prefix(list_hash)?).ok()?;
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
            let fetched = all[start..]
                .iter()
                .copied()
                .take(request.fetch() as usize)
                .collect();
            let rows;
            (rows, token) = request.finish(fetched, |n| n.to_string()).into_parts();
            seen.extend(rows);
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn a_page_ends_before_its_bytes_exceed_the_limit() {
        let request = parse("l", &[], 3, "").unwrap();
        let page = |sizes: [usize; 3]| request.finish(sizes.to_vec(), |n| n.to_string()).fit(|n| *n);
        let (half, whole) = (MAX_BYTES / 2, MAX_BYTES);
        assert_eq!(page([half, half, 0]), (vec![half, half, 0], String::new()));
        for (sizes, fitting) in [([half, half, 1], 2), ([whole, 1, 1], 1), ([whole + 1, 1, 1], 1)] {
            let (rows, token) = page(sizes);
            assert_eq!(rows, sizes[..fitting]);
            let next = parse("l", &[], 3, &token).unwrap();
            assert_eq!(next.after(), Some(&*sizes[fitting - 1].to_string()));
        }
        assert_eq!(
            request.finish(vec![], usize::to_string).fit(|n| *n),
            (vec![], String::new())
        );
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
    fn page_tokens_of_other_lists_and_filters_are_rejected() {
        let first = parse("l", &["a", "b"], 1, "").unwrap();
        let (_, token) = first.finish(vec![1, 2], |n| n.to_string()).into_parts();
        assert_eq!(token, "leKijUXczVUx");
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
