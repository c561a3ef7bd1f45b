//! The Merkle log of an audit record: what its hashes, signed heads and proofs are, and how they are checked.
//!
//! Hashing and proofs are those of RFC 6962 §2.1; `tlog_tiles` computes them. A head is signed as a C2SP tlog-checkpoint
//! (<https://c2sp.org/tlog-checkpoint>), a signed note (<https://c2sp.org/signed-note>) with one Ed25519 signature.
//!
//! A [`ProofFile`] holds everything that proves one event to somebody who has only the log's [`VerifierKey`]. This module
//! does no I/O; [`crate::store::log`](../store/log/index.html) stores logs and builds proofs.

mod checkpoint;
mod error;
mod group;
mod leaf;
mod note;
mod origin;
mod proof_file;
mod tree;

pub use checkpoint::Checkpoint;
pub use error::ProofError;
pub use group::GroupTree;
pub use leaf::{event_leaf, group_leaf};
pub use note::{Signer, VerifierKey};
pub use origin::Origin;
pub use proof_file::{Group, ProofFile};
pub use tlog_tiles::Hash;
pub use tree::{TreeHead, root};

#[cfg(test)]
mod tests;
