#![allow(clippy::unwrap_used)]
use futures_util::FutureExt;
use prost_types::Timestamp;
use tonic_types::StatusExt;

use super::*;
use crate::{
    clock::Clock,
    rpc::status::reason_of,
    store::{fixture::Migrator, rows},
    testing::{TestDatabase, migrated, sqlite, test_clock},
};

/// Returns the API over a migrated database without a log.
async fn api(database: &TestDatabase) -> AuditApi {
    let purposes = [
        audit::KEYRING_PURPOSE,
        log::KEYRING_PURPOSE,
        rows::KEYRING_PURPOSE,
    ];
    let (db, keyring, _) = migrated::<Migrator>(&database.url, &purposes).await;
    AuditApi::new(db, keyring, Vec::new(), test_clock())
}

#[tokio::test]
async fn a_search_waits_while_two_are_under_way() {
    let database = sqlite();
    let api = api(&database).await;
    let under_way = api.searches.clone().acquire_many_owned(2).await.unwrap();
    let mut third = api.list_audit_events(Request::new(pb::ListAuditEventsRequest::default()));
    for _ in 0..100 {
        assert!(third.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    drop(under_way);
    assert!(third.await.unwrap().into_inner().audit_events.is_empty());
    assert_eq!(api.searches.available_permits(), 2);
}

#[tokio::test]
async fn one_verification_runs_beside_the_searches() {
    let database = sqlite();
    let api = api(&database).await;
    let keys = api.keyring.get().await.unwrap();
    audit::ensure_log(&api.db, &keys, "auth.example", "token", test_clock().now())
        .await
        .unwrap();
    let _searches = api.searches.clone().acquire_many_owned(2).await.unwrap();
    let verify = async || {
        let request = Request::new(pb::VerifyAuditLogRequest {});
        api.verify_audit_log(request).await.map(Response::into_inner)
    };
    assert!(verify().await.unwrap().intact);
    let under_way = api.verifications.clone().try_acquire_owned().unwrap();
    let status = verify().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(reason_of(&status), Some(ErrorReason::ResourceExhausted));
    drop(under_way);
    assert!(verify().await.unwrap().intact);
}

#[tokio::test]
async fn what_is_asked_of_the_wrong_service_or_too_early_is_told() {
    let database = sqlite();
    let api = api(&database).await;
    let bad = pb::GetConsistencyProofRequest {
        first_size: 0,
        second_size: -1,
    };
    let refused = api.get_consistency_proof(Request::new(bad)).await.map(drop);
    crate::testing::calls::assert_violations(refused, &["first_size", "second_size"]);
    let jti = "01kdvdna00000000000000000b".to_owned();
    let traced = api.trace_token(Request::new(pb::TraceTokenRequest { jti })).await;
    let traced = traced.unwrap_err();
    assert_eq!(traced.code(), Code::Unimplemented);
    assert_eq!(traced.message(), "TraceToken is served by token-service alone");
    let early = api
        .get_checkpoint(Request::new(pb::GetCheckpointRequest {}))
        .await;
    let early = early.unwrap_err();
    assert_eq!(early.code(), Code::Unavailable);
    assert!(early.message().contains("not sealed yet"), "{early:?}");
    let retry = early.get_details_retry_info().unwrap().retry_delay;
    assert_eq!(retry, Some(Duration::from_secs(60)));
}

#[test]
fn every_violation_is_reported_at_once() {
    let violations = parse(&pb::ListAuditEventsRequest {
        tenant_id: "No".into(),
        client_id: "cli_".into(),
        action: "a".repeat(201),
        actor_id: "\0".into(),
        subject: "a\nb".into(),
        outcome: 9,
        start_time: Some(Timestamp {
            seconds: -1,
            nanos: 0,
        }),
        end_time: Some(Timestamp {
            seconds: 0,
            nanos: -1,
        }),
        page_size: -1,
        page_token: String::new(),
    })
    .unwrap_err();
    let fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "action",
            "actor_id",
            "subject",
            "outcome",
            "tenant_id",
            "client_id",
            "start_time",
            "end_time",
            "page_size",
        ]
    );
}

#[test]
fn a_page_token_is_valid_only_for_the_same_filters() {
    let first = pb::ListAuditEventsRequest {
        action: "tenant.create".into(),
        page_size: 1,
        ..Default::default()
    };
    let (_, page) = parse(&first).unwrap();
    let places = ["sealed/7/1/25/3", "sealed/7/1/25/2"];
    let (_, token) = page
        .finish(places.to_vec(), |place| (*place).to_owned())
        .into_parts();
    let with = |change: fn(&mut pb::ListAuditEventsRequest)| {
        let mut request = pb::ListAuditEventsRequest {
            page_token: token.clone(),
            ..first.clone()
        };
        change(&mut request);
        parse(&request).is_ok()
    };
    assert!(with(|request| request.page_size = 7));
    assert!(!with(|request| request.action = "tenant.update".into()));
    assert!(!with(|request| request.outcome = 1));
    assert!(!with(
        |request| request.start_time = Some(Timestamp { seconds: 1, nanos: 0 })
    ));
    assert!(!with(
        |request| request.end_time = Some(Timestamp { seconds: 1, nanos: 0 })
    ));
}

#[test]
fn a_page_token_that_holds_no_place_is_a_violation() {
    let (_, page) = parse(&pb::ListAuditEventsRequest::default()).unwrap();
    let many = vec!["not a place"; 60];
    let (_, page_token) = page.finish(many, |id| (*id).to_owned()).into_parts();
    let request = pb::ListAuditEventsRequest {
        page_token,
        ..Default::default()
    };
    let violations = parse(&request).unwrap_err();
    let fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, ["page_token"]);
}

#[test]
fn times_are_rounded_up_to_the_millisecond() {
    let mut v = Violations::default();
    let mut millis = |nanos| {
        let time = time(&mut v, "t", Some(&Timestamp { seconds: 1, nanos }));
        time.map(UnixMillis::as_millis)
    };
    assert_eq!(millis(0), Some(1000));
    assert_eq!(millis(1), Some(1001));
    assert_eq!(millis(1_000_000), Some(1001));
    assert_eq!(millis(999_999_999), Some(2000));
}
