#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    clock::{Clock, ManualClock},
    random::SystemRandom,
    store::{
        Database,
        audit::{self, Actor, ActorKind, Event, GrantType, GroupWriter, IssuedToken, Origin, Record},
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
        let event = Event::new("consent.revoke").tenant(&TenantId::parse(tenant).unwrap());
        let tx = self.db.write().await.unwrap();
        let origin = Origin::system("test");
        let id = audit::record(&tx, &**self.clock, &SystemRandom, &origin, event).await;
        tx.commit().await.unwrap();
        id
    }

    /// Reads all pages.
    async fn list(&self, filter: &Filter, size: i32) -> Vec<EventId> {
        let (mut ids, mut token) = (Vec::new(), String::new());
        loop {
            let page = PageRequest::parse(&mut Default::default(), "audit", &[], size, &token).unwrap();
            let (events, next) = list(self.db.read(), filter, &page).await.unwrap().into_parts();
            assert!(events.len() <= usize::try_from(size).unwrap());
            ids.extend(events.into_iter().map(|event| event.event_id));
            token = next;
            if token.is_empty() {
                return ids;
            }
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
            action: Some(ISSUE.to_owned()),
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
        let page = PageRequest::parse(&mut Default::default(), "audit", &[], 10, "").unwrap();
        let (events, next) = list(db.read(), &of("acme"), &page).await.unwrap().into_parts();
        assert!(events.is_empty() && !next.is_empty(), "{place:?}");
        assert_eq!(recorder.list(&of("acme"), 10).await, wanted, "{place:?}");
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
