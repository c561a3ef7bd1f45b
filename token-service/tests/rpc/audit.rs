//! `AuditService` of token-service: from a token to the people behind it, and what a verification says.

use std::time::{Duration, Instant};

use accord::{
    audit::v1::{TraceTokenRequest, TraceTokenResponse, VerifyAuditLogRequest, VerifyAuditLogResponse},
    registry::v1::{ClientOrigin, RequestOrigin},
    rpc::auth::Role,
    testing::sqlite,
};
use prost_types::Timestamp;
use sea_orm::ConnectionTrait;
use tokio::time::sleep;
use tonic::{Code, Status};

use crate::{
    harness::{assert_rejected, assert_violations},
    world::World,
};

/// How soon a log is there.
const SEALED: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

const UNKNOWN: &str = "01k9zzzzzzzzzzzzzzzzzzzzzz";

pub fn origin(request: &str, seconds: i64) -> RequestOrigin {
    RequestOrigin {
        integration_request_id: request.into(),
        submitted_by_operator_id: format!("opr_submitter_of_{request}"),
        approved_by_operator_id: format!("opr_approver_of_{request}"),
        apply_time: Some(Timestamp { seconds, nanos: 0 }),
    }
}

async fn trace(world: &World, role: Role, jti: &str) -> Result<TraceTokenResponse, Status> {
    let request = TraceTokenRequest { jti: jti.into() };
    let mut audit = world.harness().audit_of(role);
    Ok(audit.trace_token(request).await?.into_inner())
}

/// The ids of a token of each grant type.
async fn tokens(world: &World) -> (Vec<String>, String) {
    let first = world.first_tokens().await;
    let renewed = world.refresh(&first.refresh_token).await.unwrap();
    let own = world.issue(world.by_client_credentials()).await.unwrap();
    let mut ids = Vec::new();
    for token in [&first.access_token, &renewed.access_token, &own.access_token] {
        ids.push(world.introspect(token).await.jti);
    }
    (ids, first.grant_id)
}

#[tokio::test]
async fn a_token_leads_to_grant_consenter_client_submitter_and_approver() {
    for world in World::start_on_all().await {
        let (ids, grant_id) = tokens(&world).await;
        let client = ClientOrigin {
            registration: Some(origin("irq_1", 1)),
            amendments: vec![origin("irq_3", 3), origin("irq_2", 2)],
        };
        world.registry().set_origin(&world.client_id, client);
        for jti in &ids {
            for role in [Role::Auditor, Role::Admin] {
                let traced = trace(&world, role, jti).await.unwrap();
                assert_eq!(traced.issue_event.unwrap().event_id, *jti);
                assert_eq!(traced.grant_id, grant_id);
                assert_eq!(traced.granted_by_user_id, world.admin_id);
                assert_eq!(traced.client_id, world.client_id);
                assert_eq!(traced.integration_request_id, "irq_1");
                assert_eq!(traced.submitted_by_operator_id, "opr_submitter_of_irq_1");
                assert_eq!(traced.approved_by_operator_id, "opr_approver_of_irq_1");
                let amendments: Vec<_> = traced
                    .amendments
                    .into_iter()
                    .map(|applied| (applied.integration_request_id, applied.approved_by_operator_id))
                    .collect();
                let expected = ["irq_3", "irq_2"].map(|id| (id.into(), format!("opr_approver_of_{id}")));
                assert_eq!(amendments, expected);
            }
        }
    }
}

#[tokio::test]
async fn what_is_gone_is_empty_and_the_rest_is_told() {
    let database = sqlite();
    let url = database.url.clone();
    let world = World::start_on(database).await;
    let (ids, grant_id) = tokens(&world).await;
    world.registry().forget_client(&world.client_id);
    let db = sea_orm::Database::connect(&url).await.unwrap();
    db.execute_unprepared("DELETE FROM grants").await.unwrap();
    db.close().await.unwrap();
    let traced = trace(&world, Role::Auditor, &ids[0]).await.unwrap();
    assert_eq!(
        traced,
        TraceTokenResponse {
            issue_event: traced.issue_event.clone(),
            grant_id,
            client_id: world.client_id.clone(),
            ..Default::default()
        }
    );
    assert_eq!(traced.issue_event.unwrap().event_id, ids[0]);
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_no_origin_that_is_gone() {
    let world = World::start().await;
    let (ids, _) = tokens(&world).await;
    world.registry().set_unavailable(true);
    let refused = trace(&world, Role::Auditor, &ids[0]).await;
    assert_rejected(refused, Code::Unavailable, "UNAVAILABLE");
}

#[tokio::test]
async fn a_token_that_was_never_issued_is_not_traced() {
    let world = World::start().await;
    let unknown = trace(&world, Role::Auditor, UNKNOWN).await;
    assert_rejected(unknown, Code::NotFound, "NOT_FOUND");
    for malformed in ["", "jti", "01K9ZZZZZZZZZZZZZZZZZZZZZZ"] {
        assert_violations(trace(&world, Role::Auditor, malformed).await, &["jti"]);
    }
    // The id of an event that issued nothing.
    world.pending_grant().await;
    let approval = world.audit_events("consent.approve").await.remove(0);
    let no_token = trace(&world, Role::Auditor, &approval.event_id).await;
    assert_rejected(no_token, Code::NotFound, "NOT_FOUND");
    for role in [Role::Registrar, Role::Approver, Role::Security] {
        let refused = trace(&world, role, UNKNOWN).await;
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    }
}

/// Verifies the record, once it has a log.
async fn verify(world: &World) -> VerifyAuditLogResponse {
    let started = Instant::now();
    loop {
        let mut audit = world.harness().audit_of(Role::Auditor);
        match audit.verify_audit_log(VerifyAuditLogRequest {}).await {
            Err(status) if status.code() == Code::Unavailable => {
                assert!(started.elapsed() < SEALED, "{status}");
                sleep(POLL).await;
            }
            answer => return answer.unwrap().into_inner(),
        }
    }
}

/// Requires that a verification says just this of a row, and names the newest event of an action.
async fn assert_named(world: &World, row: &str, action: &str) {
    let found = verify(world).await;
    let event_id = world.audit_events(action).await.remove(0).event_id;
    assert!(!found.intact, "{row}");
    assert_eq!((&*found.fault, &found.first_altered_event_id), (row, &event_id));
    assert_eq!(found.faults.len(), 1, "{found:?}");
}

#[tokio::test]
async fn a_verification_names_what_was_edited() {
    for world in World::start_on_all().await {
        let edit = async |statements: &[&str]| {
            for statement in statements {
                world.harness().edit(statement).await;
            }
        };
        let grant_id = world.active_grant().await;
        let row = format!("the row grants/acme/{grant_id}");
        assert!(verify(&world).await.intact);
        edit(&[
            "CREATE TABLE older AS SELECT * FROM grants",
            "CREATE TABLE older_versions AS SELECT * FROM row_versions",
            "UPDATE grants SET scopes = '[\"api:write\"]'",
        ])
        .await;
        let altered = format!("{row} was changed by somebody without the keys");
        assert_named(&world, &altered, "consent.activate").await;
        let older = ["DELETE FROM grants", "INSERT INTO grants SELECT * FROM older"];
        edit(&older).await;
        assert!(verify(&world).await.intact);

        world.revoke_consent(&grant_id).await;
        assert!(verify(&world).await.intact);
        edit(&older).await;
        edit(&[
            "DELETE FROM row_versions WHERE row_name LIKE 'grants/%'",
            "INSERT INTO row_versions SELECT * FROM older_versions WHERE row_name LIKE 'grants/%'",
        ])
        .await;
        let put_back = format!("{row} is not as the event has left it");
        assert_named(&world, &put_back, "consent.revoke").await;
        edit(&["DELETE FROM grants"]).await;
        assert_named(
            &world,
            &format!("{row} is gone since the event"),
            "consent.revoke",
        )
        .await;

        edit(&["UPDATE audit_events SET actor_id = 'usr_nobody' WHERE action = 'consent.approve'"]).await;
        let found = verify(&world).await;
        assert!(!found.intact && found.faults.len() > 1, "{found:?}");
        assert!(
            found.faults.iter().any(|fault| fault.fault.starts_with(&row)),
            "{found:?}"
        );
    }
}
