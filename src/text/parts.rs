//! Lists of parts as the input of hashes and MACs.

/// Passes each part to `write` with its length before it, as a `u64` in big-endian order, so that no two lists of parts have
/// the same bytes.
pub fn with_lengths(parts: impl IntoIterator<Item = impl AsRef<[u8]>>, mut write: impl FnMut(&[u8])) {
    for part in parts {
        let part = part.as_ref();
        write(&(part.len() as u64).to_be_bytes());
        write(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        with_lengths(parts, |part| bytes.extend_from_slice(part));
        bytes
    }

    #[test]
    fn a_length_is_a_u64_in_big_endian_order() {
        let long = [7; 258];
        let expected = [&[0, 0, 0, 0, 0, 0, 1, 2][..], &long, &[0; 8]].concat();
        assert_eq!(bytes(&[&long, b""]), expected);
        assert_eq!(bytes(&[]), b"");
    }
}
