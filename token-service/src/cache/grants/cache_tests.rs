//! The memory's rules, without a database.

#![allow(clippy::unwrap_used)]

use accord::{
    clock::Clock,
    random::SeededRandom,
    testing::{TEST_START, test_clock},
    text::id::UserId,
};

use super::*;
use crate::model::{
    client::Profile,
    signing_key::{Signer, generate},
};

fn position(seq: i64) -> Position {
    Position {
        epoch: accord::testing::epoch("epochone"),
        seq,
    }
}

fn grant(random: &SeededRandom, state: StoredState) -> Arc<Grant> {
    let clock = test_clock();
    Arc::new(Grant {
        grant_id: GrantId::generate(&*clock, random),
        tenant_id: TenantId::parse("acme").unwrap(),
        client_id: ClientId::generate(&*clock, random),
        profile: Profile::default(),
        scopes: Vec::new(),
        designated_user_id: UserId::generate(&*clock, random),
        granted_by: UserId::generate(&*clock, random),
        state,
        created_at: clock.now(),
        redeem_until: clock.now(),
        activated_at: None,
        expires_at: None,
        ended_at: None,
    })
}

fn change(seq: i64, kind: &str, id: &str) -> ChangeRow {
    ChangeRow {
        seq,
        kind: kind.into(),
        id: id.into(),
        tenant_id: None,
        changed_at: TEST_START,
    }
}

fn tell(cache: &Cache, changes: Vec<ChangeRow>, seq: i64) {
    let told = Told {
        changes,
        position: position(seq),
        reset: false,
        more: false,
    };
    cache.apply(told, Instant::now());
}

/// A memory that was told position 5, just now.
fn told() -> Cache {
    let cache = Cache::new(true);
    cache.restart(position(5));
    tell(&cache, Vec::new(), 5);
    cache
}

fn is_known(cache: &Cache, grant: &Grant) -> [bool; 2] {
    let now = Instant::now();
    let by_id = cache.grant(&grant.tenant_id, &grant.grant_id, now);
    let current = cache.current_grant(&grant.tenant_id, &grant.client_id, now);
    [
        by_id.is_some(),
        current.is_some_and(|known| *known.value == *grant),
    ]
}

#[tokio::test(start_paused = true)]
async fn only_active_grants_read_at_the_position_or_later_are_remembered() {
    let random = SeededRandom::new(1);
    let cache = told();
    for (state, seq, expected) in [
        (StoredState::Active, 4, false),
        (StoredState::Active, 5, true),
        (StoredState::Active, 6, true),
        (StoredState::Pending, 5, false),
        (StoredState::Revoked, 5, false),
        (StoredState::Superseded, 5, false),
    ] {
        let grant = grant(&random, state);
        cache.keep_grant(&grant, &position(seq));
        assert_eq!(is_known(&cache, &grant), [expected; 2], "{state:?} {seq}");
        let elsewhere = TenantId::parse("globex").unwrap();
        let now = Instant::now();
        assert!(cache.grant(&elsewhere, &grant.grant_id, now).is_none());
        assert!(cache.current_grant(&elsewhere, &grant.client_id, now).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_counts_before_the_feed_without_a_lease_or_where_none_is_followed() {
    let random = SeededRandom::new(2);
    let grant = grant(&random, StoredState::Active);
    let fresh = Cache::new(true);
    fresh.keep_grant(&grant, &position(5));
    assert_eq!(is_known(&fresh, &grant), [false; 2]);
    fresh.restart(position(5));
    fresh.keep_grant(&grant, &position(5));
    assert_eq!(
        is_known(&fresh, &grant),
        [false; 2],
        "what ended lately is not known yet"
    );

    let cache = told();
    cache.keep_grant(&grant, &position(5));
    tokio::time::advance(lease::LIFE).await;
    assert_eq!(is_known(&cache, &grant), [true; 2]);
    tokio::time::advance(std::time::Duration::from_millis(1)).await;
    assert_eq!(is_known(&cache, &grant), [false; 2]);
    assert!(cache.last_revocation(&[], Instant::now()).is_none());
    assert!(cache.ended_after(0, 9, Instant::now()).unwrap().is_none());
    tell(&cache, Vec::new(), 5);
    assert_eq!(is_known(&cache, &grant), [true; 2], "the next answer renews it");

    let off = Cache::new(false);
    off.restart(position(5));
    tell(&off, vec![change(6, "revocation", "jti:a")], 6);
    off.keep_grant(&grant, &position(6));
    assert_eq!(is_known(&off, &grant), [false; 2]);
    assert!(
        off.last_revocation(&[(RevocationKind::Jti, "a")], Instant::now())
            .is_none()
    );
    let told = off.ended_after(0, 9, Instant::now()).unwrap().unwrap();
    assert_eq!(told.value.len(), 1, "what ended is told all the same");
}

#[tokio::test(start_paused = true)]
async fn a_change_takes_away_what_it_concerns_and_what_ended_stays() {
    let random = SeededRandom::new(3);
    let cache = told();
    let (one, other) = (
        grant(&random, StoredState::Active),
        grant(&random, StoredState::Active),
    );
    let id = one.grant_id.as_str();
    for (seq, (kind, id, expected)) in (6..).zip([
        (change_kind::GRANT, id.to_owned(), [false, true]),
        (change_kind::REVOCATION, format!("grant:{id}"), [false, true]),
        (change_kind::REVOCATION, format!("jti:{id}"), [true, true]),
        (change_kind::SIGNING_KEY, id.to_owned(), [true, true]),
        ("something-new", id.to_owned(), [false, false]),
    ]) {
        for grant in [&one, &other] {
            cache.keep_grant(grant, &position(seq - 1));
        }
        tell(&cache, vec![change(seq, kind, &id)], seq);
        let known = [&one, &other].map(|grant| is_known(&cache, grant) == [true; 2]);
        assert_eq!(known, expected, "{kind} {id}");
    }
    let last = |kind| {
        cache
            .last_revocation(&[(kind, id)], Instant::now())
            .unwrap()
            .value
    };
    assert_eq!(last(RevocationKind::Grant), Some(7));
    assert_eq!(last(RevocationKind::Jti), Some(8));
    assert_eq!(last(RevocationKind::Family), None);
    // A newer version ended something that this one does not know.
    cache.keep_grant(&other, &position(10));
    tell(
        &cache,
        vec![change(11, change_kind::REVOCATION, "something:new")],
        11,
    );
    assert_eq!(is_known(&cache, &other), [false; 2]);
    assert!(
        cache.last_revocation(&[], Instant::now()).is_none(),
        "what ended is not all known"
    );
    assert!(cache.ended_after(0, 9, Instant::now()).is_err());
    cache.restart(position(1));
    tell(&cache, Vec::new(), 1);
    let last = cache.last_revocation(&[(RevocationKind::Grant, id)], Instant::now());
    assert_eq!(last.unwrap().value, None, "another feed has other positions");
}

#[tokio::test(start_paused = true)]
async fn a_newer_grant_takes_the_place_of_the_current_one() {
    let random = SeededRandom::new(4);
    let cache = told();
    let older = grant(&random, StoredState::Active);
    let newer = Arc::new(Grant {
        grant_id: GrantId::generate(&*test_clock(), &random),
        ..(*older).clone()
    });
    cache.keep_grant(&older, &position(5));
    cache.keep_grant(&newer, &position(6));
    assert_eq!(is_known(&cache, &newer), [true; 2]);
    let superseded = format!("grant:{}", older.grant_id);
    tell(&cache, vec![change(6, change_kind::REVOCATION, &superseded)], 6);
    assert_eq!(is_known(&cache, &older), [false; 2]);
    assert_eq!(
        is_known(&cache, &newer),
        [true; 2],
        "the older one's end is not its own"
    );
}

#[tokio::test(start_paused = true)]
async fn keys_are_read_anew_when_one_changes() {
    let cache = told();
    let key = generate().unwrap();
    let signer = Arc::new(Signer::new(key.kid.clone(), &key.pkcs8).unwrap());
    let keep = |seq| {
        let keys = Keys::new(signer.clone(), Vec::new()).unwrap();
        let read = At {
            value: Arc::new(keys),
            position: position(seq),
            asked_at: Instant::now(),
        };
        cache.keep_keys(&read);
        cache.keys(Instant::now()).is_some()
    };
    assert!(!keep(4) && keep(5));
    tell(&cache, vec![change(6, change_kind::SIGNING_KEY, &key.kid)], 6);
    assert!(cache.keys(Instant::now()).is_none());
    assert!(!keep(5), "read before the change");
    assert!(keep(6));
    let revoked = format!("kid:{}", key.kid);
    tell(&cache, vec![change(7, change_kind::REVOCATION, &revoked)], 7);
    assert!(cache.keys(Instant::now()).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_has_a_bound() {
    let random = SeededRandom::new(5);
    let cache = told();
    let heavy = || {
        let grant = grant(&random, StoredState::Active);
        Arc::new(Grant {
            profile: Profile {
                purpose: "x".repeat(1024 * 1024),
                ..Profile::default()
            },
            ..(*grant).clone()
        })
    };
    let (first, last) = (heavy(), heavy());
    cache.keep_grant(&first, &position(5));
    for _ in 0..70 {
        cache.keep_grant(&heavy(), &position(5));
    }
    cache.keep_grant(&last, &position(5));
    assert_eq!(is_known(&cache, &first), [false; 2]);
    assert_eq!(is_known(&cache, &last), [true; 2]);
    assert!(
        cache.state().current.len() < 70,
        "what went takes its place along"
    );
}
