//! The sealer: one replica at a time appends committed events to the log, and signs its head.

use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{AuditLog, Service, every, row_check, witness};
use crate::{
    log_limit::LogLimit,
    metrics::{AUDIT_LOG_FAULT, AUDIT_LOG_SEALED, AUDIT_LOG_SIZE, AUDIT_WITNESS_FAILURES},
    store::{
        StoreError,
        audit::{SealError, check_unsealed, ensure_log, seal as seal_events},
        log::{self, Election, Lease, RENEW_EVERY},
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
    let mut sealer = Sealer {
        election: Election::new(uuid::Uuid::new_v4().to_string()),
        lease: None,
        looked_at: None,
        heads: watch::Sender::new(String::new()),
        has_lease: watch::Sender::new(false),
    };
    let witness = service.audit_witness();
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
        match &witness {
            Some(witness) => witness::push(witness, heads).await,
            None => drop(heads),
        }
    };
    stop.run_until_cancelled(async { tokio::join!(rounds, pushes, row_check::run(service, has_lease)) })
        .await;
    if let Some(lease) = sealer.lease {
        // Otherwise the next sealer waits until the lease has run out.
        let _ = lease.release(service.database().read()).await;
    }
}

struct Sealer {
    election: Election,
    lease: Option<Lease>,
    /// When the lease was renewed, or looked at.
    looked_at: Option<Instant>,
    /// The newest signed head, for the witness.
    heads: watch::Sender<String>,
    /// Whether this replica seals, for the check of rows.
    has_lease: watch::Sender<bool>,
}

impl Sealer {
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
        let keyring = shared.get().await?;
        // A new log ends every lease.
        let mut log = ensure_log(db, &keyring, &host, name, service.clock().now()).await?;
        if self.looked_at.is_none_or(|at| at.elapsed() >= RENEW_EVERY) {
            self.looked_at = Some(Instant::now());
            self.lease = match self.lease.take() {
                Some(lease) if lease.renew(db.read()).await? => Some(lease),
                _ => self.election.acquire(db, Instant::now()).await?,
            };
        }
        self.has_lease.send_replace(self.lease.is_some());
        let Some(lease) = &self.lease else { return Ok(()) };
        let rollup = service.rollup();
        let mut sealed = Ok(());
        for _ in 0..PASSES {
            let pass = seal_events(db, &keyring, (lease, &log), &rollup, service.clock().now());
            match pass.await {
                Ok(Some(next)) => log = next,
                Ok(None) => break,
                Err(error) => {
                    sealed = Err(error);
                    break;
                }
            }
        }
        if sealed.is_ok() {
            // A fault of one source stops no other: it is reported although there is always something to seal.
            sealed = check_unsealed(db.read(), &keyring, &log).await;
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
