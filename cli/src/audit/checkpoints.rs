//! Files with checkpoints that somebody has kept: one, or many, as a witness appends them.

use accord::tlog::{Checkpoint, VerifierKey};
use anyhow::Context;

/// What the last line of a checkpoint begins with: a signature.
const SIGNATURE: &str = "\u{2014} ";

/// Opens every checkpoint of a file, each with the key of its log. Leaves out those of logs whose key is not given, and one
/// that was not written to its end.
///
/// # Errors
/// For a file without a checkpoint of these logs, and for one that its log's key has not signed.
pub(super) fn open(file: &str, keys: &[VerifierKey]) -> anyhow::Result<Vec<Checkpoint>> {
    let mut opened = Vec::new();
    for (number, lines) in (1..).zip(split(file)) {
        let Some((note, key)) = note(lines, keys) else {
            continue;
        };
        let checkpoint = Checkpoint::open(note, key);
        opened.push(checkpoint.with_context(|| format!("checkpoint {number}"))?);
    }
    match opened.is_empty() {
        true => anyhow::bail!("it has no checkpoint of a log whose key is given"),
        false => Ok(opened),
    }
}

/// Returns the note at the end of these lines, and the key of its log: what comes before was not written to its end.
fn note<'a>(lines: &'a str, keys: &'a [VerifierKey]) -> Option<(&'a str, &'a VerifierKey)> {
    let mut end = lines.len();
    for line in lines.split_inclusive('\n').rev() {
        end -= line.len();
        let key = keys.iter().find(|key| key.origin().as_str() == line.trim_end());
        if let Some(key) = key {
            return Some((&lines[end..], key));
        }
    }
    None
}

/// Splits a file after each block of signatures. Lines between checkpoints are dropped if they are empty, and those after the
/// last one in any case.
fn split(file: &str) -> Vec<&str> {
    let (mut notes, mut start, mut end, mut is_signed) = (Vec::new(), 0, 0, false);
    for line in file.split_inclusive('\n') {
        if is_signed && !line.starts_with(SIGNATURE) {
            notes.push(&file[start..end]);
            (start, is_signed) = (end, false);
        }
        if start == end && line.trim().is_empty() {
            start += line.len();
        }
        is_signed |= line.starts_with(SIGNATURE);
        end += line.len();
    }
    if is_signed {
        notes.push(&file[start..end]);
    }
    notes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::tlog::{Signer, TreeHead, root};

    use super::*;

    fn signer(origin: &str) -> Signer {
        Signer::new(origin.parse().unwrap(), &[7; 32]).unwrap()
    }

    fn head(size: u64) -> TreeHead {
        TreeHead {
            size,
            root: root(&[]),
        }
    }

    #[test]
    fn a_file_may_hold_many_checkpoints_of_several_logs() {
        let (first, second) = (signer("a.example/token/k"), signer("a.example/token/k/2"));
        let file: String = [(&first, 3), (&first, 5), (&second, 2)]
            .map(|(signer, size)| signer.sign(head(size)) + "\n")
            .concat();
        let keys = [first.verifier_key().clone(), second.verifier_key().clone()];
        for file in [file.replace("\n\na.example", "\na.example"), file.clone()] {
            let sizes = |keys: &[VerifierKey]| -> Vec<u64> {
                let opened = open(&file, keys).unwrap();
                opened.iter().map(|checkpoint| checkpoint.head.size).collect()
            };
            assert_eq!(sizes(&keys), [3, 5, 2], "{file}");
            assert_eq!(sizes(&keys[1..]), [2], "{file}");
        }
        let forged = file.replacen("\n5\n", "\n6\n", 1);
        assert!(open(&forged, &keys).is_err());
        let whole = first.sign(head(7));
        for cut in 1..whole.len() - 1 {
            let Some(torn) = whole.get(..cut) else {
                continue;
            };
            let file = format!("{file}{torn}\n\n{}", second.sign(head(9)));
            // A cut signature is one that does not hold.
            let opened = open(&file, &keys);
            if torn.contains(SIGNATURE) {
                assert!(opened.is_err(), "{torn}");
            } else {
                assert_eq!(opened.unwrap().len(), 4, "{torn}");
                assert!(open(torn, &keys).is_err(), "{torn}");
            }
        }
        for nothing in ["", "\n", "a.example/other/k\n1\n"] {
            assert!(open(nothing, &keys).is_err());
        }
    }
}
