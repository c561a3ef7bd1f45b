//! Resumes after faults of rows that events name.

use super::*;
use crate::store::{
    Pool,
    audit::{RowVersion, check_rows},
    rows::{self, StoredRow},
};

const ROW: &str = "things/1";

fn version(mac: u8, before: Option<u8>) -> RowVersion {
    RowVersion {
        row: ROW.to_owned(),
        digest: [mac; 16],
        before: before.map(|before| [before; 16]),
    }
}

/// A table with one row as a change has left it, and the same with the row that was there before.
const NEW: RowTable = RowTable {
    name: "things",
    is_complete: true,
    is_renewed: false,
    rows: |conn, each| Box::pin(row(conn, 2, each)),
    compare: None,
};
const OLD: RowTable = RowTable {
    rows: |conn, each| Box::pin(row(conn, 1, each)),
    ..NEW
};
const EMPTY: RowTable = RowTable {
    rows: |_, _| Box::pin(async { Ok(()) }),
    ..NEW
};

async fn row(conn: &Pool, mac: u8, each: &mut (dyn FnMut(StoredRow) + Send)) -> Result<(), StoreError> {
    let newest = rows::version::Entity::find_by_id(ROW).one(conn).await?;
    each(StoredRow {
        version: version(mac, None),
        newest: newest.map(|newest| (newest.event_number, newest.row_digest)),
        is_altered: false,
        renewal: None,
    });
    Ok(())
}

/// The table, if its rows have versions from their end on.
fn at_end(table: RowTable) -> RowTable {
    RowTable {
        is_complete: false,
        ..table
    }
}

async fn changed_row(record: &Sealed, version: RowVersion) {
    let tx = record.db.write().await.unwrap();
    let event = Event::test("thing.update");
    audit::record(&tx, &*record.clock, &SystemRandom, &Origin::system("test"), event).await;
    tx.wrote(version);
    tx.commit().await.unwrap();
}

async fn row_fault(record: &Sealed, table: RowTable) -> Option<String> {
    let logs = keys(record, log::all(record.db.read()).await.unwrap().logs);
    let verified = verify_all(record.db.read(), &logs, &[], Some(&record.keyring), |_, _| {}).await;
    let now = record.clock.now();
    let found = check_rows(record.db.read(), &[table], &verified.unwrap(), now)
        .await
        .unwrap();
    found.faults.into_iter().next().map(|fault| fault.what)
}

/// Nothing is taken from an event that somebody has altered, and what its true content was is accepted by two persons.
#[tokio::test]
async fn rows_are_accepted_with_the_events_that_are_stepped_over() {
    let forged = "UPDATE audit_events SET record = (SELECT record FROM audit_events WHERE number = 3) WHERE number = 2";
    for (edit, is_sealed) in [
        (forged, false),
        (forged, true),
        ("DELETE FROM audit_events WHERE number = 2", false),
    ] {
        for mut record in Sealed::each().await {
            let place = record.place.label;
            changed_row(&record, version(1, None)).await;
            record.seal().await;
            changed_row(&record, version(2, Some(1))).await;
            record.change("other").await;
            if is_sealed {
                record.seal().await;
            }
            assert_eq!(row_fault(&record, NEW).await, None, "{place} {edit}");
            record.edit(edit).await;
            let tables = [NEW];
            let resuming = Resuming {
                tables: &tables,
                ..resuming(&record)
            };
            let (first, second) = (decider(&*record.clock, "ann"), decider(&*record.clock, "bea"));
            let requested = request_resume(&resuming, &first, "a disk was repaired")
                .await
                .unwrap();
            assert!(requested.fault.contains(ROW), "{place} {}", requested.fault);
            let resumed = confirm_resume(&resuming, &second, &requested.resume_id)
                .await
                .unwrap();
            record.follow(resumed.new).await;
            record.seal().await;
            assert_eq!(row_fault(&record, NEW).await, None, "{place} {edit}");
            for (table, what) in [(OLD, "is not as the event"), (EMPTY, "is gone since")] {
                let fault = row_fault(&record, table).await.unwrap();
                assert!(fault.contains(what), "{place} {edit}: {fault}");
            }
            changed_row(&record, version(1, Some(2))).await;
            assert_eq!(row_fault(&record, OLD).await, None, "{place} {edit}");
        }
    }
}

/// What has ended confers nothing, and is written without a version until it ends: nobody accepts it from before.
#[tokio::test]
async fn a_row_that_is_put_back_from_before_its_end_is_deleted_and_not_accepted() {
    for edit in [
        "UPDATE audit_events SET subject = NULL WHERE number = 2",
        "DELETE FROM row_versions",
        // The event of the end, which leaves the version alone.
        "UPDATE audit_events SET record = mac WHERE number = 1",
    ] {
        for mut record in Sealed::each().await {
            let place = record.place.label;
            changed_row(&record, version(2, Some(1))).await;
            record.seal().await;
            record.change("other").await;
            record.edit(edit).await;
            let ask = async |table| {
                let resuming = Resuming {
                    tables: &[at_end(table)],
                    ..resuming(&record)
                };
                request_resume(&resuming, &decider(&*record.clock, "ann"), "a disk was repaired").await
            };
            let refused = ask(OLD).await;
            assert!(
                matches!(&refused, Err(ResumeError::CannotStepOver(why)) if why.contains(ROW) && why.contains("delete it")),
                "{place} {edit}: {refused:?}"
            );
            // As the end has left it, it is accepted without its version.
            let is_whole = edit.contains("row_versions");
            let requested = ask(NEW).await;
            assert!(requested.is_ok(), "{place} {edit}: {requested:?}");
            let requested = ask(EMPTY).await;
            let goes_on = match is_whole {
                true => matches!(requested, Err(ResumeError::NoFault)),
                false => requested.is_ok(),
            };
            assert!(goes_on, "{place} {edit}: {requested:?}");
        }
    }
}
