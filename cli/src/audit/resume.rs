//! `accord audit resume`: two persons let the log of a service go on after a fault that was understood. It runs where the
//! service's settings are, because it needs the service's database and keys.

use std::{io::Write, path::PathBuf};

use accord::{
    clock::SystemClock,
    random::SystemRandom,
    store::audit::{AuditAccess, Resuming, confirm_resume, request_resume},
    text::{opaque::OpaqueToken, validation::Violations},
};
use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};

use super::access::operator_token;

/// The longest reason, in characters.
const MAX_REASON: usize = 1000;

/// The service whose log goes on.
#[derive(Debug, Subcommand)]
pub enum ResumeCommand {
    /// The log of registry-service.
    Registry {
        /// What the operator decides.
        #[command(flatten)]
        decision: Decision,
        /// The service's settings.
        #[command(flatten)]
        flags: Box<registry_service::config::Flags>,
    },
    /// The log of token-service.
    Token {
        /// What the operator decides.
        #[command(flatten)]
        decision: Decision,
        /// The service's settings.
        #[command(flatten)]
        flags: Box<token_service::config::Flags>,
    },
}

/// What an operator decides. The first one gives a reason, and a second person confirms it.
#[derive(Debug, Args)]
pub struct Decision {
    /// Why the log may go on. Prints the fault, and the id of the request for the second person.
    #[arg(
        long,
        value_name = "TEXT",
        required_unless_present = "confirm",
        conflicts_with = "confirm"
    )]
    reason: Option<String>,
    /// Confirms the request with this id, as another person.
    #[arg(long, value_name = "ID")]
    confirm: Option<String>,
    /// The file with the operator's token, which only this user can read; otherwise the token is in ACCORD_OPERATOR_TOKEN.
    /// The operator has the role security or admin.
    #[arg(long, value_name = "FILE")]
    operator_token_file: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(command: &ResumeCommand, out: &mut impl Write) -> anyhow::Result<()> {
    let (ResumeCommand::Registry { decision, .. } | ResumeCommand::Token { decision, .. }) = command;
    let token: OpaqueToken = operator_token(decision.operator_token_file.as_deref())?;
    let access = match command {
        ResumeCommand::Registry { flags, .. } => {
            Box::pin(registry_service::audit_access(flags, &token)).await?
        }
        ResumeCommand::Token { flags, .. } => Box::pin(token_service::audit_access(flags, &token)).await?,
    };
    decide(decision, &access, out).await
}

async fn decide(decision: &Decision, access: &AuditAccess, out: &mut impl Write) -> anyhow::Result<()> {
    let AuditAccess {
        db,
        keyring,
        tables,
        decider,
    } = access;
    let resuming = Resuming {
        db,
        keyring,
        tables,
        clock: &SystemClock,
        random: &SystemRandom,
    };
    if let Some(resume_id) = &decision.confirm {
        let resumed = confirm_resume(&resuming, decider, resume_id).await?;
        writeln!(out, "stepped over: {}", resumed.fault)?;
        writeln!(
            out,
            "ended:        {} with {} leaves",
            resumed.old.origin, resumed.old.head.size
        )?;
        writeln!(out, "goes on as:   {}", resumed.new.origin)?;
        writeln!(
            out,
            "its key:      {}",
            resumed.new.signer(keyring)?.verifier_key()
        )?;
        return Ok(());
    }
    let mut violations = Violations::default();
    let reason = decision.reason.as_deref().unwrap_or_default();
    let Some(reason) = violations.text("reason", reason, 1..=MAX_REASON) else {
        let rules = violations.iter().map(|violation| violation.description.clone());
        bail!("--reason {}", rules.collect::<Vec<_>>().join(", "));
    };
    let requested = request_resume(&resuming, decider, &reason).await?;
    writeln!(out, "fault:   {}", requested.fault)?;
    writeln!(out, "request: {}", requested.resume_id)?;
    writeln!(
        out,
        "Another person with the role security or admin confirms it within a day: --confirm {}",
        requested.resume_id
    )
    .map_err(|error| anyhow!(error))
}
