//! `accord audit verify`: whether a record is as it was sealed, and the rows that confer authority are as its events say.
//!
//! It trusts the keys and checkpoints that it is given, and nothing that the database says about itself. Some things only the keys
//! of the service show: with `--service-url` it asks the service, and joins both answers.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use accord::{
    audit::v1::{GetCheckpointRequest, VerifyAuditLogRequest, audit_service_client::AuditServiceClient},
    clock::{Clock, SystemClock},
    rpc::channel::HopChannel,
    store::{
        Database, StoreError,
        audit::{self, LogReport, RowReport, Verified},
        log,
    },
    tlog::{Checkpoint, VerifierKey},
};
use anyhow::{Context, bail};
use clap::Args;

pub use self::unchecked::PartlyChecked;
use self::unchecked::{unsealed, without_keys};
use super::{Found, access::Caller, checkpoints, progress};
use crate::call::answer;

mod unchecked;

/// How long to wait before a record is compared again. A service seals every second.
const PAUSE: Duration = Duration::from_secs(5);

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
    /// The gRPC address of the service that uses the database, which checks with its keys what the public key does not show:
    /// `https://host:port`, or `http://` with a loopback host.
    ///
    /// These are events that are not sealed yet, and rows that are older than the record. The operator's token, of an auditor or
    /// admin, is in ACCORD_OPERATOR_TOKEN, or in --operator-token-file.
    #[arg(id = "url", long = "service-url", value_name = "URL")]
    service_url: Option<String>,
    /// The operator.
    #[command(flatten)]
    caller: Caller,
}

/// Verifies a record, and writes what was checked. The error names all that is wrong.
pub async fn run(db: &Database, with: &VerifyArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let keys = keys(&with.key)?;
    let kept = kept(&with.checkpoint, &keys)?;
    let open = |url: &String| with.caller.open("--service-url", url);
    let service = with.service_url.as_ref().map(open).transpose()?;
    let (logs, missing) = logs(db, &keys).await?;
    let (verified, rows, mut faults) = compare_twice(db, (&logs, &keys), &kept, out).await?;
    if logs.is_empty() && verified.unverified.is_empty() && faults.is_empty() {
        bail!("{}: it has none", missing.join("; "));
    }
    faults.extend(missing);
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
    let has_answer = match service {
        Some(service) => match ask(service, &keys).await {
            Ok(found) => {
                if found.is_empty() {
                    writeln!(out, "the service has found nothing wrong with its keys")?;
                }
                faults.extend(found);
                true
            }
            Err(error) => {
                unchecked.push(format!("what takes the service's keys: {error:#}"));
                false
            }
        },
        None => false,
    };
    if !has_answer {
        unchecked.extend(unsealed(db, out).await?);
        unchecked.extend(without_keys(&rows));
    }
    if !faults.is_empty() {
        faults.extend(unchecked.iter().map(|what| format!("not checked: {what}")));
        return Err(Found(faults.join("\n")).into());
    }
    match unchecked.is_empty() {
        true => Ok(()),
        false => Err(PartlyChecked(unchecked).into()),
    }
}

/// Reads the keys. One that is given twice counts once: a log that is verified twice would look as if each renewal had come again.
fn keys(files: &[PathBuf]) -> anyhow::Result<Vec<VerifierKey>> {
    let mut keys = Vec::new();
    for path in files {
        let key = read(path)?.trim_end().parse().context("--key")?;
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// Returns the logs of the keys, the oldest first, and what to say of those that the database does not have: somebody has removed or
/// renamed them.
async fn logs(
    db: &Database,
    keys: &[VerifierKey],
) -> Result<(Vec<(log::Log, VerifierKey)>, Vec<String>), StoreError> {
    let (mut logs, mut missing) = (Vec::new(), Vec::new());
    for key in keys {
        match log::find(db.read(), key.origin()).await? {
            Some(log) => logs.push((log, key.clone())),
            None => missing.push(format!(
                "the database has no log {}, whose --key is given",
                key.origin()
            )),
        }
    }
    logs.sort_by_key(|(log, _)| log.log_id);
    Ok((logs, missing))
}

/// Opens the checkpoints that were kept of the logs of these keys.
fn kept(files: &[PathBuf], keys: &[VerifierKey]) -> anyhow::Result<Vec<Checkpoint>> {
    let mut kept = Vec::new();
    for path in files {
        let opened = checkpoints::open(&read(path)?, keys);
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

/// Does as [`compare`], and once more if something is not in order: beside a service that writes, a row may be ahead of the sealed
/// events, and retention may remove events while they are read. Returns also what is still wrong, for people.
async fn compare_twice(
    db: &Database,
    logs: (&[(log::Log, VerifierKey)], &[VerifierKey]),
    kept: &[Checkpoint],
    out: &mut impl Write,
) -> anyhow::Result<(Verified, RowReport, Vec<String>)> {
    let (verified, rows) = compare(db, logs, kept).await?;
    let first = all_faults(&verified, &rows);
    if first.is_empty() && rows.unsettled == 0 {
        return Ok((verified, rows, first));
    }
    tokio::time::sleep(PAUSE).await;
    let (verified, rows) = compare(db, logs, kept).await?;
    let faults = all_faults(&verified, &rows);
    for fault in first.iter().filter(|fault| !faults.contains(fault)) {
        writeln!(out, "found once, and not again: {fault}")?;
    }
    Ok((verified, rows, faults))
}

/// Verifies the logs, and compares the rows with the sealed events.
async fn compare(
    db: &Database,
    (logs, keys): (&[(log::Log, VerifierKey)], &[VerifierKey]),
    kept: &[Checkpoint],
) -> anyhow::Result<(Verified, RowReport)> {
    let key = keys.first().context("--key")?;
    let tables = match key.origin().as_str().split('/').nth(1) {
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
    let rows = audit::check_rows(db.read(), &tables, &verified, SystemClock.now()).await?;
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

/// Asks the service, and returns what it has found.
async fn ask(service: HopChannel, keys: &[VerifierKey]) -> anyhow::Result<Vec<String>> {
    let mut client = AuditServiceClient::new(service);
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
        let is_given = |key: &VerifierKey| key.to_string() == newest.verifier_key;
        if !keys.iter().any(is_given) {
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
        clock::Clock,
        random::SystemRandom,
        store::audit::{Event, Origin, ensure_log},
        testing::{HeldPort, TestDatabase, databases, migrated},
        text::opaque::{OpaqueToken, TokenKind},
        tlog::Signer,
    };
    use registry_service::store::{PURPOSES, migration::Migrator};
    use sea_orm::ConnectionTrait;
    use tempfile::NamedTempFile;

    use super::{
        unchecked::{SEALED_WITHIN, UNSEALED, is_unsealed},
        *,
    };
    use crate::audit::{status, tests::command};

    /// Runs a verification, and returns its exit status and what it says.
    async fn verified(database: &TestDatabase, arguments: &[&str]) -> (u8, String) {
        let base = ["verify", "--database-url", &database.url];
        let command = command(base.iter().chain(arguments).copied());
        let mut out = Vec::new();
        let ran = crate::audit::run(&command, &mut out).await;
        let mut said = String::from_utf8(out).unwrap();
        let code = ran.map_or_else(
            |error| {
                said += &format!("{error:#}");
                status(&command, &error).0
            },
            |()| 0,
        );
        (code, said)
    }

    fn kept_file(text: &str) -> (NamedTempFile, String) {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        (file, path)
    }

    #[tokio::test]
    async fn a_log_that_the_database_lacks_is_a_finding_and_one_beside_it_is_verified() {
        for database in databases() {
            let (db, keyring, clock) = migrated::<Migrator>(&database.url, PURPOSES).await;
            let other = Signer::new("auth.example/registry/other".parse().unwrap(), &[7; 32]).unwrap();
            let (_other, other) = kept_file(&other.verifier_key().to_string());
            // Nobody has ever started a log.
            let (code, said) = verified(&database, &["--key", &other]).await;
            assert!(
                code == 2 && said.contains("has no log"),
                "{database:?} {code} {said}"
            );

            let keyring = keyring.loaded();
            let log = ensure_log(&db, &keyring, "auth.example", "registry", clock.now());
            let log = log.await.unwrap();
            let key = log.signer(&keyring).unwrap().verifier_key().to_string();
            let (_key, key) = kept_file(&key);
            let (code, said) = verified(&database, &["--key", &key]).await;
            assert_eq!(code, 0, "{database:?} {said}");
            let (code, said) = verified(&database, &["--key", &other, "--key", &key]).await;
            let is_found = said.contains("has no log auth.example/registry/other,");
            assert!(
                code == 1 && is_found && said.contains("as they were sealed"),
                "{database:?} {code} {said}"
            );
            let rename = "UPDATE audit_logs SET origin = 'auth.example/registry/renamed'";
            db.read().execute_unprepared(rename).await.unwrap();
            let (code, said) = verified(&database, &["--key", &key]).await;
            assert!(
                code == 1 && said.contains("has no log"),
                "{database:?} {code} {said}"
            );
        }
    }

    #[tokio::test]
    async fn a_record_is_checked_in_part_if_the_service_gives_no_answer() {
        for database in databases() {
            let (db, keyring, clock) = migrated::<Migrator>(&database.url, PURPOSES).await;
            let keyring = keyring.loaded();
            let log = ensure_log(&db, &keyring, "auth.example", "registry", clock.now());
            let log = log.await.unwrap();
            let key = log.signer(&keyring).unwrap().verifier_key().to_string();
            let (_key, key) = kept_file(&key);
            let token = OpaqueToken::generate(TokenKind::Operator, &SystemRandom);
            let (_token, token) = kept_file(token.expose());
            let nobody = HeldPort::reserve();
            let url = format!("http://{}", nobody.address());
            let service = ["--service-url", &url, "--operator-token-file", &token];
            let asked = [&["--key", &key][..], &service].concat();
            let (code, said) = verified(&database, &asked).await;
            assert_eq!(code, 3, "{database:?} {said}");
            assert!(
                said.contains("Not checked: what takes the service's keys: VerifyAuditLog"),
                "{database:?} {said}"
            );
            // An event that nobody has sealed is told as without a service.
            let tx = db.write().await.unwrap();
            let event = Event::test("scope.create");
            audit::record(&tx, &*clock, &SystemRandom, &Origin::system("test"), event).await;
            tx.commit().await.unwrap();
            let (code, said) = verified(&database, &asked).await;
            assert!(code == 3 && said.contains(UNSEALED), "{database:?} {code} {said}");
        }
    }

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
