//! Why a key, a checkpoint or a proof is rejected.

/// A key, checkpoint or proof that is malformed or does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// An origin is empty, too long, or has characters that no name of a key may have.
    #[error("the log's origin must have 1 to 255 printable ASCII characters without space and plus")]
    MalformedOrigin,
    /// A verifier key is not `<name>+<hash>+<base64>` of an Ed25519 key.
    #[error("the verifier key must be <name>+<hash>+<base64>, of an Ed25519 key")]
    MalformedKey,
    /// A checkpoint is no signed note, or its text is no checkpoint.
    #[error("the checkpoint is malformed")]
    MalformedCheckpoint,
    /// None of a checkpoint's signatures is of this key.
    #[error("the checkpoint is not signed with this key")]
    NotSigned,
    /// The signature of this key does not verify.
    #[error("the checkpoint's signature is wrong")]
    WrongSignature,
    /// A checkpoint names another log than the one that the key signs.
    #[error("the checkpoint is of another log")]
    OtherOrigin,
    /// A proof file is not of the documented form.
    #[error("the proof file is malformed")]
    MalformedProof,
    /// The hashes do not lead from the event to the root of its group.
    #[error("the event is not in its group")]
    NotInGroup,
    /// The hashes do not lead from the leaf to the root of the log.
    #[error("the log does not include the event")]
    NotIncluded,
    /// The hashes do not show that the older log is the beginning of the newer one.
    #[error("the older log is not the beginning of the newer one")]
    NotConsistent,
}
