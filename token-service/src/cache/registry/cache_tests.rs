//! The memory's rules, without a registry.

#![allow(clippy::unwrap_used)]

use accord::{
    clock::Clock,
    random::SeededRandom,
    rpc::auth::WorkloadKind,
    testing::{TEST_START, test_clock},
    text::id::WorkloadId,
};

use super::*;
use crate::{
    cache::lease,
    model::{client::Profile, revocation::RevocationKind},
};

const EPOCH: &str = "epochone";

fn position(seq: i64) -> Position {
    Position {
        epoch: accord::testing::epoch(EPOCH),
        seq,
    }
}

fn client(random: &SeededRandom) -> Client {
    Client {
        client_id: ClientId::generate(&*test_clock(), random),
        profile: Profile::default(),
        active: true,
        tenant_ids: Vec::new(),
        scopes: Vec::new(),
        redirect_uris: Vec::new(),
        version: 1,
        tokens_ended_seq: 0,
        families_ended_seq: 0,
        json_web_key_set: String::new(),
    }
}

fn at<T>(value: T, seq: i64) -> At<Arc<T>> {
    At {
        value: Arc::new(value),
        position: position(seq),
        asked_at: Instant::now(),
    }
}

fn secret(random: &SeededRandom, mac: u8, expires_at: Option<UnixMillis>) -> Verified {
    Verified {
        mac: [mac; 32],
        secret_id: SecretId::generate(&*test_clock(), random),
        expires_at,
    }
}

/// What the feed told up to a position.
fn changes(changes: Vec<Change>, seq: i64, more: bool) -> Changes {
    Changes {
        changes,
        ended: Vec::new(),
        position: position(seq),
        recent_seq: 0,
        reset: false,
        more,
    }
}

/// Forgets everything, and is told this position at this moment.
fn begin(cache: &Cache, seq: i64, asked_at: Instant) {
    cache.restart(position(seq));
    cache.apply(changes(Vec::new(), seq, false), asked_at);
}

/// A memory that the feed has told position 5, just now.
fn told() -> Cache {
    let cache = Cache::new(true, lease::LIFE);
    begin(&cache, 5, Instant::now());
    cache
}

#[tokio::test(start_paused = true)]
async fn nothing_counts_before_the_feed_and_after_the_lease() {
    let random = SeededRandom::new(1);
    let (cache, client) = (Cache::new(true, lease::LIFE), client(&random));
    let id = client.client_id.clone();
    cache.keep_client(&at(client.clone(), 5), None);
    assert!(cache.client(&id, Instant::now()).is_none(), "no feed, no memory");

    let asked_at = Instant::now();
    begin(&cache, 5, asked_at);
    cache.keep_client(&at(client, 5), None);
    let known = cache.client(&id, Instant::now()).unwrap();
    assert_eq!((known.position, known.asked_at), (position(5), asked_at));
    tokio::time::advance(lease::LIFE).await;
    assert!(cache.client(&id, Instant::now()).is_some());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(cache.client(&id, Instant::now()).is_none());

    // The next answer renews it, from when its question was sent.
    let sent = Instant::now();
    tokio::time::advance(Duration::from_millis(300)).await;
    cache.apply(changes(Vec::new(), 6, false), sent);
    let known = cache.client(&id, Instant::now()).unwrap();
    assert_eq!((known.position, known.asked_at), (position(6), sent));
    tokio::time::advance(lease::LIFE - Duration::from_millis(299)).await;
    assert!(cache.client(&id, Instant::now()).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_before_a_change_is_not_kept() {
    let random = SeededRandom::new(2);
    let (cache, client) = (told(), client(&random));
    let id = client.client_id.clone();
    cache.keep_client(&at(client.clone(), 4), None);
    assert!(cache.client(&id, Instant::now()).is_none(), "older than the feed");
    cache.keep_client(&at(client.clone(), 7), None);
    assert!(cache.client(&id, Instant::now()).is_some(), "newer than the feed");
    let elsewhere = At {
        position: Position {
            epoch: accord::testing::epoch("another"),
            seq: 9,
        },
        ..at(client, 9)
    };
    begin(&cache, 5, Instant::now());
    cache.keep_client(&elsewhere, None);
    assert!(cache.client(&id, Instant::now()).is_none(), "of another epoch");
}

#[tokio::test(start_paused = true)]
async fn a_change_takes_away_what_it_concerns_and_nothing_else() {
    let random = SeededRandom::new(3);
    let cache = told();
    let (one, other) = (client(&random), client(&random));
    let (tenant_id, user_id) = (
        TenantId::parse("acme").unwrap(),
        UserId::generate(&*test_clock(), &random),
    );
    let user = User {
        user_id: user_id.clone(),
        label: "API user".into(),
        tenant_admin: false,
        active: true,
        tokens_ended_seq: 0,
        sessions_ended_seq: 0,
    };
    let keep = || {
        for client in [&one, &other] {
            cache.keep_client(&at(client.clone(), 9), None);
        }
        cache.keep_user(&tenant_id, &at(user.clone(), 9));
    };
    let there = || {
        let now = Instant::now();
        [
            cache.client(&one.client_id, now).is_some(),
            cache.client(&other.client_id, now).is_some(),
            cache.user(&tenant_id, &user_id, now).is_some(),
        ]
    };
    let globex = TenantId::parse("globex").unwrap();
    for (change, expected) in [
        (Change::Client(one.client_id.clone()), [false, true, true]),
        (Change::Scope, [false, false, true]),
        (
            Change::User(tenant_id.clone(), user_id.clone()),
            [true, true, false],
        ),
        (
            Change::User(globex, UserId::generate(&*test_clock(), &random)),
            [true, true, true],
        ),
        (Change::Caller("opr_1".into()), [true, true, true]),
        (Change::Unknown, [false, false, false]),
    ] {
        keep();
        cache.apply(changes(vec![change.clone()], 9, false), Instant::now());
        assert_eq!(there(), expected, "{change:?}");
    }
    keep();
    begin(&cache, 1, Instant::now());
    assert_eq!(there(), [false, false, false], "forgets everything");
}

#[tokio::test(start_paused = true)]
async fn a_secret_counts_as_long_as_its_client_does() {
    let random = SeededRandom::new(4);
    let (clock, cache, client) = (test_clock(), told(), client(&random));
    let id = client.client_id.clone();
    let ends = TEST_START.plus(Duration::from_secs(60));
    let found = |mac| {
        cache
            .proven(&id, &[mac; 32], clock.now(), Instant::now())
            .is_some()
    };
    cache.keep_client(&at(client.clone(), 5), Some(secret(&random, 1, None)));
    cache.keep_client(&at(client.clone(), 5), Some(secret(&random, 2, Some(ends))));
    assert!(found(1) && found(2) && !found(3));
    assert_eq!(cache.take_uses(10).len(), 2, "uses of both are to be reported");
    assert!(cache.take_uses(10).is_empty());

    clock.advance(Duration::from_secs(60));
    assert!(found(1) && !found(2), "one has ended");
    cache.keep_client(&at(client.clone(), 6), None);
    assert!(found(1), "reading the client anew leaves its secrets");
    cache.apply(changes(vec![Change::Scope], 6, false), Instant::now());
    assert!(found(1) && cache.client(&id, Instant::now()).is_none());
    cache.keep_client(&at(client, 6), None);
    cache.apply(
        changes(vec![Change::Client(id.clone())], 7, false),
        Instant::now(),
    );
    assert!(!found(1), "a change of the client takes its secrets along");
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_has_a_bound() {
    let random = SeededRandom::new(5);
    let cache = told();
    let heavy = || Client {
        profile: Profile {
            purpose: "x".repeat(1024 * 1024),
            ..Profile::default()
        },
        ..client(&random)
    };
    let first = heavy();
    cache.keep_client(&at(first.clone(), 5), None);
    cache.keep_client(&at(first.clone(), 5), None);
    let mut last = first.clone();
    for _ in 0..70 {
        last = heavy();
        cache.keep_client(&at(last.clone(), 5), None);
    }
    assert!(cache.client(&first.client_id, Instant::now()).is_none());
    assert!(cache.client(&last.client_id, Instant::now()).is_some());
    for mac in 0..40 {
        let verified = secret(&random, mac, None);
        cache.keep_client(&at(last.clone(), 5), Some(verified));
    }
    let secrets = cache.state().clients.get(&last.client_id).unwrap().verified.len();
    assert_eq!(secrets, MOST_SECRETS);
}

#[tokio::test(start_paused = true)]
async fn callers_are_remembered_until_they_change() {
    let random = SeededRandom::new(6);
    let cache = told();
    let caller = |random: &SeededRandom| Caller::Workload {
        id: WorkloadId::generate(&*test_clock(), random),
        kind: WorkloadKind::InternalService,
    };
    let (one, other) = (caller(&random), caller(&random));
    for (digest, caller) in [([1; 32], &one), ([2; 32], &other)] {
        let read = At {
            value: caller.clone(),
            position: position(5),
            asked_at: Instant::now(),
        };
        cache.keep_caller(digest, &read);
    }
    let revoked = Change::Caller(one.id().to_owned());
    cache.apply(changes(vec![revoked], 6, false), Instant::now());
    assert_eq!(cache.caller(&[1; 32], Instant::now()), None);
    assert_eq!(cache.caller(&[2; 32], Instant::now()), Some(other));
    tokio::time::advance(lease::LIFE + Duration::from_millis(1)).await;
    assert_eq!(cache.caller(&[2; 32], Instant::now()), None);
}

#[tokio::test(start_paused = true)]
async fn what_may_be_stale_counts_longer_and_nothing_counts_where_nothing_is_followed() {
    let random = SeededRandom::new(7);
    let stale = Duration::from_secs(5);
    for (answers, age, expected) in [
        (true, lease::LIFE + stale, true),
        (true, lease::LIFE + stale + Duration::from_millis(1), false),
        (false, Duration::ZERO, false),
    ] {
        let cache = Cache::new(answers, lease::LIFE + stale);
        begin(&cache, 5, Instant::now());
        let client = client(&random);
        cache.keep_client(&at(client.clone(), 5), Some(secret(&random, 1, None)));
        tokio::time::advance(age).await;
        let now = Instant::now();
        assert_eq!(cache.client(&client.client_id, now).is_some(), expected);
        let proven = cache.proven(&client.client_id, &[1; 32], TEST_START, now);
        assert_eq!(proven.is_some(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_ended_is_told_once_the_feed_is_complete() {
    let cache = Cache::new(true, lease::LIFE);
    cache.restart(position(5));
    let ended = vec![(RevocationKind::Client, "cli_1".to_owned(), 7)];
    let told = Changes {
        ended,
        ..changes(Vec::new(), 7, true)
    };
    cache.apply(told, Instant::now());
    assert!(cache.ended_after(0, 9, Instant::now()).unwrap().is_none());
    cache.apply(changes(Vec::new(), 8, false), Instant::now());
    let told = cache.ended_after(0, 9, Instant::now()).unwrap().unwrap();
    assert_eq!((told.position.seq, told.value.len()), (8, 1));
    assert_eq!(told.value[0].seq, 7);
    let rest = cache.ended_after(7, 9, Instant::now()).unwrap().unwrap();
    assert!(rest.value.is_empty());
}
