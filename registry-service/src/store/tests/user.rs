//! Users and their enrolments, on both databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{sync::Arc, time::Duration};

use accord::{
    clock::ManualClock,
    keys::{FileMasterKey, MasterKeys},
    random::SystemRandom,
    store::{
        Database,
        keyring::{DISTRIBUTION, SharedKeyring, add_version},
    },
    testing::{databases, test_clock},
};
use sea_orm::entity::prelude::*;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::*;
use crate::{
    authentication::tenant_admin::{complete_enrolment, sign_in},
    model::{
        purpose,
        user::{Completion, ENROLMENT_LIFETIME, password::Password},
    },
    store::{
        entity::enrolment as enrolment_entity,
        migration::Migrator,
        testing::{add_tenants, audited, count, creation, origin, repeatable, store},
    },
};

pub(in crate::store) const PASSWORD: &str = "a long enough password";

fn tenant_id(id: &str) -> TenantId {
    TenantId::parse(id).unwrap()
}

fn name(text: &str) -> AccountName {
    AccountName::parse(text).unwrap()
}

fn admin(account_name: &str) -> NewUser {
    NewUser {
        tenant_id: tenant_id("acme"),
        account_name: name(account_name),
        label: "Administrator 1".into(),
        tenant_admin: true,
    }
}

/// A store with the tenants `acme` and `globex`.
pub(in crate::store) async fn seeded(url: &str) -> (Store, Arc<ManualClock>) {
    let (store, clock) = store(url).await;
    add_tenants(&store).await;
    (store, clock)
}

/// Adds an admin of `acme`.
pub(in crate::store) async fn added(store: &Store, account_name: &str) -> (User, OpaqueToken) {
    let call = creation("RegisterUser");
    let (user, token) = store.create_user(&call, admin(account_name)).await.unwrap();
    (user, token.unwrap())
}

/// A hash that costs no argon2 run and matches no password.
pub(in crate::store) fn hashed() -> Argon2Hash {
    Argon2Hash {
        phc: "$argon2id$secret-part".into(),
        pepper_version: 1,
    }
}

async fn find_by_name(store: &Store, tenant_id: &TenantId, text: &str) -> Result<Option<User>> {
    store
        .find_user(tenant_id, &Selector::AccountName(name(text)))
        .await
}

pub(in crate::store) async fn row(store: &Store, user: &User) -> Model {
    let key = (user.tenant_id.to_string(), user.user_id.to_string());
    let found = Entity::find_by_id(key).one(store.db.read()).await;
    found.unwrap().unwrap()
}

pub(in crate::store) async fn enrolment_row(store: &Store, token: &OpaqueToken) -> enrolment_entity::Model {
    let found = enrolment_entity::Entity::find_by_id(token.digest().to_vec());
    found.one(store.db.read()).await.unwrap().unwrap()
}

#[tokio::test]
async fn only_hashes_of_names_and_tokens_are_stored() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (user, token) = added(&store, "Ada@Firm.example").await;
        let stored = row(&store, &user).await;
        assert_eq!(stored.name_hash.len(), 32, "{database:?}");
        assert_eq!(
            (stored.name_key_version, stored.name_rules_version),
            (1, RULES_VERSION),
            "{database:?}"
        );
        assert!(
            !format!("{stored:?}").to_lowercase().contains("firm"),
            "{database:?}"
        );

        let elsewhere = NewUser {
            tenant_id: tenant_id("globex"),
            tenant_admin: false,
            ..admin("ada@firm.example")
        };
        let call = creation("RegisterUser");
        let (other, no_token) = store.create_user(&call, elsewhere).await.unwrap();
        assert!(no_token.is_none(), "{database:?}");
        assert_ne!(
            row(&store, &other).await.name_hash,
            stored.name_hash,
            "{database:?}: a name's hash tells nothing about another tenant's"
        );
        for id in ["acme", "globex"] {
            let expected = if id == "acme" { &user } else { &other };
            let found = find_by_name(&store, &tenant_id(id), "ADA@firm.example").await;
            assert_eq!(found.unwrap().as_ref(), Some(expected), "{database:?}");
        }

        let enrolment = enrolment_row(&store, &token).await;
        assert_eq!(
            (enrolment.user_id.as_str(), enrolment.used_at, enrolment.ended_at),
            (user.user_id.as_str(), None, None),
            "{database:?}"
        );
        assert_eq!(
            enrolment.expires_at,
            store.now().plus(ENROLMENT_LIFETIME).as_millis(),
            "{database:?}"
        );
    }
}

#[tokio::test]
async fn of_racing_registrations_of_a_name_one_wins() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let mut racing = JoinSet::new();
        for _ in 0..8 {
            let store = store.clone();
            racing.spawn(async move { store.create_user(&creation("RegisterUser"), admin("ada")).await });
        }
        let mut won = 0;
        for result in racing.join_all().await {
            match result {
                Ok(_) => won += 1,
                Err(error) => assert!(matches!(error, Error::AlreadyExists("user")), "{error:?}"),
            }
        }
        assert_eq!(won, 1, "{database:?}");
        assert_eq!(count(&store, "user.register").await, 1, "{database:?}");
        let enrolments = enrolment_entity::Entity::find().all(store.db.read()).await;
        assert_eq!(enrolments.unwrap().len(), 1, "{database:?}");
    }
}

#[tokio::test]
async fn users_remain_after_a_rotation_of_data_keys() {
    for database in databases() {
        let (clock, random) = (test_clock(), Arc::new(SystemRandom));
        let db = Database::connect(&database.url).await.unwrap();
        db.migrate::<Migrator>().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        FileMasterKey::create(&path, &*random).unwrap();
        let master = || MasterKeys::from(FileMasterKey::load(&path).unwrap());
        let open = async || {
            let (purposes, clock) = (crate::store::PURPOSES, clock.clone());
            let keyring = SharedKeyring::open(db.clone(), master(), purposes, clock.clone(), &*random).await;
            Store::new(db.clone(), keyring.unwrap(), clock, random.clone(), false)
        };
        let before = open().await;
        add_tenants(&before).await;
        let (user, token) = added(&before, "ada").await;
        let password = || Zeroizing::new(PASSWORD.to_owned());
        let chosen = Password::parse(&password()).unwrap();
        let completion = Completion {
            token,
            release_code: None,
            password: chosen,
            request_id: None,
        };
        complete_enrolment(&before, origin(), completion).await.unwrap();

        for purpose in [purpose::ACCOUNT_NAME, purpose::PEPPER] {
            add_version(&db, &master(), purpose, &*clock, &*random)
                .await
                .unwrap();
        }
        clock.advance(DISTRIBUTION);
        let after = open().await;
        let taken = after.create_user(&creation("RegisterUser"), admin("ADA")).await;
        assert!(
            matches!(taken, Err(Error::AlreadyExists("user"))),
            "{database:?}: under the older key"
        );
        let authenticated = sign_in(
            &after,
            origin(),
            user.tenant_id.clone(),
            Some(name("Ada")),
            password(),
        )
        .await;
        assert_eq!(authenticated.unwrap().user_id, user.user_id, "{database:?}");
        let (other, _) = added(&after, "eve").await;
        assert_eq!(row(&after, &other).await.name_key_version, 2, "{database:?}");
        let found = find_by_name(&after, &other.tenant_id, "EVE").await;
        assert_eq!(found.unwrap(), Some(other), "{database:?}");
    }
}

#[tokio::test]
async fn tokens_and_sessions_end_at_the_position_of_a_change() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (user, _) = added(&store, "ada").await;
        let (by, tenant, id) = (origin(), &user.tenant_id, &user.user_id);
        let ended = |user: &User| (user.tokens_ended_seq, user.sessions_ended_seq);
        assert_eq!(ended(&user), (0, 0), "{database:?}");

        let call = creation("ResetUserPassword");
        let (reset, _) = store.reset_user_password(&call, tenant, id).await.unwrap();
        let first = store.position().await.unwrap().seq;
        assert_eq!(ended(&reset), (0, first), "{database:?}");

        clock.advance(Duration::from_secs(1));
        let deactivated = store
            .set_user_state(&by, tenant, id, State::Deactivated, "a test")
            .await
            .unwrap();
        let second = store.position().await.unwrap().seq;
        assert_eq!((second, ended(&deactivated)), (first + 1, (second, second)));
        assert_eq!(deactivated.updated_at, store.now(), "{database:?}");

        // A repeated deactivation changes nothing, and is published again. After a reactivation, tokens and sessions stay ended.
        clock.advance(Duration::from_secs(1));
        let again = store
            .set_user_state(&by, tenant, id, State::Deactivated, "a test")
            .await;
        assert_eq!(again.unwrap(), deactivated, "{database:?}");
        assert_eq!(store.position().await.unwrap().seq, second + 1, "{database:?}");
        for _ in 0..2 {
            let active = store
                .set_user_state(&by, tenant, id, State::Active, "a test")
                .await
                .unwrap();
            assert_eq!(
                (active.state, ended(&active)),
                (State::Active, (second, second)),
                "{database:?}"
            );
            assert_eq!(store.position().await.unwrap().seq, second + 2, "{database:?}");
        }
        assert_eq!(
            audited(&store).await[2..],
            [
                "user.register",
                "user.reset_password",
                "user.deactivate",
                "user.reactivate"
            ],
            "{database:?}"
        );
        let changes = accord::store::change::list_after(store.db.read(), first - 2, 10)
            .await
            .unwrap();
        assert_eq!(changes.len(), 5, "{database:?}");
        let kinds: Vec<_> = changes.iter().map(|change| change.kind.as_str()).collect();
        let (plain, ended) = (change_kind::USER, change_kind::USER_TOKENS_ENDED);
        assert_eq!(kinds, [plain, plain, ended, ended, plain], "{database:?}");
        assert!(
            changes
                .iter()
                .all(|change| change.id == id.as_str() && change.tenant_id.as_ref() == Some(tenant))
        );

        // Another tenant does not find the user.
        let other = tenant_id("globex");
        assert!(
            store
                .find_user(&other, &Selector::Id(id.clone()))
                .await
                .unwrap()
                .is_none()
        );
        let call = creation("ResetUserPassword");
        for refused in [
            store
                .set_user_state(&by, &other, id, State::Deactivated, "a test")
                .await
                .err(),
            store.reset_user_password(&call, &other, id).await.err(),
        ] {
            assert!(matches!(refused, Some(Error::NotFound("user"))), "{database:?}");
        }
        assert_eq!(store.position().await.unwrap().seq, second + 2, "{database:?}");
    }
}

#[tokio::test]
async fn a_repeated_call_returns_the_same_token_and_changes_nothing() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let call = repeatable("RegisterUser", b"ada");
        let (user, token) = store.create_user(&call, admin("ada")).await.unwrap();
        let (again, same) = store.create_user(&call, admin("ada")).await.unwrap();
        assert_eq!(again, user, "{database:?}");
        let shown = |token: &Option<OpaqueToken>| token.as_ref().unwrap().expose().to_owned();
        assert_eq!(shown(&same), shown(&token), "{database:?}");

        let reset = repeatable("ResetUserPassword", b"ada");
        let (tenant, id) = (&user.tenant_id, &user.user_id);
        let (_, first) = store.reset_user_password(&reset, tenant, id).await.unwrap();
        let position = store.position().await.unwrap();
        let (_, second) = store.reset_user_password(&reset, tenant, id).await.unwrap();
        assert_eq!(first.expose(), second.expose(), "{database:?}");
        assert_ne!(first.expose(), shown(&token), "{database:?}");
        assert_eq!(store.position().await.unwrap(), position, "{database:?}");
        assert!(
            store.find_enrolment(&second).await.unwrap().is_some(),
            "{database:?}"
        );
        assert_eq!(count(&store, "user.register").await, 1, "{database:?}");
        assert_eq!(count(&store, "user.reset_password").await, 1, "{database:?}");
        assert_eq!(count(&store, "secret.show_again").await, 2, "{database:?}");
        let plain = || NewUser {
            tenant_admin: false,
            ..admin("eve")
        };
        let nothing_secret = repeatable("RegisterUser", b"eve");
        for _ in 0..2 {
            store.create_user(&nothing_secret, plain()).await.unwrap();
        }
        assert_eq!(count(&store, "secret.show_again").await, 2, "{database:?}");

        let other = Creation {
            content: b"eve".to_vec().into(),
            ..reset.clone()
        };
        let reused = store.reset_user_password(&other, tenant, id).await;
        assert!(matches!(reused, Err(Error::RequestIdReused)), "{database:?}");
        clock.advance(Duration::from_secs(601));
        let late = store.reset_user_password(&reset, tenant, id).await;
        assert!(matches!(late, Err(Error::RequestIdReused)), "{database:?}");
        let late = store.create_user(&call, admin("ada")).await;
        assert!(matches!(late, Err(Error::RequestIdReused)), "{database:?}");
    }
}

#[tokio::test]
async fn debug_shows_neither_names_nor_passwords_nor_hashes() {
    let database = accord::testing::sqlite();
    let (store, _) = seeded(&database.url).await;
    let (user, token) = added(&store, "ada.admin").await;
    store
        .use_enrolment(&origin(), &token, None, hashed())
        .await
        .unwrap();
    let user = store
        .find_user(&user.tenant_id, &Selector::Id(user.user_id))
        .await
        .unwrap();
    let password = Password::parse(PASSWORD).unwrap();
    let shown = format!(
        "{user:?} {token:?} {password:?} {:?} {store:?}",
        admin("ada.admin")
    );
    for secret in ["secret-part", "ada.admin", PASSWORD, token.expose()] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
