//! The check of the rows that confer authority: the replica that seals compares them with the record's events, when it begins to
//! seal and once an hour. So a row that somebody has put back together with its version is found without a verification.

use std::time::Duration;

use metrics::gauge;
use tokio::{sync::watch, time::sleep};

use super::{AuditLog, Service};
use crate::{
    clock::UnixMillis,
    metrics::AUDIT_ROWS_FAULT,
    store::{
        Database, StoreError,
        audit::{Fault, Verified, check_rows},
        keyring::SharedKeyring,
        rows::RowTable,
    },
};

/// How often rows are compared.
const PERIOD: Duration = Duration::from_secs(3600);
/// How long to wait after the database has failed.
const RETRY: Duration = Duration::from_secs(60);

/// Compares rows while this replica holds the lease of the sealer. Ends when nobody tells about the lease any more.
pub(super) async fn run(service: &impl Service, mut has_lease: watch::Receiver<bool>) {
    gauge!(AUDIT_ROWS_FAULT).set(0);
    while has_lease.wait_for(|has_lease| *has_lease).await.is_ok() {
        tokio::select! {
            () = checks(service) => {}
            lost = has_lease.wait_for(|has_lease| !*has_lease) => drop(lost),
        }
        // The next holder compares them.
        gauge!(AUDIT_ROWS_FAULT).set(0);
    }
}

async fn checks(service: &impl Service) {
    loop {
        let pause = match faults(service).await {
            Ok(faults) => {
                for fault in &faults {
                    tracing::error!(%fault, "a row is not as the audit record says");
                }
                gauge!(AUDIT_ROWS_FAULT).set(f64::from(u8::from(!faults.is_empty())));
                PERIOD
            }
            Err(error) => {
                tracing::debug!(%error, "rows were not compared with the audit record");
                RETRY
            }
        };
        sleep(pause).await;
    }
}

/// Compares the rows, and once more if something is wrong: a replica takes a row for altered while it lacks the key that has
/// protected it. Returns what both have found.
async fn faults(service: &impl Service) -> Result<Vec<Fault>, StoreError> {
    let Some(AuditLog { keyring, .. }) = service.audit_log() else {
        return Ok(Vec::new());
    };
    let (db, tables) = (service.database(), service.recorded_tables());
    let compare = || compare(db, keyring, &tables, service.clock().now());
    let first = compare().await?;
    if first.is_empty() {
        return Ok(first);
    }
    let again = compare().await?;
    Ok(first.into_iter().filter(|fault| again.contains(fault)).collect())
}

async fn compare(
    db: &Database,
    keyring: &SharedKeyring,
    tables: &[RowTable],
    now: UnixMillis,
) -> Result<Vec<Fault>, StoreError> {
    keyring.refresh().await?;
    keyring.complete().await?;
    // Takes every event as it stands whose MAC is right. A verification compares the events with the log, too.
    Ok(check_rows(db.read(), tables, &Verified::default(), now)
        .await?
        .faults)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        clock::Clock,
        keys::{FileMasterKey, MasterKeys},
        random::{SeededRandom, SystemRandom},
        store::{fixture::migrated, keyring},
        testing::test_clock,
    };

    #[tokio::test]
    async fn nothing_is_compared_without_every_key_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let master = |seed: u64| {
            let path = dir.path().join(uuid::Uuid::new_v4().to_string());
            MasterKeys::from(FileMasterKey::create(&path, &SeededRandom::new(seed)).unwrap())
        };
        const PURPOSE: &str = "secrets";
        for (place, db) in migrated().await {
            let clock = test_clock();
            let opened = SharedKeyring::open(db.clone(), master(1), &[PURPOSE], clock.clone(), &SystemRandom);
            let keyring = opened.await.unwrap();
            keyring::add_version(&db, &master(2), PURPOSE, &*clock, &SystemRandom)
                .await
                .unwrap();
            let compare = async || compare(&db, &keyring, &[], clock.now()).await;
            assert!(compare().await.unwrap().is_empty(), "{place:?}");
            clock.advance(keyring::DISTRIBUTION);
            let error = compare().await.unwrap_err();
            assert!(error.is_temporary(), "{place:?}: {error}");
        }
    }
}
