//! The tree over the events of one group.

use tlog_tiles::{Hash, record_hash};

use super::{
    TreeHead,
    tree::{inclusion_proof, root},
};

/// The tree over the events of a group: RFC 6962 §2.1, with the encoded events as they are for leaves.
#[derive(Clone, Debug)]
pub struct GroupTree(Vec<Hash>);

impl GroupTree {
    /// Builds the tree over encoded events, in their order.
    pub fn new(events: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let leaves = events.into_iter().map(|event| record_hash(event.as_ref()));
        Self(leaves.collect())
    }

    /// Returns the number of events, and the root.
    pub fn head(&self) -> TreeHead {
        TreeHead {
            size: self.0.len() as u64,
            root: root(&self.0),
        }
    }

    /// Returns the inclusion proof of the event with this index; `None` if there is no such event.
    pub fn inclusion_proof(&self, index: u64) -> Option<Vec<Hash>> {
        inclusion_proof(&self.0, usize::try_from(index).ok()?)
    }
}

/// Returns the leaf hash of an event in the tree of its group.
pub(super) fn leaf(event: &[u8]) -> Hash {
    record_hash(event)
}
