//! Retention by a service that runs.

use std::{sync::Arc, time::Instant};

use accord::{
    audit::v1::{GetInclusionProofRequest, VerifyAuditLogRequest},
    random::SystemRandom,
    rpc::run::{self, Listeners},
    store::{
        Database,
        audit::{Exported, export},
    },
    testing::calls::ok,
};
use registry_service::server::RegistryServer;
use tokio::net::TcpListener;
use tonic::Code;

use super::{POLL, SEALED, client, proven};
use crate::harness::{Harness, assert_rejected};

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

#[tokio::test]
async fn a_service_deletes_old_events_and_an_export_goes_on() {
    let harness = Harness::start().await;
    harness.tenant("acme").await;
    proven(&harness, "tenant.create").await;
    let old = harness.audit_events("tenant.create").await.remove(0).event_id;
    let db = Database::connect(&harness.settings.service.database_url)
        .await
        .unwrap();
    let before = export(db.read(), None).await.unwrap();
    harness.clock.advance(2 * DAY);
    harness.scope("contacts.read").await;
    proven(&harness, "scope.create").await;

    let mut settings = harness.settings.clone();
    settings.service.audit_days = 1;
    let replica = RegistryServer::open(&settings, harness.clock.clone(), Arc::new(SystemRandom));
    let replica = replica.await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listeners = Listeners::plaintext(listener, None);
    tokio::spawn(run::run(replica, listeners, harness.shutdown.clone()));
    let started = Instant::now();
    while !harness.audit_events("tenant.create").await.is_empty() {
        // Whatever it meets, it goes on.
        export(db.read(), Some(before[0].0)).await.unwrap();
        assert!(started.elapsed() < SEALED, "nothing was deleted");
        tokio::time::sleep(POLL).await;
    }

    let rest = export(db.read(), Some(before[0].0)).await.unwrap();
    assert!(matches!(rest[0].1, Exported::Removed(_)), "{:?}", rest[0]);
    let actions: Vec<_> = rest
        .iter()
        .filter_map(|(_, found)| match found {
            Exported::Event(event) => Some(event.action.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(actions[0], "scope.create", "{actions:?}");
    let verified = ok(client(&harness).verify_audit_log(VerifyAuditLogRequest {}).await);
    assert!(verified.intact, "{verified:?}");
    let request = GetInclusionProofRequest {
        event_id: old,
        log_size: 0,
    };
    let gone = client(&harness).get_inclusion_proof(request).await;
    assert_rejected(gone, Code::NotFound, "NOT_FOUND");
    proven(&harness, "scope.create").await;
    db.close().await;
}
