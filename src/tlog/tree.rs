//! Trees of RFC 6962 §2.1: roots, and the checks of proofs. Every check is a pure function that no input makes panic.

use tlog_tiles::{EMPTY_HASH, Hash, check_record, check_tree, node_hash};

use super::ProofError;

/// The most hashes of a proof that a check looks at: a tree of 2^64 leaves has paths of 64.
const MAX_PROOF: usize = 65;

/// The size of a tree and its root.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TreeHead {
    /// The number of leaves.
    pub size: u64,
    /// The root: the hash of the empty string for a tree without leaves.
    pub root: Hash,
}

impl TreeHead {
    /// The head of the tree without leaves.
    pub const EMPTY: Self = Self {
        size: 0,
        root: EMPTY_HASH,
    };

    /// Checks that the leaf with this hash has this index in the tree (RFC 6962 §2.1.1).
    ///
    /// # Errors
    /// [`ProofError::NotIncluded`].
    pub fn check_inclusion(&self, index: u64, leaf: Hash, proof: &[Hash]) -> Result<(), ProofError> {
        if proof.len() > MAX_PROOF {
            return Err(ProofError::NotIncluded);
        }
        let checked = check_record(&proof.to_vec(), self.size, self.root, index, leaf);
        checked.map_err(|_| ProofError::NotIncluded)
    }

    /// Checks that the older tree is the beginning of this one (RFC 6962 §2.1.2). Nothing is proven of an empty older tree,
    /// which is rejected.
    ///
    /// # Errors
    /// [`ProofError::NotConsistent`].
    pub fn check_consistency(&self, older: &Self, proof: &[Hash]) -> Result<(), ProofError> {
        if proof.len() > MAX_PROOF {
            return Err(ProofError::NotConsistent);
        }
        let checked = check_tree(&proof.to_vec(), self.size, self.root, older.size, older.root);
        checked.map_err(|_| ProofError::NotConsistent)
    }
}

/// Returns the root of the tree over these nodes: leaf hashes, or roots of complete subtrees of equal size, of which the
/// last may be smaller.
pub fn root(nodes: &[Hash]) -> Hash {
    match nodes {
        [] => EMPTY_HASH,
        [only] => *only,
        _ => {
            let (left, right) = nodes.split_at(split(nodes.len()));
            node_hash(root(left), root(right))
        }
    }
}

/// Returns the inclusion proof of a leaf in the tree over `leaves`; `None` if there is no such leaf.
pub(super) fn inclusion_proof(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if leaves.len() == 1 && index == 0 {
        return Some(Vec::new());
    }
    if index >= leaves.len() {
        return None;
    }
    let middle = split(leaves.len());
    let (left, right) = leaves.split_at(middle);
    let (mut proof, sibling) = match index.checked_sub(middle) {
        None => (inclusion_proof(left, index)?, root(right)),
        Some(index) => (inclusion_proof(right, index)?, root(left)),
    };
    proof.push(sibling);
    Some(proof)
}

/// Returns the largest power of two below `count`, which is at least 2.
fn split(count: usize) -> usize {
    1 << (count - 1).ilog2()
}
