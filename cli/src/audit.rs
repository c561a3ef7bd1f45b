//! `accord audit`: what an auditor does with a database of Accord, or with a copy of it. It needs no key of the services and
//! writes nothing. `trace` calls token-service instead, as an operator; `resume` opens a service's database with its keys.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use accord::{
    store::{
        Database,
        audit::{self, CallerAddress, EventRow, Exported, LogPosition, LogReport, Proof, Untrusted},
        log,
    },
    text::id::EventId,
    tlog::VerifierKey,
};
use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::json;

mod access;
mod checkpoints;
mod lost;
mod progress;
mod resume;
mod trace;

pub use access::TokenServiceAccess;
pub use resume::ResumeCommand;

/// The database to read.
#[derive(Debug, Args)]
pub struct Source {
    /// The database of a service, or a copy of it: `sqlite://PATH` or `postgres://...`.
    #[arg(
        long,
        env = "ACCORD_AUDIT_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    database_url: String,
}

/// A command about the audit record.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Checks every sealed event against the log, and the log against a key and checkpoints from outside. Exit status 1 if
    /// anything was changed, removed or inserted.
    Verify {
        /// The database.
        #[command(flatten)]
        source: Source,
        /// The file with the log's public key, the `verifier_key` of GetCheckpoint. Repeatable: a new epoch or a resume starts
        /// a log with another key.
        #[arg(long, value_name = "FILE", required = true)]
        key: Vec<PathBuf>,
        /// A file with a checkpoint that was kept, or with many of them, as --audit-witness writes it. Repeatable.
        #[arg(long, value_name = "FILE")]
        checkpoint: Vec<PathBuf>,
    },
    /// Writes the proof that the log holds an event, as a file that the public key alone checks.
    Proof {
        /// The event, or the `jti` of a token.
        event_id: String,
        /// The database.
        #[command(flatten)]
        source: Source,
    },
    /// Writes the sealed events as JSON lines, the oldest first. Each line has its position. A line with `removed_leaves` stands
    /// for events that are gone, as retention removes them, and one with `fault` for a row that is missing or altered.
    Export {
        /// The database.
        #[command(flatten)]
        source: Source,
        /// The position of the last line that is known already.
        #[arg(long, value_name = "POSITION")]
        after: Option<LogPosition>,
    },
    /// Compares a restored database with an export of its record that was kept elsewhere: lists the events that it lacks, first
    /// those that took something away, with what does each again. Exit status 1 while one of these was not done again.
    Lost {
        /// The database.
        #[command(flatten)]
        source: Source,
        /// A file with lines of `export`. Repeatable.
        #[arg(long, value_name = "FILE", required = true)]
        record: Vec<PathBuf>,
    },
    /// Tells where an access token comes from: its grant, the Tenant Admin who granted it, its client, and the operators who
    /// submitted and approved the client's requests.
    Trace {
        /// The token's id, its claim `jti`.
        jti: String,
        /// The service.
        #[command(flatten)]
        service: TokenServiceAccess,
        /// Writes one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Starts a new log after a fault that was understood. It takes two persons: one gives a reason, another confirms.
    #[command(subcommand)]
    Resume(ResumeCommand),
    /// Writes the newest checkpoint of the log, to be kept elsewhere.
    Checkpoint {
        /// The database.
        #[command(flatten)]
        source: Source,
    },
}

/// Runs a command.
pub async fn run(command: &AuditCommand, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        AuditCommand::Verify {
            source,
            key,
            checkpoint,
        } => verify(&source.open().await?, key, checkpoint, out).await,
        AuditCommand::Proof { event_id, source } => {
            let event_id = EventId::parse(event_id).map_err(|error| anyhow!("the event's id {error}"))?;
            proof(&source.open().await?, &event_id, out).await
        }
        AuditCommand::Export { source, after } => export(&source.open().await?, *after, out).await,
        AuditCommand::Lost { source, record } => lost::run(&source.open().await?, record, out).await,
        AuditCommand::Trace { jti, service, json } => trace::run(jti, service, *json, out).await,
        AuditCommand::Resume(command) => resume::run(command, out).await,
        AuditCommand::Checkpoint { source } => {
            let (_, head) = head(&source.open().await?).await?;
            Ok(write!(out, "{}", head.checkpoint)?)
        }
    }
}

impl Source {
    async fn open(&self) -> anyhow::Result<Database> {
        if accord::store::origin::is_missing(&self.database_url) {
            bail!("--database-url: the database does not exist");
        }
        let opened = Database::connect(&self.database_url).await;
        opened.context("--database-url")
    }
}

async fn head(db: &Database) -> anyhow::Result<(log::Log, log::SignedHead)> {
    let log = log::current(db.read()).await?.context("nothing was sealed yet")?;
    let head = log::latest(db.read(), log.log_id).await?;
    Ok((log, head.context("nothing was sealed yet")?))
}

async fn verify(
    db: &Database,
    keys: &[PathBuf],
    checkpoints: &[PathBuf],
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let (mut logs, mut kept, mut given) = (Vec::new(), Vec::new(), Vec::new());
    for path in keys {
        let key: VerifierKey = read(path)?.trim_end().parse().context("--key")?;
        let origin = key.origin();
        let log = log::find(db.read(), origin).await?;
        let log = log.with_context(|| format!("the database has no log {origin}, whose key this is"))?;
        given.push(key.clone());
        logs.push((log, key));
    }
    logs.sort_by_key(|(log, _)| log.log_id);
    for path in checkpoints {
        let opened = checkpoints::open(&read(path)?, &given);
        kept.extend(opened.with_context(|| format!("--checkpoint {}", path.display()))?);
    }
    let bar = progress::bar("leaves");
    let step = |done: u64, all: u64| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let verified = audit::verify_all(db.read(), &logs, &kept, None, step).await;
    bar.finish_and_clear();
    let verified = verified?;
    let mut fault = None;
    for LogReport {
        origin,
        report,
        is_accepted,
    } in verified.logs
    {
        match report.fault {
            None => writeln!(
                out,
                "{} events are as they were sealed in the log {origin}; retention has removed {} leaves before them",
                report.events, report.removed_leaves
            )?,
            Some(found) if is_accepted => {
                writeln!(
                    out,
                    "the log {origin} has a fault that two persons have accepted: {found}"
                )?;
            }
            Some(found) => fault = fault.or(Some((origin, found))),
        }
    }
    for log in log::all(db.read()).await? {
        if !logs.iter().any(|(given, _)| given.log_id == log.log_id) {
            writeln!(
                out,
                "the log {} was not verified: no --key is its key",
                log.origin
            )?;
        }
    }
    match fault {
        None => rows(db, &logs, &verified.untrusted, out).await,
        Some((origin, fault)) => match fault.event_id.as_str() {
            "" => bail!("the record was altered, in the log {origin}: {}", fault.what),
            event => bail!(
                "the record was altered at the event {event}, in the log {origin}: {}",
                fault.what
            ),
        },
    }
}

/// Compares the rows that confer authority with the events that name them.
async fn rows(
    db: &Database,
    logs: &[(log::Log, VerifierKey)],
    untrusted: &Untrusted,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let Some((log, _)) = logs.last() else {
        return Ok(());
    };
    let tables = match log.origin.as_str().rsplit('/').nth(1) {
        Some("registry") => registry_service::store::recorded_tables(),
        _ => token_service::store::recorded_tables(),
    };
    if let Some(fault) = audit::check_rows(db.read(), &tables, untrusted).await? {
        bail!("{} {}", fault.what, fault.event_id);
    }
    writeln!(
        out,
        "the rows that events name are as the newest of these have left them"
    )?;
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

async fn proof(db: &Database, event_id: &EventId, out: &mut impl Write) -> anyhow::Result<()> {
    match audit::prove(db.read(), None, event_id).await? {
        Proof::Sealed(proven) => Ok(write!(out, "{}", proven.file.to_json()?)?),
        Proof::NotYetSealed | Proof::NoSuchHead => bail!("the event is not sealed yet"),
        Proof::Unknown => bail!("there is no such event"),
    }
}

async fn export(db: &Database, mut after: Option<LogPosition>, out: &mut impl Write) -> anyhow::Result<()> {
    let counter = progress::counter("events");
    loop {
        let events = audit::export(db.read(), after).await?;
        let Some((last, _)) = events.last() else {
            counter.finish_and_clear();
            return Ok(out.flush()?);
        };
        after = Some(*last);
        counter.inc(events.len() as u64);
        for (position, found) in &events {
            let line = match found {
                Exported::Event(event) => line(*position, event),
                Exported::Removed(from) => json!({
                    "position": position.to_string(),
                    "removed_leaves": { "log": position.log_id, "from": from, "through": position.leaf_index },
                }),
                Exported::Unreadable => json!({
                    "position": position.to_string(),
                    "fault": "the leaf's row is missing or can't be read",
                }),
            };
            writeln!(out, "{line}")?;
        }
    }
}

fn line(position: LogPosition, event: &EventRow) -> serde_json::Value {
    json!({
        "position": position.to_string(),
        "event_id": event.event_id,
        "time": event.occurred_at.to_timestamp().to_string(),
        "action": event.action,
        "outcome": event.outcome.as_ref(),
        "actor_kind": event.actor.kind.as_ref(),
        "actor_id": event.actor.id,
        "tenant_id": event.tenant_id,
        "client_id": event.client_id,
        "subject": event.subject,
        "request_id": event.request_id,
        "caller_address": event.address.map(|address| address.ip().to_string()),
        "caller_address_source": event.address.map(|address| match address {
            CallerAddress::Forwarded(_) => "forwarded",
            CallerAddress::Peer(_) => "peer",
        }),
        "detail": event.detail,
    })
}
