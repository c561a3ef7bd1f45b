//! `GetGrantUsage`, and the address of the caller in the events of tokens.

use std::time::Duration;

use accord::{audit::v1::AuditAddressSource, clock::Clock, rpc::auth::Role, token::v1 as pb};
use tonic::{Code, Request, Status};

use super::{UNKNOWN, assert_not_found};
use crate::{
    harness::{assert_rejected, assert_violations, ok},
    world::World,
};

fn of(tenant_id: &str, grant_id: &str, session: &str) -> pb::GetGrantUsageRequest {
    pb::GetGrantUsageRequest {
        tenant_id: tenant_id.into(),
        grant_id: grant_id.into(),
        admin_session: session.into(),
    }
}

async fn usage(world: &World, grant_id: &str, session: &str) -> Result<pb::GetGrantUsageResponse, Status> {
    let request = of("acme", grant_id, session);
    Ok(world.consents().get_grant_usage(request).await?.into_inner())
}

/// Requests a token through a gateway that forwards this address.
async fn issue_from(world: &World, address: &str, request: pb::IssueTokenRequest) -> Result<(), Status> {
    let mut request = Request::new(request);
    let metadata = request.metadata_mut();
    metadata.insert("x-forwarded-for", address.parse().unwrap());
    world.tokens().issue_token(request).await.map(drop)
}

#[tokio::test]
async fn a_tenant_sees_tokens_rejections_scopes_and_addresses_by_day() {
    let world = World::start().await;
    let first = world.first_tokens().await;
    let session = world.sign_in("").await;
    let grant_id = &first.grant_id;
    let mut reading = world.by_client_credentials();
    reading.scopes = vec!["contacts.read".into()];
    world.clock().advance(Duration::from_secs(24 * 3600));
    let session_of_the_next_day = world.sign_in("").await;
    // No token at midnight, and none at the time of another or of a rejection.
    let (minute, second) = (Duration::from_secs(60), Duration::from_millis(1_001));
    world.clock().advance(minute);
    issue_from(&world, "192.0.2.7", reading.clone()).await.unwrap();
    world.clock().advance(second);
    issue_from(&world, "9.9.9.9, 2001:db8::7", reading).await.unwrap();
    let last = world.clock().now();
    world.clock().advance(minute);

    let mut beyond = world.by_client_credentials();
    beyond.scopes = vec!["contacts.delete".into()];
    let refused = world.issue(beyond).await;
    assert_rejected(refused, Code::InvalidArgument, "INVALID_SCOPE");
    let mut elsewhere = world.by_client_credentials();
    elsewhere.resource = "https://elsewhere.example".into();
    assert_rejected(
        world.issue(elsewhere.clone()).await,
        Code::InvalidArgument,
        "INVALID_TARGET",
    );
    assert_rejected(
        world.issue(elsewhere).await,
        Code::InvalidArgument,
        "INVALID_TARGET",
    );
    let refused = world.issue(world.by_code("acc_wrong")).await;
    assert_rejected(refused, Code::FailedPrecondition, "INVALID_GRANT");
    world.usage_written().await;

    let usage_now = usage(&world, grant_id, &session_of_the_next_day).await.unwrap();
    assert_eq!(usage_now.last_use_time, Some(last.to_timestamp()));
    assert_eq!(last.to_timestamp().to_string(), "2026-01-02T00:01:01.001Z");
    let [newest, oldest] = &usage_now.days[..] else {
        panic!("{usage_now:?}");
    };
    assert_eq!((newest.day.as_str(), newest.issued_tokens), ("2026-01-02", 2));
    assert_eq!(newest.scopes, ["contacts.read"]);
    assert_eq!(newest.addresses, ["192.0.2.7", "2001:db8::7"]);
    assert!(!newest.has_more_addresses);
    let rejections: Vec<_> = newest
        .rejections
        .iter()
        .map(|rejected| (rejected.reason.as_str(), rejected.count))
        .collect();
    // The code that is none names no grant.
    assert_eq!(rejections, [("INVALID_SCOPE", 1), ("INVALID_TARGET", 2)]);
    assert_eq!(newest.rejected_requests, 3);
    assert_eq!((oldest.day.as_str(), oldest.issued_tokens), ("2026-01-01", 1));
    assert_eq!(oldest.scopes, ["contacts.read", "contacts.write"]);
    assert_eq!(
        (oldest.addresses.as_slice(), oldest.rejected_requests),
        (&["127.0.0.1".into()][..], 0)
    );
    let ended = usage(&world, grant_id, &session).await;
    assert_rejected(ended, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
}

#[tokio::test]
async fn a_tenant_sees_that_a_code_or_refresh_token_was_used_a_second_time() {
    let world = World::start().await;
    for by_code in [true, false] {
        let request = world.by_code(&world.code().await);
        let first = world.issue(request.clone()).await.unwrap();
        let session = world.sign_in("").await;
        let second = world.refresh(&first.refresh_token).await.unwrap();
        world.refresh(&second.refresh_token).await.unwrap();
        let before = usage(&world, &first.grant_id, &session).await.unwrap();
        let nothing = pb::ReusedCredential::Unspecified;
        assert_eq!((before.reuse_time, before.reused_credential()), (None, nothing));
        world.clock().advance(Duration::from_secs(60));
        let (again, reused) = match by_code {
            true => (
                world.issue(request).await,
                pb::ReusedCredential::AuthorizationCode,
            ),
            false => {
                let again = world.refresh(&first.refresh_token).await;
                (again, pb::ReusedCredential::RefreshToken)
            }
        };
        assert_rejected(again, Code::FailedPrecondition, "INVALID_GRANT");
        let after = usage(&world, &first.grant_id, &session).await.unwrap();
        let now = Some(world.clock().now().to_timestamp());
        assert_eq!((after.reuse_time, after.reused_credential()), (now, reused));
    }
}

#[tokio::test]
async fn only_the_tenant_and_auditors_see_usage() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let session = world.sign_in("").await;
    let unused = usage(&world, &grant_id, &session).await.unwrap();
    // Whether its first token is sealed yet is a matter of milliseconds; there is no other.
    assert!(unused.days.iter().map(|day| day.issued_tokens).sum::<i64>() <= 1);
    assert_not_found(usage(&world, UNKNOWN, &session).await, "consent");
    assert_violations(usage(&world, "grt_", &session).await, &["grant_id"]);
    let without = usage(&world, &grant_id, "").await;
    assert_rejected(without, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
    let foreign = world.sign_in_at("globex").await;
    assert_not_found(usage(&world, &grant_id, &foreign).await, "consent");
    let own = world
        .consents()
        .get_grant_usage(of("globex", &grant_id, &foreign))
        .await;
    assert_rejected(own, Code::NotFound, "NOT_FOUND");
    for role in [Role::Auditor, Role::Security, Role::Admin] {
        ok(world
            .consents_of(role)
            .get_grant_usage(of("acme", &grant_id, ""))
            .await);
        let with_session = of("acme", &grant_id, &session);
        let refused = world.consents_of(role).get_grant_usage(with_session).await;
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    for role in [Role::Registrar, Role::Approver] {
        let refused = world
            .consents_of(role)
            .get_grant_usage(of("acme", &grant_id, ""))
            .await;
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    }
}

#[tokio::test]
async fn an_event_has_the_caller_s_address_and_says_who_told_it() {
    let world = World::start().await;
    world.active_grant().await;
    issue_from(&world, "192.0.2.7", world.by_client_credentials())
        .await
        .unwrap();
    world.issue(world.by_client_credentials()).await.unwrap();
    let events = world.audit_events("token.issue").await;
    let addresses: Vec<_> = events
        .iter()
        .map(|event| (event.caller_address.as_str(), event.caller_address_source()))
        .take(2)
        .collect();
    let expected = [
        ("127.0.0.1", AuditAddressSource::Peer),
        ("192.0.2.7", AuditAddressSource::Forwarded),
    ];
    assert_eq!(addresses, expected);
    // A change of state, by a Tenant Admin.
    let approved = world.audit_events("consent.approve").await.remove(0);
    assert_eq!(approved.caller_address, "127.0.0.1");
    // What the service does by itself.
    let created = world.audit_events("signing_key.create").await.remove(0);
    assert_eq!(
        (created.caller_address.as_str(), created.caller_address_source()),
        ("", AuditAddressSource::Unspecified)
    );
}
