//! `VerifyAuditLog`: what it says once somebody has edited the database who holds no key.

use accord::{
    audit::v1::{
        GetInclusionProofRequest, ListAuditEventsRequest, VerifyAuditLogRequest, VerifyAuditLogResponse,
    },
    random::SystemRandom,
    registry::v1::SuspendTenantRequest,
    registry::v1::tenant_service_client::TenantServiceClient,
    rpc::auth::Role,
    testing::calls::ok,
};
use registry_service::server::RegistryServer;

use super::{POLL, SEALED, client, list, sealed};
use crate::harness::Harness;

async fn verify(harness: &Harness) -> VerifyAuditLogResponse {
    let found = ok(client(harness).verify_audit_log(VerifyAuditLogRequest {}).await);
    let first = found.faults.first().cloned().unwrap_or_default();
    assert_eq!(found.intact, found.faults.is_empty(), "{found:?}");
    assert_eq!(
        (&found.fault, &found.first_altered_event_id),
        (&first.fault, &first.event_id)
    );
    found
}

/// Returns what is wrong, each with its event.
fn said(found: &VerifyAuditLogResponse) -> Vec<(&str, &str)> {
    let faults = found.faults.iter();
    faults
        .map(|fault| (fault.fault.as_str(), fault.event_id.as_str()))
        .collect()
}

/// Waits until an event is sealed.
async fn seal(harness: &Harness, event_id: &str) {
    sealed(async || {
        let event_id = event_id.to_owned();
        client(harness)
            .get_inclusion_proof(GetInclusionProofRequest {
                event_id,
                log_size: 0,
            })
            .await
    })
    .await;
}

#[tokio::test]
async fn an_edit_of_a_row_or_an_event_is_named() {
    let harness = Harness::start().await;
    harness.tenant("acme").await;
    harness.tenant("globex").await;
    let created = harness.audit_events("tenant.create").await;
    let [globex, acme] = [&created[0].event_id, &created[1].event_id];
    seal(&harness, globex).await;
    assert!(verify(&harness).await.intact);

    harness.edit("CREATE TABLE older AS SELECT * FROM tenants").await;
    harness
        .edit("CREATE TABLE older_versions AS SELECT * FROM row_versions")
        .await;
    harness
        .edit("UPDATE tenants SET cloud_api_url = 'https://thief.example' WHERE tenant_id = 'acme'")
        .await;
    let found = verify(&harness).await;
    let altered = "the row tenants/acme was changed by somebody without the keys";
    assert_eq!(said(&found), [(altered, acme.as_str())]);
    harness
        .edit("DELETE FROM tenants; INSERT INTO tenants SELECT * FROM older")
        .await;
    assert!(verify(&harness).await.intact);

    // An older row with its version.
    let suspending = SuspendTenantRequest {
        tenant_id: "acme".into(),
        reason: "stolen".into(),
    };
    let mut tenants = TenantServiceClient::new(harness.operator(Role::Security));
    ok(tenants.suspend_tenant(suspending).await);
    assert!(verify(&harness).await.intact);
    harness
        .edit("DELETE FROM tenants; INSERT INTO tenants SELECT * FROM older")
        .await;
    harness
        .edit("DELETE FROM row_versions; INSERT INTO row_versions SELECT * FROM older_versions")
        .await;
    let suspended = harness.audit_events("tenant.suspend").await.remove(0).event_id;
    let found = verify(&harness).await;
    let put_back = "the row tenants/acme is not as the event has left it";
    assert_eq!(said(&found), [(put_back, suspended.as_str())]);

    harness
        .edit("DELETE FROM tenants WHERE tenant_id = 'globex'")
        .await;
    let gone = "the row tenants/globex is gone since the event";
    let found = verify(&harness).await;
    assert_eq!(
        said(&found),
        [(put_back, suspended.as_str()), (gone, globex.as_str())]
    );

    // A fault of the log does not hide those of the rows.
    harness
        .edit("UPDATE audit_events SET actor_id = 'opr_somebody' WHERE subject = 'acme' AND action = 'tenant.create'")
        .await;
    let found = verify(&harness).await;
    assert_eq!(found.first_altered_event_id, *acme);
    assert!(said(&found)[1..].contains(&(gone, globex.as_str())), "{found:?}");

    // Nor does a log that nobody with the keys has started.
    harness
        .edit("INSERT INTO audit_logs SELECT 9, 'auth.example/registry/x', 99, size, root, position, started_at, mac FROM audit_logs")
        .await;
    let found = verify(&harness).await;
    let forged = "no key of the service is that of the log auth.example/registry/x";
    let said = said(&found);
    assert!(said.iter().any(|(fault, _)| *fault == forged), "{said:?}");
    assert!(said.contains(&(gone, globex.as_str())), "{said:?}");
}

#[tokio::test]
async fn a_fault_of_an_older_log_stays_told() {
    let harness = Harness::start().await;
    harness.tenant("acme").await;
    let events = list(&harness, ListAuditEventsRequest::default()).await.unwrap();
    let event_id = events.audit_events[0].event_id.clone();
    seal(&harness, &event_id).await;
    RegistryServer::start_epoch(&harness.settings, &*harness.clock, &SystemRandom)
        .await
        .unwrap();
    let started = std::time::Instant::now();
    loop {
        let found = verify(&harness).await;
        assert!(found.intact, "{found:?}");
        if let [older] = &found.older_logs[..] {
            assert!(older.fault.is_empty() && older.checked_events > 0, "{older:?}");
            break;
        }
        assert!(started.elapsed() < SEALED, "{found:?}");
        tokio::time::sleep(POLL).await;
    }
    harness
        .edit("UPDATE audit_events SET outcome = 'refused' WHERE action = 'tenant.create'")
        .await;
    let found = verify(&harness).await;
    let [older] = &found.older_logs[..] else {
        panic!("{found:?}")
    };
    assert_eq!(found.first_altered_event_id, event_id);
    assert_eq!(
        (&older.first_altered_event_id, older.fault_accepted),
        (&event_id, false)
    );
    assert_eq!(
        (&older.fault, &older.origin),
        (&found.fault, &found.faults[0].log)
    );
}

/// The first log of the epoch would begin where the old one has ended, and its events would get the numbers of others.
#[tokio::test]
async fn a_new_epoch_needs_a_counter_that_is_not_behind_the_log() {
    let harness = Harness::start().await;
    harness
        .edit("CREATE TABLE older AS SELECT * FROM change_counter")
        .await;
    harness.tenant("acme").await;
    let created = harness.audit_events("tenant.create").await;
    seal(&harness, &created[0].event_id).await;
    for edit in [
        "DELETE FROM audit_events WHERE number > (SELECT event_number FROM older)",
        "DELETE FROM change_counter",
        "INSERT INTO change_counter SELECT * FROM older",
        "DROP TABLE older",
    ] {
        harness.edit(edit).await;
    }
    let started = RegistryServer::start_epoch(&harness.settings, &*harness.clock, &SystemRandom).await;
    let error = format!("{:#}", started.unwrap_err());
    assert!(error.contains("change_counter"), "{error}");
}
