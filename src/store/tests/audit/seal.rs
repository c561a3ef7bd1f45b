#![allow(clippy::unwrap_used, clippy::panic)]

use std::{sync::Arc, time::Instant};

use super::*;
use crate::{
    clock::{Clock, ManualClock},
    keys::DataKey,
    random::SystemRandom,
    store::{
        Pool,
        audit::{
            self, Event, EventRow, Filter, GroupWriter, KEYRING_PURPOSE, Origin, Record, ensure_log, list,
        },
        fixture::migrated,
        log::{self, Election},
    },
    testing::{TestDatabase, test_clock},
    text::{id::EventId, page::PageRequest},
    tlog::{Signer, VerifierKey},
};

/// A record that somebody writes and seals.
pub(crate) struct Sealed {
    pub db: Database,
    pub clock: Arc<ManualClock>,
    pub keyring: Keyring,
    pub lease: Lease,
    pub log: Log,
    writer: GroupWriter,
    pub place: TestDatabase,
}

impl Sealed {
    pub async fn each() -> Vec<Self> {
        let mut all = Vec::new();
        for (place, db) in migrated().await {
            let clock = test_clock();
            let mut keyring = Keyring::new(&[KEYRING_PURPOSE, log::KEYRING_PURPOSE]);
            for (purpose, key) in [(KEYRING_PURPOSE, 7), (log::KEYRING_PURPOSE, 9)] {
                keyring.insert(purpose, DataKey::new(1, &[key; 32]).unwrap(), true);
            }
            let log = ensure_log(&db, &keyring, "auth.example", "token", clock.now())
                .await
                .unwrap();
            let lease = Election::new("test")
                .acquire(&db, Instant::now())
                .await
                .unwrap()
                .unwrap();
            let writer = GroupWriter::new(clock.clone(), Arc::new(SystemRandom));
            all.push(Self {
                db,
                clock,
                keyring,
                lease,
                log,
                writer,
                place,
            });
        }
        all
    }

    pub fn signer(&self) -> Signer {
        self.log.signer(&self.keyring).unwrap()
    }

    pub fn key(&self) -> VerifierKey {
        self.signer().verifier_key().clone()
    }

    /// Records an event with a row of its own.
    pub async fn change(&self, action: &'static str) -> EventId {
        let tx = self.db.write().await.unwrap();
        let event = Event::test(action).subject("grt_1").detail("reason", "asked to");
        let id = audit::record(&tx, &*self.clock, &SystemRandom, &Origin::system("test"), event).await;
        tx.commit().await.unwrap();
        id
    }

    /// Records a group. Returns the ids of its events.
    pub async fn group(&self, size: usize) -> Vec<EventId> {
        let record = |_| {
            let event = Event::test("token.issue");
            Record::new(&*self.clock, &SystemRandom, Origin::system("test"), event)
        };
        let records: Vec<_> = (0..size).map(record).collect();
        let tx = self.db.write().await.unwrap();
        let appended = self.writer.append(&tx, &records).await.unwrap();
        tx.commit().await.unwrap();
        appended.unwrap().committed();
        records.into_iter().map(|record| record.event_id).collect()
    }

    pub async fn try_seal(&mut self) -> Result<(), SealError> {
        loop {
            let place = (&self.lease, &self.log);
            let sealed = seal(&self.db, &self.keyring, place, &(), self.clock.now());
            match sealed.await? {
                Some(next) => self.log = next,
                None => return Ok(()),
            }
        }
    }

    /// Seals everything, and signs.
    pub async fn seal(&mut self) {
        self.try_seal().await.unwrap();
        self.sign().await;
    }

    /// Signs what is sealed.
    pub async fn sign(&self) {
        let key = self.log.key(&self.keyring).unwrap();
        log::sign_heads(&self.db, &self.log, key, &self.signer())
            .await
            .unwrap();
    }

    pub async fn edit(&self, sql: &str) {
        let edited = self.db.read().execute_unprepared(sql).await.unwrap();
        assert!(edited.rows_affected() > 0, "{sql}");
    }

    /// Seals from now on with a log that somebody has started.
    pub async fn follow(&mut self, log: Log) {
        self.log = log;
        let lease = Election::new("test").acquire(&self.db, Instant::now()).await;
        self.lease = lease.unwrap().unwrap();
    }

    /// Returns the newest event with this action.
    pub async fn newest(&self, action: &str) -> EventRow {
        let events = self.events().await;
        events.into_iter().find(|event| event.action == action).unwrap()
    }

    async fn events(&self) -> Vec<EventRow> {
        let page = PageRequest::first(500);
        let page = list(self.db.read(), &Filter::default(), &page).await.unwrap();
        page.into_parts().0
    }
}

async fn leaves(conn: &Pool) -> Vec<(String, i64)> {
    let leaves = leaf::Entity::find().order_by_asc(leaf::Column::LeafIndex);
    let leaves = leaves.all(conn).await.unwrap();
    leaves
        .into_iter()
        .map(|leaf| (leaf.source, leaf.number))
        .collect()
}

#[tokio::test]
async fn both_shapes_become_leaves_once_in_the_order_of_each_source() {
    for mut record in Sealed::each().await {
        for _ in 0..3 {
            record.change("a").await;
            record.group(5).await;
        }
        record.seal().await;
        assert_eq!(record.log.head.size, 6, "{:?}", record.place);
        record.seal().await;
        assert_eq!(record.log.head.size, 6);
        record.change("b").await;
        record.seal().await;
        assert_eq!(record.log.head.size, 7);
        let leaves = leaves(record.db.read()).await;
        let own: Vec<_> = leaves
            .iter()
            .filter(|(source, _)| source == OWN)
            .map(|leaf| leaf.1)
            .collect();
        assert_eq!(own, [1, 2, 3, 4], "{:?}", record.place);
        let groups: Vec<_> = leaves
            .iter()
            .filter(|(source, _)| source != OWN)
            .map(|leaf| leaf.1)
            .collect();
        assert_eq!(groups, [1, 2, 3], "{:?}", record.place);
        assert_eq!(record.events().await.len(), 4 + 15);
    }
}

#[tokio::test]
async fn a_clock_that_jumps_changes_no_order() {
    let year = std::time::Duration::from_secs(365 * 86_400);
    for mut record in Sealed::each().await {
        let start = record.clock.now();
        for now in [start, start.minus(year), start.plus(year), start] {
            record.clock.set(now);
            record.change("one").await;
            record.change("two").await;
            record.seal().await;
            record.change("three").await;
        }
        record.seal().await;
        let expected: Vec<_> = (1..=12).map(|number| (OWN.to_owned(), number)).collect();
        assert_eq!(leaves(record.db.read()).await, expected, "{:?}", record.place);
    }
}

/// What somebody can do who writes to the database and has no key, before an event is sealed.
#[tokio::test]
async fn sealing_stops_at_a_forgery_and_seals_what_comes_before() {
    for (edit, named) in [
        (
            "UPDATE audit_events SET record = (SELECT record FROM audit_events WHERE number = 1) WHERE number = 2",
            "MAC is wrong",
        ),
        (
            "UPDATE audit_events SET record = (SELECT record FROM audit_events WHERE number = 1), mac = (SELECT mac FROM audit_events WHERE number = 1) WHERE number = 2",
            "MAC is wrong",
        ),
        (
            "UPDATE audit_events SET action = 'nothing' WHERE number = 2",
            "differs from the event",
        ),
        (
            "UPDATE audit_events SET subject = NULL WHERE number = 2",
            "differs from the event",
        ),
        (
            "UPDATE audit_events SET key_version = 9 WHERE number = 2",
            "no key has its version",
        ),
        ("DELETE FROM audit_events WHERE number = 2", "has no number 2"),
        ("DELETE FROM audit_events WHERE number > 1", "has no number 2"),
    ] {
        for mut record in Sealed::each().await {
            for _ in 0..3 {
                record.change("a").await;
            }
            record.edit(edit).await;
            let error = record.try_seal().await.unwrap_err().to_string();
            assert!(error.contains(named), "{edit}: {error}");
            assert_eq!(leaves(record.db.read()).await, [(OWN.to_owned(), 1)], "{edit}");
        }
    }
    for (edit, named) in [
        (
            "UPDATE audit_groups SET events = (SELECT events FROM audit_groups WHERE number = 1) WHERE number = 2",
            "not that of the events",
        ),
        (
            "UPDATE audit_groups SET events = (SELECT events FROM audit_groups WHERE number = 1), root = (SELECT root FROM audit_groups WHERE number = 1), mac = (SELECT mac FROM audit_groups WHERE number = 1) WHERE number = 2",
            "MAC is wrong",
        ),
        (
            "UPDATE audit_groups SET size = 1 WHERE number = 2",
            "MAC is wrong",
        ),
        (
            "UPDATE audit_groups SET first_event_id = last_event_id WHERE number = 2",
            "differs from the events",
        ),
        ("DELETE FROM audit_groups WHERE number = 2", "has no number 2"),
        ("DELETE FROM audit_groups WHERE number = 1", "has no number 1"),
    ] {
        for mut record in Sealed::each().await {
            for _ in 0..3 {
                record.group(3).await;
            }
            record.edit(edit).await;
            let error = record.try_seal().await.unwrap_err().to_string();
            assert!(error.contains(named), "{edit}: {error}");
            let sealed = usize::from(!edit.ends_with("number = 1") || edit.starts_with("UPDATE"));
            assert_eq!(leaves(record.db.read()).await.len(), sealed, "{edit}");
        }
    }
}

#[tokio::test]
async fn a_sealer_that_lost_its_lease_seals_nothing() {
    for mut record in Sealed::each().await {
        record.change("a").await;
        record
            .edit("UPDATE audit_sealer SET generation = generation + 1")
            .await;
        record.try_seal().await.unwrap();
        assert_eq!(record.log.head.size, 0);
        assert!(leaves(record.db.read()).await.is_empty());
    }
}

#[tokio::test]
async fn a_log_that_no_holder_of_the_keys_has_started_is_not_sealed_into() {
    for mut record in Sealed::each().await {
        record.change("a").await;
        record.seal().await;
        let origin = format!("{}/2", record.log.origin);
        let insert = format!(
            "INSERT INTO audit_logs (log_id, origin, key_version, size, root, position, started_at, mac) \
             SELECT 2, '{origin}', key_version, size, root, position, started_at, mac FROM audit_logs"
        );
        record.edit(&insert).await;
        let now = record.clock.now();
        let started = ensure_log(&record.db, &record.keyring, "auth.example", "token", now).await;
        assert!(
            matches!(started, Err(StoreError::Corrupt(_))),
            "{:?}",
            record.place
        );
    }
}

#[tokio::test]
async fn a_new_epoch_starts_a_log_of_its_own() {
    for mut record in Sealed::each().await {
        record.change("a").await;
        record.seal().await;
        let tx = record.db.write().await.unwrap();
        crate::store::change::start_epoch(&tx, &SystemRandom)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let before = record.log.clone();
        record.log = ensure_log(
            &record.db,
            &record.keyring,
            "auth.example",
            "token",
            record.clock.now(),
        )
        .await
        .unwrap();
        assert_ne!(record.log.origin, before.origin, "{:?}", record.place);
        record.lease = Election::new("next")
            .acquire(&record.db, Instant::now())
            .await
            .unwrap()
            .unwrap();
        record.change("b").await;
        record.seal().await;
        assert_eq!(
            (record.log.head.size, before.head.size),
            (1, 1),
            "{:?}",
            record.place
        );
    }
}

#[tokio::test]
async fn a_counter_that_is_put_back_behind_the_log_is_noticed_by_whoever_reads_it() {
    for mut record in Sealed::each().await {
        record.change("a").await;
        let save = "CREATE TABLE saved AS SELECT * FROM change_counter";
        record.db.read().execute_unprepared(save).await.unwrap();
        record.change("b").await;
        record.seal().await;
        record.edit("DELETE FROM change_counter").await;
        record
            .edit("INSERT INTO change_counter SELECT * FROM saved")
            .await;
        record.edit("DELETE FROM audit_events WHERE number > 1").await;
        let is_behind = |error: StoreError| matches!(error, StoreError::Altered("change_counter"));
        let Err(SealError::Store(error)) = record.try_seal().await else {
            panic!("{:?}", record.place);
        };
        assert!(is_behind(error), "{:?}", record.place);
        let db = record.db.read();
        let sealed = audit::sealed_number(db).await.unwrap();
        let read = change::read(db, sealed, None, 1).await.map(|_| ());
        assert!(is_behind(read.unwrap_err()), "{:?}", record.place);
        let tx = record.db.write().await.unwrap();
        let event = Event::test("c");
        audit::record(&tx, &*record.clock, &SystemRandom, &Origin::system("test"), event).await;
        assert!(is_behind(tx.commit().await.unwrap_err()), "{:?}", record.place);
    }
}

/// Sums up nothing, because its table is not as it has to be.
struct Unwritable;

impl Rollup for Unwritable {
    type Changes = ();

    async fn prepare(&self, _: &Database, _: Vec<TokenUse>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn write(&self, tx: &Transaction, (): ()) -> Result<(), StoreError> {
        tx.execute_unprepared("INSERT INTO audit_logs (log_id) VALUES (7)")
            .await?;
        Ok(())
    }
}

#[tokio::test]
async fn sums_that_can_not_be_written_keep_nothing_from_being_sealed() {
    for mut record in Sealed::each().await {
        record.change("a").await;
        record.group(2).await;
        let place = (&record.lease, &record.log);
        let sealed = seal(
            &record.db,
            &record.keyring,
            place,
            &Unwritable,
            record.clock.now(),
        )
        .await;
        record.log = sealed.unwrap().unwrap();
        assert_eq!(record.log.head.size, 2, "{:?}", record.place);
        assert_eq!(leaves(record.db.read()).await.len(), 2, "{:?}", record.place);
        assert!(record.try_seal().await.is_ok(), "{:?}", record.place);
    }
}
