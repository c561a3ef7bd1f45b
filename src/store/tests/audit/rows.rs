#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use sea_orm::QueryOrder;

use super::*;
use crate::{
    clock::UnixMillis,
    random::SystemRandom,
    store::{Database, Pool, fixture::migrated},
    testing::{TEST_START, edited_rows::drop_inserts, test_clock},
    text::page::PageRequest,
};

fn origin(kind: ActorKind, id: &str) -> Origin {
    Origin {
        certificate: None,
        session: None,
        address: None,
        actor: Actor {
            kind,
            id: id.to_owned(),
        },
        request_id: "req-1".to_owned(),
    }
}

async fn record_all(db: &Database, clock: &dyn Clock, origin: &Origin, events: Vec<Event>) -> Vec<EventId> {
    let record = |event| Record::new(clock, &SystemRandom, origin.clone(), event);
    let records: Vec<_> = events.into_iter().map(record).collect();
    let tx = db.write().await.unwrap();
    insert(&tx, records.clone()).await.unwrap();
    tx.commit().await.unwrap();
    records.into_iter().map(|record| record.event_id).collect()
}

async fn actions(conn: &Pool, filter: Filter) -> Vec<String> {
    let page = list(conn, &filter, &PageRequest::first(50)).await.unwrap();
    page.into_parts()
        .0
        .into_iter()
        .map(|event| event.action)
        .collect()
}

#[tokio::test]
async fn an_event_round_trips() {
    for (place, db) in migrated().await {
        let clock = test_clock();
        let tenant = TenantId::parse("acme").unwrap();
        let client = ClientId::generate(&*clock, &SystemRandom);
        let event = Event::test("client.suspend")
            .tenant(&tenant)
            .client(&client)
            .subject("sec_1")
            .detail("reason", "it's \"odd\" \u{1F600}\n")
            .detail("count", "1")
            .refused();
        let origin = origin(ActorKind::TenantAdmin, "usr_1");
        let tx = db.write().await.unwrap();
        let id = record(&tx, &*clock, &SystemRandom, &origin, event).await;
        tx.commit().await.unwrap();

        let found = list(db.read(), &Filter::default(), &PageRequest::first(50))
            .await
            .unwrap();
        let expected = EventRow {
            position: None,
            event_id: id,
            occurred_at: TEST_START,
            action: "client.suspend".to_owned(),
            outcome: Outcome::Refused,
            actor: origin.actor,
            tenant_id: Some(tenant),
            client_id: Some(client),
            subject: Some("sec_1".to_owned()),
            request_id: "req-1".to_owned(),
            address: None,
            detail: [("reason", "it's \"odd\" \u{1F600}\n"), ("count", "1")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        };
        assert_eq!(found.into_parts(), (vec![expected], String::new()), "{place:?}");
    }
}

#[tokio::test]
async fn a_rolled_back_event_is_not_recorded() {
    for (place, db) in migrated().await {
        let tx = db.write().await.unwrap();
        let origin = origin(ActorKind::System, "");
        record(&tx, &*test_clock(), &SystemRandom, &origin, Event::test("a")).await;
        tx.rollback().await.unwrap();
        assert_eq!(actions(db.read(), Filter::default()).await, [""; 0], "{place:?}");
    }
}

#[tokio::test]
async fn numbers_of_events_have_no_gaps() {
    for (place, db) in migrated().await {
        let (clock, origin) = (test_clock(), origin(ActorKind::System, ""));
        record_all(&db, &*clock, &origin, vec![Event::test("a"), Event::test("b")]).await;
        let tx = db.write().await.unwrap();
        record(&tx, &*clock, &SystemRandom, &origin, Event::test("c")).await;
        tx.rollback().await.unwrap();
        record_all(&db, &*clock, &origin, vec![Event::test("d")]).await;
        let rows = row::Entity::find().order_by_asc(row::Column::Number);
        let rows = rows.all(db.read()).await.unwrap();
        let numbers: Vec<_> = rows.iter().map(|row| (row.number, row.action.as_str())).collect();
        assert_eq!(numbers, [(1, "a"), (2, "b"), (3, "d")], "{place:?}");
    }
}

#[tokio::test]
async fn filters_combine() {
    for (place, db) in migrated().await {
        let clock = test_clock();
        let acme = TenantId::parse("acme").unwrap();
        let other = TenantId::parse("other").unwrap();
        let client = ClientId::generate(&*clock, &SystemRandom);
        let registrar = origin(ActorKind::Operator, "opr_1");
        let partner = origin(ActorKind::Client, "cli_1");
        let second = Duration::from_secs(1);
        for (origin, event) in [
            (&registrar, Event::test("t0").tenant(&acme)),
            (&registrar, Event::test("t1").tenant(&other).subject("set_1")),
            (&partner, Event::test("t2").tenant(&acme).client(&client)),
            (
                &partner,
                Event::test("t3").tenant(&acme).client(&client).refused(),
            ),
        ] {
            record_all(&db, &*clock, origin, vec![event]).await;
            clock.advance(second);
        }
        let none = Filter::default();
        let at = |seconds: u32| Some(TEST_START.plus(second * seconds));
        let outcome = Some(Outcome::Refused);
        for (filter, expected) in [
            (none.clone(), &["t3", "t2", "t1", "t0"][..]),
            (
                Filter {
                    tenant_id: Some(acme.clone()),
                    ..none.clone()
                },
                &["t3", "t2", "t0"],
            ),
            (
                Filter {
                    client_id: Some(client.clone()),
                    ..none.clone()
                },
                &["t3", "t2"],
            ),
            (
                Filter {
                    action: Some("t1".to_owned()),
                    ..none.clone()
                },
                &["t1"],
            ),
            (
                Filter {
                    action: Some("t".to_owned()),
                    ..none.clone()
                },
                &[],
            ),
            (
                Filter {
                    actor_id: Some("opr_1".to_owned()),
                    ..none.clone()
                },
                &["t1", "t0"],
            ),
            (
                Filter {
                    subject: Some("set_1".to_owned()),
                    ..none.clone()
                },
                &["t1"],
            ),
            (
                Filter {
                    outcome,
                    ..none.clone()
                },
                &["t3"],
            ),
            (
                Filter {
                    outcome: Some(Outcome::Success),
                    ..none.clone()
                },
                &["t2", "t1", "t0"],
            ),
            // `from` is inclusive, `until` exclusive.
            (
                Filter {
                    from: at(1),
                    until: at(3),
                    ..none.clone()
                },
                &["t2", "t1"],
            ),
            (
                Filter {
                    from: at(4),
                    ..none.clone()
                },
                &[],
            ),
            (
                Filter {
                    until: at(0),
                    ..none.clone()
                },
                &[],
            ),
            (
                Filter {
                    until: Some(UnixMillis::from_millis(-1)),
                    ..none.clone()
                },
                &[],
            ),
            (
                Filter {
                    until: Some(UnixMillis::from_millis(i64::MAX)),
                    ..none.clone()
                },
                &["t3", "t2", "t1", "t0"],
            ),
            (
                Filter {
                    tenant_id: Some(acme),
                    outcome,
                    from: at(1),
                    ..none.clone()
                },
                &["t3"],
            ),
            (
                Filter {
                    tenant_id: Some(other),
                    client_id: Some(client),
                    ..none.clone()
                },
                &[],
            ),
        ] {
            assert_eq!(
                actions(db.read(), filter.clone()).await,
                expected,
                "{place:?} {filter:?}"
            );
        }
    }
}

#[tokio::test]
async fn pages_follow_one_another_while_events_are_added() {
    for (place, db) in migrated().await {
        let clock = test_clock();
        let origin = origin(ActorKind::System, "");
        let events = (0..25).map(|n| Event::test("tick").subject(format!("{n}")));
        record_all(&db, &*clock, &origin, events.collect()).await;

        let filter = Filter {
            action: Some("tick".to_owned()),
            ..Filter::default()
        };
        let mut seen = Vec::new();
        let mut token = String::new();
        for expected in [10, 10, 5] {
            let found = list(db.read(), &filter, &PageRequest::test(10, &token))
                .await
                .unwrap();
            let events;
            (events, token) = found.into_parts();
            assert_eq!(events.len(), expected, "{place:?}");
            seen.extend(events.into_iter().filter_map(|event| event.subject));
            // Newer events don't shift the pages that follow.
            let late = Event::test("tick").subject("late");
            record_all(&db, &*clock, &origin, vec![late]).await;
        }
        assert_eq!(token, "");
        let newest_first: Vec<_> = (0..25).rev().map(|n| n.to_string()).collect();
        assert_eq!(seen, newest_first, "{place:?}");
    }
}

#[tokio::test]
async fn an_insert_takes_any_number_of_events() {
    for (place, db) in migrated().await {
        let clock = test_clock();
        let origin = origin(ActorKind::System, "");
        let events = vec![Event::test("tick"); 64 + 3 * 16 + 3 * 4 + 3];
        let ids = record_all(&db, &*clock, &origin, events).await;
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{place:?}");
        let rows = row::Entity::find().order_by_asc(row::Column::Number);
        let rows = rows.all(db.read()).await.unwrap();
        let numbers: Vec<_> = rows.iter().map(|row| row.number).collect();
        assert!(numbers.into_iter().eq(1..=ids.len() as i64), "{place:?}");
    }
}

#[test]
fn stored_names_stay_the_same() {
    for kind in [
        "operator",
        "workload",
        "client",
        "tenant_admin",
        "anonymous",
        "system",
    ] {
        assert_eq!(kind.parse::<ActorKind>().unwrap().as_ref(), kind);
    }
    assert_eq!("success".parse(), Ok(Outcome::Success));
    assert!("Success".parse::<Outcome>().is_err());
}

#[tokio::test]
async fn an_event_that_is_not_written_ends_its_change() {
    for (place, db) in migrated().await {
        drop_inserts(&db, "audit_events").await;
        let tx = db.write().await.unwrap();
        let event = Event::test("client.suspend");
        record(&tx, &*test_clock(), &SystemRandom, &Origin::system("test"), event).await;
        let committed = tx.commit().await;
        assert!(
            matches!(committed, Err(StoreError::Altered("audit_events"))),
            "{place:?}"
        );
    }
}

#[tokio::test]
async fn a_forged_event_at_the_next_number_keeps_nothing_from_being_recorded() {
    for (place, db) in migrated().await {
        let by = origin(ActorKind::Operator, "opr_1");
        record_all(&db, &*test_clock(), &by, vec![Event::test("client.create")]).await;
        let forge = "INSERT INTO audit_events (number, event_id, action, outcome, actor_id, record, key_version, mac)
            SELECT number + 1, event_id || 'x', action, outcome, actor_id, record, key_version, mac FROM audit_events";
        db.read().execute_unprepared(forge).await.unwrap();
        record_all(&db, &*test_clock(), &by, vec![Event::test("client.suspend")]).await;
        let found = list(db.read(), &Filter::default(), &PageRequest::first(50))
            .await
            .unwrap();
        let events = found.into_parts().0;
        let actions: Vec<_> = events.iter().map(|event| event.action.as_str()).collect();
        assert_eq!(actions, ["client.suspend", "client.create"], "{place:?}");
        assert_eq!(events[0].detail["altered"], "audit_events", "{place:?}");
    }
}

#[tokio::test]
async fn an_event_of_ours_at_the_next_number_is_kept_although_a_column_was_edited() {
    for (place, db) in migrated().await {
        let by = origin(ActorKind::Operator, "opr_1");
        let save = "CREATE TABLE saved AS SELECT * FROM change_counter";
        db.read().execute_unprepared(save).await.unwrap();
        record_all(&db, &*test_clock(), &by, vec![Event::test("client.create")]).await;
        for edit in [
            "UPDATE audit_events SET action = 'client.get'",
            "DELETE FROM change_counter",
            "INSERT INTO change_counter SELECT * FROM saved",
        ] {
            db.read().execute_unprepared(edit).await.unwrap();
        }
        let tx = db.write().await.unwrap();
        let record = Record::new(&*test_clock(), &SystemRandom, by, Event::test("client.suspend"));
        let inserted = insert(&tx, vec![record]).await;
        assert!(
            matches!(inserted, Err(StoreError::Altered("change_counter"))),
            "{place:?}"
        );
    }
}

#[test]
fn an_event_names_each_table_that_was_edited() {
    let event = Event::test("client.suspend")
        .altered("clients")
        .altered("changes");
    assert_eq!(event.detail["altered"], "clients, changes");
}
