#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use sea_orm::{DbBackend, ExecResult, QueryResult, Statement};

use super::*;
use crate::{
    clock::{Clock, ManualClock},
    random::SystemRandom,
    store::{
        Database, Pool,
        audit::{
            self, Actor, ActorKind, Event, GrantType, GroupWriter, IssuedToken, Origin, Record,
            seal::tests::Sealed,
        },
        fixture::migrated,
    },
    testing::test_clock,
    text::id::{GrantId, UserId},
};

/// A database whose events come in both shapes.
struct Recorder<'a> {
    db: &'a Database,
    clock: &'a Arc<ManualClock>,
    writer: GroupWriter,
}

impl<'a> Recorder<'a> {
    fn new(db: &'a Database, clock: &'a Arc<ManualClock>) -> Self {
        let writer = GroupWriter::new(clock.clone(), Arc::new(SystemRandom));
        Self { db, clock, writer }
    }

    /// Records a group of tokens of some tenants. Returns their ids.
    async fn issue(&self, tenants: &[&str]) -> Vec<EventId> {
        let records: Vec<_> = tenants
            .iter()
            .map(|tenant| issued(&**self.clock, tenant))
            .collect();
        let tx = self.db.write().await.unwrap();
        let appended = self.writer.append(&tx, &records).await.unwrap();
        tx.commit().await.unwrap();
        appended.unwrap().committed();
        records.into_iter().map(|record| record.event_id).collect()
    }

    async fn change(&self, tenant: &str) -> EventId {
        let event = Event::test("consent.revoke").tenant(&TenantId::parse(tenant).unwrap());
        let tx = self.db.write().await.unwrap();
        let origin = Origin::system("test");
        let id = audit::record(&tx, &**self.clock, &SystemRandom, &origin, event).await;
        tx.commit().await.unwrap();
        id
    }

    async fn list(&self, filter: &Filter, size: u64) -> Vec<EventId> {
        read_all(self.db, filter, size).await
    }
}

/// Reads all pages.
async fn read_all(db: &Database, filter: &Filter, size: u64) -> Vec<EventId> {
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let page = PageRequest::test(size, &token);
        let (events, next) = list(db.read(), filter, &page).await.unwrap().into_parts();
        assert!(events.len() <= usize::try_from(size).unwrap());
        ids.extend(events.into_iter().map(|event| event.event_id));
        token = next;
        if token.is_empty() {
            return ids;
        }
    }
}

fn issued(clock: &dyn Clock, tenant: &str) -> Record {
    let client_id = ClientId::generate(clock, &SystemRandom);
    let origin = Origin {
        actor: Actor {
            kind: ActorKind::Client,
            id: client_id.to_string(),
        },
        certificate: None,
        session: None,
        address: None,
        request_id: String::new(),
    };
    let token = IssuedToken {
        jti: EventId::generate(clock, &SystemRandom),
        grant_id: GrantId::generate(clock, &SystemRandom),
        user_id: UserId::generate(clock, &SystemRandom),
        grant_type: GrantType::RefreshToken,
        key_thumbprint: [1; 32],
        scope: "a".to_owned(),
    };
    let event = Event::issued(token)
        .tenant(&TenantId::parse(tenant).unwrap())
        .client(&client_id);
    Record::new(clock, &SystemRandom, origin, event)
}

fn of(tenant: &str) -> Filter {
    Filter {
        tenant_id: Some(TenantId::parse(tenant).unwrap()),
        ..Filter::default()
    }
}

#[tokio::test]
async fn both_shapes_are_one_list() {
    for (place, db) in migrated().await {
        let clock = test_clock();
        let recorder = Recorder::new(&db, &clock);
        let (mut all, mut acme) = (Vec::new(), Vec::new());
        let mut times = Vec::new();
        for _ in 0..10 {
            times.push(clock.now());
            let ids = recorder.issue(&["acme", "other", "acme"]).await;
            acme.extend([ids[0].clone(), ids[2].clone()]);
            all.extend(ids);
            clock.advance(Duration::from_millis(5));
            let id = recorder.change("acme").await;
            acme.push(id.clone());
            all.push(id);
            clock.advance(Duration::from_millis(5));
        }
        all.sort_by(|one, other| other.cmp(one));
        acme.sort_by(|one, other| other.cmp(one));
        for size in [1, 3, 7, 40, 500] {
            assert_eq!(
                recorder.list(&Filter::default(), size).await,
                all,
                "{place:?} {size}"
            );
            assert_eq!(recorder.list(&of("acme"), size).await, acme, "{place:?} {size}");
        }
        let changes = Filter {
            action: Some("consent.revoke".to_owned()),
            ..Filter::default()
        };
        assert_eq!(recorder.list(&changes, 3).await.len(), 10, "{place:?}");
        let tokens = Filter {
            action: Some(action::TOKEN_ISSUE.as_str().to_owned()),
            from: Some(times[3]),
            until: Some(times[5]),
            ..of("acme")
        };
        assert_eq!(recorder.list(&tokens, 3).await.len(), 4, "{place:?}");
    }
}

/// Groups that are committed in another order than their events have.
#[tokio::test]
async fn groups_that_overlap_are_listed_by_time() {
    for (place, db) in migrated().await {
        let clock = test_clock();
        let recorder = Recorder::new(&db, &clock);
        let mut records = Vec::new();
        for _ in 0..200 {
            records.push(issued(&*clock, "acme"));
            clock.advance(Duration::from_millis(10));
        }
        // Each group holds events from the whole time.
        for first in 0..20 {
            let group: Vec<_> = records.iter().skip(first).step_by(20).collect();
            let tx = db.write().await.unwrap();
            let appended = recorder.writer.append(&tx, &group).await.unwrap();
            tx.commit().await.unwrap();
            appended.unwrap().committed();
        }
        let newest_first: Vec<_> = records
            .iter()
            .rev()
            .map(|record| record.event_id.clone())
            .collect();
        for size in [1, 30, 199, 200] {
            assert_eq!(
                recorder.list(&Filter::default(), size).await,
                newest_first,
                "{place:?} {size}"
            );
        }
    }
}

#[tokio::test]
async fn a_search_reads_a_bounded_number_of_groups_for_each_page() {
    for (place, db) in migrated().await {
        let clock = test_clock();
        let recorder = Recorder::new(&db, &clock);
        let wanted = recorder.issue(&["acme"]).await;
        for _ in 0..MAX_GROUPS + 10 {
            clock.advance(Duration::from_millis(1));
            recorder.issue(&["other"]).await;
        }
        let page = PageRequest::first(10);
        let (events, next) = list(db.read(), &of("acme"), &page).await.unwrap().into_parts();
        assert!(events.is_empty() && !next.is_empty(), "{place:?}");
        assert_eq!(recorder.list(&of("acme"), 10).await, wanted, "{place:?}");
    }
}

/// Reads the record from its first page down to a position, as somebody who polls does.
async fn polled(db: &Database, size: u64, down_to: Option<LogPosition>) -> Vec<EventRow> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let page = PageRequest::test(size, &token);
        let (events, next) = list(db.read(), &Filter::default(), &page)
            .await
            .unwrap()
            .into_parts();
        let reached = |event: &EventRow| event.position.is_some() && event.position <= down_to;
        let is_done = events.iter().any(reached) || next.is_empty();
        all.extend(events.into_iter().filter(|event| !reached(event)));
        token = next;
        if is_done {
            return all;
        }
    }
}

fn ids(events: &[EventRow]) -> Vec<&EventId> {
    events.iter().map(|event| &event.event_id).collect()
}

#[tokio::test]
async fn an_event_that_is_committed_late_is_missed_by_nobody() {
    for mut record in Sealed::each().await {
        let place = record.place.label;
        let (db, early) = (record.db.clone(), test_clock());
        let late = Recorder::new(&db, &early);
        record.clock.advance(Duration::from_secs(3600));
        let mut known = vec![record.change("a").await];
        known.extend(record.group(3).await);
        record.seal().await;
        known.push(record.change("b").await);
        record.seal().await;

        // Between two pages, somebody commits events whose ids are an hour older.
        let first = list(record.db.read(), &Filter::default(), &PageRequest::first(2))
            .await
            .unwrap();
        let (mut seen, mut token) = first.into_parts();
        let highest = seen[0].position;
        let change = late.change("acme").await;
        let group = late.issue(&["acme"]).await.remove(0);
        while !token.is_empty() {
            // Sealed or not, they stay on the newer side of the boundary.
            record.seal().await;
            let next = list(
                record.db.read(),
                &Filter::default(),
                &PageRequest::test(2, &token),
            )
            .await
            .unwrap();
            let (events, next) = next.into_parts();
            seen.extend(events);
            token = next;
        }
        known.reverse();
        assert_eq!(ids(&seen), known.iter().collect::<Vec<_>>(), "{place:?}");
        assert!(seen.is_sorted_by(|one, other| one.position > other.position));

        let new = polled(&record.db, 1, highest).await;
        let mut expected = vec![&change, &group];
        expected.sort();
        let mut found = ids(&new);
        found.sort();
        assert_eq!(found, expected, "{place:?}");
        assert!(new.iter().all(|event| event.position > highest), "{place:?}");
        // They come first, although they are the oldest.
        let all = polled(&record.db, 500, None).await;
        assert_eq!(ids(&all)[2..], known.iter().collect::<Vec<_>>()[..], "{place:?}");
    }
}

#[tokio::test]
async fn an_event_is_listed_once_while_the_sealer_goes_on() {
    for mut record in Sealed::each().await {
        let place = record.place.label;
        let mut known = Vec::new();
        for _ in 0..4 {
            known.push(record.change("a").await);
            known.extend(record.group(3).await);
            record.clock.advance(Duration::from_millis(5));
        }
        record.seal().await;
        for _ in 0..4 {
            known.push(record.change("b").await);
            known.extend(record.group(2).await);
            record.clock.advance(Duration::from_millis(5));
        }
        for size in [1, 3, 5, 100] {
            let (mut seen, mut token) = (Vec::new(), String::new());
            let mut new = 0;
            loop {
                let page = PageRequest::test(size, &token);
                let events = list(record.db.read(), &Filter::default(), &page).await.unwrap();
                let (events, next) = events.into_parts();
                seen.extend(events.into_iter().map(|event| event.event_id));
                token = next;
                if token.is_empty() {
                    break;
                }
                // Seals what the first page found unsealed, and adds more.
                known.push(record.change("c").await);
                new += 1;
                record.seal().await;
            }
            let listed: std::collections::BTreeSet<_> = seen.iter().collect();
            assert_eq!(listed.len(), seen.len(), "{place:?} {size}");
            let before = known.len() - new;
            assert!(
                known[..before].iter().all(|id| listed.contains(id)),
                "{place:?} {size}"
            );
        }
    }
}

#[tokio::test]
async fn sealed_events_are_searched_by_time() {
    for mut record in Sealed::each().await {
        let place = record.place.label;
        let mut by_hour = Vec::new();
        for _ in 0..5 {
            let start = record.clock.now();
            let mut ids = record.group(2).await;
            ids.push(record.change("a").await);
            record.seal().await;
            by_hour.push((start, ids));
            record.clock.advance(Duration::from_secs(3600));
        }
        for (from, until) in [(1, 3), (0, 1), (4, 4), (2, 4)] {
            let filter = Filter {
                from: Some(by_hour[from].0),
                until: Some(by_hour[until].0),
                ..Filter::default()
            };
            for size in [1, 2, 100] {
                let found = read_all(&record.db, &filter, size).await;
                let mut expected: Vec<_> = by_hour[from..until]
                    .iter()
                    .flat_map(|(_, ids)| ids.clone())
                    .collect();
                expected.reverse();
                assert_eq!(found, expected, "{place:?} {from} {until} {size}");
            }
        }
    }
}

#[tokio::test]
async fn a_token_is_found_by_its_jti() {
    for (place, db) in migrated().await {
        let clock = test_clock();
        let recorder = Recorder::new(&db, &clock);
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.extend(recorder.issue(&["acme", "other"]).await);
            clock.advance(Duration::from_secs(20));
        }
        for jti in &ids {
            let found = find_issued(db.read(), jti).await.unwrap().unwrap();
            assert_eq!(&found.event_id, jti, "{place:?}");
            assert_eq!(found.detail["jti"], jti.as_str(), "{place:?}");
        }
        let change = recorder.change("acme").await;
        assert_eq!(find_issued(db.read(), &change).await.unwrap(), None, "{place:?}");
        let unknown = EventId::generate(&*clock, &SystemRandom);
        assert_eq!(find_issued(db.read(), &unknown).await.unwrap(), None, "{place:?}");
    }
}

/// Retention removes the oldest leaf after each query.
struct Overtaken<'a>(&'a Pool);

#[async_trait::async_trait]
impl ConnectionTrait for Overtaken<'_> {
    fn get_database_backend(&self) -> DbBackend {
        self.0.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.0.execute_raw(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.0.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let found = self.0.query_one_raw(statement).await;
        let remove = "DELETE FROM audit_leaves WHERE leaf_index = 0";
        self.0.execute_unprepared(remove).await?;
        found
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.0.query_all_raw(statement).await
    }
}

/// Otherwise a list from a time on would be empty, although newer groups stay.
#[tokio::test]
async fn a_search_by_time_ends_at_no_group_that_retention_removes_meanwhile() {
    for mut record in Sealed::each().await {
        for _ in 0..2 {
            record.group(1).await;
            record.seal().await;
        }
        let conn = Overtaken(record.db.read());
        let oldest = sealed_group(&conn, |times| times.gt(""), false).await.unwrap();
        assert_eq!(oldest.unwrap().leaf_index, 0, "{:?}", record.place);
        let next = sealed_group(&conn, |times| times.gt(""), false).await.unwrap();
        assert_eq!(next.unwrap().leaf_index, 1, "{:?}", record.place);
    }
}
