//! What somebody can do who can write the database and holds no key, on both databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use accord::{
    store::audit::{Verified, check_rows},
    testing::{
        databases,
        edited_rows::{put_back, remove, replace, unnoticed_edits, version_of},
    },
    text::{
        caller::{Credential, Role},
        opaque::{self, OpaqueToken, TokenKind},
    },
};

use super::{
    entity::{
        caller, client, client_secret, client_tenant, delivery, enrolment, integration_request, scope,
        tenant, user,
    },
    *,
};
use crate::{
    authentication::client::authenticate,
    model::{
        caller::{Authority, NewCaller},
        client::State as ClientState,
        delivery::{Bundle, Handover, Method},
        user::State as UserState,
    },
    store::{
        client::tests::{registered, seeded},
        testing::{creation, operator, origin},
        user::tests::added,
    },
};

#[path = "put_back.rs"]
mod put_back;

fn secret_of(bundle: &Bundle) -> &opaque::ClientSecret {
    bundle.client_secret.as_ref().unwrap()
}

/// A store with a row in each table.
async fn filled(url: &str) -> (Store, Handover) {
    let (store, _) = seeded(url).await;
    operator(&store, "Ada", &[Role::Registrar], None).await;
    added(&store, "ada").await;
    registered(&store, Method::Link).await;
    let (_, handover) = registered(&store, Method::Inline).await;
    (store, handover)
}

/// The same store, with the credentials of a client.
async fn filled_bundle(url: &str) -> (Store, Bundle) {
    match filled(url).await {
        (store, Handover::Bundle(bundle)) => (store, bundle),
        (_, Handover::Link(_)) => panic!("the client's secret was to be inline"),
    }
}

#[tokio::test]
async fn no_column_of_authority_can_be_edited() {
    for database in databases() {
        let (store, _) = filled(&database.url).await;
        let db = &store.db;
        let unnoticed = [
            unnoticed_edits::<caller::Entity>(db).await,
            unnoticed_edits::<client::Entity>(db).await,
            unnoticed_edits::<client_secret::Entity>(db).await,
            unnoticed_edits::<delivery::Entity>(db).await,
            unnoticed_edits::<enrolment::Entity>(db).await,
            unnoticed_edits::<integration_request::Entity>(db).await,
            unnoticed_edits::<scope::Entity>(db).await,
            unnoticed_edits::<tenant::Entity>(db).await,
            unnoticed_edits::<user::Entity>(db).await,
        ];
        // What changes with use, and confers nothing.
        let expected = ["client_secrets.last_used_at", "deliveries.nonce"];
        assert_eq!(unnoticed.concat(), expected, "{database:?}");
        assert_eq!(said(&store).await, "", "{database:?}");
    }
}

/// Returns the row with a key.
async fn stored<E: Protected>(store: &Store, find: Select<E>) -> E::Model {
    find.one(store.db.read()).await.unwrap().unwrap()
}

/// Returns what a verification says of the rows.
async fn said(store: &Store) -> String {
    let (tables, nothing) = (recorded_tables(), Verified::default());
    let found = check_rows(store.db.read(), &tables, &nothing, store.now()).await;
    let faults = found.unwrap().faults.into_iter().map(|fault| fault.what);
    faults.collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn what_an_edit_would_obtain_is_not_given() {
    for database in databases() {
        let (store, bundle) = filled_bundle(&database.url).await;
        let (client_id, secret) = (bundle.client_id.as_str(), secret_of(&bundle).expose());
        authenticate(&store, client_id, secret).await.unwrap();

        // An operator token of one's own in the row of an operator.
        let own = OpaqueToken::generate(TokenKind::Operator, &*store.random);
        let operator = caller::Entity::find()
            .one(store.db.read())
            .await
            .unwrap()
            .unwrap();
        let mut forged = operator.clone();
        forged.token_hash = Some(own.digest().to_vec());
        replace::<caller::Entity>(&store.db, &operator, &forged).await;
        let found = store.find_caller_record(Credential::Token(&own)).await;
        assert!(
            matches!(found, Err(Error::Store(StoreError::Altered("callers")))),
            "{database:?}"
        );
        replace::<caller::Entity>(&store.db, &forged, &operator).await;

        // The hash of a secret one knows, in the row of another client.
        let other = client::Entity::find().filter(client::Column::ClientId.ne(client_id));
        let other = other.one(store.db.read()).await.unwrap().unwrap();
        let known = client_secret::Entity::find().filter(client_secret::Column::ClientId.eq(client_id));
        let known = known.one(store.db.read()).await.unwrap().unwrap();
        let mut forged = known.clone();
        forged.client_id.clone_from(&other.client_id);
        replace::<client_secret::Entity>(&store.db, &known, &forged).await;
        let refused = authenticate(&store, &other.client_id, secret).await;
        assert!(refused.is_err(), "{database:?}");
        let refused = authenticate(&store, client_id, secret).await;
        assert!(refused.is_err(), "{database:?}");
        replace::<client_secret::Entity>(&store.db, &forged, &known).await;
        authenticate(&store, client_id, secret).await.unwrap();

        // A row that only finds clients gives a client no tenant, and is named. So is a client that lacks it.
        let new = NewTenant::third(&store).await;
        let index = client_tenant::ActiveModel {
            tenant_id: sea_orm::Set(new),
            client_id: sea_orm::Set(client_id.to_owned()),
        };
        client_tenant::Entity::insert(index)
            .exec_without_returning(store.db.read())
            .await
            .unwrap();
        let profile = store
            .find_client_profile(&bundle.client_id)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(profile.client.tenant_ids.len(), 2, "{database:?}");
        let of_row = format!("of the client {client_id}, and its row [\"acme\",\"globex\"]");
        let expected = format!("client_tenants says [\"acme\",\"globex\",\"initech\"] {of_row}");
        assert_eq!(said(&store).await, expected, "{database:?}");
        let listed = async |tenant_id: &str| {
            let tenant_id = TenantId::parse(tenant_id).unwrap();
            let page = PageRequest::parse(&mut Default::default(), "test", &[], 100, "").unwrap();
            let listed = store.list_clients(Some(&tenant_id), None, &page).await;
            listed.map(|listed| listed.into_parts().0.len())
        };
        let refused = listed("initech").await;
        assert!(
            matches!(refused, Err(Error::Store(StoreError::Altered("clients")))),
            "{database:?}"
        );
        assert_eq!(listed("globex").await.unwrap(), 2, "{database:?}");
        database
            .edit("DELETE FROM client_tenants WHERE tenant_id = 'initech'")
            .await;
        assert_eq!(said(&store).await, "", "{database:?}");
        let globex = "DELETE FROM client_tenants WHERE tenant_id = 'globex' AND client_id = ";
        database.edit(&format!("{globex}'{client_id}'")).await;
        let expected = format!("client_tenants says [\"acme\"] {of_row}");
        assert_eq!(said(&store).await, expected, "{database:?}");

        // Nor does the loss of such a row take one away. One that is taken out of the list in the client's own row is noticed.
        database.edit("DELETE FROM client_tenants").await;
        let profile = store.find_client_profile(&bundle.client_id).await;
        let profile = profile.unwrap().unwrap();
        assert_eq!(profile.client.tenant_ids.len(), 2, "{database:?}");
        database.edit("UPDATE clients SET tenants = '[\"acme\"]'").await;
        let refused = store.find_client_profile(&bundle.client_id).await;
        assert!(
            matches!(refused, Err(Error::Store(StoreError::Altered("clients")))),
            "{database:?}"
        );
        let expected = "was changed by somebody without the keys";
        assert!(said(&store).await.contains(expected), "{database:?}");
    }
}

/// A tenant that no client has.
struct NewTenant;

impl NewTenant {
    async fn third(store: &Store) -> String {
        let new = crate::model::tenant::NewTenant {
            tenant_id: TenantId::parse("initech").unwrap(),
            display_name: "Initech".into(),
            cloud_api_url: "https://api.example/initech".into(),
        };
        let tenant = store.create_tenant(&creation("CreateTenant"), new).await.unwrap();
        tenant.tenant_id.to_string()
    }
}

#[tokio::test]
async fn a_row_that_is_removed_or_has_no_mac_is_named() {
    for database in databases() {
        let (store, _) = filled(&database.url).await;
        let (ada, _) = added(&store, "grace").await;
        store
            .set_user_state(
                &origin(),
                &ada.tenant_id,
                &ada.user_id,
                UserState::Deactivated,
                "left",
            )
            .await
            .unwrap();
        let key = (ada.tenant_id.to_string(), ada.user_id.to_string());
        let row = user::Entity::find_by_id(key)
            .one(store.db.read())
            .await
            .unwrap()
            .unwrap();
        remove::<user::Entity>(&store.db, &row).await;
        let expected = format!(
            "the row users/{}/{} is gone since the event",
            ada.tenant_id, ada.user_id
        );
        assert_eq!(said(&store).await, expected, "{database:?}");
        let mut forged = row.clone();
        forged.mac = Vec::new();
        let active = sea_orm::IntoActiveModel::into_active_model(forged);
        user::Entity::insert(sea_orm::ActiveModelTrait::reset_all(active))
            .exec_without_returning(store.db.read())
            .await
            .unwrap();
        let expected = format!(
            "the row users/{}/{} was changed by somebody without the keys",
            ada.tenant_id, ada.user_id
        );
        assert_eq!(said(&store).await, expected, "{database:?}");
    }
}

#[tokio::test]
async fn a_caller_that_nobody_added_is_none() {
    for database in databases() {
        let (store, _) = filled(&database.url).await;
        let new = NewCaller {
            name: "Eve".into(),
            authority: Authority::Roles(vec![Role::Admin]),
            certificate_name: None,
            person: None,
        };
        let (_, token) = store
            .create_caller(&creation("CreateOperator"), new)
            .await
            .unwrap();
        let row = caller::Entity::find().filter(caller::Column::Name.eq("Eve"));
        let row = row.one(store.db.read()).await.unwrap().unwrap();
        // The row of another database, where the same person holds the keys.
        let mut forged = row.clone();
        let key = accord::testing::other_row_key();
        accord::store::rows::protect::<caller::Entity>(&key, &mut forged).unwrap();
        replace::<caller::Entity>(&store.db, &row, &forged).await;
        let found = store.find_caller_record(Credential::Token(&token.unwrap())).await;
        assert!(
            matches!(found, Err(Error::Store(StoreError::Altered("callers")))),
            "{database:?}"
        );
    }
}

#[tokio::test]
async fn an_old_row_that_is_changed_is_named() {
    for database in databases() {
        let (store, bundle) = filled_bundle(&database.url).await;
        let row = || client::Entity::find_by_id(bundle.client_id.as_str());
        let old = stored(&store, row()).await;
        let version = version_of::<client::Entity>(&store.db, &old).await;
        let by = origin();
        let set = |to| store.set_client_state(&by, &bundle.client_id, to, "checked");
        for to in [
            ClientState::Suspended,
            ClientState::Active,
            ClientState::Suspended,
        ] {
            set(to).await.unwrap();
        }
        let new = stored(&store, row()).await;
        put_back::<client::Entity>(&store.db, &new, (&old, &version)).await;
        // It is active, and gets a new MAC.
        set(ClientState::Suspended).await.unwrap();
        let expected = format!(
            "the row clients/{} was put back before the event",
            bundle.client_id
        );
        assert_eq!(said(&store).await, expected, "{database:?}");
    }
}

#[tokio::test]
async fn a_forged_link_keeps_nothing_from_ending() {
    for database in databases() {
        let (store, _) = filled(&database.url).await;
        let (ada, token) = added(&store, "grace").await;
        let row = enrolment::Entity::find_by_id(token.digest().to_vec());
        let mut forged = row.clone().one(store.db.read()).await.unwrap().unwrap();
        forged.token_hash = vec![1; 32];
        let active = sea_orm::IntoActiveModel::into_active_model(forged);
        enrolment::Entity::insert(sea_orm::ActiveModelTrait::reset_all(active))
            .exec_without_returning(store.db.read())
            .await
            .unwrap();
        store
            .set_user_state(
                &origin(),
                &ada.tenant_id,
                &ada.user_id,
                UserState::Deactivated,
                "left",
            )
            .await
            .unwrap();
        let ended = row.one(store.db.read()).await.unwrap().unwrap();
        assert!(ended.ended_at.is_some(), "{database:?}");
    }
}
