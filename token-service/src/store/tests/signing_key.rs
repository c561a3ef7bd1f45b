//! Signing keys on both databases: whatever happens at a time, one key signs and one waits.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use accord::{
    position::Position,
    store::{
        Creation,
        audit::{Actor, ActorKind, EventRow},
    },
    testing::databases,
};
use sea_orm::{DatabaseBackend, Statement};

use super::*;
use crate::{
    model::{revocation::RevocationKind, signing_key::PUBLISHED_BEFORE_USE},
    store::fixture::store,
};

async fn kid(store: &Store, state: State) -> String {
    only(store.db.read(), state).await.unwrap().kid
}

fn operator() -> Origin {
    Origin {
        certificate: None,
        session: None,
        address: None,
        actor: Actor {
            kind: ActorKind::Operator,
            id: "opr_test".into(),
        },
        request_id: "test-request".into(),
    }
}

/// One key active and one next, none of them among these.
async fn assert_replaced(store: &Store, revoked: &[&str]) {
    let live = store.live_signing_keys().await.unwrap();
    let mut states: Vec<_> = live.iter().map(|key| key.state.as_ref()).collect();
    states.sort_unstable();
    assert_eq!(states, ["active", "next"]);
    assert!(live.iter().all(|key| !revoked.contains(&key.kid.as_str())));
}

#[tokio::test]
async fn the_active_and_the_next_key_can_be_revoked_at_a_time() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        store.ensure_signing_keys(Algorithm::EdDsa).await.unwrap();
        for _ in 0..20 {
            let active = kid(&store, State::Active).await;
            let next = kid(&store, State::Next).await;
            let (one, other) = (store.clone(), store.clone());
            let (first, second) = (active.clone(), next.clone());
            let one = tokio::spawn(async move { one.revoke_signing_key(&operator(), &first, "test").await });
            let other =
                tokio::spawn(async move { other.revoke_signing_key(&operator(), &second, "test").await });
            for revoked in [one.await.unwrap(), other.await.unwrap()] {
                let revoked = revoked.unwrap_or_else(|error| panic!("{database:?}: {error:?}"));
                assert_eq!(revoked.state, State::Revoked, "{database:?}");
            }
            assert_replaced(&store, &[&active, &next]).await;
        }
    }
}

/// How many connections wait for a lock.
async fn waiting(store: &Store) -> i64 {
    let ask = Statement::from_string(
        DatabaseBackend::Postgres,
        "SELECT count(*) AS waiting FROM pg_stat_activity \
         WHERE datname = current_database() AND wait_event_type = 'Lock'",
    );
    let row = store.db.read().query_one_raw(ask).await.unwrap().unwrap();
    row.try_get("", "waiting").unwrap()
}

#[tokio::test]
async fn a_next_key_that_is_revoked_just_before_it_becomes_active_is_passed_over() {
    // On SQLite transactions that write don't overlap.
    let postgres = databases()
        .into_iter()
        .filter(|database| database.label == "postgres");
    for database in postgres {
        let (store, _) = store(&database.url).await;
        store.ensure_signing_keys(Algorithm::EdDsa).await.unwrap();
        let active = kid(&store, State::Active).await;
        let next = kid(&store, State::Next).await;
        let now = store.now();
        let tx = store.db.write().await.unwrap();
        let row = in_state(State::Next).lock_one(&tx).await.unwrap().unwrap();
        step(&tx, row, State::Revoked, now).await.unwrap();
        let other = new_key(Algorithm::EdDsa).await.unwrap();
        store.insert_key(&tx, State::Next, &other).await.unwrap();
        let (other, key) = (store.clone(), active.clone());
        let revocation =
            tokio::spawn(async move { other.revoke_signing_key(&operator(), &key, "test").await });
        // It has read `next` as the key to come, and waits to make it active.
        while waiting(&store).await == 0 {
            assert!(!revocation.is_finished());
            tokio::task::yield_now().await;
        }
        store.audit(&tx, &operator(), Event::test("test.event")).await;
        tx.commit().await.unwrap();
        let revoked = revocation.await.unwrap().unwrap();
        assert_eq!(revoked.state, State::Revoked);
        assert_replaced(&store, &[&active, &next]).await;
    }
}

#[tokio::test]
async fn a_restored_copy_loses_every_key_that_it_holds() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        store.ensure_signing_keys(Algorithm::EdDsa).await.unwrap();
        store.rotate_signing_key(&rotation(), None, true).await.unwrap();
        let before: Vec<_> = kids(&store.live_signing_keys().await.unwrap());
        assert_eq!(before.len(), 3, "active, next and retired");
        let Position { seq, .. } = store.position().await.unwrap();

        let tx = store.db.write().await.unwrap();
        revoke_all(&tx, &*store.clock, &*store.random).await.unwrap();
        tx.commit().await.unwrap();
        assert!(
            store.live_signing_keys().await.unwrap().is_empty(),
            "{database:?}"
        );
        store.ensure_signing_keys(Algorithm::EdDsa).await.unwrap();
        let revoked: Vec<_> = before.iter().map(String::as_str).collect();
        assert_replaced(&store, &revoked).await;

        let events = events(&store).await;
        let mut about: Vec<_> = events.iter().filter_map(|event| event.subject.clone()).collect();
        about.sort_unstable();
        assert_eq!(about, before, "{database:?}");
        assert!(events.iter().all(|event| event.detail["reason"] == "restored"));
        for kid in &before {
            let last = store
                .last_revocation(&[(RevocationKind::Kid, kid)])
                .await
                .unwrap();
            assert!(last.is_some_and(|at| at > seq), "{database:?}");
        }
    }
}

#[tokio::test]
async fn a_key_signs_only_after_every_copy_of_the_jwks_holds_it() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        store.ensure_signing_keys(Algorithm::EdDsa).await.unwrap();
        let active = kid(&store, State::Active).await;
        let next = kid(&store, State::Next).await;
        let second = Duration::from_secs(1);
        clock.advance(PUBLISHED_BEFORE_USE - second);
        let early = store
            .rotate_signing_key(&rotation(), None, false)
            .await
            .unwrap_err();
        assert!(
            matches!(early, Error::KeyNotYetPublished(wait) if wait == second),
            "{early:?}"
        );
        assert_eq!(kid(&store, State::Active).await, active, "nothing changed");

        clock.advance(second);
        let rotated = store.rotate_signing_key(&rotation(), None, false).await.unwrap();
        assert_eq!(rotated.kid, next, "{database:?}");
        // Another rotation needs another six minutes, unless somebody insists or a key leaked.
        let again = store
            .rotate_signing_key(&rotation(), None, false)
            .await
            .unwrap_err();
        assert!(matches!(again, Error::KeyNotYetPublished(_)), "{again:?}");
        let forced = store.rotate_signing_key(&rotation(), None, true).await.unwrap();
        store
            .revoke_signing_key(&operator(), &forced.kid, "test")
            .await
            .unwrap();
        assert_ne!(kid(&store, State::Active).await, forced.kid);
    }
}

async fn algorithms(store: &Store) -> (Algorithm, Algorithm) {
    let of = async |state| only(store.db.read(), state).await.unwrap().algorithm;
    (of(State::Active).await, of(State::Next).await)
}

#[tokio::test]
async fn another_algorithm_is_published_before_it_signs() {
    use Algorithm::{EdDsa, Es256, Ps256, Rs256};
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        store.ensure_signing_keys(EdDsa).await.unwrap();
        let mut signs = EdDsa;
        for algorithm in [Es256, Rs256, Ps256, EdDsa] {
            let waits = store
                .rotate_signing_key(&rotation(), Some(algorithm), false)
                .await
                .unwrap();
            assert_eq!(
                (waits.state, waits.algorithm),
                (State::Next, algorithm),
                "{database:?}"
            );
            assert_eq!(algorithms(&store).await, (signs, algorithm), "{database:?}");
            // Neither another call nor the schedule uses it before every copy of the JWKS holds it.
            for asked in [Some(algorithm), None] {
                let early = store
                    .rotate_signing_key(&rotation(), asked, false)
                    .await
                    .unwrap_err();
                assert!(matches!(early, Error::KeyNotYetPublished(_)), "{early:?}");
            }
            let due = store.rotate_signing_key_when_due(Duration::ZERO).await.unwrap();
            assert_eq!(due, None, "{database:?}");

            clock.advance(PUBLISHED_BEFORE_USE);
            let rotated = store
                .rotate_signing_key(&rotation(), Some(algorithm), false)
                .await
                .unwrap();
            assert_eq!(
                (rotated.kid, rotated.state),
                (waits.kid, State::Active),
                "{database:?}"
            );
            assert_eq!(algorithms(&store).await, (algorithm, algorithm), "{database:?}");
            signs = algorithm;
        }
        let forced = store
            .rotate_signing_key(&rotation(), Some(Es256), true)
            .await
            .unwrap();
        assert_eq!(
            (forced.state, forced.algorithm),
            (State::Active, Es256),
            "{database:?}"
        );
        assert_eq!(algorithms(&store).await, (Es256, Es256), "{database:?}");
        // A replaced key was never used, and stays published as long as any retired one.
        let live = store.live_signing_keys().await.unwrap();
        let replaced: Vec<_> = live.iter().filter(|key| key.activated_at.is_none()).collect();
        assert_eq!(replaced.len(), 6, "one waits, and five were replaced");
        assert!(
            replaced
                .iter()
                .all(|key| key.state == State::Next || key.retired_at.is_some())
        );
    }
}

#[tokio::test]
async fn replicas_with_different_settings_leave_each_other_s_keys_alone() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let replica = store.clone();
        // They start at the same time, and one makes the first keys.
        let (one, other) = tokio::join!(
            store.ensure_signing_keys(Algorithm::Es256),
            replica.ensure_signing_keys(Algorithm::EdDsa),
        );
        one.and(other).unwrap();
        let (first, next) = algorithms(&store).await;
        assert_eq!(first, next, "{database:?}");
        for _ in 0..3 {
            let before = kids(&store.live_signing_keys().await.unwrap());
            store.ensure_signing_keys(Algorithm::Rs256).await.unwrap();
            replica.ensure_signing_keys(Algorithm::Ps256).await.unwrap();
            assert_eq!(
                kids(&store.live_signing_keys().await.unwrap()),
                before,
                "{database:?}"
            );
            clock.advance(DAYS_90);
            replica
                .rotate_signing_key_when_due(DAYS_90)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(algorithms(&store).await, (first, first), "{database:?}");
        }
        // A restored copy goes on with the algorithm that signed, whatever the settings are.
        let tx = store.db.write().await.unwrap();
        revoke_all(&tx, &*store.clock, &*store.random).await.unwrap();
        tx.commit().await.unwrap();
        store.ensure_signing_keys(Algorithm::Rs256).await.unwrap();
        assert_eq!(algorithms(&store).await, (first, first), "{database:?}");
    }
}

const DAYS_90: Duration = Duration::from_secs(90 * 24 * 3600);

#[tokio::test]
async fn the_schedule_rotates_once_every_ninety_days() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        store.ensure_signing_keys(Algorithm::Es256).await.unwrap();
        let next = kid(&store, State::Next).await;
        let due = async || store.rotate_signing_key_when_due(DAYS_90).await.unwrap();
        clock.advance(DAYS_90 - Duration::from_secs(1));
        assert_eq!(due().await, None, "{database:?}");
        clock.advance(Duration::from_secs(1));
        // All replicas notice at the same time, and one of them rotates.
        let replicas = [(); 4].map(|()| store.clone());
        let [a, b, c, d] = &replicas;
        let (a, b, c, d) = tokio::join!(
            a.rotate_signing_key_when_due(DAYS_90),
            b.rotate_signing_key_when_due(DAYS_90),
            c.rotate_signing_key_when_due(DAYS_90),
            d.rotate_signing_key_when_due(DAYS_90),
        );
        let rotated: Vec<_> = [a, b, c, d].into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(rotated, std::slice::from_ref(&next), "{database:?}");
        assert_eq!(kid(&store, State::Active).await, next, "{database:?}");
        assert_eq!(algorithms(&store).await, (Algorithm::Es256, Algorithm::Es256));
        let events = events_of(&store, "signing_key.rotate").await;
        let [event] = &events[..] else {
            panic!("{database:?}: {events:?}")
        };
        assert_eq!(
            (event.actor.kind, &*event.actor.id),
            (ActorKind::System, "token-service")
        );
        assert_eq!(event.detail["reason"], "schedule");

        // After a call or a revocation the ninety days begin again.
        clock.advance(DAYS_90 / 2);
        store.rotate_signing_key(&rotation(), None, false).await.unwrap();
        clock.advance(DAYS_90 - Duration::from_secs(1));
        assert_eq!(due().await, None, "{database:?}");
        // A service that slept for a year rotates once, not four times.
        clock.advance(DAYS_90 * 4);
        assert!(due().await.is_some() && due().await.is_none(), "{database:?}");

        // A key that leaked is replaced at once. Its successor is published before the schedule uses it.
        clock.advance(DAYS_90 * 2);
        let active = kid(&store, State::Active).await;
        let next = kid(&store, State::Next).await;
        store
            .revoke_signing_key(&operator(), &next, "test")
            .await
            .unwrap();
        assert_eq!(
            due().await,
            None,
            "{database:?}: the new next key is not published yet"
        );
        assert_eq!(kid(&store, State::Active).await, active, "{database:?}");
        clock.advance(PUBLISHED_BEFORE_USE);
        assert!(due().await.is_some(), "{database:?}");
    }
}

fn rotation() -> Creation {
    Creation {
        origin: operator(),
        method: "RotateSigningKey",
        request_id: None,
        content: Zeroizing::new(Vec::new()),
    }
}

fn kids(keys: &[SigningKey]) -> Vec<String> {
    let mut kids: Vec<_> = keys.iter().map(|key| key.kid.clone()).collect();
    kids.sort_unstable();
    kids
}

async fn events(store: &Store) -> Vec<EventRow> {
    events_of(store, "signing_key.revoke").await
}

async fn events_of(store: &Store, action: &str) -> Vec<EventRow> {
    let filter = audit::Filter {
        action: Some(action.into()),
        ..Default::default()
    };
    let page = PageRequest::first(500);
    let events = audit::list(store.db.read(), &filter, &page).await;
    events.unwrap().into_parts().0
}
