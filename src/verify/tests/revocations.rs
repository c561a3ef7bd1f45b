//! Responses of the feed, in any order.

#![allow(clippy::unwrap_used)]

use tokio::time::advance;

use super::*;
use crate::verify::testing::{EPOCH, claims, revocation};

const MS: Duration = Duration::from_millis(1);

/// A complete snapshot.
fn snapshot(revocations: Vec<pb::Revocation>) -> pb::ListRevocationsResponse {
    pb::ListRevocationsResponse {
        revocations,
        next_cursor: "1".into(),
        snapshot: true,
        epoch: EPOCH.into(),
        age: age(0),
        ..Default::default()
    }
}

fn age(millis: u64) -> Option<prost_types::Duration> {
    Duration::from_millis(millis).try_into().ok()
}

/// A complete response without a snapshot.
fn news(revocations: Vec<pb::Revocation>) -> pb::ListRevocationsResponse {
    pb::ListRevocationsResponse {
        snapshot: false,
        ..snapshot(revocations)
    }
}

fn known(revocations: Vec<pb::Revocation>) -> Revocations {
    let mut known = Revocations::default();
    known.apply(snapshot(revocations), Instant::now());
    known
}

/// Claims with these positions.
fn at(registry: i64, token: i64) -> AccessTokenClaims {
    AccessTokenClaims {
        rev: format!("{EPOCH}.{registry}.{token}"),
        family_id: Some("fam_1".into()),
        ..claims()
    }
}

#[tokio::test(start_paused = true)]
async fn each_kind_is_compared_with_its_own_feed() {
    let registry = [
        (RevocationKind::Client, "cli_1"),
        (RevocationKind::Tenant, "firm"),
        (RevocationKind::User, "usr_1"),
    ];
    let tokens = [
        (RevocationKind::Jti, "1"),
        (RevocationKind::Family, "fam_1"),
        (RevocationKind::Grant, "grt_1"),
    ];
    for (kind, id) in registry {
        let known = known(vec![revocation(kind, id, 5)]);
        for (registry, token, ended) in [(4, 9, true), (5, 0, false), (6, 0, false), (5, 4, false)] {
            assert_eq!(known.is_revoked(&at(registry, token), "k1"), ended, "{kind:?}");
        }
    }
    for (kind, id) in tokens {
        let known = known(vec![revocation(kind, id, 5)]);
        for (registry, token, ended) in [(9, 4, true), (0, 5, false), (0, 6, false), (4, 5, false)] {
            assert_eq!(known.is_revoked(&at(registry, token), "k1"), ended, "{kind:?}");
        }
    }
    for (kind, _) in registry.into_iter().chain(tokens) {
        let known = known(vec![revocation(kind, "other", 5)]);
        assert!(!known.is_revoked(&at(0, 0), "k1"), "{kind:?}");
    }
    // A token without a family.
    let known = known(vec![revocation(RevocationKind::Family, "fam_1", 5)]);
    assert!(!known.is_revoked(&claims(), "k1"));
}

#[tokio::test(start_paused = true)]
async fn tokens_of_a_revoked_key_are_revoked_at_any_position() {
    let mut known = known(vec![revocation(RevocationKind::Kid, "k1", 5)]);
    for position in [0, 5, 6, i64::MAX] {
        assert!(known.is_revoked(&at(position, position), "k1"), "{position}");
        assert!(!known.is_revoked(&at(position, position), "k2"), "{position}");
    }
    // A thief can sign new tokens a year later.
    for _ in 0..3 {
        advance(Duration::from_secs(3600)).await;
        known.apply(news(vec![]), Instant::now());
    }
    assert!(known.is_revoked(&at(9, 9), "k1"));
    // Only the first revocation is new.
    let again = || news(vec![revocation(RevocationKind::Kid, "k1", 5)]);
    assert!(!known.apply(again(), Instant::now()).key_revoked);
    let other = news(vec![revocation(RevocationKind::Kid, "k2", 6)]);
    assert!(known.apply(other, Instant::now()).key_revoked);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_kind_revokes_all_tokens_of_lower_positions() {
    for kind in [0, 8, -1, i32::MAX] {
        let newer = pb::Revocation {
            kind,
            ..revocation(RevocationKind::Jti, "x", 5)
        };
        let known = known(vec![newer]);
        for (registry, token, ended) in [(4, 9, true), (9, 4, true), (5, 5, false)] {
            assert_eq!(known.is_revoked(&at(registry, token), "k1"), ended, "{kind}");
        }
        advance(RETENTION).await;
        assert!(
            !known.is_revoked(&at(0, 0), "k1"),
            "by then the tokens have expired"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_rev_that_can_not_be_compared_is_revoked() {
    let known = known(vec![]);
    assert!(!known.is_revoked(&at(0, 0), "k1"));
    for rev in [
        "",
        "aa-bb",
        "aa-bb.0",
        "aa-bb.0.0.0",
        "aa-bb.x.0",
        "aa-bb.0.",
        "aa-bc.0.0",
        ".0.0",
    ] {
        let claims = AccessTokenClaims {
            rev: rev.into(),
            ..claims()
        };
        assert!(known.is_revoked(&claims, "k1"), "{rev}");
        assert!(Revocations::default().is_revoked(&claims, "k1"), "{rev}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_starts_when_the_request_was_sent_minus_the_age_of_the_response() {
    let mut known = Revocations::default();
    assert_eq!(known.check(&claims(), "k1"), Err(VerifyError::Stale));
    let sent_at = Instant::now();
    advance(700 * MS).await;
    let response = pb::ListRevocationsResponse {
        age: age(300),
        ..snapshot(vec![])
    };
    known.apply(response, sent_at);
    advance(1000 * MS).await;
    assert_eq!(known.check(&claims(), "k1"), Ok(()));
    advance(MS).await;
    assert_eq!(known.check(&claims(), "k1"), Err(VerifyError::Stale));

    // An old response renews nothing.
    let response = pb::ListRevocationsResponse {
        age: age(u32::MAX.into()),
        ..news(vec![])
    };
    known.apply(response, Instant::now());
    assert!(!known.is_fresh());
    // Nor does a response of unknown age.
    let response = pb::ListRevocationsResponse {
        age: None,
        ..news(vec![])
    };
    known.apply(response, Instant::now());
    assert!(!known.is_fresh());
    known.apply(news(vec![]), Instant::now());
    assert!(known.is_fresh());
    // An old response does not shorten a lease.
    let response = pb::ListRevocationsResponse {
        age: age(3000),
        ..news(vec![])
    };
    known.apply(response, Instant::now());
    assert!(known.is_fresh());
}

#[tokio::test(start_paused = true)]
async fn only_the_last_response_of_several_renews_the_lease() {
    let mut known = Revocations::default();
    let first = pb::ListRevocationsResponse {
        more: true,
        next_cursor: "a".into(),
        ..snapshot(vec![revocation(RevocationKind::Jti, "x", 1)])
    };
    assert!(known.apply(first.clone(), Instant::now()).more);
    assert!(!known.is_fresh());
    assert_eq!(known.cursor(), "a");
    // A response that does not move the cursor does not cause another request at once.
    let stuck = pb::ListRevocationsResponse {
        snapshot: false,
        ..first
    };
    assert!(!known.apply(stuck, Instant::now()).more);
    assert!(!known.is_fresh());
    known.apply(news(vec![]), Instant::now());
    assert!(known.is_fresh());
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_snapshot_without_its_start_is_incomplete() {
    let mut fresh = Revocations::default();
    let ended = revocation(RevocationKind::Jti, "1", 5);
    fresh.apply(news(vec![ended.clone()]), Instant::now());
    assert!(!fresh.is_fresh());
    assert_eq!(fresh.cursor(), "", "the next request is for a snapshot");
    assert!(fresh.is_revoked(&at(0, 0), "k1"));

    // The server does not know the cursor: revocations stay, and so does the lease.
    let mut known = known(vec![ended]);
    known.forget_cursor();
    assert_eq!(known.cursor(), "");
    assert_eq!(known.check(&at(0, 0), "k1"), Err(VerifyError::Revoked));
    advance(LEASE + MS).await;
    known.apply(news(vec![]), Instant::now());
    assert!(!known.is_fresh());
    known.apply(snapshot(vec![]), Instant::now());
    assert_eq!(known.check(&at(0, 0), "k1"), Err(VerifyError::Revoked));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_keeps_revocations_and_a_new_epoch_drops_them() {
    let ended = || revocation(RevocationKind::Client, "cli_1", 5);
    let mut known = known(vec![ended()]);
    let first_page = pb::ListRevocationsResponse {
        more: true,
        ..snapshot(vec![])
    };
    known.apply(first_page, Instant::now());
    assert_eq!(known.check(&at(4, 4), "k1"), Err(VerifyError::Revoked));
    known.apply(
        news(vec![revocation(RevocationKind::Client, "cli_1", 3)]),
        Instant::now(),
    );
    assert_eq!(
        known.check(&at(4, 4), "k1"),
        Err(VerifyError::Revoked),
        "the highest counts"
    );

    let other = |snapshot: bool| pb::ListRevocationsResponse {
        epoch: "cc-bb".into(),
        snapshot,
        next_cursor: "c".into(),
        ..news(vec![])
    };
    let later = AccessTokenClaims {
        rev: "cc-bb.4.4".into(),
        ..claims()
    };
    // The rest of a snapshot is incomplete.
    assert!(known.apply(other(false), Instant::now()).new_epoch);
    assert_eq!(known.cursor(), "");
    assert_eq!(known.check(&later, "k1"), Err(VerifyError::Stale));
    known.apply(other(true), Instant::now());
    assert_eq!(known.check(&later, "k1"), Ok(()));
    assert_eq!(known.check(&at(9, 9), "k1"), Err(VerifyError::Revoked));

    // A late response of the old epoch is ignored, and so is one without an epoch.
    let before = Instant::now();
    advance(MS).await;
    known.apply(other(true), Instant::now());
    assert_eq!(known.apply(snapshot(vec![ended()]), before), Applied::default());
    let none = pb::ListRevocationsResponse {
        epoch: String::new(),
        ..snapshot(vec![ended()])
    };
    assert_eq!(known.apply(none, Instant::now()), Applied::default());
    assert_eq!(known.check(&later, "k1"), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn old_revocations_are_removed() {
    let mut known = known(vec![revocation(RevocationKind::Jti, "0", 1)]);
    for minute in 1..=60_i64 {
        advance(Duration::from_secs(60)).await;
        let id = minute.to_string();
        let again = revocation(RevocationKind::Jti, "0", 1);
        known.apply(
            news(vec![revocation(RevocationKind::Jti, &id, 1 + minute), again]),
            Instant::now(),
        );
    }
    assert!(
        known.revocations.values().map(HashMap::len).sum::<usize>() <= 17,
        "{known:?}"
    );
    // Those of the last fifteen minutes, the longest life of a token, are stored.
    for minute in 45..=60 {
        let claims = AccessTokenClaims {
            jti: minute.to_string(),
            ..at(0, 0)
        };
        assert!(known.is_revoked(&claims, "k1"), "{minute}");
    }
}

/// Every order in which the responses of overlapping requests can arrive: no revocation before the lease is missing, and
/// a revoked token stays revoked.
#[tokio::test(start_paused = true)]
async fn the_lease_covers_only_known_revocations_in_any_order_of_responses() {
    let start = Instant::now();
    // A token is revoked every 100 ms, and each request is sent 50 ms after a revocation.
    let revoked_at = |index: u32| start + index * 100 * MS;
    let response = |request: u32, indices: std::ops::Range<u32>, snapshot: bool, more: bool| {
        let revocations =
            indices.map(|index| revocation(RevocationKind::Jti, &index.to_string(), i64::from(index) + 1));
        let response = pb::ListRevocationsResponse {
            next_cursor: request.to_string(),
            snapshot,
            more,
            ..news(revocations.collect())
        };
        (revoked_at(request) + 50 * MS, response)
    };
    // Three requests are for a snapshot, of which the second is incomplete. Two continue after another response.
    let responses = [
        response(0, 0..1, true, false),
        response(1, 1..2, false, false),
        response(2, 0..2, true, true),
        response(3, 2..4, false, false),
        response(4, 0..5, true, false),
    ];
    let can_arrive = |order: &[usize]| {
        let place = |response| order.iter().position(|at| *at == response);
        place(0) < place(1) && place(2) < place(3)
    };
    advance(Duration::from_secs(1)).await;
    let orders: Vec<_> = permutations(5)
        .into_iter()
        .filter(|order| can_arrive(order))
        .collect();
    assert_eq!(orders.len(), 30);
    for order in orders {
        let (mut known, mut highest) = (Revocations::default(), 0);
        for (applied, next) in order.iter().enumerate() {
            let (sent_at, response) = responses[*next].clone();
            highest = highest.max([1, 2, 2, 4, 5][*next]);
            known.apply(response, sent_at);
            let last = order[..=applied].iter().max().unwrap();
            assert_eq!(known.cursor(), last.to_string(), "{:?}", &order[..=applied]);
            for index in 0..5 {
                let claims = AccessTokenClaims {
                    jti: index.to_string(),
                    ..at(0, 0)
                };
                let revoked = known.is_revoked(&claims, "k1");
                let covered = known.complete_at.is_some_and(|at| at >= revoked_at(index));
                assert!(revoked || !covered, "{:?}: {index}", &order[..=applied]);
                assert!(revoked || index >= highest, "{:?}: {index}", &order[..=applied]);
            }
        }
        assert_eq!(known.complete_at, Some(revoked_at(4) + 50 * MS), "{order:?}");
    }
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else {
        return vec![Vec::new()];
    };
    let mut all = Vec::new();
    for shorter in permutations(last) {
        for place in 0..count {
            let mut order = shorter.clone();
            order.insert(place, last);
            all.push(order);
        }
    }
    all
}
