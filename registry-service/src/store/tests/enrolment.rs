//! Enrolments, on both databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use accord::{random::SystemRandom, store::audit, testing::databases};
use uuid::Uuid;

use super::*;
use crate::{
    authentication::tenant_admin::complete_enrolment,
    model::user::{Completion, Selector, password::Password},
    store::{
        end_links,
        testing::{count, creation, origin},
        user::tests::{PASSWORD, added, enrolment_row, hashed, row, seeded},
    },
};

fn completion(token: OpaqueToken, password: Password, request_id: Option<Uuid>) -> Completion {
    Completion {
        token,
        release_code: None,
        password,
        request_id,
    }
}

#[tokio::test]
async fn an_enrolment_works_once_until_its_last_millisecond() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (user, early) = added(&store, "ada").await;
        let (late_user, late) = added(&store, "eve").await;
        clock.advance(ENROLMENT_LIFETIME - Duration::from_millis(1));
        let used = store.use_enrolment(&origin(), &early, None, hashed()).await;
        assert_eq!(used.unwrap(), user.tenant_id, "{database:?}");
        let stored = row(&store, &user).await;
        assert_eq!(stored.password_hash, Some(hashed().phc), "{database:?}");
        let used_at = enrolment_row(&store, &early).await.used_at;
        assert_eq!(used_at, Some(store.now().as_millis()), "{database:?}");

        clock.advance(Duration::from_millis(1));
        let position = store.position().await.unwrap();
        let stranger = OpaqueToken::generate(TokenKind::Enrolment, &SystemRandom);
        for token in [&early, &late, &stranger] {
            let found = store.find_enrolment(token).await.unwrap();
            assert!(
                !found.is_some_and(|found| found.is_open(store.now())),
                "{database:?}"
            );
            let refused = store.use_enrolment(&origin(), token, None, hashed()).await;
            assert!(matches!(refused, Err(Error::LinkInvalid)), "{database:?}");
        }
        assert_eq!(row(&store, &late_user).await.password_hash, None, "{database:?}");
        assert_eq!(row(&store, &user).await, stored, "{database:?}");
        assert_eq!(store.position().await.unwrap(), position, "{database:?}");
        assert_eq!(count(&store, "user.enrol").await, 1, "{database:?}");
    }
}

#[tokio::test]
async fn an_expired_enrolment_costs_no_argon2_run() {
    let database = accord::testing::sqlite();
    let (store, clock) = seeded(&database.url).await;
    let (_, token) = added(&store, "ada").await;
    clock.advance(ENROLMENT_LIFETIME);
    let password = Password::parse(PASSWORD).unwrap();
    let refused = complete_enrolment(&store, origin(), completion(token, password, None)).await;
    assert!(matches!(refused, Err(Error::LinkInvalid)));
    assert_eq!(store.hasher.runs(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_enrolment_gets_the_first_answer_for_a_minute() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (user, token) = added(&store, "ada").await;
        let enrol = |password: &str, id: Option<u128>| {
            let (store, token) = (store.clone(), token.clone());
            let password = Password::parse(password).unwrap();
            let id = id.map(Uuid::from_u128);
            async move { complete_enrolment(&store, origin(), completion(token, password, id)).await }
        };
        // Both are under way at once, as those of a double click are.
        let (one, other) = tokio::join!(enrol(PASSWORD, Some(1)), enrol(PASSWORD, Some(1)));
        assert_eq!(
            (one.unwrap(), other.unwrap()),
            (user.tenant_id.clone(), user.tenant_id.clone()),
            "{database:?}"
        );
        let stored = row(&store, &user).await;
        let used_at = store.now();
        let refused = async |password: &str, id| {
            let answer = enrol(password, id).await;
            let told = matches!(answer, Err(Error::EnrolmentUsed { used_at: at }) if at == used_at);
            assert!(told, "{database:?}: {answer:?}");
        };
        // Another password is not the one that was set, and another caller learns nothing of the right one.
        refused("an entirely different one", Some(1)).await;
        refused(PASSWORD, Some(2)).await;
        refused(PASSWORD, None).await;
        clock.advance(Duration::from_millis(59_999));
        assert!(enrol(PASSWORD, Some(1)).await.is_ok(), "{database:?}");
        clock.advance(Duration::from_millis(1));
        refused(PASSWORD, Some(1)).await;
        assert_eq!(row(&store, &user).await, stored, "{database:?}");
        // One password was set, and each attempt that failed is recorded.
        assert_eq!(count(&store, "user.enrol").await, 1 + 4, "{database:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolment_and_its_end_race_to_one_outcome() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        for round in 0..12 {
            let (user, token) = added(&store, &format!("user{round}")).await;
            let (tenant, id) = (user.tenant_id.clone(), user.user_id.clone());
            let enrolling = {
                let store = store.clone();
                tokio::spawn(async move { store.use_enrolment(&origin(), &token, None, hashed()).await })
            };
            let ending = {
                let (store, tenant, id) = (store.clone(), tenant.clone(), id.clone());
                tokio::spawn(async move {
                    if round % 2 == 0 {
                        let to = State::Deactivated;
                        store.set_user_state(&origin(), &tenant, &id, to, "a test").await
                    } else {
                        let call = creation("ResetUserPassword");
                        let reset = store.reset_user_password(&call, &tenant, &id).await;
                        reset.map(|(user, _)| user)
                    }
                })
            };
            ending.await.unwrap().expect("an operator's step goes through");
            let enrolled = match enrolling.await.unwrap() {
                Ok(_) => true,
                Err(Error::LinkInvalid) => false,
                Err(other) => panic!("{database:?} {round}: {other:?}"),
            };
            let left = store
                .find_user(&tenant, &Selector::Id(id))
                .await
                .unwrap()
                .unwrap();
            let has_password = round % 2 == 0 && enrolled;
            assert_eq!(left.password.is_some(), has_password, "{database:?} {round}");
        }
    }
}

#[tokio::test]
async fn a_restored_database_ends_more_links_than_one_transaction_changes() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (_, token) = added(&store, "ada").await;
        let row = enrolment_row(&store, &token).await;
        let tx = store.db.write().await.unwrap();
        let event = Event::test("test.event");
        audit::record(&tx, &*store.clock, &*store.random, &origin(), event).await;
        for number in 1..=2 * rows::CHANGED_AT_ONCE {
            let copy = Model {
                token_hash: number.to_be_bytes().to_vec(),
                ..row.clone()
            };
            rows::insert::<Entity>(&tx, copy).await.unwrap();
        }
        tx.commit().await.unwrap();
        // One of the first transaction's that somebody has edited, and that nothing accepts. It holds up no other.
        let edited = 7_u64.to_be_bytes().to_vec();
        let edit = Entity::update_many().col_expr(Column::ExpiresAt, i64::MAX.into());
        edit.filter(Column::TokenHash.eq(edited.clone()))
            .exec(store.db.read())
            .await
            .unwrap();

        for _ in 0..2 {
            end_links(&store.db, &*store.clock, &*store.random).await.unwrap();
            let open = Entity::find()
                .filter(unused())
                .all(store.db.read())
                .await
                .unwrap();
            assert!(
                open.iter().map(|row| &row.token_hash).eq([&edited]),
                "{database:?}"
            );
            assert_eq!(count(&store, "epoch.end_links").await, 3, "{database:?}");
        }
    }
}
