//! The leaves of a log. The first byte of a leaf says what the rest is:
//!
//! | first byte | rest |
//! |---|---|
//! | 0 | the encoded event of a state change |
//! | 1 | a group of events: their number as a big-endian `u64`, then the 32-byte root of their [`GroupTree`](super::GroupTree) |

use tlog_tiles::{Hash, record_hash};

use super::TreeHead;

const EVENT: u8 = 0;
const GROUP: u8 = 1;

/// Returns the leaf hash of a single event.
pub fn event_leaf(event: &[u8]) -> Hash {
    record_hash(&[&[EVENT], event].concat())
}

/// Returns the leaf hash of a group: the number of its events, and their root.
pub fn group_leaf(group: &TreeHead) -> Hash {
    record_hash(&[&[GROUP], &group.size.to_be_bytes()[..], &group.root.0].concat())
}
