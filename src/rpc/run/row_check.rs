//! The check of the rows that confer authority: the replica that seals compares them with the record's events, when it begins to
//! seal and once an hour. So a row that somebody has put back together with its version is found without a verification.

use std::time::Duration;

use metrics::gauge;
use tokio::{sync::watch, time::sleep};

use super::Service;
use crate::{
    metrics::AUDIT_ROWS_FAULT,
    store::audit::{Untrusted, check_rows},
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
    let tables = service.recorded_tables();
    loop {
        // Takes every event as it stands whose MAC is right. A verification compares the events with the log, too.
        let found = check_rows(service.database().read(), &tables, &Untrusted::default()).await;
        let pause = match found {
            Ok(report) => {
                for fault in &report.faults {
                    tracing::error!(%fault, "a row is not as the audit record says");
                }
                gauge!(AUDIT_ROWS_FAULT).set(f64::from(u8::from(!report.faults.is_empty())));
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
