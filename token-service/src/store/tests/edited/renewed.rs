//! Older rows of families that have not ended. No version shows them: only the events of their renewals do.

use std::{sync::Arc, time::Instant};

use accord::{
    clock::{Clock, ManualClock},
    keys::Keyring,
    store::{
        audit::{GrantType, IssuedToken, check_rows, delete_before, ensure_log, next_id, seal, verify_all},
        log::{self, Election, Lease, Log},
    },
    testing::edited_rows::replace,
    text::id::EventId,
};

use super::*;
use crate::{
    model::family::Generations,
    store::entity::family::{Entity as Families, Model},
};

/// A store with a record that the test seals.
struct Recorded {
    store: Store,
    clock: Arc<ManualClock>,
    keyring: Arc<Keyring>,
    lease: Lease,
    log: Log,
}

impl Recorded {
    async fn at(url: &str) -> Self {
        let (store, clock) = store(url).await;
        let keyring = store.keyring.get().await.unwrap();
        let log = ensure_log(&store.db, &keyring, "auth.example", "token", clock.now());
        let log = log.await.unwrap();
        let lease = Election::new("test").acquire(&store.db, Instant::now()).await;
        Self {
            lease: lease.unwrap().unwrap(),
            store,
            clock,
            keyring,
            log,
        }
    }

    async fn row(&self, family: &StoredFamily) -> Model {
        let id = (family.tenant_id.to_string(), family.family_id.to_string());
        let found = Families::find_by_id(id).one(self.store.db.read()).await;
        found.unwrap().unwrap()
    }

    /// Hands out the next refresh token, of a family as the database has it. Returns the event.
    async fn renew(&self, store: &Store, family: &StoredFamily) -> EventId {
        let found = store.find_family(&family.tenant_id, &family.family_id).await;
        let found = found.unwrap().unwrap();
        let Generations { current, .. } = found.generations;
        let (moved, event_id) = self.advance(store, &found, current + 1).await;
        assert!(moved);
        event_id
    }

    async fn advance(&self, store: &Store, from: &StoredFamily, current: u32) -> (bool, EventId) {
        let to = Generations {
            used: current - 1,
            current,
            handed_out_at: self.store.now(),
        };
        let jti = next_id(&*self.clock, &SystemRandom);
        let event = Event::issued(IssuedToken {
            jti: jti.clone(),
            grant_id: from.grant_id.clone(),
            user_id: user(),
            grant_type: GrantType::RefreshToken,
            key_thumbprint: [7; 32],
            scope: "api:read".into(),
        });
        let event = event.tenant(&from.tenant_id).client(&from.client_id);
        let moved = store.advance_family(workload(), from, to, event).await;
        (moved.unwrap(), jti)
    }

    /// Seals and signs what was recorded, verifies it, and returns what is said of rows.
    async fn verified(&mut self) -> Vec<(String, String)> {
        let rollup = self.store.rollup();
        loop {
            let place = (&self.lease, &self.log);
            let sealed = seal(&self.store.db, &self.keyring, place, &rollup, self.clock.now());
            match sealed.await.unwrap() {
                Some(next) => self.log = next,
                None => break,
            }
        }
        let signer = self.log.signer(&self.keyring).unwrap();
        let key = self.log.key(&self.keyring).unwrap();
        log::sign_heads(&self.store.db, &self.log, key, &signer)
            .await
            .unwrap();
        self.named().await
    }

    /// Does the same without sealing.
    async fn named(&self) -> Vec<(String, String)> {
        let (conn, signer) = (self.store.db.read(), self.log.signer(&self.keyring).unwrap());
        let logs = [(self.log.clone(), signer.verifier_key().clone())];
        let verified = verify_all(conn, &logs, &[], Some(&self.keyring), |_, _| {}).await;
        let verified = verified.unwrap();
        assert_eq!(verified.faults().collect::<Vec<_>>(), []);
        let rows = check_rows(conn, &recorded_tables(), &verified, self.store.now()).await;
        let faults = rows.unwrap().faults.into_iter();
        faults.map(|fault| (fault.what, fault.event_id)).collect()
    }
}

#[tokio::test]
async fn an_older_row_of_a_living_family_is_named() {
    for database in databases() {
        let mut record = Recorded::at(&database.url).await;
        let (_, family, _) = redeemed(&record.store).await;
        let row = format!("the row families/{}/{}", family.tenant_id, family.family_id);
        let named = |how: &str, event_id: &EventId| vec![(format!("{row} {how}"), event_id.to_string())];
        let mut rows = vec![record.row(&family).await];
        let mut newest = None;
        for _ in 0..3 {
            newest = Some(record.renew(&record.store, &family).await);
            rows.push(record.row(&family).await);
        }
        let newest = newest.unwrap();
        assert_eq!(record.verified().await, [], "{database:?}");

        let [first, second, _, last] = &rows[..] else {
            panic!("{rows:?}");
        };
        for older in [first, second] {
            replace::<Families>(&record.store.db, last, older).await;
            let expected = named("is older than the event", &newest);
            assert_eq!(record.verified().await, expected, "{database:?}");
            replace::<Families>(&record.store.db, older, last).await;
        }
        assert_eq!(record.verified().await, [], "{database:?}");

        // A thief puts it back, renews, and puts back what was there.
        replace::<Families>(&record.store.db, last, second).await;
        let stolen = record.renew(&record.store, &family).await;
        let expected = named("was put back before the event", &stolen);
        assert_eq!(record.verified().await, expected, "{database:?}");
        replace::<Families>(&record.store.db, &record.row(&family).await, last).await;
        assert_eq!(record.verified().await, expected, "{database:?}");

        // Who ends the family ends what was stolen.
        let ended = Event::test("refresh_token.reuse").refused();
        let ended = record
            .store
            .end_family(&workload(), &family, "replayed", ended)
            .await;
        assert!(ended.unwrap(), "{database:?}");
        assert_eq!(record.verified().await, [], "{database:?}");
    }
}

#[tokio::test]
async fn no_family_is_named_that_nobody_has_edited() {
    for database in databases() {
        let mut record = Recorded::at(&database.url).await;
        let mut families = Vec::new();
        for _ in 0..3 {
            families.push(redeemed(&record.store).await.1);
        }
        let [one, two, lost] = &families[..] else {
            panic!("three families");
        };
        let replica = Store::new(
            record.store.db.clone(),
            record.store.keyring.clone(),
            record.clock.clone(),
            Arc::new(SystemRandom),
        );
        // In one group, with two callers who present the same token. A lost commit had handed out generation 7.
        let (moved, again, other, above) = tokio::join!(
            record.advance(&record.store, one, 2),
            record.advance(&record.store, one, 2),
            record.advance(&record.store, two, 2),
            record.advance(&record.store, lost, 8),
        );
        let moved = [moved.0, again.0, other.0, above.0];
        assert_eq!(moved, [true, false, true, true], "{database:?}");
        // The groups of two replicas are sealed one after the other.
        for store in [&replica, &record.store, &replica, &record.store] {
            record.renew(store, one).await;
        }
        assert_eq!(record.verified().await, [], "{database:?}");

        // What is not sealed yet.
        record.renew(&replica, one).await;
        assert_eq!(record.named().await, [], "{database:?}");
        // A client that keeps its refresh token, and an answer that is repeated in the time of grace.
        let found = record.store.find_family(&lost.tenant_id, &lost.family_id).await;
        let (moved, _) = record.advance(&record.store, &found.unwrap().unwrap(), 8).await;
        assert!(moved, "{database:?}");
        assert_eq!(record.verified().await, [], "{database:?}");

        // One ends by a replay, another one with its time.
        let replayed = Event::test("refresh_token.reuse").refused();
        let by = workload();
        let ended = record.store.end_family(&by, one, "replayed", replayed);
        assert!(ended.await.unwrap(), "{database:?}");
        assert_eq!(record.verified().await, [], "{database:?}");
        record.clock.advance(Duration::from_secs(100 * 24 * 3600));
        assert_eq!(record.verified().await, [], "{database:?}");

        // Retention removes events, and then rows. A restored copy loses its families in the same way.
        let late = record.store.now();
        let deleted = delete_before(&record.store.db, &*record.clock, &SystemRandom, late);
        assert!(deleted.await.unwrap().leaves > 0, "{database:?}");
        assert_eq!(record.verified().await, [], "{database:?}");
        record.renew(&record.store, two).await;
        record.store.delete_ended_rows(late, late).await.unwrap();
        assert_eq!(record.verified().await, [], "{database:?}");
    }
}
