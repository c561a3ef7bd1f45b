//! `ListRevocations`: a snapshot, then what is new, from whichever replica; and nothing at all when that
//! could be out of date.

use std::time::Duration;

use accord::token::v1 as pb;
use tonic::Code;

use crate::{harness::assert_rejected, world::World};

async fn list(world: &World, cursor: &str) -> Result<pb::ListRevocationsResponse, tonic::Status> {
    let request = pb::ListRevocationsRequest {
        cursor: cursor.into(),
    };
    let answer = world.internal_tokens().list_revocations(request).await;
    answer.map(tonic::Response::into_inner)
}

fn named(answer: &pb::ListRevocationsResponse) -> Vec<(pb::RevocationKind, String)> {
    let revocations = answer.revocations.iter();
    revocations
        .map(|revocation| (revocation.kind(), revocation.id.clone()))
        .collect()
}

#[tokio::test]
async fn a_snapshot_is_followed_by_later_revocations() {
    for world in World::start_on_all().await {
        world.registry().tell_changes();
        let empty = list(&world, "").await.unwrap();
        assert!(empty.snapshot && !empty.more && empty.revocations.is_empty());
        let age = Duration::try_from(empty.age.unwrap()).unwrap();
        assert!(age <= Duration::from_millis(700), "{age:?}");
        assert!(empty.next_cursor.starts_with(&empty.epoch));

        let tokens = world.first_tokens().await;
        let jti = world.introspect(&tokens.access_token).await.jti;
        world.revoke(&tokens.access_token).await.unwrap();
        let first = list(&world, &empty.next_cursor).await.unwrap();
        assert!(!first.snapshot && !first.more);
        assert_eq!(named(&first), [(pb::RevocationKind::Jti, jti.clone())]);
        world.revoke(&tokens.refresh_token).await.unwrap();
        world.revoke_consent(&tokens.grant_id).await;
        let second = list(&world, &first.next_cursor).await.unwrap();
        let kinds: Vec<_> = named(&second).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [pb::RevocationKind::Family, pb::RevocationKind::Grant]);
        assert!(
            list(&world, &second.next_cursor)
                .await
                .unwrap()
                .revocations
                .is_empty()
        );

        // The same snapshot without a cursor, with one of another epoch, and with one that is ahead of either feed, as
        // after a failover that lost commits.
        let (epoch, seqs) = second.next_cursor.split_once('.').unwrap();
        let (registry_seq, token_seq) = seqs.split_once('.').unwrap();
        let ahead = |seq: &str| seq.parse::<i64>().unwrap() + 1;
        for cursor in [
            "",
            "aaaaaaaaaa-bbbbbbbbbb.1.1",
            &format!("{epoch}.{}.{token_seq}", ahead(registry_seq)),
            &format!("{epoch}.{registry_seq}.{}", ahead(token_seq)),
            &format!("{epoch}.{}.{}", i64::MAX, i64::MAX),
        ] {
            let all = list(&world, cursor).await.unwrap();
            assert!(all.snapshot, "{cursor:?}");
            assert_eq!(all.revocations.len(), 3, "{cursor:?}");
            assert_eq!(all.revocations[0].id, jti);
            assert_eq!(all.next_cursor, second.next_cursor, "{cursor:?}");
        }
    }
}

#[tokio::test]
async fn no_stale_page_of_revocations_is_returned() {
    let world = World::start().await;
    world.registry().tell_changes();
    world.registry().set_unavailable(true);
    assert_rejected(list(&world, "").await, Code::Unavailable, "UNAVAILABLE");
    world.registry().set_unavailable(false);
    list(&world, "").await.unwrap();
}

#[tokio::test]
async fn an_unknown_cursor_is_rejected() {
    let world = World::start().await;
    world.registry().tell_changes();
    for cursor in [
        "x",
        "a.b.c",
        "a.1",
        "a.1.2.3",
        "a.-1.0",
        "a.1.99999999999999999999",
    ] {
        let refused = list(&world, cursor).await;
        assert_rejected(refused, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn it_is_for_internal_services_alone() {
    let world = World::start().await;
    let request = pb::ListRevocationsRequest::default();
    let refused = world.tokens().list_revocations(request).await;
    assert_rejected(refused, Code::Unauthenticated, "UNAUTHENTICATED");
}
