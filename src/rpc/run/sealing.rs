//! The sealer: one replica at a time appends committed events to the log, and signs its head.

use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{AuditLog, Service, every, row_check, witness};
use crate::{
    keys::Keyring,
    log_limit::LogLimit,
    metrics::{AUDIT_LOG_FAULT, AUDIT_LOG_SEALED, AUDIT_LOG_SIZE, AUDIT_WITNESS_FAILURES},
    store::{
        Database, StoreError,
        audit::{SealError, UNREAD_VERSION, check_unsealed, ensure_log, seal as seal_events},
        log::{self, Election, Lease, Log, RENEW_EVERY},
    },
};

/// How often the record is sealed.
const SEAL_PERIOD: Duration = Duration::from_secs(1);
/// How many times a round seals before it signs. Under load there is always something that was committed meanwhile.
const PASSES: usize = 8;
/// A fault is logged at most once in this time.
const LOG_PERIOD: Duration = Duration::from_secs(60);

static LIMIT: LogLimit = LogLimit::new(LOG_PERIOD);

/// Seals until `stop`, whenever this replica holds the lease.
pub(super) async fn seal(service: &impl Service, stop: &CancellationToken) {
    let mut sealer = Sealer::new();
    let witness = &service.options().audit_witness;
    // Scraped from the start, also without a witness.
    counter!(AUDIT_WITNESS_FAILURES).increment(0);
    let heads = sealer.heads.subscribe();
    let has_lease = sealer.has_lease.subscribe();
    let mut ticks = every(SEAL_PERIOD);
    let rounds = async {
        loop {
            ticks.tick().await;
            let sealed = sealer.round(service).await;
            if let Err(SealError::Store(error)) = &sealed
                && error.is_temporary()
            {
                tracing::debug!(%error, "the audit record was not sealed");
                continue;
            }
            let is_faulty = sealed.is_err();
            gauge!(AUDIT_LOG_FAULT).set(f64::from(u8::from(is_faulty)));
            if let Err(error) = sealed
                && LIMIT.check(&error.to_string()).is_some()
            {
                tracing::error!(%error, "the audit record is not sealed any further");
            }
        }
    };
    let pushes = async {
        match witness {
            Some(witness) => witness::push(witness, heads).await,
            None => drop(heads),
        }
    };
    stop.run_until_cancelled(async { tokio::join!(rounds, pushes, row_check::run(service, has_lease)) })
        .await;
    if let Some(lease) = sealer.lease {
        // Otherwise the next sealer waits until the lease has run out.
        let _ = lease.release(service.database()).await;
    }
}

struct Sealer {
    election: Election,
    lease: Option<Lease>,
    /// When the lease was renewed, or looked at, with success.
    looked_at: Option<Instant>,
    /// The newest signed head, for the witness.
    heads: watch::Sender<String>,
    /// Whether this replica seals, for the check of rows.
    has_lease: watch::Sender<bool>,
}

impl Sealer {
    fn new() -> Self {
        Self {
            election: Election::new(uuid::Uuid::new_v4().to_string()),
            lease: None,
            looked_at: None,
            heads: watch::Sender::new(String::new()),
            has_lease: watch::Sender::new(false),
        }
    }

    /// Renews the lease, or tries to get it. Keeps it after an error: its row still names this replica.
    async fn keep_lease(&mut self, db: &Database) -> Result<(), StoreError> {
        if self.looked_at.is_some_and(|at| at.elapsed() < RENEW_EVERY) {
            return Ok(());
        }
        let is_held = match &self.lease {
            Some(lease) => lease.renew(db).await?,
            None => false,
        };
        if !is_held {
            self.lease = None;
            self.has_lease.send_replace(false);
            self.lease = self.election.acquire(db, Instant::now()).await?;
        }
        self.looked_at = Some(Instant::now());
        self.has_lease.send_replace(self.lease.is_some());
        Ok(())
    }

    async fn round(&mut self, service: &impl Service) -> Result<(), SealError> {
        let Some(AuditLog {
            keyring: shared,
            host,
            service: name,
        }) = service.audit_log()
        else {
            return Ok(());
        };
        let db = service.database();
        shared.get().await?;
        if shared.check_complete().is_err() {
            // Another replica may have the key: this one takes what it can't check for altered.
            self.has_lease.send_replace(false);
            if let Some(lease) = self.lease.take() {
                lease.release(db).await?;
            }
            return Ok(());
        }
        let keyring = shared.loaded();
        // A new log ends every lease.
        let mut log = ensure_log(db, &keyring, &host, name, service.clock().now()).await?;
        self.keep_lease(db).await?;
        let Some(lease) = &self.lease else { return Ok(()) };
        let mut sealed = seal_all(service, &keyring, lease, &mut log).await;
        if let Err(SealError::Altered { what, .. }) = &sealed
            && *what == UNREAD_VERSION
        {
            shared.refresh().await?;
            let keyring = shared.complete().await?;
            sealed = seal_all(service, &keyring, lease, &mut log).await;
        }
        let keyring = shared.with_version(log::KEYRING_PURPOSE, log.key_version).await?;
        let key = log.key(&keyring).map_err(StoreError::from)?;
        let signer = log.signer(&keyring).map_err(StoreError::from)?;
        log::sign_heads(db, &log, key, &signer).await?;
        if self.heads.receiver_count() > 0
            && let Some(newest) = log::latest(db.read(), log.log_id).await?
        {
            self.heads.send_if_modified(|head| {
                let is_new = *head != newest.checkpoint;
                *head = newest.checkpoint;
                is_new
            });
        }
        gauge!(AUDIT_LOG_SIZE).set(log.head.size as f64);
        if sealed.is_ok() {
            gauge!(AUDIT_LOG_SEALED).set(service.clock().now().as_millis() as f64 / 1e3);
        }
        sealed
    }
}

/// Seals what is committed, a bounded number of rows, and checks what comes after it. `log` is then the log with its new head.
async fn seal_all(
    service: &impl Service,
    keyring: &Keyring,
    lease: &Lease,
    log: &mut Log,
) -> Result<(), SealError> {
    let (db, rollup) = (service.database(), service.rollup());
    for _ in 0..PASSES {
        let now = service.clock().now();
        match seal_events(db, keyring, (lease, &*log), &rollup, now).await? {
            Some(next) => *log = next,
            None => break,
        }
    }
    // A fault of one source stops no other: it is reported although there is always something to seal.
    check_unsealed(db.read(), keyring, log).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::fixture::migrated;

    #[tokio::test]
    async fn a_lease_that_can_not_be_renewed_now_is_kept() {
        for (place, db) in migrated().await {
            let mut sealer = Sealer::new();
            sealer.keep_lease(&db).await.unwrap();
            let generation = sealer.lease.as_ref().map(Lease::generation);
            assert!(generation.is_some(), "{place:?}");
            sealer.looked_at = None;
            db.close().await;
            let error = sealer.keep_lease(&db).await.unwrap_err();
            assert!(error.is_temporary(), "{place:?}: {error}");
            assert_eq!(
                sealer.lease.as_ref().map(Lease::generation),
                generation,
                "{place:?}"
            );
            assert!(*sealer.has_lease.borrow(), "{place:?}");
            assert!(
                sealer.looked_at.is_none(),
                "{place:?}: it is tried again in the next round"
            );
        }
    }
}
