//! Clients, on both databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{sync::Arc, time::Duration};

use accord::{
    clock::ManualClock,
    store::Creation,
    testing::databases,
    text::{caller::Role, id::ScopeName},
};

use super::*;
use crate::{
    model::{
        delivery::{Handover, Method},
        integration_request::{
            Decision, DisplayInfo, NewIntegrationRequest, RequestedScope, RequestedSecurityProfile,
            State as RequestState,
        },
        scope::{NewScope, ScopeUpdate},
    },
    store::testing::{add_tenants, audited, count, creation, operator, origin, repeatable, store},
};

pub(in crate::store) use super::amendment::tests::{addition, amend};

#[path = "client/fixtures.rs"]
mod fixtures;

pub(in crate::store) use self::fixtures::*;

#[tokio::test]
async fn a_registration_is_stored_and_a_repeated_call_returns_the_same() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        for delivery in [Method::Inline, Method::Link] {
            let request_id = approved(&store, "", Security::default()).await;
            let call = repeatable("RegisterClient", b"1");
            let registered = store.register_client(&call, &request_id, Some(delivery)).await;
            let (client, handover) = registered.unwrap();
            assert_eq!(
                (client.version, client.tokens_ended_seq, client.families_ended_seq),
                (store.position().await.unwrap().seq, 0, 0),
                "{database:?}"
            );
            let found = store.find_client(&client.client_id).await.unwrap();
            assert_eq!(found.as_ref(), Some(&client), "{database:?}");
            let request = store
                .find_integration_request(&request_id)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(request.state, RequestState::Registered, "{database:?}");
            assert_eq!(
                (&request.content.scopes, &request.content.tenant_ids),
                (&client.scopes, &client.tenant_ids),
                "{database:?}"
            );

            let (again, same) = store
                .register_client(&call, &request_id, Some(delivery))
                .await
                .unwrap();
            assert_eq!((again, text(&same)), (client, text(&handover)), "{database:?}");
        }
        assert_eq!(count(&store, "client.register").await, 2, "{database:?}");
        assert_eq!(count(&store, "secret.show_again").await, 2, "{database:?}");
    }
}

#[tokio::test]
async fn a_failed_registration_leaves_nothing_behind() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        let before = (store.position().await.unwrap(), audited(&store).await);
        let (call, request_id) = (creation("RegisterClient"), &client.integration_request_id);
        let refused = store.register_client(&call, request_id, Some(Method::Link)).await;
        assert!(
            matches!(&refused, Err(Error::WrongState { state, .. }) if state == "REGISTERED"),
            "{database:?}: {refused:?}"
        );
        let after = (store.position().await.unwrap(), audited(&store).await);
        assert_eq!(after, before, "{database:?}");
    }
}

#[tokio::test]
async fn an_update_raises_the_version_and_a_suspension_does_not() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        clock.advance(Duration::from_secs(1));
        let change = ClientUpdate {
            scopes: Some(vec![requested("a.write")]),
            tenant_ids: Some(vec![TenantId::parse("globex").unwrap()]),
            ..ClientUpdate::default()
        };
        let updated = store
            .update_client(&origin(), &client.client_id, change.clone())
            .await
            .unwrap();
        let expected = Client {
            scopes: change.scopes.unwrap(),
            tenant_ids: change.tenant_ids.unwrap(),
            version: store.position().await.unwrap().seq,
            tokens_ended_seq: store.position().await.unwrap().seq,
            updated_at: store.now(),
            etag: 2,
            added: updated.added.clone(),
            ..client.clone()
        };
        assert_eq!(updated, expected, "{database:?}");
        assert!(updated.version > client.version, "{database:?}");

        let suspended = store
            .set_client_state(&origin(), &client.client_id, State::Suspended, "a test")
            .await
            .unwrap();
        let ended = store.position().await.unwrap();
        let expected = Client {
            state: State::Suspended,
            tokens_ended_seq: ended.seq,
            etag: 3,
            ..updated
        };
        assert_eq!(suspended, expected, "{database:?}");
        let again = store
            .set_client_state(&origin(), &client.client_id, State::Suspended, "a test")
            .await
            .unwrap();
        assert_eq!(again, suspended, "{database:?}");
        // Nothing but its change is published again.
        let after = store.position().await.unwrap();
        assert_eq!(after.seq, ended.seq + 1, "{database:?}");
    }
}

#[tokio::test]
async fn only_removing_a_tenant_or_a_scope_ends_access_tokens() {
    let tenants = |ids: &[&str]| Some(ids.iter().map(|id| TenantId::parse(id).unwrap()).collect());
    let scopes = |names: &[&str]| Some(names.iter().map(|name| requested(name)).collect());
    let unchanged = ClientUpdate::default;
    let updates = [
        (
            false,
            ClientUpdate {
                display_name: Some("Contacts".into()),
                ..unchanged()
            },
        ),
        (
            false,
            ClientUpdate {
                redirect_uris: Some(Vec::new()),
                ..unchanged()
            },
        ),
        (
            true,
            ClientUpdate {
                scopes: scopes(&["a.write"]),
                ..unchanged()
            },
        ),
        (
            true,
            ClientUpdate {
                tenant_ids: tenants(&["globex"]),
                ..unchanged()
            },
        ),
        (
            true,
            ClientUpdate {
                tenant_ids: Some(Vec::new()),
                scopes: Some(Vec::new()),
                ..unchanged()
            },
        ),
    ];
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        let mut ended = 0;
        for (ends, update) in &updates {
            let before = store.position().await.unwrap().seq;
            let updated = store
                .update_client(&origin(), &client.client_id, update.clone())
                .await;
            let updated = updated.unwrap();
            if *ends {
                ended = before + 1;
            }
            assert_eq!(
                (
                    updated.version,
                    updated.tokens_ended_seq,
                    updated.families_ended_seq
                ),
                (before + 1, ended, 0),
                "{database:?} {update:?}"
            );
            let changes = accord::store::change::list_after(store.db.read(), before, 10)
                .await
                .unwrap();
            let changes: Vec<_> = changes.iter().map(|c| (c.kind.as_str(), c.id.as_str())).collect();
            let kind = if *ends {
                change_kind::CLIENT_TOKENS_ENDED
            } else {
                change_kind::CLIENT
            };
            assert_eq!(
                changes,
                [(kind, client.client_id.as_str())],
                "{database:?} {update:?}"
            );
            // The same once more changes nothing.
            let events = audited(&store).await;
            let again = store
                .update_client(&origin(), &client.client_id, update.clone())
                .await;
            assert_eq!(again.unwrap(), updated, "{database:?} {update:?}");
            assert_eq!(store.position().await.unwrap().seq, before + 1, "{database:?}");
            assert_eq!(audited(&store).await, events, "{database:?} {update:?}");
        }
    }
}

#[tokio::test]
async fn a_rejected_update_changes_nothing() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        let nowhere = TenantId::parse("nowhere").unwrap();
        let change = ClientUpdate {
            scopes: Some(vec![requested("a.read")]),
            tenant_ids: Some(vec![nowhere]),
            ..ClientUpdate::default()
        };
        let refused = store.update_client(&origin(), &client.client_id, change).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{database:?}");
        let found = store.find_client(&client.client_id).await.unwrap();
        assert_eq!(found, Some(client), "{database:?}");
    }
}

#[tokio::test]
async fn clients_are_listed_by_tenant_and_state() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            clock.advance(Duration::from_millis(1));
            ids.insert(0, registered(&store, Method::Inline).await.0.client_id);
        }
        let acme_only = ClientUpdate {
            tenant_ids: Some(vec![TenantId::parse("acme").unwrap()]),
            ..ClientUpdate::default()
        };
        store.update_client(&origin(), &ids[1], acme_only).await.unwrap();
        store
            .set_client_state(&origin(), &ids[2], State::Suspended, "a test")
            .await
            .unwrap();
        let list = async |tenant_id: Option<&str>, state, size, token: &str| {
            let tenant_id = tenant_id.map(|id| TenantId::parse(id).unwrap());
            let page = PageRequest::test(size, token);
            let page = store
                .list_clients(tenant_id.as_ref(), state, &page)
                .await
                .unwrap();
            let (clients, token) = page.into_parts();
            let ids = clients.into_iter().map(|client| client.client_id);
            (ids.collect::<Vec<_>>(), token)
        };
        let (first, token) = list(None, None, 2, "").await;
        let (rest, end) = list(None, None, 2, &token).await;
        assert_eq!((&first[..], &rest[..]), (&ids[..2], &ids[2..]), "{database:?}");
        assert_eq!(end, "", "{database:?}");
        let (globex, _) = list(Some("globex"), None, 50, "").await;
        assert_eq!(globex, [ids[0].clone(), ids[2].clone()], "{database:?}");
        let (active, _) = list(Some("globex"), Some(State::Active), 50, "").await;
        assert_eq!(active, ids[..1], "{database:?}");
    }
}

#[tokio::test]
async fn what_is_removed_and_added_again_is_new() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        let client_id = &client.client_id;
        let update = async |tenant_ids: &[&str], scopes: &[&str]| {
            let update = ClientUpdate {
                tenant_ids: Some(tenant_ids.iter().map(|id| TenantId::parse(id).unwrap()).collect()),
                scopes: Some(scopes.iter().map(|name| requested(name)).collect()),
                ..ClientUpdate::default()
            };
            store
                .update_client(&origin(), client_id, update)
                .await
                .unwrap()
                .version
        };
        let added = async || {
            let profile = store.find_client_profile(client_id).await.unwrap().unwrap();
            let scopes = profile
                .scopes
                .iter()
                .map(|scope| (scope.name.to_string(), scope.added_seq));
            let tenants = profile.client.added.tenants.iter();
            let tenants = tenants.map(|(id, seq)| (id.to_string(), *seq));
            tenants.chain(scopes).collect::<Vec<_>>()
        };
        let row = |name: &str, seq| (name.to_owned(), seq);
        let first = client.version;
        let all = ["acme", "globex", "a.read", "a.write"].map(|name| row(name, first));
        assert_eq!(added().await, all, "{database:?}");
        update(&["globex"], &["a.write"]).await;
        assert_eq!(
            added().await,
            [row("globex", first), row("a.write", first)],
            "{database:?}"
        );
        let addition = NewIntegrationRequest {
            tenant_ids: vec![TenantId::parse("acme").unwrap()],
            scopes: vec![requested("a.read")],
            ..addition(client_id)
        };
        let again = amend(&store, addition).await.unwrap().version;
        let expected = [
            row("acme", again),
            row("globex", first),
            row("a.write", first),
            row("a.read", again),
        ];
        assert_eq!(added().await, expected, "{database:?}");
        // Disabling a scope in the catalogue suspends it, and takes it from no client.
        for enabled in [false, true] {
            let change = ScopeUpdate {
                enabled: Some(enabled),
                ..ScopeUpdate::default()
            };
            let name = ScopeName::parse("a.write").unwrap();
            store.update_scope(&origin(), &name, change).await.unwrap();
        }
        assert_eq!(added().await, expected, "{database:?}");
    }
}
