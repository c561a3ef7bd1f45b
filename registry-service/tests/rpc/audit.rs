//! `AuditService`, as registry-service serves it.

use std::time::{Duration, Instant};

use accord::{
    audit::v1::{
        self as pb, AuditActorKind, AuditOutcome, GetCheckpointRequest, GetConsistencyProofRequest,
        GetInclusionProofRequest, GetInclusionProofResponse, ListAuditEventsRequest, VerifyAuditLogRequest,
        audit_service_client::AuditServiceClient,
    },
    rpc::auth::Role,
    testing::{TEST_START, calls::ok},
    tlog::{Checkpoint, Hash, ProofFile, VerifierKey},
};
use prost_types::Timestamp;
use tokio::time::sleep;
use tonic::{Code, Response, Status};

use crate::harness::{CallerChannel, Harness, assert_violations};

/// How soon an event is sealed.
const SEALED: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

mod creations;
mod retention;
mod updates;
mod verification;

fn client(harness: &Harness) -> AuditServiceClient<CallerChannel> {
    AuditServiceClient::new(harness.operator(Role::Auditor))
}

async fn list(
    harness: &Harness,
    request: ListAuditEventsRequest,
) -> Result<pb::ListAuditEventsResponse, Status> {
    let answer = client(harness).list_audit_events(request).await?;
    Ok(answer.into_inner())
}

/// Adds the tenants `acme` and `globex` and a scope, a second apart.
async fn seeded() -> Harness {
    let harness = Harness::start().await;
    let second = std::time::Duration::from_secs(1);
    harness.clock.advance(second);
    harness.tenant("acme").await;
    harness.clock.advance(second);
    harness.tenant("globex").await;
    harness.clock.advance(second);
    harness.scope("contacts.read").await;
    harness
}

fn after_start(seconds: i64, nanos: i32) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: TEST_START.as_secs() + seconds,
        nanos,
    })
}

#[tokio::test]
async fn an_event_holds_actor_action_and_subject() {
    let harness = seeded().await;
    let request = ListAuditEventsRequest {
        action: "tenant.create".into(),
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let events = list(&harness, request).await.unwrap().audit_events;
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!(
        (event.outcome(), event.actor_kind()),
        (AuditOutcome::Success, AuditActorKind::Operator)
    );
    assert_eq!(
        (event.tenant_id.as_str(), event.subject.as_str()),
        ("acme", "acme")
    );
    assert_eq!(event.occur_time, after_start(1, 0));
    assert!(event.actor_id.starts_with("opr_") && event.request_id.len() >= 8 && event.client_id.is_empty());
}

#[tokio::test]
async fn every_filter_narrows_the_list() {
    let harness = seeded().await;
    let registrar = harness.audit_events("scope.create").await[0].actor_id.clone();
    let count =
        async |request: ListAuditEventsRequest| list(&harness, request).await.unwrap().audit_events.len();
    let none = ListAuditEventsRequest::default;
    // Five operators and three workloads of the harness, two tenants and a scope.
    assert_eq!(count(none()).await, 11);
    assert_eq!(
        count(ListAuditEventsRequest {
            tenant_id: "globex".into(),
            ..none()
        })
        .await,
        1
    );
    assert_eq!(
        count(ListAuditEventsRequest {
            action: "workload.create".into(),
            ..none()
        })
        .await,
        3
    );
    assert_eq!(
        count(ListAuditEventsRequest {
            actor_id: registrar.clone(),
            ..none()
        })
        .await,
        3
    );
    assert_eq!(
        count(ListAuditEventsRequest {
            subject: "contacts.read".into(),
            ..none()
        })
        .await,
        1
    );
    assert_eq!(
        count(ListAuditEventsRequest {
            outcome: AuditOutcome::Refused.into(),
            ..none()
        })
        .await,
        0
    );
    assert_eq!(
        count(ListAuditEventsRequest {
            outcome: AuditOutcome::Success.into(),
            ..none()
        })
        .await,
        11
    );
    let client_id = "cli_01k9zzzzzzzzzzzzzzzzzzzzzz".to_owned();
    assert_eq!(count(ListAuditEventsRequest { client_id, ..none() }).await, 0);
    assert_eq!(
        count(ListAuditEventsRequest {
            start_time: after_start(2, 0),
            ..none()
        })
        .await,
        2
    );
    assert_eq!(
        count(ListAuditEventsRequest {
            start_time: after_start(2, 1),
            ..none()
        })
        .await,
        1
    );
    assert_eq!(
        count(ListAuditEventsRequest {
            end_time: after_start(2, 0),
            ..none()
        })
        .await,
        9
    );
    assert_eq!(
        count(ListAuditEventsRequest {
            end_time: after_start(2, 1),
            ..none()
        })
        .await,
        10
    );
    let nothing = ListAuditEventsRequest {
        start_time: after_start(3, 0),
        end_time: after_start(1, 0),
        ..none()
    };
    assert_eq!(count(nothing).await, 0);
    let several = ListAuditEventsRequest {
        actor_id: registrar,
        action: "tenant.create".into(),
        ..none()
    };
    assert_eq!(count(several).await, 2);
}

#[tokio::test]
async fn pages_are_newest_first_and_hold_every_event_once() {
    let harness = seeded().await;
    let (mut ids, mut actions, mut page_token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let request = ListAuditEventsRequest {
            page_size: 4,
            page_token,
            ..Default::default()
        };
        let page = list(&harness, request).await.unwrap();
        assert!(page.audit_events.len() <= 4);
        for event in page.audit_events {
            ids.push(event.event_id);
            actions.push(event.action);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(ids.len(), 11);
    assert!(ids.is_sorted_by(|newer, older| newer > older));
    assert_eq!(actions[..3], ["scope.create", "tenant.create", "tenant.create"]);
}

#[tokio::test]
async fn all_violations_are_reported_at_once() {
    let harness = Harness::start().await;
    let bad = ListAuditEventsRequest {
        tenant_id: "No".into(),
        client_id: "1".into(),
        action: "\0".into(),
        outcome: 7,
        start_time: Some(Timestamp {
            seconds: -1,
            nanos: 0,
        }),
        page_size: -1,
        ..Default::default()
    };
    let fields = [
        "tenant_id",
        "client_id",
        "action",
        "outcome",
        "start_time",
        "page_size",
    ];
    assert_violations(list(&harness, bad).await, &fields);
}

/// Repeats a call while the event is not sealed yet.
async fn sealed<T>(call: impl AsyncFn() -> Result<Response<T>, Status>) -> T {
    let started = Instant::now();
    loop {
        match call().await {
            Err(status) if status.code() == Code::Unavailable => {
                assert!(started.elapsed() < SEALED, "{status}");
                sleep(POLL).await;
            }
            answer => return ok(answer),
        }
    }
}

/// Returns the proof of the newest event of an action, once it is sealed.
async fn proven(harness: &Harness, action: &str) -> GetInclusionProofResponse {
    let event_id = &harness.audit_events(action).await[0].event_id;
    sealed(async || {
        let request = GetInclusionProofRequest {
            event_id: event_id.clone(),
            log_size: 0,
        };
        client(harness).get_inclusion_proof(request).await
    })
    .await
}

#[tokio::test]
async fn a_later_log_is_proven_to_begin_with_an_earlier_one() {
    let harness = Harness::start().await;
    harness.tenant("acme").await;
    let first = proven(&harness, "tenant.create").await;
    harness.scope("contacts.read").await;
    harness.scope("contacts.write").await;
    let second = proven(&harness, "scope.create").await;
    assert!(second.log_size > first.log_size);
    let newest = ok(client(&harness).get_checkpoint(GetCheckpointRequest {}).await);
    let key: VerifierKey = newest.verifier_key.parse().unwrap();
    let [older, newer] =
        [&first, &second].map(|proof| Checkpoint::open(&proof.checkpoint, &key).unwrap().head);
    let proof = async |first_size, second_size| {
        let request = GetConsistencyProofRequest {
            first_size,
            second_size,
        };
        client(&harness).get_consistency_proof(request).await
    };
    let proven = ok(proof(first.log_size, second.log_size).await);
    assert_eq!(proven.second_size, second.log_size);
    let mut hashes: Vec<_> = proven
        .hashes
        .iter()
        .map(|hash| Hash(hash.as_slice().try_into().unwrap()))
        .collect();
    newer.check_consistency(&older, &hashes).unwrap();
    assert!(older.check_consistency(&newer, &hashes).is_err());
    hashes[0].0[0] ^= 1;
    assert!(newer.check_consistency(&older, &hashes).is_err());
    let reversed = proof(second.log_size, first.log_size).await;
    assert_violations(reversed, &["first_size"]);
    assert!(ok(proof(first.log_size, 0).await).second_size >= second.log_size);
}

#[tokio::test]
async fn an_event_is_sealed_and_proven_with_the_public_key_alone() {
    let harness = Harness::start().await;
    harness.tenant("acme").await;
    let events = list(&harness, ListAuditEventsRequest::default())
        .await
        .unwrap()
        .audit_events;
    let event_id = events[0].event_id.clone();
    let proof = sealed(async || {
        let event_id = event_id.clone();
        client(&harness)
            .get_inclusion_proof(GetInclusionProofRequest {
                event_id,
                log_size: 0,
            })
            .await
    })
    .await;
    let newest = ok(client(&harness).get_checkpoint(GetCheckpointRequest {}).await);
    let key: VerifierKey = newest.verifier_key.parse().unwrap();
    assert!(key.origin().as_str().contains("/registry/"), "{}", key.origin());
    let hashes = proof.leaf_hashes.iter();
    let hashes = hashes
        .map(|hash| Hash(hash.as_slice().try_into().unwrap()))
        .collect();
    let index = proof.leaf_index.try_into().unwrap();
    let file = ProofFile::new(proof.event.clone(), index, hashes, proof.checkpoint.clone());
    assert_eq!(file.verify(&key).unwrap().head.size, proof.log_size as u64);
    let mut other = file.clone();
    other.event[5] ^= 1;
    assert!(other.verify(&key).is_err());

    let verified = ok(client(&harness).verify_audit_log(VerifyAuditLogRequest {}).await);
    assert!(
        verified.intact && verified.checked_events >= events.len() as i64,
        "{verified:?}"
    );

    for (event_id, code) in [
        ("no id", Code::InvalidArgument),
        ("01kdvdna006egaz1g7e15kendk", Code::NotFound),
    ] {
        let event_id = event_id.to_owned();
        let request = GetInclusionProofRequest {
            event_id,
            log_size: 0,
        };
        assert_eq!(
            client(&harness)
                .get_inclusion_proof(request)
                .await
                .unwrap_err()
                .code(),
            code
        );
    }
    for bad in [-1, 0, 1_000] {
        let request = GetConsistencyProofRequest {
            first_size: bad,
            second_size: 0,
        };
        assert_violations(
            client(&harness).get_consistency_proof(request).await,
            &["first_size"],
        );
    }
}
