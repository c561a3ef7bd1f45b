//! `GetConsentReceipt`: who gets one, and that nobody can mistake it for an access token.

use std::time::{Duration, Instant};

use accord::{audit::v1::AuditRecord, rpc::auth::Role, tlog::ProofFile, token::v1 as pb, verify::KeySet};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;
use serde_json::{Value, json};
use tokio::time::sleep;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{UNKNOWN, assert_not_found};
use crate::{
    harness::{assert_rejected, ok},
    world::World,
};

/// How soon an event is sealed.
const SEALED: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

fn of(grant_id: &str, session: &str) -> pb::GetConsentReceiptRequest {
    pb::GetConsentReceiptRequest {
        tenant_id: "acme".into(),
        grant_id: grant_id.into(),
        admin_session: session.into(),
    }
}

async fn receipt(
    world: &World,
    grant_id: &str,
    session: &str,
) -> Result<pb::GetConsentReceiptResponse, Status> {
    let request = of(grant_id, session);
    Ok(world.consents().get_consent_receipt(request).await?.into_inner())
}

/// Returns the receipt once the consent is sealed. Before that it is UNAVAILABLE, with a time to try again.
pub(super) async fn sealed_receipt(
    world: &World,
    grant_id: &str,
    session: &str,
) -> pb::GetConsentReceiptResponse {
    let started = Instant::now();
    loop {
        match receipt(world, grant_id, session).await {
            Ok(receipt) => return receipt,
            Err(status) => {
                assert!(status.get_details_retry_info().is_some(), "{status:?}");
                assert_rejected::<()>(Err(status), Code::Unavailable, "UNAVAILABLE");
            }
        }
        assert!(started.elapsed() < SEALED, "the record is not sealed");
        sleep(POLL).await;
    }
}

fn part(jwt: &str, index: usize) -> Value {
    let part = jwt.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn a_receipt_says_what_was_granted_and_its_event_is_proven() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let session = world.sign_in("").await;
    let answer = sealed_receipt(&world, &tokens.grant_id, &session).await;

    let header = part(&answer.receipt, 0);
    assert_eq!(header["typ"], "consent-receipt+jwt");
    assert_eq!(header["kid"], part(&tokens.access_token, 0)["kid"]);
    let claims = part(&answer.receipt, 1);
    assert_eq!(claims["iss"], part(&tokens.access_token, 1)["iss"]);
    assert_eq!(claims["record_id"], json!(tokens.grant_id));
    assert_eq!(claims["parties"][0]["party_id"], "acme");
    assert_eq!(claims["parties"][1]["party_id"], json!(world.client_id));
    assert_eq!(claims["purposes"][0]["purpose"], "Keep contacts in step");
    let scopes = claims["purposes"][0]["scopes"].as_array().unwrap();
    let names: Vec<_> = scopes
        .iter()
        .map(|scope| scope["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["contacts.read", "contacts.write"]);
    let given = &claims["events"][0];
    assert_eq!(
        (
            &given["event_state"],
            &given["event_time"],
            &given["entity"]["user_id"]
        ),
        (
            &json!("given"),
            &json!("2026-01-01T00:00:00Z"),
            &json!(world.admin_id)
        )
    );
    assert_eq!(claims["designated_user"]["user_id"], json!(world.api_user_id));
    assert_eq!(claims.get("exp"), None);
    for name in [world.admin_name(), world.api_user_name()] {
        assert!(!claims.to_string().contains(name), "{claims}");
    }

    let proof = ProofFile::parse(&answer.proof).unwrap();
    let event = AuditRecord::decode(&*proof.event).unwrap();
    assert_eq!(
        (
            event.action.as_str(),
            event.tenant_id.as_str(),
            event.subject.as_str()
        ),
        ("consent.approve", "acme", tokens.grant_id.as_str())
    );
    let approved = world.audit_events("consent.approve").await.remove(0);
    assert_eq!(claims["audit_event_id"], json!(approved.event_id));

    world.revoke_consent(&tokens.grant_id).await;
    let later = sealed_receipt(&world, &tokens.grant_id, &session).await;
    assert_eq!(part(&later.receipt, 1)["events"][1]["event_state"], "withdrawn");
}

/// The events of a receipt: what, when, and the new designated user.
fn events(receipt: &pb::GetConsentReceiptResponse) -> Vec<(String, Option<String>, Option<String>)> {
    let claims = part(&receipt.receipt, 1);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let events = claims["events"].as_array().unwrap().iter();
    events
        .map(|event| {
            (
                text(&event["event_state"]).unwrap(),
                text(&event["event_time"]),
                text(&event["designated_user"]["user_id"]),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_receipt_has_the_texts_of_the_consent_and_not_of_today() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let session = world.sign_in("").await;
    let before = part(&sealed_receipt(&world, &grant_id, &session).await.receipt, 1);
    let scopes = before["purposes"][0]["scopes"].as_array().unwrap();
    assert!(
        scopes
            .iter()
            .all(|scope| scope["description"] != json!("") && scope["reason"] != json!(""))
    );
    world.change_client(|client| {
        for scope in &mut client.scopes {
            scope.description = "something else".into();
            scope.reason = "another reason".into();
        }
        client.scopes.truncate(1);
        client.display_name = "another name".into();
    });
    let after = part(&sealed_receipt(&world, &grant_id, &session).await.receipt, 1);
    assert_eq!(after["purposes"], before["purposes"]);
    assert_eq!(after["parties"], before["parties"]);
}

#[tokio::test]
async fn a_receipt_has_each_change_of_the_designated_user() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    world.clock().advance(Duration::from_secs(61));
    world.change_designated_user(&grant_id).await;
    let session = world.sign_in("").await;
    let receipt = sealed_receipt(&world, &grant_id, &session).await;
    let [given, changed] = &events(&receipt)[..] else {
        panic!("{:?}", events(&receipt));
    };
    assert_eq!((given.0.as_str(), given.2.as_ref()), ("given", None));
    let user = part(&receipt.receipt, 1)["designated_user"]["user_id"].clone();
    assert_ne!(user, json!(world.api_user_id));
    assert_eq!(
        changed,
        &(
            "designated_user_changed".to_owned(),
            Some("2026-01-01T00:01:01Z".to_owned()),
            user.as_str().map(str::to_owned)
        )
    );
    let by = &part(&receipt.receipt, 1)["events"][1]["entity"]["user_id"];
    assert_eq!(by, &json!(world.admin_id));
}

#[tokio::test]
async fn a_receipt_has_the_networks_and_each_change_of_them() {
    let world = World::start().await;
    let approved = world
        .approved(&world.client, |approval| {
            approval.allowed_networks = vec!["127.0.0.0/8".into()];
        })
        .await;
    let grant_id = approved.consent.unwrap().grant_id;
    world
        .issue(world.by_code(&approved.authorization_code))
        .await
        .unwrap();
    let session = world.sign_in("").await;
    let receipt = sealed_receipt(&world, &grant_id, &session).await;
    assert_eq!(
        part(&receipt.receipt, 1)["allowed_networks"],
        json!(["127.0.0.0/8"])
    );
    for (seconds, networks) in [(1, vec!["203.0.113.0/24".to_owned()]), (1, Vec::new())] {
        world.clock().advance(Duration::from_secs(seconds));
        let request = pb::ChangeAllowedNetworksRequest {
            tenant_id: "acme".into(),
            grant_id: grant_id.clone(),
            admin_session: session.clone(),
            allowed_networks: networks,
        };
        ok(world.consents().change_allowed_networks(request).await);
        world.change_designated_user(&grant_id).await;
    }
    let receipt = sealed_receipt(&world, &grant_id, &session).await;
    let claims = part(&receipt.receipt, 1);
    assert_eq!(claims.get("allowed_networks"), None);
    let what: Vec<_> = events(&receipt).into_iter().map(|(what, ..)| what).collect();
    let (networks, user) = ("allowed_networks_changed", "designated_user_changed");
    assert_eq!(what, ["given", user, networks, networks]);
    let changed = &claims["events"][2];
    assert_eq!(changed["allowed_networks"], json!(["203.0.113.0/24"]));
    assert_eq!(changed["event_time"], json!("2026-01-01T00:00:01Z"));
    assert_eq!(changed["entity"]["user_id"], json!(world.admin_id));
    assert_eq!(claims["events"][3]["allowed_networks"], json!([]));
}

#[tokio::test]
async fn a_receipt_says_when_the_registry_has_ended_or_suspended_the_consent() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let session = world.sign_in("").await;
    let last = async || {
        let receipt = sealed_receipt(&world, &grant_id, &session).await;
        events(&receipt).pop().unwrap()
    };
    assert_eq!(last().await.0, "given");
    world.suspend("client", true);
    assert_eq!(last().await, ("suspended".to_owned(), None, None));
    world.suspend("client", false);
    world.deactivate_api_user(true);
    assert_eq!(last().await, ("suspended".to_owned(), None, None));
    world.deactivate_api_user(false);
    assert_eq!(last().await.0, "given");
    world.registry().set_client_tenants(&world.client_id, &["globex"]);
    assert_eq!(last().await, ("withdrawn".to_owned(), None, None));
}

#[tokio::test]
async fn a_history_that_somebody_has_edited_is_in_no_receipt() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let session = world.sign_in("").await;
    sealed_receipt(&world, &grant_id, &session).await;
    for edit in [
        "UPDATE grant_receipts SET user_changes = '[{}]'",
        "UPDATE grant_receipts SET scopes = '[]', user_changes = '[]'",
        "DELETE FROM grant_receipts",
    ] {
        world.harness().edit(edit).await;
        let refused = receipt(&world, &grant_id, &session).await;
        assert_rejected(refused, Code::Internal, "INTERNAL");
    }
}

#[tokio::test]
async fn a_receipt_is_no_access_token() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let session = world.sign_in("").await;
    let receipt = sealed_receipt(&world, &tokens.grant_id, &session).await.receipt;
    assert!(world.is_active(&tokens.access_token).await);
    assert!(!world.is_active(&receipt).await);
    let keys = ok(world
        .tokens()
        .get_json_web_key_set(pb::GetJsonWebKeySetRequest::default())
        .await);
    let keys = KeySet::from_response(&keys).unwrap();
    keys.verify_signature(&tokens.access_token).unwrap();
    assert!(keys.verify_signature(&receipt).is_err());
    let claims = keys.verify_consent_receipt(&receipt).unwrap();
    assert_eq!(claims["record_id"], json!(tokens.grant_id));
    assert!(keys.verify_consent_receipt(&tokens.access_token).is_err());
}

#[tokio::test]
async fn only_the_tenant_and_auditors_get_a_receipt() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let session = world.sign_in("").await;
    assert_not_found(receipt(&world, UNKNOWN, &session).await, "consent");
    let without = receipt(&world, &grant_id, "").await;
    assert_rejected(without, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
    let foreign = world.sign_in_at("globex").await;
    assert_not_found(receipt(&world, &grant_id, &foreign).await, "consent");
    for role in [Role::Registrar, Role::Approver] {
        let refused = world
            .consents_of(role)
            .get_consent_receipt(of(&grant_id, ""))
            .await;
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    sealed_receipt(&world, &grant_id, &session).await;
    for role in [Role::Auditor, Role::Security, Role::Admin] {
        ok(world
            .consents_of(role)
            .get_consent_receipt(of(&grant_id, ""))
            .await);
    }
}
