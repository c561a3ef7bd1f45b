#![allow(clippy::unwrap_used, clippy::panic)]

use super::{super::seal::tests::Sealed, *};
use crate::{
    random::SystemRandom,
    store::audit::{self, EventProof, Fault, SealError, delete_before, extent::of_rows, prove, verify_all},
    text::caller::Role,
    tlog::VerifierKey,
};

#[path = "resume/accepted.rs"]
mod accepted;
#[path = "resume/logs.rs"]
mod logs;
#[path = "resume/rows.rs"]
mod rows;

fn decider(clock: &dyn Clock, person: &str) -> Decider {
    let operator_id = OperatorId::generate(clock, &SystemRandom);
    Decider::new(operator_id, &[Role::Security], person.to_owned()).unwrap()
}

fn resuming(record: &Sealed) -> Resuming<'_> {
    Resuming {
        db: &record.db,
        keyring: &record.keyring,
        tables: &[],
        clock: &*record.clock,
        random: &SystemRandom,
    }
}

async fn request(record: &Sealed, by: &Decider) -> Result<ResumeRequest, ResumeError> {
    request_resume(&resuming(record), by, "a disk was repaired").await
}

async fn confirm(record: &Sealed, by: &Decider, resume_id: &str) -> Result<Resumed, ResumeError> {
    confirm_resume(&resuming(record), by, resume_id).await
}

/// Resumes by two persons, and lets the sealer go on with the new log.
async fn resumed(record: &mut Sealed) -> Resumed {
    let (first, second) = (decider(&*record.clock, "ann"), decider(&*record.clock, "bea"));
    let requested = request(record, &first).await.unwrap();
    let resumed = confirm(record, &second, &requested.resume_id).await.unwrap();
    record.follow(resumed.new.clone()).await;
    resumed
}

fn keys(record: &Sealed, logs: Vec<Log>) -> Vec<(Log, VerifierKey)> {
    let key = |log: &Log| log.signer(&record.keyring).unwrap().verifier_key().clone();
    logs.into_iter().map(|log| (log.clone(), key(&log))).collect()
}

/// Returns the fault of each log, the oldest first, and whether it was accepted. That of the newest may be one of no log.
async fn verified(record: &Sealed) -> Vec<(Option<String>, bool)> {
    let logs = keys(record, log::all(record.db.read()).await.unwrap().logs);
    let reports = verify_all(record.db.read(), &logs, &[], Some(&record.keyring), |_, _| {}).await;
    let verified = reports.unwrap();
    let beside = verified.beside;
    let newest = verified.logs.len().saturating_sub(1);
    let reports = verified.logs.into_iter().enumerate();
    reports
        .map(|(place, log)| {
            let fault = log.report.fault.or(beside.clone().filter(|_| place == newest));
            (fault.as_ref().map(Fault::to_string), log.is_accepted)
        })
        .collect()
}

const INTACT: (Option<String>, bool) = (None, false);

#[tokio::test]
async fn a_new_log_begins_behind_rows_that_were_altered_or_removed() {
    for edit in [
        "UPDATE audit_events SET actor_id = 'nobody' WHERE number = 3",
        "DELETE FROM audit_events WHERE number = 3",
        "DELETE FROM audit_events WHERE number >= 3",
        "UPDATE audit_events SET mac = record WHERE number IN (3, 4)",
        "UPDATE audit_groups SET size = 9 WHERE number = 2",
        "DELETE FROM audit_groups WHERE number = 2",
    ] {
        for mut record in Sealed::each().await {
            let place = record.place.label;
            let old = [record.change("one").await, record.group(2).await.remove(0)];
            record.change("two").await;
            record.seal().await;
            for _ in 0..2 {
                record.change("later").await;
                record.group(2).await;
            }
            record.group(2).await;
            record.edit(edit).await;
            assert!(
                !matches!(record.try_seal().await, Ok(()) | Err(SealError::Store(_))),
                "{place} {edit}"
            );
            let resumed = resumed(&mut record).await;
            assert_eq!(
                resumed.new.origin.as_str(),
                format!("{}/2", resumed.old.origin),
                "{place} {edit}"
            );
            let new = [record.change("new").await, record.group(2).await.remove(0)];
            record.seal().await;
            assert_eq!(verified(&record).await, [INTACT, INTACT], "{place} {edit}");

            // What either log holds is still proven, each by its own.
            let logs = keys(&record, vec![resumed.old.clone(), resumed.new.clone()]);
            for (ids, (_, key)) in [old, new].iter().zip(&logs) {
                for id in ids {
                    let EventProof::Sealed(proven) = prove(record.db.read(), None, id).await.unwrap() else {
                        panic!("{place} {edit}: {id} is not proven");
                    };
                    proven.file.verify(key).unwrap();
                }
            }
            // The rows that were stepped over still count as what they are: a further one is a stranger.
            let stranger = "INSERT INTO audit_groups SELECT writer, 0, size, first_event_id, last_event_id, root, events, key_version, mac FROM audit_groups WHERE number = 1";
            record.edit(stranger).await;
            let found = verified(&record).await;
            let [old, new] = &found[..] else { panic!() };
            assert!(*old == INTACT && new.0.is_some(), "{place} {edit}");
        }
    }
}

#[tokio::test]
async fn the_event_of_a_resume_names_fault_head_and_persons() {
    for mut record in Sealed::each().await {
        let place = record.place.label;
        record.change("one").await;
        record.seal().await;
        record.change("two").await;
        record
            .edit("UPDATE audit_events SET subject = NULL WHERE number = 2")
            .await;
        let (first, second) = (decider(&*record.clock, "ann"), decider(&*record.clock, "bea"));
        let requested = request(&record, &first).await.unwrap();
        assert!(
            requested.fault.contains("number 2 of audit_events"),
            "{place} {requested:?}"
        );
        let resumed = confirm(&record, &second, &requested.resume_id).await.unwrap();
        record.follow(resumed.new.clone()).await;
        record.seal().await;
        let event = record.newest("audit_log.resume").await;
        assert_eq!(event.actor.id, second.operator_id.as_str(), "{place}");
        let root = STANDARD.encode(resumed.old.head.root.0);
        let digest = of_rows(record.db.read(), OWN, (2, 2)).await.unwrap();
        let stepped = format!(r#"[{{"writer":"","from":2,"through":2,"digest":"{digest}"}}]"#);
        let expected = [
            ("accepted", "[]"),
            ("accepted_rows", "0"),
            ("fault", requested.fault.as_str()),
            ("old_log", resumed.old.origin.as_str()),
            ("old_root", root.as_str()),
            ("old_size", "1"),
            ("reason", "a disk was repaired"),
            ("requested_by", first.operator_id.as_str()),
            ("resume_id", requested.resume_id.as_str()),
            ("stepped_over", stepped.as_str()),
        ];
        let detail: Vec<_> = event
            .detail
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(detail, expected, "{place}");
        let asked = record.newest("audit_log.request_resume").await;
        assert_eq!(asked.actor.id, first.operator_id.as_str(), "{place}");
    }
}

#[tokio::test]
async fn a_fault_of_what_was_sealed_stays_told_and_is_accepted() {
    for mut record in Sealed::each().await {
        let place = record.place.label;
        let changed = record.change("one").await;
        record.change("two").await;
        record.seal().await;
        record
            .edit("UPDATE audit_events SET actor_id = 'nobody' WHERE number = 1")
            .await;
        let resumed = resumed(&mut record).await;
        record.seal().await;
        assert!(
            resumed.fault.contains(changed.as_str()),
            "{place} {}",
            resumed.fault
        );
        assert_eq!(
            verified(&record).await,
            [(Some(resumed.fault), true), INTACT],
            "{place}"
        );
        // Another edit is not what was accepted.
        record
            .edit("UPDATE audit_events SET record = mac WHERE number = 1")
            .await;
        let found = verified(&record).await;
        let [old, _] = &found[..] else { panic!() };
        assert!(old.0.is_some() && !old.1, "{place} {old:?}");
    }
}

#[tokio::test]
async fn it_takes_two_persons_and_the_same_fault_once_and_in_time() {
    for mut record in Sealed::each().await {
        let place = record.place.label;
        record.change("one").await;
        record.seal().await;
        let (first, second) = (decider(&*record.clock, "Ann"), decider(&*record.clock, "bea"));
        assert!(
            matches!(request(&record, &first).await, Err(ResumeError::NoFault)),
            "{place}"
        );
        record.change("two").await;
        record
            .edit("UPDATE audit_events SET subject = NULL WHERE subject IS NOT NULL AND number > 1")
            .await;
        let requested = request(&record, &first).await.unwrap();
        let id = requested.resume_id.as_str();
        let nobody = OperatorId::generate(&*record.clock, &SystemRandom);
        for same in [
            first.clone(),
            decider(&*record.clock, "ann"),
            decider(&*record.clock, nobody.as_str()),
        ] {
            let refused = confirm(&record, &same, id).await;
            assert!(
                matches!(refused, Err(ResumeError::SamePerson)),
                "{place} {refused:?}"
            );
        }
        let unknown = confirm(&record, &second, "01kdvdna00000000000000000b").await;
        assert!(matches!(unknown, Err(ResumeError::NoRequest)), "{place}");
        // Whoever edits the database does not make a request another person's.
        record
            .edit("UPDATE audit_resume_requests SET person = 'carol'")
            .await;
        let forged = confirm(&record, &first, id).await;
        assert!(
            matches!(
                forged,
                Err(ResumeError::Store(StoreError::Corrupt(_)) | ResumeError::SamePerson)
            ),
            "{place}"
        );
        let forged = confirm(&record, &second, id).await;
        assert!(
            matches!(forged, Err(ResumeError::Store(StoreError::Corrupt(_)))),
            "{place} {forged:?}"
        );
        record
            .edit("UPDATE audit_resume_requests SET person = 'Ann'")
            .await;

        record.clock.advance(CONFIRM_WITHIN + Duration::from_millis(1));
        let late = confirm(&record, &second, id).await;
        assert!(matches!(late, Err(ResumeError::NoRequest)), "{place} {late:?}");
        let requested = request(&record, &first).await.unwrap();
        record
            .edit("UPDATE audit_events SET mac = record WHERE number = 1")
            .await;
        record.edit("DELETE FROM audit_events WHERE number = 2").await;
        let other = confirm(&record, &second, &requested.resume_id).await;
        assert!(
            matches!(other, Err(ResumeError::OtherFault(_))),
            "{place} {other:?}"
        );
        let requested = request(&record, &first).await.unwrap();
        confirm(&record, &second, &requested.resume_id).await.unwrap();
        let again = confirm(&record, &second, &requested.resume_id).await;
        assert!(matches!(again, Err(ResumeError::NoRequest)), "{place} {again:?}");
        assert!(Decider::new(first.operator_id, &[Role::Auditor, Role::Approver], String::new()).is_none());
    }
}

#[tokio::test]
async fn a_row_that_nobody_can_have_written_is_not_stepped_over() {
    for mut record in Sealed::each().await {
        let place = record.place.label;
        record.change("one").await;
        record.group(1).await;
        record.seal().await;
        record.change("two").await;
        for forged in [
            "INSERT INTO audit_events SELECT 900, 'x', action, outcome, actor_id, tenant_id, client_id, subject, record, key_version, mac FROM audit_events WHERE number = 1",
            "INSERT INTO audit_groups SELECT writer, 900, size, first_event_id, last_event_id, root, events, key_version, mac FROM audit_groups WHERE number = 1",
        ] {
            record.edit(forged).await;
            let by = decider(&*record.clock, "ann");
            let refused = request(&record, &by).await;
            assert!(
                matches!(refused, Err(ResumeError::CannotStepOver(_))),
                "{place} {refused:?}"
            );
            let table = if forged.contains("groups") {
                "audit_groups"
            } else {
                "audit_events"
            };
            record
                .edit(&format!("DELETE FROM {table} WHERE number = 900"))
                .await;
        }
        let by = decider(&*record.clock, "ann");
        assert!(
            matches!(request(&record, &by).await, Err(ResumeError::NoFault)),
            "{place}"
        );
    }
}

#[tokio::test]
async fn rows_between_two_logs_that_no_resume_names_are_a_fault() {
    for mut record in Sealed::each().await {
        let place = record.place.label;
        record.change("one").await;
        record.seal().await;
        record.change("two").await;
        record.change("three").await;
        // As somebody who has the keys of nothing but starts logs would.
        let tx = record.db.write().await.unwrap();
        let key = record.keyring.current(log::KEYRING_PURPOSE).unwrap();
        let next = record.log.origin.next().unwrap();
        let new = log::start(&tx, &next, key, "2", record.clock.now());
        let new = new.await.unwrap();
        tx.commit().await.unwrap();
        record.follow(new).await;
        record.seal().await;
        let found = verified(&record).await;
        let [old, new] = &found[..] else { panic!() };
        assert_eq!(*old, INTACT, "{place}");
        assert!(
            new.0.as_ref().is_some_and(|fault| fault.contains("no resume")),
            "{place} {new:?}"
        );
    }
}

#[tokio::test]
async fn retention_may_remove_an_older_log_and_more() {
    for mut record in Sealed::each().await {
        let place = record.place.label;
        for _ in 0..2 {
            record.change("one").await;
            record.group(2).await;
            record.seal().await;
        }
        record.change("altered").await;
        record
            .edit("UPDATE audit_events SET subject = NULL WHERE number = 3")
            .await;
        resumed(&mut record).await;
        record.change("two").await;
        record.seal().await;
        let size = record.log.head.size;
        record.clock.advance(Duration::from_secs(100));
        let kept = record.change("kept").await;
        let since = record.clock.now();
        let deleted = delete_before(&record.db, &*record.clock, &SystemRandom, since)
            .await
            .unwrap();
        assert_eq!(deleted.leaves, 4 + size, "{place}");
        // Before the event of the retention is sealed, and after.
        assert_eq!(verified(&record).await, [INTACT, INTACT], "{place}");
        record.seal().await;
        assert_eq!(verified(&record).await, [INTACT, INTACT], "{place}");
        assert!(matches!(
            prove(record.db.read(), None, &kept).await.unwrap(),
            EventProof::Sealed(_)
        ));
    }
}

/// A sealer that goes on meanwhile would make the log another one than the one that was verified.
#[tokio::test]
async fn no_sealer_goes_on_while_a_resume_is_confirmed() {
    for mut record in Sealed::each().await {
        record.change("one").await;
        record.seal().await;
        record
            .edit("UPDATE audit_events SET actor_id = 'nobody' WHERE number = 1")
            .await;
        record.change("two").await;
        let (first, second) = (decider(&*record.clock, "ann"), decider(&*record.clock, "bea"));
        let requested = request(&record, &first).await.unwrap();
        // The log grows between both, and the fault is the same.
        record.seal().await;
        let resumed = confirm(&record, &second, &requested.resume_id).await.unwrap();
        record.change("three").await;
        let size = record.log.head.size;
        record.try_seal().await.unwrap();
        assert_eq!(record.log.head.size, size, "{:?}", record.place);
        record.follow(resumed.new).await;
        record.seal().await;
        let found = verified(&record).await;
        assert!(found[0].1 && found[1] == INTACT, "{found:?}");
    }
}
