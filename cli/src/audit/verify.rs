//! `accord audit verify`: whether a record is as it was sealed, and the rows that confer authority are as its events say.
//!
//! It trusts the keys and checkpoints that it is given, and nothing that the database says about itself. Some things only the keys
//! of the service show: with `--service-url` it asks the service, and joins both answers.

use std::{
    fmt, fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use accord::{
    audit::v1::{GetCheckpointRequest, VerifyAuditLogRequest, audit_service_client::AuditServiceClient},
    clock::{Clock, SystemClock, UnixMillis},
    store::{
        Database, StoreError,
        audit::{self, LogReport, RowReport, Verified},
        log,
    },
    text::page::PageRequest,
    tlog::{Checkpoint, VerifierKey},
};
use anyhow::{Context, bail};
use clap::Args;

use super::{Found, access::Caller, checkpoints, progress};
use crate::call::answer;

/// How long to wait before a record is compared again. A service seals every second.
const PAUSE: Duration = Duration::from_secs(5);

/// How soon an event is sealed.
const SEALED_WITHIN: Duration = Duration::from_secs(60);
/// What was not checked of events that should be sealed.
const UNSEALED: &str =
    "events that are older than a minute and not sealed: try again once they are, or give --service-url";

/// What to check a record with.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The file with the log's public key, the `verifier_key` of GetCheckpoint. Repeatable: a new epoch or a resume starts
    /// a log with another key.
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
    /// A file with a checkpoint that was kept, or with many of them, as --audit-witness writes it. Repeatable.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// The gRPC address of the service that uses the database: `https://host:port`, or `http://` with a loopback host. It checks
    /// with its keys what the public key does not show: events that are not sealed yet, and rows that are older than the record.
    /// The operator's token, of an auditor or admin, is in ACCORD_OPERATOR_TOKEN, or in --operator-token-file.
    #[arg(id = "url", long = "service-url", value_name = "URL")]
    service_url: Option<String>,
    /// The operator.
    #[command(flatten)]
    caller: Caller,
}

/// Nothing that was checked is wrong, but not all could be checked. The exit status is 3.
#[derive(Debug)]
pub struct PartlyChecked(Vec<String>);

impl fmt::Display for PartlyChecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "nothing is wrong in what was checked. Not checked: {}",
            self.0.join("; ")
        )
    }
}

impl std::error::Error for PartlyChecked {}

/// Verifies a record, and writes what was checked. The error names all that is wrong.
///
/// Beside a service that writes, a row may be ahead of the sealed events, and retention may remove events while they are read. So a
/// record that is not in order is compared once more, and what is still wrong counts.
pub async fn run(db: &Database, with: &VerifyArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let logs = logs(db, &with.key).await?;
    let kept = kept(&with.checkpoint, &logs)?;
    let (mut verified, mut rows) = compare(db, &logs, &kept).await?;
    let mut faults = all_faults(&verified, &rows);
    if !faults.is_empty() || rows.unsettled > 0 {
        tokio::time::sleep(PAUSE).await;
        (verified, rows) = compare(db, &logs, &kept).await?;
        let first = std::mem::replace(&mut faults, all_faults(&verified, &rows));
        for fault in first.iter().filter(|fault| !faults.contains(fault)) {
            writeln!(out, "found once, and not again: {fault}")?;
        }
    }
    for report in &verified.logs {
        tell(report, out)?;
    }
    if rows.faults.is_empty() {
        writeln!(
            out,
            "the rows that sealed events name are as the newest of these have left them"
        )?;
    }
    let mut unchecked: Vec<_> = verified
        .unverified
        .iter()
        .map(|origin| format!("the log {origin}, because no --key is its key"))
        .collect();
    match &with.service_url {
        Some(url) => match ask(with, url, &logs).await {
            Ok(found) if found.is_empty() => {
                writeln!(out, "the service has found nothing wrong with its keys")?;
            }
            Ok(found) => faults.extend(found),
            Err(error) if faults.is_empty() => return Err(error.context("the service gave no answer")),
            Err(error) => faults.push(format!("the service gave no answer: {error:#}")),
        },
        None => {
            let due = SystemClock.now().minus(SEALED_WITHIN);
            if is_unsealed(db, Some(due)).await? {
                unchecked.push(UNSEALED.to_owned());
            } else if is_unsealed(db, None).await? {
                writeln!(
                    out,
                    "events of the last minute are not sealed yet, and were not checked: only the service can (--service-url)"
                )?;
            }
            unchecked.extend(without_keys(&rows));
        }
    }
    if !faults.is_empty() {
        return Err(Found(faults.join("\n")).into());
    }
    match unchecked.is_empty() {
        true => Ok(()),
        false => Err(PartlyChecked(unchecked).into()),
    }
}

/// Returns whether an event from before `until` is not sealed, or any event at all. The list begins with those that are not. An event
/// that can't be read counts as one: that it is altered is told elsewhere.
async fn is_unsealed(db: &Database, until: Option<UnixMillis>) -> Result<bool, StoreError> {
    let filter = audit::Filter {
        until,
        ..audit::Filter::default()
    };
    match audit::list(db.read(), &filter, &PageRequest::first(1)).await {
        Ok(events) => {
            let (events, _) = events.into_parts();
            Ok(events.iter().any(|event| event.position.is_none()))
        }
        Err(error) if error.is_temporary() => Err(error),
        Err(_) => Ok(true),
    }
}

/// Returns the logs of the keys, the oldest first.
async fn logs(db: &Database, keys: &[PathBuf]) -> anyhow::Result<Vec<(log::Log, VerifierKey)>> {
    let mut logs = Vec::new();
    for path in keys {
        let key: VerifierKey = read(path)?.trim_end().parse().context("--key")?;
        let origin = key.origin();
        let log = log::find(db.read(), origin).await?;
        let log = log.with_context(|| format!("the database has no log {origin}, whose key this is"))?;
        logs.push((log, key));
    }
    logs.sort_by_key(|(log, _)| log.log_id);
    Ok(logs)
}

/// Opens the checkpoints that were kept of these logs.
fn kept(files: &[PathBuf], logs: &[(log::Log, VerifierKey)]) -> anyhow::Result<Vec<Checkpoint>> {
    let keys: Vec<_> = logs.iter().map(|(_, key)| key.clone()).collect();
    let mut kept = Vec::new();
    for path in files {
        let opened = checkpoints::open(&read(path)?, &keys);
        kept.extend(opened.with_context(|| format!("--checkpoint {}", path.display()))?);
    }
    Ok(kept)
}

/// Returns what is wrong, for people.
fn all_faults(verified: &Verified, rows: &RowReport) -> Vec<String> {
    let in_logs = verified.faults().map(|(log, fault)| match log {
        "" => format!("the record was altered: {fault}"),
        log => format!("the record was altered, in the log {log}: {fault}"),
    });
    let in_rows = rows.faults.iter().map(|fault| match fault.event_id.as_str() {
        "" => fault.what.clone(),
        event_id => format!("{} {event_id}", fault.what),
    });
    in_logs.chain(in_rows).collect()
}

/// Verifies the logs, and compares the rows with the sealed events.
async fn compare(
    db: &Database,
    logs: &[(log::Log, VerifierKey)],
    kept: &[Checkpoint],
) -> anyhow::Result<(Verified, RowReport)> {
    let (log, _) = logs.first().context("--key")?;
    let tables = match log.origin.as_str().split('/').nth(1) {
        Some("registry") => registry_service::store::recorded_tables(),
        _ => token_service::store::recorded_tables(),
    };
    let bar = progress::bar("leaves");
    let step = |done: u64, all: u64| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let verified = audit::verify_all(db.read(), logs, kept, None, step).await;
    bar.finish_and_clear();
    let verified = verified?;
    let rows = audit::check_rows(db.read(), &tables, &verified.untrusted).await?;
    Ok((verified, rows))
}

fn tell(
    LogReport {
        origin,
        report,
        is_accepted,
    }: &LogReport,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    match &report.fault {
        None => writeln!(
            out,
            "{} events are as they were sealed in the log {origin}; retention has removed {} leaves before them",
            report.events, report.removed_leaves
        )?,
        Some(found) if *is_accepted => {
            writeln!(
                out,
                "the log {origin} has a fault that two persons have accepted: {found}"
            )?;
        }
        Some(_) => {}
    }
    Ok(())
}

/// Returns what only the keys of the service show.
fn without_keys(rows: &RowReport) -> Vec<String> {
    let mut unchecked = Vec::new();
    if rows.unsettled > 0 {
        unchecked.push(format!(
            "{} rows that were changed by events which are not sealed yet: try again once they are, or give --service-url",
            rows.unsettled
        ));
    }
    if rows.unproven > 0 {
        unchecked.push(format!(
            "{} rows that are older than the record: give --service-url",
            rows.unproven
        ));
    }
    unchecked
}

/// Asks the service, and returns what it has found.
async fn ask(with: &VerifyArgs, url: &str, logs: &[(log::Log, VerifierKey)]) -> anyhow::Result<Vec<String>> {
    let mut client = AuditServiceClient::new(with.caller.open("--service-url", url)?);
    let verified = answer(
        "VerifyAuditLog",
        client.verify_audit_log(VerifyAuditLogRequest {}).await,
    )?;
    let found = verified.faults.into_iter().map(|found| {
        let place = match found.log.as_str() {
            "" => String::new(),
            log => format!(", in the log {log}"),
        };
        format!("the service says{place}: {} {}", found.fault, found.event_id)
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        // Otherwise it may be the answer about another database.
        let newest = answer(
            "GetCheckpoint",
            client.get_checkpoint(GetCheckpointRequest {}).await,
        )?;
        let is_given = |(_, key): &(log::Log, VerifierKey)| key.to_string() == newest.verifier_key;
        if !logs.iter().any(is_given) {
            bail!("no --key is the key of its log, {}", newest.verifier_key);
        }
    }
    Ok(found)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use accord::{
        random::SystemRandom,
        store::audit::{Event, Origin},
        testing::{databases, migrated},
    };
    use registry_service::store::{PURPOSES, migration::Migrator};

    use super::*;

    #[tokio::test]
    async fn an_old_event_without_a_seal_is_found_behind_many_new_ones() {
        for database in databases() {
            let (db, _, clock) = migrated::<Migrator>(&database.url, PURPOSES).await;
            let record = async |count: usize| {
                let tx = db.write().await.unwrap();
                for _ in 0..count {
                    let event = Event::test("scope.create");
                    audit::record(&tx, &*clock, &SystemRandom, &Origin::system("test"), event).await;
                }
                tx.commit().await.unwrap();
            };
            let is_late = async || {
                let due = clock.now().minus(SEALED_WITHIN);
                is_unsealed(&db, Some(due)).await.unwrap()
            };
            assert!(!is_unsealed(&db, None).await.unwrap(), "{database:?}");
            record(1).await;
            clock.advance(SEALED_WITHIN);
            assert!(!is_late().await, "{database:?}");
            assert!(is_unsealed(&db, None).await.unwrap(), "{database:?}");
            clock.advance(Duration::from_millis(1));
            record(600).await;
            assert!(is_late().await, "{database:?}");
        }
    }
}
