#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use sea_orm::{ConnectionTrait, Statement};
use tokio::time::sleep;

use crate::{
    random::SystemRandom,
    store::{
        Database, StoreError,
        audit::{Event, GroupWriter, Origin, Record},
        batch::{audit::RecordEvents, group_commit::Work},
        fixture::{Migrator, event_keys},
    },
    testing::{DurablePostgres, durable_postgres, test_clock},
};

const CHANGE: &str = "INSERT INTO heartbeat (id, beat) VALUES (2, 0) ON CONFLICT DO NOTHING";

/// Runs an operation whose commit waits for a standby that never comes, and ends each wait by this function of the server.
async fn wait_in_vain<T>(
    server: &DurablePostgres,
    end: &str,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> StoreError {
    server.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.execute("SELECT pg_reload_conf()");
    // A new session has the setting after every process was told of it. The checkpointer, which makes commits wait, heeds it
    // before its next checkpoint.
    let is_set =
        "SELECT count(*) FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting = 'nobody'";
    while server.number(is_set) == 0 {
        sleep(Duration::from_millis(20)).await;
    }
    server.execute("CHECKPOINT");
    let waits = format!("SELECT count({end}(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    let end_waits = async {
        loop {
            server.number(&waits);
            sleep(Duration::from_millis(20)).await;
        }
    };
    let result = tokio::select! {
        result = operation => result.map(drop),
        () = end_waits => Ok(()),
    };
    // So that the database can be dropped.
    server.execute("ALTER SYSTEM RESET synchronous_standby_names");
    server.execute("SELECT pg_reload_conf()");
    result.unwrap_err()
}

async fn count(db: &Database, sql: &str) -> i64 {
    let row = db
        .read()
        .query_one_raw(Statement::from_string(db.backend(), sql))
        .await
        .unwrap();
    row.unwrap().try_get_by_index(0).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_did_not_wait_for_its_standby_is_not_reported_as_committed() {
    let Some(server) = durable_postgres(&[&std::env::temp_dir()]) else {
        return;
    };
    let place = server.database();
    let db = Database::connect(&place.url).await.unwrap();
    db.migrate::<Migrator>().await.unwrap();
    let in_transaction = async {
        let tx = db.write().await?;
        tx.execute_unprepared(CHANGE).await?;
        tx.commit().await
    };
    let errors = [
        wait_in_vain(&server, "pg_cancel_backend", in_transaction).await,
        wait_in_vain(
            &server,
            "pg_cancel_backend",
            db.check_writable(Duration::from_secs(9)),
        )
        .await,
    ];
    for error in errors {
        assert!(error.to_string().contains("answered with a warning"), "{error}");
        assert!(matches!(error, StoreError::Unavailable(_)));
    }
    // The row is there, and a failover would lose it.
    assert_eq!(count(&db, "SELECT count(*) FROM heartbeat WHERE id = 2").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_whose_session_ended_in_their_commit_are_not_reported_as_recorded_before_a_standby_has_them() {
    let Some(server) = durable_postgres(&[&std::env::temp_dir()]) else {
        return;
    };
    let place = server.database();
    let db = Database::connect(&place.url).await.unwrap();
    db.migrate::<Migrator>().await.unwrap();
    let event = Event::test("test.event");
    let record = Record::new(&*test_clock(), &SystemRandom, Origin::system("test"), event);
    db.use_keys(event_keys());
    let events = RecordEvents {
        db: db.clone(),
        writer: GroupWriter::new(test_clock(), Arc::new(SystemRandom)),
    };
    let records = [record];
    let error = wait_in_vain(&server, "pg_terminate_backend", events.run(&records)).await;
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    // They are there, and a failover would lose them.
    assert_eq!(count(&db, "SELECT count(*) FROM audit_groups").await, 1);
}
