//! The file that proves one event of an audit record to somebody who has only the log's verifier key.
//!
//! It is a JSON object. Bytes are in base64 (RFC 4648 §4, padded), and no other members are allowed:
//!
//! | member | content |
//! |---|---|
//! | `version` | 1 |
//! | `event` | the encoded `accord.audit.v1.AuditRecord` |
//! | `group` | absent for an event that is a leaf of its own; else an object with `count`, `root`, `index` and `hashes`: the group's number of events and root, the event's index in the group, and its inclusion proof there |
//! | `index` | the index of the leaf in the log |
//! | `hashes` | the leaf's inclusion proof in the log |
//! | `checkpoint` | the signed head of the log |
//!
//! Numbers are JSON numbers from 0 to 2^53 - 1, which every reader of JSON reads exactly.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tlog_tiles::Hash;

use super::{Checkpoint, ProofError, TreeHead, VerifierKey, event_leaf, group, group_leaf};

/// The only version.
const VERSION: u32 = 1;
/// The most bytes of a file.
const MAX_LENGTH: usize = 1024 * 1024;
/// The largest number.
const MAX_NUMBER: u64 = (1 << 53) - 1;

/// The proof that an audit record has an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofFile {
    version: Version,
    /// The encoded event.
    #[serde(serialize_with = "bytes_to_text", deserialize_with = "bytes_from_text")]
    pub event: Vec<u8>,
    /// The event's place in its group; `None` for an event that is a leaf of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// The index of the leaf in the log.
    pub index: u64,
    /// The leaf's inclusion proof.
    #[serde(serialize_with = "hashes_to_text")]
    pub hashes: Vec<Hash>,
    /// The signed head of the log.
    pub checkpoint: String,
}

/// The place of an event in its group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The number of events in the group.
    pub count: u64,
    /// The root of the group's tree.
    #[serde(serialize_with = "hash_to_text")]
    pub root: Hash,
    /// The index of the event in the group.
    pub index: u64,
    /// The event's inclusion proof in the group.
    #[serde(serialize_with = "hashes_to_text")]
    pub hashes: Vec<Hash>,
}

/// The version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
struct Version;

impl TryFrom<u32> for Version {
    type Error = &'static str;

    fn try_from(version: u32) -> Result<Self, Self::Error> {
        (version == VERSION)
            .then_some(Self)
            .ok_or("unknown version of a proof file")
    }
}

impl From<Version> for u32 {
    fn from(_: Version) -> Self {
        VERSION
    }
}

impl ProofFile {
    /// Creates the proof of an event that is a leaf of its own. Set [`Self::group`] for another.
    pub fn new(event: Vec<u8>, index: u64, hashes: Vec<Hash>, checkpoint: String) -> Self {
        Self {
            version: Version,
            event,
            group: None,
            index,
            hashes,
            checkpoint,
        }
    }

    /// Parses a file.
    ///
    /// # Errors
    /// [`ProofError::MalformedProof`].
    pub fn parse(json: &str) -> Result<Self, ProofError> {
        if json.len() > MAX_LENGTH {
            return Err(ProofError::MalformedProof);
        }
        let file: Self = serde_json::from_str(json).map_err(|_| ProofError::MalformedProof)?;
        let group = file.group.iter().flat_map(|group| [group.count, group.index]);
        match group.chain([file.index]).all(|number| number <= MAX_NUMBER) {
            true => Ok(file),
            false => Err(ProofError::MalformedProof),
        }
    }

    /// Returns the text of the file.
    ///
    /// # Errors
    /// [`ProofError::MalformedProof`] for numbers that a file can't hold.
    pub fn to_json(&self) -> Result<String, ProofError> {
        let json = serde_json::to_string_pretty(self).map_err(|_| ProofError::MalformedProof)?;
        Self::parse(&json).map(|_| json + "\n")
    }

    /// Verifies that the log of this key has the event, and returns the signed head that the proof leads to.
    ///
    /// # Errors
    /// What does not hold.
    pub fn verify(&self, key: &VerifierKey) -> Result<Checkpoint, ProofError> {
        let checkpoint = Checkpoint::open(&self.checkpoint, key)?;
        let leaf = match &self.group {
            None => event_leaf(&self.event),
            Some(group) => {
                let head = TreeHead {
                    size: group.count,
                    root: group.root,
                };
                head.check_inclusion(group.index, group::leaf(&self.event), &group.hashes)
                    .map_err(|_| ProofError::NotInGroup)?;
                group_leaf(&head)
            }
        };
        checkpoint.head.check_inclusion(self.index, leaf, &self.hashes)?;
        Ok(checkpoint)
    }
}

fn bytes_to_text<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn bytes_from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(de::Error::custom)
}

fn hash_to_text<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(hash)
}

fn hashes_to_text<S: Serializer>(hashes: &[Hash], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(hashes.iter().map(Hash::to_string))
}
