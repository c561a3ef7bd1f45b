//! Clients, tenants and users read together, on both databases.

#![allow(clippy::unwrap_used)]

use accord::{
    testing::databases,
    text::{account_name::AccountName, id::ScopeName},
};

use super::*;
use crate::{
    model::{client::ClientUpdate, delivery::Method, scope::ScopeUpdate, user::NewUser},
    store::{
        client::tests::{registered, seeded},
        testing::{creation, origin},
    },
};

#[tokio::test]
async fn what_is_read_together_is_what_each_read_returns_alone() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (one, _) = registered(&store, Method::Inline).await;
        let (other, _) = registered(&store, Method::Inline).await;
        // It has one tenant, and its secret waits for a claim.
        let (unclaimed, _) = registered(&store, Method::Link).await;
        let [acme, globex, nowhere] = ["acme", "globex", "nowhere"].map(|id| TenantId::parse(id).unwrap());
        let update = ClientUpdate {
            tenant_ids: Some(vec![globex.clone()]),
            scopes: Some(vec![]),
            ..ClientUpdate::default()
        };
        store
            .update_client(&origin(), &unclaimed.client_id, update)
            .await
            .unwrap();
        let mut users = Vec::new();
        for (tenant_id, name) in [(&acme, "a@firm.example"), (&globex, "b@firm.example")] {
            let new = NewUser {
                tenant_id: tenant_id.clone(),
                account_name: AccountName::parse(name).unwrap(),
                label: name.into(),
                tenant_admin: false,
            };
            users.push(store.create_user(&creation("RegisterUser"), new).await.unwrap().0);
        }
        let nobody = ClientId::generate(&*store.clock, &*store.random);
        let user = |tenant_id: &TenantId, user_id: &UserId| UserKey {
            tenant_id: tenant_id.clone(),
            user_id: user_id.clone(),
        };
        let keys = ProfileKeys {
            client_ids: [&one.client_id, &nobody, &other.client_id, &unclaimed.client_id]
                .map(Clone::clone)
                .into(),
            tenant_ids: vec![globex.clone(), nowhere],
            users: vec![
                user(&acme, &users[0].user_id),
                user(&globex, &users[1].user_id),
                // A user of another tenant.
                user(&globex, &users[0].user_id),
            ],
        };
        let mut found = store.find_profiles(&keys).await.unwrap();
        found
            .clients
            .sort_by(|a, b| a.client.client_id.cmp(&b.client.client_id));
        found.users.sort_by(|a, b| a.user_id.cmp(&b.user_id));
        let mut alone = Vec::new();
        for client_id in [&one.client_id, &other.client_id, &unclaimed.client_id] {
            alone.push(store.find_client_profile(client_id).await.unwrap().unwrap());
            let client = store.find_client(client_id).await.unwrap();
            assert_eq!(
                Some(&alone.last().unwrap().client),
                client.as_ref(),
                "{database:?}"
            );
        }
        let counts = |client: &ClientProfile| {
            (
                client.client.tenant_ids.len(),
                client.scopes.len(),
                client.live_secrets.len(),
            )
        };
        let counts: Vec<_> = alone.iter().map(counts).collect();
        assert_eq!(counts, [(2, 2, 1), (2, 2, 1), (1, 0, 0)], "{database:?}");
        alone.sort_by(|a, b| a.client.client_id.cmp(&b.client.client_id));
        users.sort_by(|a, b| a.user_id.cmp(&b.user_id));
        assert_eq!(found.clients, alone, "{database:?}");
        assert_eq!(
            found.tenants,
            [store.find_tenant(&globex).await.unwrap().unwrap()],
            "{database:?}"
        );
        assert_eq!(found.users, users, "{database:?}");
        let nothing = store.find_profiles(&ProfileKeys::default()).await.unwrap();
        assert!(nothing.clients.is_empty() && nothing.tenants.is_empty() && nothing.users.is_empty());
    }
}

#[tokio::test]
async fn a_profile_holds_enabled_scopes_only() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        let names = async || {
            let profile = store
                .find_client_profile(&client.client_id)
                .await
                .unwrap()
                .unwrap();
            let scopes = profile
                .scopes
                .into_iter()
                .map(|s| (s.name.to_string(), s.description, s.reason));
            scopes.collect::<Vec<_>>()
        };
        let row = |name: &str| {
            (
                name.to_owned(),
                format!("allows {name}"),
                format!("to use {name}"),
            )
        };
        assert_eq!(names().await, [row("a.read"), row("a.write")], "{database:?}");
        for (enabled, expected) in [
            (false, vec![row("a.write")]),
            (true, vec![row("a.read"), row("a.write")]),
        ] {
            let change = ScopeUpdate {
                enabled: Some(enabled),
                ..ScopeUpdate::default()
            };
            let read = ScopeName::parse("a.read").unwrap();
            store.update_scope(&origin(), &read, change).await.unwrap();
            assert_eq!(names().await, expected, "{database:?}");
        }
        let nobody = ClientId::generate(&*store.clock, &*store.random);
        let unknown = store.find_client_profile(&nobody).await.unwrap();
        assert_eq!(unknown, None, "{database:?}");
    }
}
