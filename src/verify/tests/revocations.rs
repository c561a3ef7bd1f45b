//! What answers do to a follower, in whatever order they come.

#![allow(clippy::unwrap_used)]

use tokio::time::advance;

use super::*;
use crate::verify::testing::{EPOCH, claims, revocation};

const MS: Duration = Duration::from_millis(1);

/// A snapshot that holds all there is.
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

/// What is new since.
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

/// Claims that were checked at these positions.
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
    // Without a family, a family's end is of no concern.
    let known = known(vec![revocation(RevocationKind::Family, "fam_1", 5)]);
    assert!(!known.is_revoked(&claims(), "k1"));
}

#[tokio::test(start_paused = true)]
async fn a_revoked_key_s_tokens_have_ended_whatever_they_state() {
    let mut known = known(vec![revocation(RevocationKind::Kid, "k1", 5)]);
    for position in [0, 5, 6, i64::MAX] {
        assert!(known.is_revoked(&at(position, position), "k1"), "{position}");
        assert!(!known.is_revoked(&at(position, position), "k2"), "{position}");
    }
    // Whoever stole it can make new ones a year later.
    for _ in 0..3 {
        advance(Duration::from_secs(3600)).await;
        known.apply(news(vec![]), Instant::now());
    }
    assert!(known.is_revoked(&at(9, 9), "k1"));
    // Only the first time is news.
    let again = || news(vec![revocation(RevocationKind::Kid, "k1", 5)]);
    assert!(!known.apply(again(), Instant::now()).key_revoked);
    let other = news(vec![revocation(RevocationKind::Kid, "k2", 6)]);
    assert!(known.apply(other, Instant::now()).key_revoked);
}

#[tokio::test(start_paused = true)]
async fn a_kind_of_a_newer_server_ends_all_tokens_of_lower_positions() {
    for kind in [0, 8, -1, i32::MAX] {
        let newer = pb::Revocation {
            kind,
            ..revocation(RevocationKind::Jti, "x", 5)
        };
        let known = known(vec![newer]);
        for (registry, token, ended) in [(4, 9, true), (9, 4, true), (5, 5, false)] {
            assert_eq!(known.is_revoked(&at(registry, token), "k1"), ended, "{kind}");
        }
        advance(KEPT).await;
        assert!(
            !known.is_revoked(&at(0, 0), "k1"),
            "by then they have ended by themselves"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_rev_that_can_not_be_compared_has_ended() {
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
async fn the_lease_runs_from_when_the_question_was_sent_less_the_answer_s_age() {
    let mut known = Revocations::default();
    assert_eq!(known.judge(&claims(), "k1"), Err(VerifyError::Stale));
    let asked_at = Instant::now();
    advance(700 * MS).await;
    let answer = pb::ListRevocationsResponse {
        age: age(300),
        ..snapshot(vec![])
    };
    known.apply(answer, asked_at);
    advance(1000 * MS).await;
    assert_eq!(known.judge(&claims(), "k1"), Ok(()));
    advance(MS).await;
    assert_eq!(known.judge(&claims(), "k1"), Err(VerifyError::Stale));

    // Too old to be of use from the start.
    let answer = pb::ListRevocationsResponse {
        age: age(u32::MAX.into()),
        ..news(vec![])
    };
    known.apply(answer, Instant::now());
    assert!(!known.is_fresh());
    // As is an answer of unknown age.
    let answer = pb::ListRevocationsResponse {
        age: None,
        ..news(vec![])
    };
    known.apply(answer, Instant::now());
    assert!(!known.is_fresh());
    known.apply(news(vec![]), Instant::now());
    assert!(known.is_fresh());
    // Nor does it shorten a lease.
    let answer = pb::ListRevocationsResponse {
        age: age(3000),
        ..news(vec![])
    };
    known.apply(answer, Instant::now());
    assert!(known.is_fresh());
}

#[tokio::test(start_paused = true)]
async fn only_an_answer_with_nothing_behind_it_renews() {
    let mut known = Revocations::default();
    let first = pb::ListRevocationsResponse {
        more: true,
        next_cursor: "a".into(),
        ..snapshot(vec![revocation(RevocationKind::Jti, "x", 1)])
    };
    assert!(known.apply(first.clone(), Instant::now()).more);
    assert!(!known.is_fresh());
    assert_eq!(known.cursor(), "a");
    // One that leads nowhere is not asked for again at once.
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
async fn the_rest_of_a_snapshot_whose_beginning_is_missing_is_not_all() {
    let mut fresh = Revocations::default();
    let ended = revocation(RevocationKind::Jti, "1", 5);
    fresh.apply(news(vec![ended.clone()]), Instant::now());
    assert!(!fresh.is_fresh());
    assert_eq!(fresh.cursor(), "", "a snapshot is asked for");
    assert!(fresh.is_revoked(&at(0, 0), "k1"));

    // A cursor that the server does not know: what is known stays, until the lease has passed.
    let mut known = known(vec![ended]);
    known.forget_cursor();
    assert_eq!(known.cursor(), "");
    assert_eq!(known.judge(&at(0, 0), "k1"), Err(VerifyError::Revoked));
    advance(LEASE + MS).await;
    known.apply(news(vec![]), Instant::now());
    assert!(!known.is_fresh());
    known.apply(snapshot(vec![]), Instant::now());
    assert_eq!(known.judge(&at(0, 0), "k1"), Err(VerifyError::Revoked));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_takes_nothing_back_and_another_epoch_everything() {
    let ended = || revocation(RevocationKind::Client, "cli_1", 5);
    let mut known = known(vec![ended()]);
    let begun = pb::ListRevocationsResponse {
        more: true,
        ..snapshot(vec![])
    };
    known.apply(begun, Instant::now());
    assert_eq!(known.judge(&at(4, 4), "k1"), Err(VerifyError::Revoked));
    known.apply(
        news(vec![revocation(RevocationKind::Client, "cli_1", 3)]),
        Instant::now(),
    );
    assert_eq!(
        known.judge(&at(4, 4), "k1"),
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
    // From its middle, it is not all.
    assert!(known.apply(other(false), Instant::now()).new_epoch);
    assert_eq!(known.cursor(), "");
    assert_eq!(known.judge(&later, "k1"), Err(VerifyError::Stale));
    known.apply(other(true), Instant::now());
    assert_eq!(known.judge(&later, "k1"), Ok(()));
    assert_eq!(known.judge(&at(9, 9), "k1"), Err(VerifyError::Revoked));

    // A late answer of the former life is not looked at, nor is one of no epoch.
    let before = Instant::now();
    advance(MS).await;
    known.apply(other(true), Instant::now());
    assert_eq!(known.apply(snapshot(vec![ended()]), before), Applied::default());
    let none = pb::ListRevocationsResponse {
        epoch: String::new(),
        ..snapshot(vec![ended()])
    };
    assert_eq!(known.apply(none, Instant::now()), Applied::default());
    assert_eq!(known.judge(&later, "k1"), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_bounded_by_time() {
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
    assert!(known.kept() <= 17, "{known:?}");
    // The fifteen minutes that a token lives at most are covered.
    for minute in 45..=60 {
        let claims = AccessTokenClaims {
            jti: minute.to_string(),
            ..at(0, 0)
        };
        assert!(known.is_revoked(&claims, "k1"), "{minute}");
    }
}

/// Every order in which the answers to overlapping questions can come: no revocation that the lease covers
/// is ever missing, and what was refused once stays refused.
#[tokio::test(start_paused = true)]
async fn no_order_of_answers_claims_more_than_was_told() {
    let start = Instant::now();
    // One is revoked every 100 ms, and each question is sent 50 ms after one.
    let revoked_at = |index: u32| start + index * 100 * MS;
    let answer = |question: u32, told: std::ops::Range<u32>, snapshot: bool, more: bool| {
        let told =
            told.map(|index| revocation(RevocationKind::Jti, &index.to_string(), i64::from(index) + 1));
        let answer = pb::ListRevocationsResponse {
            next_cursor: question.to_string(),
            snapshot,
            more,
            ..news(told.collect())
        };
        (revoked_at(question) + 50 * MS, answer)
    };
    // Three ask for a snapshot, and the second one's is not complete; two go on where another came to.
    let answers = [
        answer(0, 0..1, true, false),
        answer(1, 1..2, false, false),
        answer(2, 0..2, true, true),
        answer(3, 2..4, false, false),
        answer(4, 0..5, true, false),
    ];
    let can_come = |order: &[usize]| {
        let place = |answer| order.iter().position(|at| *at == answer);
        place(0) < place(1) && place(2) < place(3)
    };
    advance(Duration::from_secs(1)).await;
    let orders: Vec<_> = permutations(5)
        .into_iter()
        .filter(|order| can_come(order))
        .collect();
    assert_eq!(orders.len(), 30);
    for order in orders {
        let (mut known, mut told) = (Revocations::default(), 0);
        for (applied, next) in order.iter().enumerate() {
            let (asked_at, answer) = answers[*next].clone();
            told = told.max([1, 2, 2, 4, 5][*next]);
            known.apply(answer, asked_at);
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
                assert!(revoked || index >= told, "{:?}: {index}", &order[..=applied]);
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
