//! Signing keys on both databases: whatever happens at a time, one key signs and one waits.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use accord::{position::Position, store::audit::EventRow, testing::databases};
use sea_orm::{DatabaseBackend, Statement};

use super::*;
use crate::{model::signing_key::PUBLISHED_BEFORE_USE, store::fixture::store};

async fn kid(store: &Store, state: State) -> String {
    in_state(store.db.read(), state).await.unwrap().unwrap().kid
}

fn operator() -> Origin {
    Origin {
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
        store.ensure_signing_keys().await.unwrap();
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
        store.ensure_signing_keys().await.unwrap();
        let active = kid(&store, State::Active).await;
        let next = kid(&store, State::Next).await;
        let now = store.now();
        let tx = store.db.write().await.unwrap();
        step(&tx, &next, State::Next, State::Revoked, now).await.unwrap();
        store.insert_key(&tx, State::Next).await.unwrap();
        let (other, key) = (store.clone(), active.clone());
        let revocation =
            tokio::spawn(async move { other.revoke_signing_key(&operator(), &key, "test").await });
        // It has read `next` as the key to come, and waits to make it active.
        while waiting(&store).await == 0 {
            assert!(!revocation.is_finished());
            tokio::task::yield_now().await;
        }
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
        store.ensure_signing_keys().await.unwrap();
        store.rotate_signing_key(&rotation(), true).await.unwrap();
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
        store.ensure_signing_keys().await.unwrap();
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
        store.ensure_signing_keys().await.unwrap();
        let active = kid(&store, State::Active).await;
        let next = kid(&store, State::Next).await;
        let second = Duration::from_secs(1);
        clock.advance(PUBLISHED_BEFORE_USE - second);
        let early = store.rotate_signing_key(&rotation(), false).await.unwrap_err();
        assert!(
            matches!(early, Error::KeyNotYetPublished(wait) if wait == second),
            "{early:?}"
        );
        assert_eq!(kid(&store, State::Active).await, active, "nothing changed");

        clock.advance(second);
        let rotated = store.rotate_signing_key(&rotation(), false).await.unwrap();
        assert_eq!(rotated.kid, next, "{database:?}");
        // Another rotation needs another six minutes, unless somebody insists or a key leaked.
        let again = store.rotate_signing_key(&rotation(), false).await.unwrap_err();
        assert!(matches!(again, Error::KeyNotYetPublished(_)), "{again:?}");
        let forced = store.rotate_signing_key(&rotation(), true).await.unwrap();
        store
            .revoke_signing_key(&operator(), &forced.kid, "test")
            .await
            .unwrap();
        assert_ne!(kid(&store, State::Active).await, forced.kid);
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
    let filter = audit::Filter {
        action: Some("signing_key.revoke".into()),
        ..Default::default()
    };
    let page = PageRequest::parse(&mut Default::default(), "audit_events", &[], 500, "").unwrap();
    let events = audit::list(store.db.read(), &filter, &page).await;
    events.unwrap().into_parts().0
}
