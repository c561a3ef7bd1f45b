#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, time::Duration};

use futures_util::future::join_all;
use sea_orm::DatabaseBackend;

use super::*;
use crate::{
    store::{
        Database, change,
        database::POSTGRES_WRITERS,
        fixture::{Migrator, migrated},
    },
    testing::{execute_on, postgres, sqlite},
};

/// Ends all sessions of the services with the database.
const END_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'accord'";

async fn migrated_postgres() -> Option<(crate::testing::TestDatabase, Database)> {
    let mut all = migrated().await;
    all.pop()
        .filter(|(_, db)| db.backend() == DatabaseBackend::Postgres)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_end_while_nobody_uses_them_cost_no_call() {
    let Some((place, db)) = migrated_postgres().await else {
        return;
    };
    for _ in 0..2 {
        let everywhere = (0..16).map(|_| change::position(db.read()));
        assert!(join_all(everywhere).await.iter().all(Result::is_ok));
        execute_on(&place.url, END_SESSIONS);
        db.write().await.unwrap().rollback().await.unwrap();
        execute_on(&place.url, END_SESSIONS);
        change::position(db.read()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_end_while_nobody_uses_them_leave_the_service_ready() {
    let Some((place, db)) = migrated_postgres().await else {
        return;
    };
    for _ in 0..3 {
        db.check_writable(Duration::from_secs(5)).await.unwrap();
        execute_on(&place.url, END_SESSIONS);
    }
    db.check_writable(Duration::from_secs(5)).await.unwrap();
}

/// It may lead to the server that was lost, as one does that a proxy has begun to pass on.
#[tokio::test]
async fn a_connection_that_is_being_opened_when_others_are_found_dead_is_not_kept() {
    let Some((_place, db)) = migrated_postgres().await else {
        return;
    };
    let pool = Pool::new(1, db.writer().options().clone(), Arc::default(), &Keys::default()).unwrap();
    let mut opening = Box::pin(pool.acquire());
    assert!(futures_util::poll!(&mut opening).is_pending());
    pool.suspicion().raise();
    drop(opening.await.unwrap());
    assert_eq!(pool.status().size, 1);
    pool.discard_stale();
    assert_eq!(pool.status().size, 0);
}

/// Behind a pooler a session may have the settings of its role, or those of another client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_does_not_depend_on_the_settings_of_its_session() {
    let Some((_place, db)) = migrated_postgres().await else {
        return;
    };
    let settings = [
        ("lock_timeout", "3s"),
        ("statement_timeout", "0"),
        ("idle_in_transaction_session_timeout", "2s"),
    ];
    let mut session = db.writer().take_out().await.unwrap();
    for (setting, _) in settings {
        session
            .execute_text(&format!("SET {setting} = '7ms'"))
            .await
            .unwrap();
    }
    drop(session);
    let tx = db.write().await.unwrap();
    for (setting, expected) in settings {
        let show = Statement::from_string(db.backend(), format!("SHOW {setting}"));
        let row = tx.query_one_raw(show).await.unwrap().unwrap();
        assert_eq!(row.try_get::<String>("", setting).unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_hangs_in_a_transaction_fails_no_change_of_another_one() {
    let Some((place, db)) = migrated_postgres().await else {
        return;
    };
    const COUNT: &str = "UPDATE change_counter SET seq = seq + 1";
    let hangs = place.connect().await.write().await.unwrap();
    hangs.execute_unprepared(COUNT).await.unwrap();
    // It waits for the lock of the counter, and gives up after three seconds.
    let tx = db.write().await.unwrap();
    tx.execute_unprepared(COUNT).await.unwrap();
    tx.commit().await.unwrap();
    let ended = hangs.commit().await.unwrap_err();
    assert!(matches!(ended, StoreError::Unavailable(_)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_a_locked_table_is_not_ready() {
    let Some((place, db)) = migrated_postgres().await else {
        return;
    };
    let other = place.connect().await;
    for table in ["audit_events", "change_counter", "idempotency", "keyring"] {
        let lock = other.write().await.unwrap();
        lock.execute_unprepared(&format!("LOCK TABLE {table}"))
            .await
            .unwrap();
        let locked = db.check_writable(Duration::from_secs(5)).await.unwrap_err();
        assert!(locked.to_string().contains("locked a table"), "{table}: {locked}");
        lock.rollback().await.unwrap();
        db.check_writable(Duration::from_secs(5)).await.unwrap();
    }
    // Neither a writer nor what a vacuum does is in the way.
    let writer = other.write().await.unwrap();
    writer
        .execute_unprepared("UPDATE change_counter SET seq = seq")
        .await
        .unwrap();
    writer
        .execute_unprepared("LOCK TABLE keyring IN SHARE UPDATE EXCLUSIVE MODE")
        .await
        .unwrap();
    db.check_writable(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_outlive_a_change_of_their_table_by_one_failure() {
    let Some((place, db)) = migrated_postgres().await else {
        return;
    };
    let select = || Statement::from_string(db.backend(), "SELECT purpose FROM keyring");
    db.read().query_all_raw(select()).await.unwrap();
    execute_on(&place.url, "ALTER TABLE keyring ALTER purpose TYPE varchar(999)");
    let outcome = db.read().query_all_raw(select()).await;
    let changed = StoreError::from(outcome.unwrap_err());
    assert!(matches!(changed, StoreError::Unavailable(_)), "{changed}");
    db.read().query_all_raw(select()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_in_a_transaction_costs_that_transaction_alone() {
    let Some((place, db)) = migrated_postgres().await else {
        return;
    };
    let tx = db.write().await.unwrap();
    execute_on(&place.url, END_SESSIONS);
    let lost = StoreError::from(tx.execute_unprepared("DELETE FROM changes").await.unwrap_err());
    assert!(matches!(lost, StoreError::Unavailable(_)), "{lost}");
    assert!(matches!(tx.commit().await, Err(StoreError::Unavailable(_))));
    db.write().await.unwrap().commit().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_is_read_only_is_closed() {
    for (place, db) in migrated().await {
        let refuse = match db.backend() {
            DatabaseBackend::Postgres => "SET default_transaction_read_only = on",
            _ => "PRAGMA query_only = ON",
        };
        db.writer().execute_unprepared(refuse).await.unwrap();
        let refused = delete(&db).await.unwrap_err();
        assert!(
            matches!(refused, StoreError::Unavailable(_)),
            "{place:?}: {refused}"
        );
        delete(&db).await.unwrap();
    }
}

async fn delete(db: &Database) -> Result<(), StoreError> {
    let tx = db.write().await?;
    tx.execute_unprepared("DELETE FROM changes").await?;
    tx.commit().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_hang_up_cost_no_place_and_leave_no_transaction() {
    let Some((place, db)) = migrated_postgres().await else {
        return;
    };
    for _ in 0..4 {
        let calls = (0..POSTGRES_WRITERS).map(|_| async {
            let tx = db.write().await.unwrap();
            tx.execute_unprepared("SELECT pg_sleep(0.1)").await.unwrap();
        });
        assert!(timeout(Duration::from_millis(50), join_all(calls)).await.is_err());
    }
    let all = join_all((0..POSTGRES_WRITERS).map(|_| db.write())).await;
    assert!(all.iter().all(Result::is_ok));
    drop(all);
    join_all((0..POSTGRES_WRITERS).map(|_| db.write())).await;
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'";
    let idle = Statement::from_string(DatabaseBackend::Postgres, others);
    let row = db.read().query_one_raw(idle).await.unwrap().unwrap();
    assert!(row.try_get_by_index::<i64>(0).unwrap() <= 8, "{place:?}");
}

#[tokio::test]
async fn a_sqlite_file_that_is_moved_is_not_written_and_not_replaced() {
    let place = sqlite();
    let db = place.connect().await;
    db.migrate::<Migrator>().await.unwrap();
    let path = place.url.strip_prefix("sqlite://").unwrap();
    let away = format!("{path}.away");
    fs::rename(path, &away).unwrap();
    assert!(matches!(db.write().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(
        db.check_writable(Duration::from_secs(10)).await,
        Err(StoreError::Unavailable(_))
    ));
    assert!(!fs::exists(path).unwrap());
    fs::rename(&away, path).unwrap();
    db.check_writable(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn no_connection_can_be_opened_for_whatever_reason_is_unavailable() {
    let Some(place) = postgres() else { return };
    let mut url: url::Url = place.url.parse().unwrap();
    url.set_path("no_such_database");
    let missing = Database::connect(url.as_str()).await.unwrap_err();
    let StoreError::Unavailable(reason) = missing else {
        panic!("{missing}")
    };
    assert!(
        reason.contains("no_such_database") && reason.contains("3D000"),
        "{reason}"
    );
}

/// Whoever owns the database lets each text be equal to every other one, for the sessions of its role.
const OWN_OPERATOR: &str = "CREATE SCHEMA own;
    CREATE FUNCTION own.always(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE OPERATOR own.= (LEFTARG = text, RIGHTARG = text, FUNCTION = own.always);
    DO $$ BEGIN EXECUTE format('ALTER ROLE %I IN DATABASE %I SET search_path = public, own, pg_catalog',
        current_user, current_database()); END $$";

#[tokio::test]
async fn a_search_path_of_the_role_adds_no_schema() {
    let Some((place, db)) = migrated_postgres().await else {
        return;
    };
    execute_on(&place.url, OWN_OPERATOR);
    db.close().await;
    let db = place.connect().await;
    let compare =
        || Statement::from_string(DatabaseBackend::Postgres, "SELECT 'a'::text = 'b'::text AS equal");
    let is_equal = |row: Option<QueryResult>| row.unwrap().try_get::<bool>("", "equal").unwrap();
    assert!(!is_equal(db.read().query_one_raw(compare()).await.unwrap()));
    let tx = db.write().await.unwrap();
    assert!(!is_equal(tx.query_one_raw(compare()).await.unwrap()));
    tx.rollback().await.unwrap();
}
