#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use sea_orm::{ConnectionTrait, PaginatorTrait};
use tokio::task::JoinSet;

use super::*;
use crate::{
    clock::ManualClock,
    keys::{FileMasterKey, MasterKeys},
    random::{SeededRandom, SystemRandom},
    store::{
        audit::{Actor, ActorKind},
        fixture::migrated,
        keyring,
    },
    testing::test_clock,
};

const ID: Uuid = Uuid::from_u128(0x1234_5678_1234_4234_8234_1234_5678_9abc);

fn creation(principal: &str, content: &[u8]) -> Creation {
    let actor = Actor {
        kind: ActorKind::Operator,
        id: principal.to_owned(),
    };
    Creation {
        origin: Origin {
            certificate: None,
            session: None,
            address: None,
            actor,
            request_id: String::new(),
        },
        method: "CreateThing",
        request_id: Some(ID),
        content: Zeroizing::new(content.to_vec()),
    }
}

fn request(content: &[u8]) -> Creation {
    creation("opr_1", content)
}

struct Place {
    label: &'static str,
    db: Database,
    keyring: Keyring,
    clock: Arc<ManualClock>,
    master: MasterKeys,
    _guards: (crate::testing::TestDatabase, tempfile::TempDir),
}

async fn open_keyring(db: &Database, master: &MasterKeys, clock: &dyn Clock) -> Keyring {
    keyring::open(db, master, &[KEYRING_PURPOSE], clock, &SystemRandom)
        .await
        .unwrap()
}

async fn places() -> Vec<Place> {
    let mut all = Vec::new();
    for (place, db) in migrated().await {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        let master = FileMasterKey::create(&path, &SeededRandom::new(1))
            .unwrap()
            .into();
        let clock = test_clock();
        let keyring = open_keyring(&db, &master, &*clock).await;
        all.push(Place {
            label: place.label,
            db,
            keyring,
            clock,
            master,
            _guards: (place, dir),
        });
    }
    all
}

#[derive(Debug, PartialEq)]
enum Answer {
    New(String),
    Repeated(String, String),
    Reused,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Place {
    /// Serves a call as a service does: begins, creates, completes, commits.
    async fn call(&self, request: &Creation, resource_id: &str) -> Answer {
        let tx = self.db.write().await.unwrap();
        let outcome = begin(&tx, &self.keyring, &*self.clock, &SystemRandom, request).await;
        match outcome {
            Ok(CreationOutcome::New(reservation)) => {
                let secret = hex(&*reservation.secrets.secret("client_secret"));
                reservation.complete(&tx, resource_id).await.unwrap();
                tx.commit().await.unwrap();
                Answer::New(secret)
            }
            Ok(CreationOutcome::Repeated { resource_id, secrets }) => {
                Answer::Repeated(resource_id, hex(&*secrets.secret("client_secret")))
            }
            Err(StoreError::RequestIdReused) => Answer::Reused,
            Err(other) => panic!("{}: {other}", self.label),
        }
    }

    async fn new_secret(&self, request: &Creation, resource_id: &str) -> String {
        match self.call(request, resource_id).await {
            Answer::New(secret) => secret,
            other => panic!("{}: {other:?}", self.label),
        }
    }
}

#[tokio::test]
async fn the_same_call_gets_the_same_answer() {
    for place in places().await {
        let secret = place.new_secret(&request(b"a"), "cli_1").await;
        let repeated = Answer::Repeated("cli_1".to_owned(), secret);
        assert_eq!(
            place.call(&request(b"a"), "cli_2").await,
            repeated,
            "{}",
            place.label
        );
        place.clock.advance(REPEAT_WINDOW - Duration::from_millis(1));
        delete_expired(&place.db, place.clock.now()).await.unwrap();
        assert_eq!(
            place.call(&request(b"a"), "cli_2").await,
            repeated,
            "{}",
            place.label
        );
    }
}

#[tokio::test]
async fn other_content_and_another_method_are_rejected() {
    for place in places().await {
        place.new_secret(&request(b"a"), "cli_1").await;
        assert_eq!(
            place.call(&request(b"b"), "x").await,
            Answer::Reused,
            "{}",
            place.label
        );
        let other = Creation {
            method: "CreateOther",
            ..request(b"a")
        };
        assert_eq!(place.call(&other, "x").await, Answer::Reused, "{}", place.label);
        // Another principal's id is another id.
        let other = creation("opr_2", b"a");
        place.new_secret(&other, "cli_2").await;
    }
}

#[tokio::test]
async fn after_ten_minutes_an_id_is_rejected_and_after_a_day_free() {
    for place in places().await {
        for swept in [false, true] {
            let first = place.new_secret(&request(b"a"), "cli_1").await;
            place.clock.advance(REPEAT_WINDOW);
            if swept {
                assert_eq!(
                    delete_expired(&place.db, place.clock.now()).await.unwrap(),
                    (1, 0)
                );
                let row = row::Entity::find().one(place.db.read()).await.unwrap().unwrap();
                assert_eq!(row.nonce, None);
            }
            assert_eq!(
                place.call(&request(b"a"), "x").await,
                Answer::Reused,
                "{}",
                place.label
            );
            place
                .clock
                .advance(REJECTION_WINDOW - REPEAT_WINDOW - Duration::from_millis(1));
            assert_eq!(
                place.call(&request(b"a"), "x").await,
                Answer::Reused,
                "{}",
                place.label
            );
            place.clock.advance(Duration::from_millis(1));
            if swept {
                // The rollback of the call above may still hold the row, and the deletion skips it then.
                while delete_expired(&place.db, place.clock.now()).await.unwrap() != (0, 1) {
                    tokio::task::yield_now().await;
                }
            }
            assert_ne!(place.new_secret(&request(b"b"), "cli_2").await, first);
            place.clock.advance(REJECTION_WINDOW);
        }
    }
}

#[tokio::test]
async fn without_an_id_nothing_is_stored() {
    for place in places().await {
        let anonymous = Creation {
            request_id: None,
            ..request(b"a")
        };
        let first = place.new_secret(&anonymous, "cli_1").await;
        let second = place.new_secret(&anonymous, "cli_2").await;
        assert_ne!(first, second, "{}", place.label);
        assert_eq!(row::Entity::find().count(place.db.read()).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_rolled_back_call_is_new_again() {
    for place in places().await {
        let tx = place.db.write().await.unwrap();
        let outcome = begin(&tx, &place.keyring, &*place.clock, &SystemRandom, &request(b"a"))
            .await
            .unwrap();
        assert!(matches!(outcome, CreationOutcome::New(_)));
        tx.rollback().await.unwrap();
        place.new_secret(&request(b"b"), "cli_1").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_several_racing_calls_is_new() {
    for place in places().await {
        let place = Arc::new(place);
        let mut callers = JoinSet::new();
        for number in 0..8 {
            let place = Arc::clone(&place);
            callers.spawn(async move { place.call(&request(b"a"), &format!("cli_{number}")).await });
        }
        let answers = callers.join_all().await;
        let (new, repetitions): (Vec<_>, Vec<_>) = answers
            .into_iter()
            .partition(|answer| matches!(answer, Answer::New(_)));
        let [Answer::New(secret)] = &new[..] else {
            panic!("{}: {new:?}", place.label);
        };
        assert_eq!(repetitions.len(), 7);
        for repeated in &repetitions {
            assert!(
                matches!(repeated, Answer::Repeated(_, same) if same == secret),
                "{repeated:?}"
            );
        }
        assert!(
            repetitions.windows(2).all(|pair| pair[0] == pair[1]),
            "{}",
            place.label
        );
    }
}

#[tokio::test]
async fn a_call_can_be_repeated_after_a_rotation_of_the_data_key() {
    for mut place in places().await {
        let secret = place.new_secret(&request(b"a"), "cli_1").await;
        keyring::add_version(
            &place.db,
            &place.master,
            KEYRING_PURPOSE,
            &*place.clock,
            &SystemRandom,
        )
        .await
        .unwrap();
        place.clock.advance(keyring::DISTRIBUTION);
        let older = std::mem::replace(
            &mut place.keyring,
            open_keyring(&place.db, &place.master, &*place.clock).await,
        );
        let repeated = Answer::Repeated("cli_1".to_owned(), secret);
        assert_eq!(place.call(&request(b"a"), "x").await, repeated, "{}", place.label);
        assert_eq!(
            place.call(&request(b"b"), "x").await,
            Answer::Reused,
            "{}",
            place.label
        );
        let other = creation("opr_2", b"a");
        place.new_secret(&other, "cli_2").await;
        assert_eq!(older.current(KEYRING_PURPOSE).unwrap().version(), 1);
        assert_eq!(place.keyring.current(KEYRING_PURPOSE).unwrap().version(), 2);
    }
}

#[tokio::test]
async fn each_label_and_each_id_has_its_own_secret() {
    for place in places().await {
        let tx = place.db.write().await.unwrap();
        let outcome = begin(&tx, &place.keyring, &*place.clock, &SystemRandom, &request(b"a"))
            .await
            .unwrap();
        let CreationOutcome::New(reservation) = outcome else {
            panic!("{}", place.label);
        };
        let secrets = &reservation.secrets;
        assert_eq!(*secrets.secret("a"), *secrets.secret("a"));
        assert_ne!(*secrets.secret("a"), *secrets.secret("b"));
        // The nonce and the data key are not enough.
        let row = row::Entity::find().one(&tx).await.unwrap().unwrap();
        let guess = Derivation {
            key: place.keyring.current(KEYRING_PURPOSE).unwrap().clone(),
            nonce: Zeroizing::new(row.nonce.unwrap()),
            request_id: Uuid::nil(),
        };
        assert_ne!(*secrets.secret("a"), *guess.secret("a"));
        assert_eq!(format!("{secrets:?}"), "Derivation([redacted])");
        tx.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn an_edited_row_is_no_answer() {
    for place in places().await {
        let Place {
            db, keyring, clock, ..
        } = &place;
        let tx = db.write().await.unwrap();
        let begun = begin(&tx, keyring, &**clock, &SystemRandom, &request(b"x")).await;
        let CreationOutcome::New(reservation) = begun.unwrap() else {
            panic!("{}", place.label)
        };
        reservation.complete(&tx, "thing-1").await.unwrap();
        tx.commit().await.unwrap();
        for edit in [
            "resource_id = 'thing-2'",
            "created_at = created_at + 1",
            "mac = ''",
        ] {
            let tx = db.write().await.unwrap();
            let edit = format!("UPDATE idempotency SET {edit}");
            tx.execute_unprepared(&edit).await.unwrap();
            let again = begin(&tx, keyring, &**clock, &SystemRandom, &request(b"x")).await;
            assert!(
                matches!(again, Err(StoreError::Altered("idempotency"))),
                "{}: {edit}: {again:?}",
                place.label
            );
            tx.rollback().await.unwrap();
        }
        let tx = db.write().await.unwrap();
        let again = begin(&tx, keyring, &**clock, &SystemRandom, &request(b"x")).await;
        let is_same =
            matches!(again, Ok(CreationOutcome::Repeated { resource_id, .. }) if resource_id == "thing-1");
        assert!(is_same, "{}", place.label);
    }
}
