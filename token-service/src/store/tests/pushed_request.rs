//! Requests that clients have pushed.

use super::*;
use crate::model::setup::pushed_request::{LIFETIME, PushedRequest};

/// Pushes a request of a new client. Returns the reference.
pub(super) async fn pushed(store: &Store) -> OpaqueToken {
    let client_id = client();
    let origin = origin(ActorKind::Client, client_id.to_string());
    let (tenant_id, parameters) = (tenant("acme"), parameters());
    let pushed = store.push_request(origin, &tenant_id, &client_id, &parameters);
    pushed.await.unwrap()
}

async fn find(store: &Store, tenant_id: &str, reference: &OpaqueToken) -> Option<PushedRequest> {
    let found = store.find_pushed_request(&tenant(tenant_id), reference).await;
    found.unwrap()
}

#[tokio::test]
async fn a_pushed_request_is_found_at_its_tenant_and_named_by_an_event() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let references = join_all((0..20).map(|_| pushed(&store))).await;
        for reference in &references {
            let found = find(&store, "acme", reference).await.unwrap();
            assert_eq!(found.request.parameters, parameters());
            assert!(found.request.pushed);
            assert_eq!(found.expires_at, store.now().plus(LIFETIME));
            assert_eq!(find(&store, "other", reference).await, None, "{database:?}");
        }
        let first = find(&store, "acme", &references[0]).await.unwrap();
        let events = events(&store, "authorization_request.push").await;
        assert_eq!(events.len(), 20, "{database:?}");
        let event = events
            .iter()
            .find(|event| event.subject.as_deref() == Some(first.setup_id.as_str()));
        let event = event.unwrap();
        assert_eq!(event.actor.kind, ActorKind::Client);
        assert_eq!(event.actor.id, first.request.client_id.as_str());
    }
}

#[tokio::test]
async fn a_pushed_request_goes_once_nobody_can_open_it() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let reference = pushed(&store).await;
        let end = store.now().plus(LIFETIME);
        let late = store.now();
        store
            .delete_ended_rows(end.minus(Duration::from_millis(1)), late)
            .await
            .unwrap();
        assert!(find(&store, "acme", &reference).await.is_some());
        store.delete_ended_rows(end, late).await.unwrap();
        assert!(find(&store, "acme", &reference).await.is_none(), "{database:?}");
    }
}

#[tokio::test]
async fn events_say_that_the_request_was_pushed() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let by = session(&store).await;
        for pushed in [true, false] {
            let mut new = new_setup("acme", &client());
            new.request.pushed = pushed;
            let setup = store.create_setup(&creation(None, b""), new).await.unwrap();
            approve(&store, &setup, &by, None).await.unwrap();
            for action in ["setup.start", "consent.approve"] {
                let event = events(&store, action).await.remove(0);
                let said = event.detail.get("request").map(String::as_str);
                assert_eq!(said, pushed.then_some("pushed"), "{database:?} {action}");
            }
        }
    }
}
