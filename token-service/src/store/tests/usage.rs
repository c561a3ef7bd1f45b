//! How the usage of grants is summed up, on both databases.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use accord::{
    clock::{Clock, ManualClock},
    error::v1::ErrorReason,
    keys::Keyring,
    random::SystemRandom,
    store::{
        audit::{
            Actor, ActorKind, CallerAddress, Event, GrantType, IssuedToken, Origin, ensure_log, next_id, seal,
        },
        log::{Election, Lease, Log},
    },
    testing::{TestDatabase, databases, test_clock},
    text::id::{ClientId, UserId},
};
use sea_orm::{ConnectionTrait, PaginatorTrait};

use super::*;
use crate::store::fixture::store;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A store whose record the test seals.
struct Used {
    store: Store,
    clock: std::sync::Arc<ManualClock>,
    keyring: std::sync::Arc<Keyring>,
    lease: Lease,
    log: Log,
    place: TestDatabase,
}

impl Used {
    async fn each() -> Vec<Self> {
        let mut all = Vec::new();
        for place in databases() {
            let (store, clock) = store(&place.url).await;
            let keyring = store.keyring.get().await.unwrap();
            let log = ensure_log(&store.db, &keyring, "auth.example", "token", clock.now());
            let log = log.await.unwrap();
            let mut election = Election::new("test");
            let lease = election
                .acquire(&store.db, Instant::now())
                .await
                .unwrap()
                .unwrap();
            all.push(Self {
                store,
                clock,
                keyring,
                lease,
                log,
                place,
            });
        }
        all
    }

    async fn issue(&self, (tenant_id, grant_id): &(TenantId, GrantId), scope: &str, address: &str) {
        let client_id = ClientId::generate(&*self.clock, &SystemRandom);
        let event = Event::issued(IssuedToken {
            jti: next_id(&*self.clock, &SystemRandom),
            grant_id: grant_id.clone(),
            user_id: UserId::generate(&*self.clock, &SystemRandom),
            grant_type: GrantType::ClientCredentials,
            key_thumbprint: [7; 32],
            scope: scope.to_owned(),
        });
        let event = event.tenant(tenant_id).client(&client_id);
        let origin = Origin {
            actor: Actor {
                kind: ActorKind::Client,
                id: client_id.to_string(),
            },
            certificate: None,
            session: None,
            address: Some(CallerAddress::Forwarded(address.parse().unwrap())),
            request_id: String::new(),
        };
        self.store.record(origin, event).await.unwrap();
    }

    /// Seals with a lease, from a head of the log on. Returns the next head, or `None`.
    async fn seal_from(&self, lease: &Lease, log: &Log) -> Option<Log> {
        let rollup = self.store.rollup();
        let sealed = seal(
            &self.store.db,
            &self.keyring,
            (lease, log),
            &rollup,
            self.clock.now(),
        );
        sealed.await.unwrap()
    }

    async fn seal(&mut self) {
        while let Some(next) = self.seal_from(&self.lease, &self.log).await {
            self.log = next;
        }
    }

    async fn usage(&self, (tenant_id, grant_id): &(TenantId, GrantId)) -> Vec<(Day, UsageOfDay)> {
        self.store.grant_usage(tenant_id, grant_id).await.unwrap()
    }
}

fn grant(tenant_id: &str) -> (TenantId, GrantId) {
    let tenant_id = TenantId::parse(tenant_id).unwrap();
    (tenant_id, GrantId::generate(&*test_clock(), &SystemRandom))
}

#[tokio::test]
async fn tokens_are_counted_by_grant_and_day_once() {
    for mut used in Used::each().await {
        let (first, second) = (grant("acme"), grant("globex"));
        let today = Day::of(used.clock.now());
        for address in ["192.0.2.2", "192.0.2.1", "192.0.2.2"] {
            used.issue(&first, "b a", address).await;
        }
        used.issue(&second, "a", "2001:db8::1").await;
        used.seal().await;
        used.clock.advance(DAY);
        used.issue(&first, "c", "192.0.2.3").await;
        used.seal().await;
        used.issue(&first, "a", "192.0.2.4").await;
        used.seal().await;
        used.seal().await;

        let days = used.usage(&first).await;
        let [(newest, new), (oldest, old)] = &days[..] else {
            panic!("{days:?}");
        };
        assert_eq!((*newest, *oldest), (Day(today.0 + 1), today), "{:?}", used.place);
        let addresses = |day: &UsageOfDay| day.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            (old.issued, addresses(old)),
            (3, vec!["192.0.2.2".into(), "192.0.2.1".into()])
        );
        assert_eq!(
            (new.issued, addresses(new)),
            (2, vec!["192.0.2.3".into(), "192.0.2.4".into()])
        );
        assert_eq!(new.scopes.iter().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(new.last_used_at, Some(used.clock.now()));
        let [(_, other)] = &used.usage(&second).await[..] else {
            panic!("one day");
        };
        assert_eq!((other.issued, addresses(other)), (1, vec!["2001:db8::1".into()]));
        // Under another tenant there is no such grant.
        assert!(used.usage(&(second.0.clone(), first.1.clone())).await.is_empty());
        assert!(!new.has_more_addresses);
        for number in 1..=15 {
            used.issue(&first, "a", &format!("198.51.100.{number}")).await;
        }
        used.seal().await;
        let (_, new) = used.usage(&first).await.remove(0);
        assert_eq!(
            (new.addresses.len(), new.has_more_addresses, new.issued),
            (16, true, 17)
        );
    }
}

/// Two replicas seal the same events: one was paused between its read and its commit.
#[tokio::test]
async fn a_sealer_that_was_overtaken_counts_nothing() {
    for used in Used::each().await {
        let grant = grant("acme");
        for _ in 0..3 {
            used.issue(&grant, "a", "192.0.2.1").await;
        }
        let sealed = used.seal_from(&used.lease, &used.log).await;
        // The head that this replica knows is out of date, then its lease is.
        assert!(
            used.seal_from(&used.lease, &used.log).await.is_none(),
            "{:?}",
            used.place
        );
        let take_over = "UPDATE audit_sealer SET generation = generation + 1";
        used.store.db.read().execute_unprepared(take_over).await.unwrap();
        used.issue(&grant, "a", "192.0.2.1").await;
        assert!(used.seal_from(&used.lease, &sealed.unwrap()).await.is_none());
        let days = used.usage(&grant).await;
        assert_eq!(days[0].1.issued, 3, "{:?}", used.place);
    }
}

#[tokio::test]
async fn rejections_are_added_up_by_reason_over_replicas() {
    for used in Used::each().await {
        let (tenant_id, grant_id) = &grant("acme");
        let other = Store::new(
            accord::testing::another_replica(&used.store.db, &used.place.url).await,
            used.store.keyring.clone(),
            used.clock.clone(),
            std::sync::Arc::new(SystemRandom),
        );
        for store in [&used.store, &other] {
            store.count_rejection(tenant_id, grant_id, ErrorReason::InvalidScope);
            store.count_rejection(tenant_id, grant_id, ErrorReason::InvalidScope);
            store.count_rejection(tenant_id, grant_id, ErrorReason::InvalidTarget);
            store.write_rejections().await;
            store.write_rejections().await;
        }
        let days = used.store.grant_usage(tenant_id, grant_id).await.unwrap();
        let expected = [("INVALID_SCOPE", 4), ("INVALID_TARGET", 2)];
        let expected = expected.map(|(reason, count)| (reason.to_owned(), count)).into();
        assert_eq!(days[0].1.rejected, expected, "{:?}", used.place);
        assert_eq!((days[0].1.issued, days[0].1.last_used_at), (0, None));
    }
}

#[tokio::test]
async fn a_summary_counts_thirty_days() {
    for mut used in Used::each().await {
        let key = grant("acme");
        let (tenant_id, grant_id) = &key;
        let first = used.clock.now();
        used.issue(&key, "a", "192.0.2.1").await;
        used.store
            .count_rejection(tenant_id, grant_id, ErrorReason::InvalidScope);
        used.store.write_rejections().await;
        used.seal().await;
        let ids = [grant_id.as_str(), "grt_other"];
        let expected = |issued, rejected| UsageSummary {
            last_used_at: Some(first),
            issued,
            rejected,
        };
        for (days, counted) in [(0, 1), (29, 1), (30, 0)] {
            used.clock.set(first.plus(DAY * days));
            let summaries = used.store.usage_summaries(tenant_id, &ids).await.unwrap();
            assert_eq!(summaries.len(), 1, "{:?}", used.place);
            assert_eq!(
                summaries[grant_id.as_str()],
                expected(counted, counted),
                "{days} days"
            );
        }
        let globex = TenantId::parse("globex").unwrap();
        assert!(
            used.store
                .usage_summaries(&globex, &ids)
                .await
                .unwrap()
                .is_empty()
        );
    }
}

#[tokio::test]
async fn usage_is_kept_for_400_days() {
    for mut used in Used::each().await {
        let key = grant("acme");
        let first = used.clock.now();
        used.issue(&key, "a", "192.0.2.1").await;
        used.store
            .count_rejection(&key.0, &key.1, ErrorReason::InvalidScope);
        used.store.write_rejections().await;
        used.seal().await;
        for (days, kept) in [(400, 1), (401, 0)] {
            used.clock.set(first.plus(DAY * days));
            used.store.delete_old_usage().await.unwrap();
            assert_eq!(
                used.usage(&key).await.len(),
                kept,
                "{:?} after {days} days",
                used.place
            );
        }
        let left = grant_rejection::Entity::find()
            .count(used.store.db.read())
            .await
            .unwrap();
        assert_eq!(left, 0);
    }
}

#[tokio::test]
async fn an_edited_sum_keeps_nothing_from_being_sealed() {
    for mut used in Used::each().await {
        let grant = grant("acme");
        used.issue(&grant, "a", "192.0.2.1").await;
        used.seal().await;
        for (edit, issued) in [("addresses = 'x'", 1), ("issued = 9223372036854775807", i64::MAX)] {
            let edit = format!("UPDATE grant_usage SET {edit}");
            used.store.db.read().execute_unprepared(&edit).await.unwrap();
            used.issue(&grant, "a", "192.0.2.1").await;
            let sealed = used.log.head.size;
            used.seal().await;
            assert!(used.log.head.size > sealed, "{:?}: {edit}", used.place);
            let days = used.usage(&grant).await;
            assert_eq!(days[0].1.issued, issued, "{:?}: {edit}", used.place);
        }
    }
}
