//! The signed head of a log, as a C2SP tlog-checkpoint.

use super::{Origin, ProofError, Signer, TreeHead, VerifierKey};

/// A head of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The log.
    pub origin: Origin,
    /// Its size and root.
    pub head: TreeHead,
}

impl Checkpoint {
    /// Verifies a signed checkpoint. Lines after the root are signed extensions, which mean nothing here.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, ProofError> {
        let text = key.open(note)?;
        let parsed = tlog_tiles::Checkpoint::from_bytes(text.as_bytes());
        let parsed = parsed.map_err(|_| ProofError::MalformedCheckpoint)?;
        // There is one form of each checkpoint only.
        if parsed.to_bytes() != text.as_bytes() {
            return Err(ProofError::MalformedCheckpoint);
        }
        if parsed.origin() != key.origin().as_str() {
            return Err(ProofError::OtherOrigin);
        }
        Ok(Self {
            origin: key.origin().clone(),
            head: TreeHead {
                size: parsed.size(),
                root: *parsed.hash(),
            },
        })
    }

    /// Returns the text that is signed: origin, size and root, a line each.
    pub fn text(&self) -> String {
        let TreeHead { size, root } = self.head;
        format!("{}\n{size}\n{root}\n", self.origin)
    }
}

impl Signer {
    /// Signs a head of the log, and returns the checkpoint: a signed note. The same head always has the same signature.
    pub fn sign(&self, head: TreeHead) -> String {
        let origin = self.verifier_key().origin().clone();
        self.sign_text(&Checkpoint { origin, head }.text())
    }
}
