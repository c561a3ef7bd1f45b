//! A change counter and rows of `audit_logs` that were edited or removed.

use super::*;
use crate::store::audit::ensure_log;

/// Without the counter nothing can be recorded. Two persons put another one in its place, far behind all that it has counted.
#[tokio::test]
async fn a_counter_that_was_edited_goes_on_in_a_new_epoch() {
    for edit in [
        "UPDATE change_counter SET seq = 5",
        "UPDATE change_counter SET event_number = 0",
        "UPDATE change_counter SET epoch = '01kdvdna00000000000000000b'",
        "DELETE FROM change_counter",
    ] {
        for mut record in Sealed::each().await {
            let place = record.place.label;
            let before = record.db.position().await.unwrap();
            record.change("one").await;
            record.seal().await;
            record.change("two").await;
            record.group(2).await;
            record.edit(edit).await;
            let tx = record.db.write().await.unwrap();
            let event = Event::test("nothing");
            audit::record(&tx, &*record.clock, &SystemRandom, &Origin::system("test"), event).await;
            assert!(tx.commit().await.is_err(), "{place} {edit}");
            // What was committed before is sealed first.
            let early = request(&record, &decider(&*record.clock, "ann")).await;
            assert!(
                matches!(early, Err(ResumeError::CannotStepOver(_))),
                "{place} {edit}: {early:?}"
            );
            assert!(record.try_seal().await.is_err(), "{place} {edit}");
            record.sign().await;
            assert_eq!(record.log.head.size, 3, "{place} {edit}");

            let resumed = resumed(&mut record).await;
            let after = record.db.position().await.unwrap();
            assert!(
                after.epoch != before.epoch && after.seq > 1_000_000,
                "{place} {edit}"
            );
            assert!(resumed.new.origin.as_str().ends_with(after.epoch.as_str()));
            let now = record.clock.now();
            let open = ensure_log(&record.db, &record.keyring, "auth.example", "token", now).await;
            assert_eq!(open.unwrap(), resumed.new, "{place} {edit}");
            record.change("three").await;
            record.seal().await;
            assert_eq!(verified(&record).await, [INTACT, INTACT], "{place} {edit}");
        }
    }
}

/// An older counter has a right MAC. With it, events would get the numbers of others.
#[tokio::test]
async fn a_counter_that_was_put_back_goes_on_in_a_new_epoch() {
    for between in ["nothing", "a resume", "a row that is not sealed", "an edited log"] {
        for mut record in Sealed::each().await {
            let place = record.place.label;
            record.change("one").await;
            record.seal().await;
            let before = record.db.position().await.unwrap();
            let save = "CREATE TABLE saved AS SELECT * FROM change_counter";
            record.db.read().execute_unprepared(save).await.unwrap();
            record.change("two").await;
            record.change("three").await;
            if ["a resume", "a row that is not sealed"].contains(&between) {
                let edit = "UPDATE audit_events SET subject = NULL WHERE number = 2";
                record.edit(edit).await;
            }
            if between == "a resume" {
                resumed(&mut record).await;
            }
            assert_eq!(
                record.try_seal().await.is_err(),
                between == "a row that is not sealed",
                "{place}"
            );
            record.sign().await;
            record.edit("DELETE FROM change_counter").await;
            record
                .edit("INSERT INTO change_counter SELECT * FROM saved")
                .await;
            if between == "an edited log" {
                record.edit("UPDATE audit_logs SET position = '1'").await;
            }
            let resumed = resumed(&mut record).await;
            assert!(
                resumed.fault.contains("change counter"),
                "{place} {between}: {}",
                resumed.fault
            );
            let after = record.db.position().await.unwrap();
            assert!(after.epoch != before.epoch, "{place} {between}");
            record.change("four").await;
            record.seal().await;
            let verified = verified(&record).await;
            let (old, rest) = verified.split_first().unwrap();
            // What is wrong with the old log stays told, and is accepted.
            assert_eq!(old.1, between == "an edited log", "{place} {between}: {old:?}");
            assert!(old.0.is_none() || old.1, "{place} {between}: {verified:?}");
            assert!(
                rest.iter().all(|log| *log == INTACT),
                "{place} {between}: {verified:?}"
            );
        }
    }
}

/// The new log begins where the leaves of the old one end, whatever the old one says of its end.
#[tokio::test]
async fn one_resume_is_enough_after_an_edited_position() {
    for position in ["1", "9", "x"] {
        for mut record in Sealed::each().await {
            let place = record.place.label;
            record.change("one").await;
            record.change("two").await;
            record.group(2).await;
            record.seal().await;
            record
                .edit(&format!("UPDATE audit_logs SET position = '{position}'"))
                .await;
            record.change("three").await;
            resumed(&mut record).await;
            record.change("four").await;
            record.seal().await;
            let found = verified(&record).await;
            assert!(
                found[0].1 && found[1..] == [INTACT],
                "{place} {position}: {found:?}"
            );
        }
    }
}

/// A row of `audit_logs` that somebody without the keys has put there makes no log end, and nothing goes on behind it.
#[tokio::test]
async fn a_log_that_nobody_with_the_keys_has_started_is_named() {
    for (values, named) in [
        ("'auth.example/token/2', 99, 0, root", "no key of the service"),
        ("'auth.example/token/2', 1, 0, root", "is not signed"),
        ("'auth.example/token 2', 1, 0, root", "can't be read"),
        ("'auth.example/token/2', 1, -1, root", "can't be read"),
    ] {
        for mut record in Sealed::each().await {
            let place = record.place.label;
            record.change("one").await;
            record.seal().await;
            let insert = "INSERT INTO audit_logs (log_id, origin, key_version, size, root, position, started_at, mac) SELECT 2, ";
            record
                .edit(&format!("{insert}{values}, '1', started_at, mac FROM audit_logs"))
                .await;
            let all = log::all(record.db.read()).await.unwrap().logs;
            let mut logs = all.clone();
            logs.retain(|log| log.key(&record.keyring).is_ok());
            let logs = keys(&record, logs);
            let conn = record.db.read();
            let verified = verify_all(conn, &logs, &[], Some(&record.keyring), |_, _| {}).await;
            let faults: Vec<_> = verified
                .unwrap()
                .faults()
                .map(|(_, fault)| fault.to_string())
                .collect();
            assert!(
                faults.iter().any(|fault| fault.contains(named)),
                "{place} {values}: {faults:?}"
            );

            // With the key of the real log alone.
            let keyless = record.place.connect().await;
            let given = keys(&record, vec![record.log.clone()]);
            let verified = verify_all(keyless.read(), &given, &[], None, |_, _| {})
                .await
                .unwrap();
            let is_told = !verified.unverified.is_empty() || verified.faults().count() > 0;
            assert!(is_told, "{place} {values}");
            keyless.close().await;

            let refused = request(&record, &decider(&*record.clock, "ann")).await;
            assert!(
                matches!(&refused, Err(ResumeError::CannotStepOver(why)) if why.contains("row 2 of audit_logs")),
                "{place} {refused:?}"
            );
        }
    }
}

/// Without its row, the log of the same name and key would begin again, with other heads of the same sizes.
#[tokio::test]
async fn a_log_that_was_removed_does_not_begin_again() {
    for mut record in Sealed::each().await {
        let place = record.place.label;
        record.change("one").await;
        record.group(2).await;
        record.seal().await;
        for table in [
            "audit_logs",
            "audit_leaves",
            "audit_log_tiles",
            "audit_checkpoints",
        ] {
            record.edit(&format!("DELETE FROM {table}")).await;
        }
        record.edit("UPDATE audit_writers SET sealed = 0").await;
        let open = async |record: &Sealed| {
            let now = record.clock.now();
            ensure_log(&record.db, &record.keyring, "auth.example", "token", now).await
        };
        let refused = open(&record).await;
        assert!(
            matches!(refused, Err(StoreError::Removed("audit_logs"))),
            "{place} {refused:?}"
        );
        let verified = verify_all(record.db.read(), &[], &[], Some(&record.keyring), |_, _| {}).await;
        let verified = verified.unwrap();
        let faults: Vec<_> = verified.faults().map(|(_, fault)| fault.what.as_str()).collect();
        assert_eq!(faults, ["log 1 is gone"], "{place}");
        let refused = request(&record, &decider(&*record.clock, "ann")).await;
        assert!(
            matches!(refused, Err(ResumeError::CannotStepOver(_))),
            "{place} {refused:?}"
        );

        // A new epoch has a log with another name, and the fault stays told.
        let tx = record.db.write().await.unwrap();
        change::start_epoch(&tx, &SystemRandom).await.unwrap();
        tx.commit().await.unwrap();
        let next = open(&record).await.unwrap();
        assert_eq!(next.log_id, 2, "{place}");
        assert_ne!(next.origin, record.log.origin, "{place}");
        record.follow(next).await;
        record.seal().await;
        let verified = verified_faults(&record).await;
        assert!(
            verified.iter().any(|fault| fault == "log 1 is gone"),
            "{place} {verified:?}"
        );
    }
}

async fn verified_faults(record: &Sealed) -> Vec<String> {
    let logs = keys(record, log::all(record.db.read()).await.unwrap().logs);
    let verified = verify_all(record.db.read(), &logs, &[], Some(&record.keyring), |_, _| {}).await;
    let verified = verified.unwrap();
    verified.faults().map(|(_, fault)| fault.what.clone()).collect()
}
