//! `accord audit`: what an auditor does with a database of Accord, or with a copy of it. It needs no key of the services and
//! writes nothing. `trace` calls token-service instead, as an operator, and `verify` can ask a service for what takes its keys;
//! `resume` opens a service's database with its keys.

use std::{fmt, io, io::Write, path::PathBuf};

use accord::{
    store::{
        Database, StoreError,
        audit::{self, CallerAddress, EventProof, EventRow, Exported, LogPosition},
        log,
    },
    text::id::EventId,
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
mod verify;

pub use access::{Caller, TokenServiceAccess};
pub use resume::ResumeCommand;
pub use verify::VerifyArgs;

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
    /// Checks sealed events against the log, the log against a key and checkpoints from outside, and the rows that confer
    /// authority against the events.
    ///
    /// Exit status 1 if anything was changed, removed or inserted; 2 if nothing could be checked, as without the database or the
    /// log's key; 3 if nothing is wrong, but not all could be checked. Events of the last minute, which are sealed soon, are named
    /// and leave the status at 0.
    Verify {
        /// The database.
        #[command(flatten)]
        source: Source,
        /// What to check it with.
        #[command(flatten)]
        with: VerifyArgs,
    },
    /// Writes the proof that the log holds an event, as a file that the public key alone checks.
    Proof {
        /// The event, or the `jti` of a token.
        event_id: String,
        /// The database.
        #[command(flatten)]
        source: Source,
    },
    /// Writes the sealed events as JSON lines with their positions, the oldest first.
    ///
    /// A line with `removed_leaves` stands for events that are gone, as retention removes them, and one with `fault` for a row that
    /// is missing or altered.
    Export {
        /// The database.
        #[command(flatten)]
        source: Source,
        /// The position of the last line that is known already. One that the record does not have is an error.
        #[arg(long, value_name = "POSITION")]
        after: Option<LogPosition>,
    },
    /// Lists the events that a restored database lacks by an export of its record, first those that took something away, with
    /// what does each again.
    ///
    /// Exit status 1 while one of these was not done again; 2 if that could not be found out.
    Lost {
        /// The database.
        #[command(flatten)]
        source: Source,
        /// A file with lines of `export`. Repeatable.
        #[arg(long, value_name = "FILE", required = true)]
        record: Vec<PathBuf>,
        /// The id of a missing event that was dealt with in another way. Repeatable.
        #[arg(long, value_name = "EVENT_ID")]
        done: Vec<String>,
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

/// What `verify` or `lost` has found. The exit status is 1.
#[derive(Debug)]
struct Found(String);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Found {}

/// The exit status of a command whose reader went away, as shells report it.
const READER_GONE: u8 = 141;

/// Returns the exit status for an error of a command, and whether the error is worth a line.
pub fn status(command: &AuditCommand, error: &anyhow::Error) -> (u8, bool) {
    // Somebody has edited what can't be read.
    let is_edited = |error: &StoreError| {
        matches!(
            error,
            StoreError::Corrupt(_) | StoreError::Altered(_) | StoreError::Removed(_)
        )
    };
    let edited = error.downcast_ref::<StoreError>().is_some_and(is_edited);
    let output = error.downcast_ref::<io::Error>();
    match command {
        _ if output.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => (READER_GONE, false),
        _ if error.is::<verify::PartlyChecked>() => (3, true),
        AuditCommand::Verify { .. } if edited => (1, true),
        AuditCommand::Verify { .. } | AuditCommand::Lost { .. } if !error.is::<Found>() => (2, true),
        _ => (1, true),
    }
}

/// Runs a command.
pub async fn run(command: &AuditCommand, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        AuditCommand::Verify { source, with } => verify::run(&source.open().await?, with, out).await,
        AuditCommand::Proof { event_id, source } => {
            let event_id = EventId::parse(event_id).map_err(|error| anyhow!("the event's id {error}"))?;
            proof(&source.open().await?, &event_id, out).await
        }
        AuditCommand::Export { source, after } => export(&source.open().await?, *after, out).await,
        AuditCommand::Lost { source, record, done } => {
            lost::run(&source.open().await?, record, done, out).await
        }
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
        let db = opened.context("--database-url")?;
        if !db.has_tables().await.context("--database-url")? {
            bail!("--database-url: the database holds no record of Accord");
        }
        Ok(db)
    }
}

async fn head(db: &Database) -> anyhow::Result<(log::Log, log::SignedHead)> {
    let log = log::current(db.read()).await?.context("nothing was sealed yet")?;
    let head = log::latest(db.read(), log.log_id).await?;
    Ok((log, head.context("nothing was sealed yet")?))
}

async fn proof(db: &Database, event_id: &EventId, out: &mut impl Write) -> anyhow::Result<()> {
    match audit::prove(db.read(), None, event_id).await? {
        EventProof::Sealed(proven) => Ok(write!(out, "{}", proven.file.to_json()?)?),
        EventProof::NotYetSealed | EventProof::NoSuchHead => bail!("the event is not sealed yet"),
        EventProof::Unknown => bail!("there is no such event"),
    }
}

async fn export(db: &Database, mut after: Option<LogPosition>, out: &mut impl Write) -> anyhow::Result<()> {
    if let Some(position) = after
        && !audit::has_position(db.read(), position).await?
    {
        bail!(
            "--after: the record has no position {position}: it ends before, or the position is of another database"
        );
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use accord::testing::sqlite;
    use clap::Parser;

    use super::*;

    /// Parses the words after `accord audit`.
    pub(super) fn command<'a>(words: impl IntoIterator<Item = &'a str>) -> AuditCommand {
        #[derive(Parser)]
        #[command(no_binary_name = true)]
        struct Cli {
            #[command(subcommand)]
            command: AuditCommand,
        }
        Cli::try_parse_from(words).unwrap().command
    }

    #[tokio::test]
    async fn a_database_of_another_program_is_no_record() {
        let database = sqlite();
        Database::connect(&database.url).await.unwrap();
        for rest in ["verify --key key", "lost --record record"] {
            let command = command(format!("{rest} --database-url {}", database.url).split(' '));
            let error = run(&command, &mut Vec::new()).await.unwrap_err();
            assert!(
                format!("{error:#}").contains("holds no record of Accord"),
                "{error:#}"
            );
            assert_eq!(status(&command, &error), (2, true));
        }
    }

    #[test]
    fn only_what_was_found_exits_with_1() {
        let verify = command("verify --key key --database-url sqlite://x.db".split(' '));
        let lost = command("lost --record record --database-url sqlite://x.db".split(' '));
        let found = || anyhow::Error::from(Found("altered".to_owned()));
        let edited = || anyhow::Error::from(StoreError::Corrupt("audit_logs")).context("reading");
        assert_eq!(status(&verify, &found()), (1, true));
        assert_eq!(status(&verify, &edited()), (1, true));
        assert_eq!(
            status(&lost, &found().context("and a line can't be read")),
            (1, true)
        );
        assert_eq!(status(&lost, &edited()), (2, true));
        for command in [&verify, &lost] {
            assert_eq!(status(command, &anyhow!("no such file")), (2, true));
            let gone = io::Error::from(io::ErrorKind::BrokenPipe);
            assert_eq!(status(command, &gone.into()), (141, false));
        }
    }
}
