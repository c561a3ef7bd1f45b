//! Verifies that an audit record has an event: `verify_audit_proof KEY PROOF`.
//!
//! KEY is a file with the log's verifier key, from somebody whom you trust; never take it from where the proof comes from.
//! PROOF is a proof file, as `accord::tlog::ProofFile` describes it. Nothing else is needed, no network either.
//!
//! Writes the event to standard output, as an encoded `accord.audit.v1.AuditEvent`:
//!
//! ```sh
//! cargo run --example verify_audit_proof -- log.key proof.json | protoc --decode accord.audit.v1.AuditEvent ...
//! ```

use std::{error::Error, fs, io::Write, process::ExitCode};

use accord::tlog::{Checkpoint, ProofFile, VerifierKey};

/// Verifies a proof, and returns the event and the head of the log that has it.
pub fn verify(key: &str, proof: &str) -> Result<(Vec<u8>, Checkpoint), Box<dyn Error>> {
    let key: VerifierKey = key.trim_end().parse()?;
    let proof = ProofFile::parse(proof)?;
    let checkpoint = proof.verify(&key)?;
    Ok((proof.event, checkpoint))
}

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [key, proof] = arguments else {
        return Err("usage: verify_audit_proof KEY PROOF".into());
    };
    let (event, checkpoint) = verify(&fs::read_to_string(key)?, &fs::read_to_string(proof)?)?;
    let mut error = std::io::stderr();
    writeln!(error, "the event is in the log {}", checkpoint.origin)?;
    writeln!(
        error,
        "which has {} leaves and the root {}",
        checkpoint.head.size, checkpoint.head.root
    )?;
    Ok(std::io::stdout().write_all(&event)?)
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "not proven: {error}");
            ExitCode::FAILURE
        }
    }
}
