//! What two persons have accepted: nothing else hides behind it.

use super::*;

/// The event of a resume pins all that was wrong, and all that the log holds: nothing hides behind it.
#[tokio::test]
async fn what_is_edited_after_a_resume_is_a_fault_of_its_own() {
    for later in [
        "UPDATE audit_events SET actor_id = 'somebody' WHERE number = 1",
        "UPDATE audit_events SET actor_id = 'nobody' WHERE number = 2",
        "DELETE FROM audit_events WHERE number = 2",
        "UPDATE audit_groups SET size = 9 WHERE number = 2",
        "DELETE FROM audit_groups WHERE number = 1",
        "UPDATE audit_leaves SET number = 99 WHERE leaf_index = 3 AND log_id = 1",
        "DELETE FROM audit_log_tiles WHERE log_id = 1",
        "UPDATE audit_logs SET position = '7' WHERE log_id = 1",
        "UPDATE audit_checkpoints SET checkpoint = 'x' WHERE log_id = 1",
        "INSERT INTO audit_groups SELECT writer, 0, size, first_event_id, last_event_id, root, events, key_version, mac FROM audit_groups WHERE number = 1",
        "INSERT INTO audit_events SELECT 0, 'x', action, outcome, actor_id, tenant_id, client_id, subject, record, key_version, mac FROM audit_events WHERE number = 1",
        "INSERT INTO audit_leaves VALUES (99, 0, '', -1)",
    ] {
        for mut record in Sealed::each().await {
            let place = record.place.label;
            for _ in 0..2 {
                record.change("one").await;
                record.group(2).await;
            }
            record.seal().await;
            record
                .edit("UPDATE audit_events SET actor_id = 'nobody' WHERE number = 1")
                .await;
            resumed(&mut record).await;
            record.change("new").await;
            record.seal().await;
            let found = verified(&record).await;
            assert!(found[0].1 && found[1] == INTACT, "{place} {later}: {found:?}");
            record.edit(later).await;
            let found = verified(&record).await;
            let is_told = |log: &(Option<String>, bool)| log.0.is_some() && !log.1;
            assert!(found.iter().any(is_told), "{place} {later}: {found:?}");
            // Two persons may accept that, too.
            resumed(&mut record).await;
            record.seal().await;
            let found = verified(&record).await;
            assert!(!found.iter().any(is_told), "{place} {later}: {found:?}");
        }
    }
}

/// Returns whether a fault of the first log is accepted, with and without keys.
async fn is_accepted(record: &Sealed) -> (bool, bool) {
    let keyless = record.place.connect().await;
    let logs = keys(record, log::all(keyless.read()).await.unwrap().logs);
    let without = verify_all(keyless.read(), &logs, &[], None, |_, _| {}).await;
    keyless.close().await;
    (verified(record).await[0].1, without.unwrap().logs[0].is_accepted)
}

/// A log with an accepted fault is accepted without keys, too, which do not show the MACs of sealed rows.
#[tokio::test]
async fn what_only_keys_show_is_accepted_beside_the_rest() {
    for mut record in Sealed::each().await {
        let place = record.place.label;
        for _ in 0..3 {
            record.change("one").await;
        }
        record.seal().await;
        record
            .edit("UPDATE audit_events SET actor_id = 'nobody' WHERE number = 1")
            .await;
        record
            .edit("UPDATE audit_events SET mac = record WHERE number = 2")
            .await;
        resumed(&mut record).await;
        record.change("new").await;
        record.seal().await;
        assert_eq!(is_accepted(&record).await, (true, true), "{place}");
        record
            .edit("UPDATE audit_events SET mac = record WHERE number = 3")
            .await;
        assert_eq!(is_accepted(&record).await, (false, true), "{place}");
        resumed(&mut record).await;
        record.seal().await;
        assert_eq!(is_accepted(&record).await, (true, true), "{place}");
    }
}

#[tokio::test]
async fn rows_that_were_stepped_over_stay_as_they_were() {
    for later in [
        "UPDATE audit_events SET actor_id = 'somebody' WHERE number = 2",
        "DELETE FROM audit_events WHERE number = 2",
        "UPDATE audit_groups SET size = 9 WHERE number = 1",
    ] {
        for mut record in Sealed::each().await {
            let place = record.place.label;
            record.change("one").await;
            record.seal().await;
            record.change("two").await;
            record.group(2).await;
            record
                .edit("UPDATE audit_events SET actor_id = 'nobody' WHERE number = 2")
                .await;
            record.edit("UPDATE audit_groups SET size = 3").await;
            resumed(&mut record).await;
            record.seal().await;
            assert_eq!(verified(&record).await, [INTACT, INTACT], "{place} {later}");
            record.edit(later).await;
            let found = verified(&record).await;
            let fault = found[1].0.as_ref().unwrap();
            assert!(
                fault.contains("changed since a resume"),
                "{place} {later}: {fault}"
            );
        }
    }
}
