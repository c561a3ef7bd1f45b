#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use sea_orm::{ConnectionTrait, Statement};
use tokio::task::JoinSet;

use crate::{
    clock::SystemClock,
    store::{
        Database, StoreError, Transaction, change,
        fixture::{Migrator, event_keys, migrated},
    },
    testing::{databases, sqlite, test_clock, test_random},
};

async fn read_number(tx: &Transaction) -> i64 {
    let statement = Statement::from_string(
        tx.get_database_backend(),
        "SELECT seq FROM change_counter WHERE id = 1",
    );
    tx.query_one_raw(statement)
        .await
        .unwrap()
        .unwrap()
        .try_get("", "seq")
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_transactions_that_read_before_they_write_all_commit() {
    let place = sqlite();
    // Two connections to the file, like those of two processes.
    let replicas = [place.connect().await, place.connect().await];
    replicas[0].migrate::<Migrator>().await.unwrap();
    replicas[0].use_keys(event_keys());
    change::ensure(&replicas[0], &*test_random()).await.unwrap();

    let mut writers = JoinSet::new();
    for number in 0..16 {
        let db = replicas[number % 2].clone();
        writers.spawn(async move {
            let tx = db.write().await.unwrap();
            let before = read_number(&tx).await;
            tokio::task::yield_now().await;
            let set = format!("UPDATE change_counter SET seq = {}", before + 1);
            tx.execute_unprepared(&set).await.unwrap();
            tx.commit().await.unwrap();
        });
    }
    writers.join_all().await;
    let tx = replicas[0].write().await.unwrap();
    assert_eq!(read_number(&tx).await, 16);
}

#[tokio::test]
async fn a_dropped_transaction_changes_nothing() {
    for (place, db) in migrated().await {
        let tx = db.write().await.unwrap();
        tx.execute_unprepared("UPDATE change_counter SET seq = 99")
            .await
            .unwrap();
        drop(tx);
        let tx = db.write().await.unwrap();
        assert_eq!(read_number(&tx).await, 0, "{place:?}");
        tx.rollback().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_replicas_migrate_once() {
    for place in databases() {
        let mut replicas = JoinSet::new();
        for _ in 0..4 {
            let db = place.connect().await;
            replicas.spawn(async move {
                let result = db.migrate::<Migrator>().await;
                db.close().await;
                result
            });
        }
        for result in replicas.join_all().await {
            result.unwrap_or_else(|error| panic!("{place:?}: {error}"));
        }
        let db = place.connect().await;
        assert!(db.is_migrated::<Migrator>().await.unwrap(), "{place:?}");
        db.migrate::<Migrator>().await.unwrap();
    }
}

#[tokio::test]
async fn is_migrated_leaves_a_new_database_unchanged() {
    for place in databases() {
        let db = place.connect().await;
        for _ in 0..2 {
            assert!(!db.is_migrated::<Migrator>().await.unwrap(), "{place:?}");
        }
        let missing = change::position(db.read()).await.unwrap_err();
        let is_missing = matches!(missing, StoreError::Database(_) | StoreError::Unavailable(_));
        assert!(is_missing, "{place:?}: {missing}");
    }
}

#[tokio::test]
async fn clock_skew_compares_with_the_databases_clock() {
    for (place, db) in migrated().await {
        db.check_writable(Duration::from_secs(10)).await.unwrap();
        let close = db.clock_skew(&SystemClock).await.unwrap();
        assert!(close < Duration::from_secs(5), "{place:?}: {close:?}");
        let clock = test_clock();
        clock.advance(Duration::from_secs(60 * 60 * 24 * 365 * 100));
        let far = db.clock_skew(&*clock).await.unwrap();
        assert_eq!(
            far > Duration::from_secs(1_000_000),
            place.label == "postgres",
            "{far:?}"
        );
    }
}

#[tokio::test]
async fn a_position_is_not_read_from_a_postgresql_server_that_can_not_be_written() {
    for (place, db) in migrated().await {
        db.read()
            .execute_unprepared("ALTER TABLE heartbeat RENAME TO away")
            .await
            .unwrap();
        let positions = futures_util::future::join_all((0..8).map(|_| db.position())).await;
        for position in positions {
            match place.label {
                "postgres" => assert!(
                    matches!(position, Err(StoreError::Unavailable(_))),
                    "{position:?}"
                ),
                _ => drop(position.unwrap()),
            }
        }
    }
}

#[tokio::test]
async fn the_first_heartbeat_after_a_failure_gives_readers_new_connections() {
    let databases = migrated().await;
    let Some((_, db)) = databases.iter().find(|(place, _)| place.label == "postgres") else {
        return;
    };
    let session = async || {
        let pid = Statement::from_string(db.backend(), "SELECT pg_backend_pid() AS pid");
        let row = db.read().query_one_raw(pid).await.unwrap().unwrap();
        row.try_get::<i32>("", "pid").unwrap()
    };
    let limit = Duration::from_secs(10);
    let first = session().await;
    db.check_writable(limit).await.unwrap();
    assert_eq!(session().await, first);
    // A failure that leaves the connections in order.
    let alter = async |how: &str| {
        let alter = format!("ALTER TABLE heartbeat {how}");
        db.read().execute_unprepared(&alter).await.unwrap();
    };
    alter("ADD CONSTRAINT never CHECK (false) NOT VALID").await;
    db.check_writable(limit).await.unwrap_err();
    alter("DROP CONSTRAINT never").await;
    assert_eq!(session().await, first);
    db.check_writable(limit).await.unwrap();
    let second = session().await;
    assert_ne!(second, first);
    db.check_writable(limit).await.unwrap();
    assert_eq!(session().await, second);
}

#[tokio::test]
async fn a_queue_of_writers_does_not_make_sqlite_unready_while_it_moves() {
    let place = sqlite();
    let db = place.connect().await;
    db.migrate::<Migrator>().await.unwrap();
    let limit = Duration::from_millis(200);
    let first = db.write().await.unwrap();
    let stuck = db.check_writable(limit).await.unwrap_err();
    assert!(stuck.is_temporary(), "{stuck}");
    // The second writer comes before the check, and stays until its end.
    let (_second, checked, first) =
        tokio::join!(db.write(), db.check_writable(limit), first.commit_written());
    first.unwrap();
    checked.unwrap();
}

#[tokio::test]
async fn a_log_that_is_removed_while_it_is_open_is_noticed_and_saved() {
    let place = sqlite();
    let db = place.connect().await;
    let run = async |sql: &str| db.read().execute_unprepared(sql).await;
    run("CREATE TABLE kept (id integer)").await.unwrap();
    let path = place.url.strip_prefix("sqlite://").unwrap();
    for suffix in ["-wal", "-shm"] {
        let (file, moved) = (format!("{path}{suffix}"), format!("{path}{suffix}.moved"));
        run("INSERT INTO kept VALUES (1)").await.unwrap();
        fs::rename(&file, &moved).unwrap();
        let refused = StoreError::from(run("INSERT INTO kept VALUES (2)").await.unwrap_err());
        assert!(
            refused.to_string().contains("was removed or replaced"),
            "{refused}"
        );
        assert!(matches!(db.write().await, Err(StoreError::Unavailable(_))));
        assert!(!Path::new(&file).exists(), "another connection has opened it");
        fs::rename(&moved, &file).unwrap();
    }
    run("INSERT INTO kept VALUES (1)").await.unwrap();
    fs::remove_file(format!("{path}-wal")).unwrap();
    run("INSERT INTO kept VALUES (2)").await.unwrap_err();
    db.close().await;

    let db = place.connect().await;
    let count = Statement::from_string(db.backend(), "SELECT count(*) AS n, max(id) AS most FROM kept");
    let row = db.read().query_one_raw(count).await.unwrap().unwrap();
    assert_eq!(row.try_get::<i32>("", "n").unwrap(), 3);
    assert_eq!(row.try_get::<i32>("", "most").unwrap(), 1);
}

#[tokio::test]
async fn a_closed_database_is_unavailable() {
    for (place, db) in migrated().await {
        db.close().await;
        assert!(
            matches!(
                db.check_writable(Duration::from_secs(10)).await,
                Err(StoreError::Unavailable(_))
            ),
            "{place:?}"
        );
        assert!(
            matches!(db.write().await, Err(StoreError::Unavailable(_))),
            "{place:?}"
        );
    }
}

#[tokio::test]
async fn a_second_row_with_the_same_key_is_a_conflict() {
    for (place, db) in migrated().await {
        let insert = "INSERT INTO changes (seq, kind, id, changed_at, mac) VALUES (1, 'k', 'i', 0, '')";
        db.read().execute_unprepared(insert).await.unwrap();
        let again = StoreError::from(db.read().execute_unprepared(insert).await.unwrap_err());
        assert!(matches!(again, StoreError::Conflict), "{place:?}: {again}");
    }
}

#[tokio::test]
async fn no_error_shows_the_url_or_a_row() {
    for url in [
        "postgres://user:hunter2@127.0.0.1:1/db",
        "postgres://user:hunter2@127.0.0.1:1/db?sslmode=hunter2",
        "mysql://user:hunter2@127.0.0.1/db",
        "hunter2",
        "sqlite://no-such-directory/hunter2",
        "sqlite::memory:?hunter2",
    ] {
        let error = Database::connect(url).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(std::error::Error::source(&error).is_none());
    }
    for (place, db) in migrated().await {
        for statement in [
            "INSERT INTO changes (seq, kind, id, changed_at, mac) VALUES (1, 'hunter2', NULL, 0, '')",
            "SELECT CAST('hunter2' AS integer) FROM nowhere",
            "UPDATE change_counter SET seq = CAST('hunter2' AS integer), id = 2",
        ] {
            let error = db.read().execute_unprepared(statement).await.unwrap_err();
            let error = StoreError::from(error);
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2"), "{place:?}: {shown}");
        }
        assert!(!format!("{db:?}").contains(&place.url));
    }
}

#[tokio::test]
async fn a_new_sqlite_file_is_private() {
    let place = sqlite();
    let db = place.connect().await;
    db.migrate::<Migrator>().await.unwrap();
    let path = place.url.strip_prefix("sqlite://").unwrap();
    for suffix in ["", "-wal"] {
        let mode = std::fs::metadata(format!("{path}{suffix}"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{suffix}");
    }
}
