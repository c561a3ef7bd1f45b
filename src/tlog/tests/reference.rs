//! The definitions of RFC 6962 §2.1 as they are written there, on records and another library's SHA-256.

use aws_lc_rs::digest::{SHA256, digest};

use super::Hash;

fn sha256(parts: &[&[u8]]) -> Hash {
    Hash(digest(&SHA256, &parts.concat()).as_ref().try_into().unwrap())
}

/// The largest power of two smaller than n.
fn k(n: usize) -> usize {
    let mut k = 1;
    while k * 2 < n {
        k *= 2;
    }
    k
}

/// MTH(D\[n\]).
pub fn mth(d: &[Vec<u8>]) -> Hash {
    match d.len() {
        0 => sha256(&[]),
        1 => sha256(&[&[0], &d[0]]),
        n => sha256(&[&[1], &mth(&d[..k(n)]).0, &mth(&d[k(n)..]).0]),
    }
}

/// PATH(m, D\[n\]).
pub fn path(m: usize, d: &[Vec<u8>]) -> Vec<Hash> {
    match d.len() {
        1 => Vec::new(),
        n if m < k(n) => [path(m, &d[..k(n)]), vec![mth(&d[k(n)..])]].concat(),
        n => [path(m - k(n), &d[k(n)..]), vec![mth(&d[..k(n)])]].concat(),
    }
}

/// PROOF(m, D\[n\]).
pub fn proof(m: usize, d: &[Vec<u8>]) -> Vec<Hash> {
    subproof(m, d, true)
}

fn subproof(m: usize, d: &[Vec<u8>], b: bool) -> Vec<Hash> {
    let n = d.len();
    match (m == n, b) {
        (true, true) => Vec::new(),
        (true, false) => vec![mth(d)],
        _ if m <= k(n) => [subproof(m, &d[..k(n)], b), vec![mth(&d[k(n)..])]].concat(),
        _ => [subproof(m - k(n), &d[k(n)..], false), vec![mth(&d[..k(n)])]].concat(),
    }
}
