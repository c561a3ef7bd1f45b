#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::{
    clock::Clock,
    random::SystemRandom,
    store::{
        audit::{Actor, Event, Origin, record},
        fixture::migrated,
    },
    testing::test_clock,
};

fn origin(kind: ActorKind) -> Origin {
    Origin {
        actor: Actor {
            kind,
            id: "opr_1".to_owned(),
        },
        ..Origin::system("")
    }
}

#[tokio::test]
async fn a_tenant_has_the_acts_of_operators_that_concern_it() {
    let [acme, globex, initech] = ["acme", "globex", "initech"].map(|id| TenantId::parse(id).unwrap());
    for (place, db) in migrated().await {
        let clock = test_clock();
        for (kind, event) in [
            (ActorKind::Operator, Event::test("tenant.suspend").tenant(&acme)),
            (
                ActorKind::TenantAdmin,
                Event::test("consent.approve").tenant(&acme),
            ),
            (
                ActorKind::Operator,
                Event::test("client.suspend").concerning([acme.clone(), globex.clone(), acme.clone()]),
            ),
            (
                ActorKind::Operator,
                Event::test("tenant.update").tenant(&globex).refused(),
            ),
            (ActorKind::Operator, Event::test("scope.update")),
        ] {
            let tx = db.write().await.unwrap();
            record(&tx, &*clock, &SystemRandom, &origin(kind), event).await;
            tx.commit().await.unwrap();
            clock.advance(Duration::from_millis(1));
        }
        let actions = async |tenant_id, before: Option<EventId>, limit| {
            let found = operator_actions(db.read(), tenant_id, before.as_ref(), limit).await;
            found.unwrap()
        };
        let names = |events: &[EventRow]| {
            events
                .iter()
                .map(|event| event.action.clone())
                .collect::<Vec<_>>()
        };
        let all = actions(&acme, None, 9).await;
        assert_eq!(names(&all), ["client.suspend", "tenant.suspend"], "{place:?}");
        assert_eq!(names(&actions(&acme, None, 1).await), ["client.suspend"]);
        let before = Some(all[0].event_id.clone());
        assert_eq!(names(&actions(&acme, before, 9).await), ["tenant.suspend"]);
        assert_eq!(
            names(&actions(&globex, None, 9).await),
            ["tenant.update", "client.suspend"]
        );
        assert!(actions(&initech, None, 9).await.is_empty());
        // One that somebody has put there shows nobody the act on another tenant.
        let forged = "INSERT INTO audit_tenant_actions SELECT 'initech', event_id, mac FROM audit_tenant_actions WHERE tenant_id = 'globex'";
        db.read().execute_unprepared(forged).await.unwrap();
        let shown = operator_actions(db.read(), &initech, None, 9).await;
        assert!(
            matches!(shown, Err(StoreError::Altered("audit_tenant_actions"))),
            "{place:?}"
        );
        // One that somebody has removed does not end the list.
        let gone = "DELETE FROM audit_events WHERE action = 'client.suspend'";
        let kept = "CREATE TABLE kept AS SELECT * FROM audit_events WHERE action = 'client.suspend'";
        for edit in [kept, gone] {
            db.read().execute_unprepared(edit).await.unwrap();
        }
        assert_eq!(
            names(&actions(&acme, None, 1).await),
            ["tenant.suspend"],
            "{place:?}"
        );
        let back = "INSERT INTO audit_events SELECT * FROM kept";
        db.read().execute_unprepared(back).await.unwrap();

        delete_before(&db, clock.now().minus(Duration::from_millis(3)))
            .await
            .unwrap();
        assert_eq!(
            names(&actions(&acme, None, 9).await),
            ["client.suspend"],
            "{place:?}"
        );
    }
}
