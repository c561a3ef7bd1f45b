//! Older rows that somebody has put back who can write the database and holds no key, removed rows, and how what they stand for is
//! ended all the same.

use accord::{
    store::rows::{ProtectedRows, version},
    text::id::ClientId,
};
use sea_orm::{ActiveModelTrait, ConnectionTrait, IntoActiveModel, Value};

use super::*;
use crate::model::{
    caller::CallerType,
    change_kind,
    client_secret::{Reason, Revocation},
    tenant::State as TenantState,
};

fn page() -> PageRequest {
    PageRequest::first(100)
}

fn revocation(bundle: &Bundle, reason: Reason) -> Revocation {
    Revocation {
        client_id: bundle.client_id.clone(),
        secret_id: secret_of(bundle).secret_id().clone(),
        reason,
        force: true,
    }
}

/// Puts an older row back, requires that what `rejected` finds out is true, and that a verification says so. Then puts its
/// version back too, which only a verification finds.
async fn put_back_and_read<E: Protected>(
    store: &Store,
    (old, version): (&E::Model, &version::Model),
    find: Select<E>,
    rejects: impl AsyncFn() -> bool,
) where
    E::ActiveModel: Send,
{
    let table = E::default().table_name().to_owned();
    let new = stored(store, find).await;
    assert!(!rejects().await, "{table}: the newest row");
    replace::<E>(&store.db, &new, old).await;
    assert!(rejects().await, "{table}: an older row");
    let named = said(store).await;
    let row = format!("the row {table}/");
    let is_named = named.starts_with(&row) && named.ends_with("is not as the event has left it");
    assert!(is_named, "{named}");
    replace::<E>(&store.db, old, &new).await;
    assert!(!rejects().await, "{table}: the newest row again");

    let newest = version_of::<E>(&store.db, &new).await;
    remove::<version::Entity>(&store.db, &newest).await;
    assert!(rejects().await, "{table}: without a version");
    let named = said(store).await;
    let is_named = named.starts_with(&row) && named.ends_with("has no version in row_versions");
    assert!(is_named, "{named}");
    let again = IntoActiveModel::into_active_model(newest.clone());
    version::Entity::insert(ActiveModelTrait::reset_all(again))
        .exec_without_returning(store.db.read())
        .await
        .unwrap();

    replace::<version::Entity>(&store.db, &newest, version).await;
    assert!(rejects().await, "{table}: an older version");
    let named = said(store).await;
    let is_named = named.starts_with(&row) && named.ends_with("has another version in row_versions");
    assert!(is_named, "{named}");
    replace::<version::Entity>(&store.db, version, &newest).await;

    put_back::<E>(&store.db, &new, (old, version)).await;
    let named = said(store).await;
    let is_named = named.starts_with(&row) && named.ends_with("is not as the event has left it");
    assert!(is_named, "{named}");
    put_back::<E>(&store.db, old, (&new, &newest)).await;
    assert_eq!(said(store).await, "", "{table}");
}

#[tokio::test]
async fn an_old_row_that_is_put_back_is_rejected_and_named() {
    for database in databases() {
        let (store, bundle) = filled_bundle(&database.url).await;
        let (client_id, secret) = (&bundle.client_id, secret_of(&bundle).expose());
        let by = origin();

        // A client that was suspended.
        let find = || client::Entity::find_by_id(client_id.as_str());
        let old = stored(&store, find()).await;
        let version = version_of::<client::Entity>(&store.db, &old).await;
        for to in [ClientState::Suspended, ClientState::Active] {
            let set = store.set_client_state(&by, client_id, to, "checked");
            set.await.unwrap();
        }
        let rejects = async || {
            let profile = store.find_client_profile(client_id).await.is_err();
            let listed = store.list_clients(None, None, &page()).await.is_err();
            let authenticated = authenticate(&store, client_id.as_str(), secret).await;
            let is_altered = matches!(authenticated, Err(Error::Store(StoreError::Altered("clients"))));
            assert_eq!((profile, listed), (is_altered, is_altered));
            is_altered
        };
        put_back_and_read::<client::Entity>(&store, (&old, &version), find(), rejects).await;

        // A secret that was revoked.
        let find = || client_secret::Entity::find_by_id(secret_of(&bundle).secret_id().as_str());
        let old = stored(&store, find()).await;
        let version = version_of::<client_secret::Entity>(&store.db, &old).await;
        let revocation = revocation(&bundle, Reason::Rotated);
        store.revoke_client_secret(&origin(), &revocation).await.unwrap();
        let rejects = async || {
            let found = store
                .find_client_secret(&revocation.client_id, &revocation.secret_id)
                .await;
            authenticate(&store, client_id.as_str(), secret)
                .await
                .unwrap_err();
            matches!(found, Err(Error::Store(StoreError::Altered("client_secrets"))))
        };
        put_back_and_read::<client_secret::Entity>(&store, (&old, &version), find(), rejects).await;

        // An operator that was revoked.
        let new = NewCaller {
            name: "Eve".into(),
            authority: Authority::Roles(vec![Role::Admin]),
            certificate_name: None,
            person: None,
        };
        let (eve, token) = store
            .create_caller(&creation("CreateOperator"), new)
            .await
            .unwrap();
        let (id, token) = (eve.caller.id().to_owned(), token.unwrap());
        let find = || caller::Entity::find_by_id(id.as_str());
        let old = stored(&store, find()).await;
        let version = version_of::<caller::Entity>(&store.db, &old).await;
        let revoking = store.revoke_caller(&by, CallerType::Operator, &id, "left");
        revoking.await.unwrap();
        let rejects = async || match store.find_caller_record(Credential::Token(&token)).await {
            Ok(found) => {
                assert!(found.is_none());
                let listed = store.list_callers(CallerType::Operator, &page()).await;
                matches!(listed, Err(Error::Store(StoreError::Altered("callers"))))
            }
            Err(error) => matches!(error, Error::Store(StoreError::Altered("callers"))),
        };
        put_back_and_read::<caller::Entity>(&store, (&old, &version), find(), rejects).await;
    }
}

/// Changes a row of a table, and does the same as [`put_back_and_read`] with the row from before.
async fn change_and_put_back<E: Protected>(store: &Store, column: E::Column, value: impl Into<Value>)
where
    E::ActiveModel: Send,
{
    let value = value.into();
    let tx = store.db.write().await.unwrap();
    let mut row = E::look_up().lock_one(&tx).await.unwrap().unwrap();
    let old = row.stored().into_row();
    let version = version_of::<E>(&store.db, &old).await;
    row.try_set(column, value.clone()).unwrap();
    row.save(&tx).await.unwrap();
    store
        .audit(&tx, &origin(), Event::test("row.test"))
        .await
        .unwrap();
    commit(tx, ()).await.unwrap();
    let changed = E::find().filter(column.eq(value));
    let rejects = async || {
        let read = E::look_up().read_all(store.db.read()).await;
        matches!(read, Err(StoreError::Altered(_)))
    };
    put_back_and_read::<E>(store, (&old, &version), changed, rejects).await;
}

#[tokio::test]
async fn an_old_row_of_any_table_is_rejected_and_named() {
    for database in databases() {
        let (store, _) = filled(&database.url).await;
        change_and_put_back::<tenant::Entity>(&store, tenant::Column::DisplayName, "Other").await;
        change_and_put_back::<user::Entity>(&store, user::Column::Label, "Other").await;
        change_and_put_back::<scope::Entity>(&store, scope::Column::Description, "Other").await;
        let submitter = integration_request::Column::Submitter;
        change_and_put_back::<integration_request::Entity>(&store, submitter, "Other").await;
        change_and_put_back::<delivery::Entity>(&store, delivery::Column::WrongCodes, 4).await;
        change_and_put_back::<enrolment::Entity>(&store, enrolment::Column::WrongCodes, 4).await;
    }
}

#[tokio::test]
async fn what_was_altered_or_removed_can_be_ended() {
    for database in databases() {
        let (store, bundle) = filled_bundle(&database.url).await;
        let client_id = &bundle.client_id;
        let tenant_id = TenantId::parse("acme").unwrap();
        let (ada, _) = added(&store, "grace").await;
        let eve = operator(&store, "Eve", &[Role::Admin], None).await.actor.id;
        let revocation = revocation(&bundle, Reason::Compromised);
        let db = store.db.read();
        let secrets = "UPDATE client_secrets SET expires_at = 1";
        let edits = [
            "UPDATE clients SET redirect_uris = '[\"https://thief.example/\"]'",
            "UPDATE tenants SET cloud_api_url = 'https://thief.example/'",
            "UPDATE users SET label = 'x'",
            "UPDATE callers SET name = name || 'x'",
            secrets,
            // And the rest of the way, with their versions: events still name them.
            "DELETE FROM row_versions",
            "DELETE FROM client_secrets",
            "DELETE FROM clients",
            "DELETE FROM users",
            "DELETE FROM callers",
        ];
        for edit in edits {
            db.execute_unprepared(edit).await.unwrap();
            if edit.ends_with("row_versions") {
                continue;
            }
            let first = store.position().await.unwrap().seq;
            let (by, why) = (&origin(), "altered");
            let ended = if edit == secrets || edit.ends_with("FROM client_secrets") {
                store.revoke_client_secret(by, &revocation).await.map(drop)
            } else if edit.contains("clients") {
                let to = ClientState::Suspended;
                store.set_client_state(by, client_id, to, why).await.map(drop)
            } else if edit.contains("tenants") {
                let to = TenantState::Suspended;
                store.set_tenant_state(by, &tenant_id, to, why).await.map(drop)
            } else if edit.contains("users") {
                let (user_id, to) = (&ada.user_id, UserState::Deactivated);
                let setting = store.set_user_state(by, &ada.tenant_id, user_id, to, why);
                setting.await.map(drop)
            } else {
                let caller_type = CallerType::Operator;
                store.revoke_caller(by, caller_type, &eve, why).await.map(drop)
            };
            assert!(
                matches!(ended, Err(Error::Store(StoreError::Altered(_)))),
                "{database:?}: {edit}: {ended:?}"
            );
            let changes = change::list_after(db, first, 10).await.unwrap();
            let kinds: Vec<_> = changes.iter().map(|change| change.kind.as_str()).collect();
            let expected = match edit.rsplit_once("callers") {
                Some(_) => change_kind::CALLER,
                None if edit.contains("client") => change_kind::CLIENT_TOKENS_ENDED,
                None if edit.contains("tenants") => change_kind::TENANT_TOKENS_ENDED,
                None => change_kind::USER_TOKENS_ENDED,
            };
            assert_eq!(kinds, [expected], "{database:?}: {edit}");
        }
        let actions = [
            ("client.suspend", 2),
            ("tenant.suspend", 1),
            ("user.deactivate", 2),
            ("operator.revoke", 2),
            ("client_secret.revoke", 2),
        ];
        for (action, expected) in actions {
            let filter = audit::Filter {
                action: Some(action.into()),
                ..Default::default()
            };
            let events = audit::list(db, &filter, &page()).await.unwrap().into_parts().0;
            assert_eq!(events.len(), expected, "{database:?}: {action}");
            assert!(events.iter().all(|event| event.detail.contains_key("altered")));
        }
        // What never was has no end.
        let by = origin();
        let nobody = ClientId::generate(&*store.clock, &*store.random);
        let suspending = store.set_client_state(&by, &nobody, ClientState::Suspended, "none");
        assert!(
            matches!(suspending.await, Err(Error::NotFound("client"))),
            "{database:?}"
        );
        // Nor does anybody begin what was altered.
        let reinstating = store.set_tenant_state(&by, &tenant_id, TenantState::Active, "");
        let first = store.position().await.unwrap();
        assert!(reinstating.await.is_err(), "{database:?}");
        assert_eq!(store.position().await.unwrap(), first, "{database:?}");
    }
}

#[tokio::test]
async fn a_repeated_end_is_published_again_and_recorded_once() {
    for database in databases() {
        let (store, bundle) = filled_bundle(&database.url).await;
        let (client_id, by, why) = (&bundle.client_id, &origin(), "checked");
        let tenant_id = TenantId::parse("acme").unwrap();
        let (ada, _) = added(&store, "grace").await;
        let eve = operator(&store, "Eve", &[Role::Admin], None).await.actor.id;
        let revocation = revocation(&bundle, Reason::Rotated);
        let mut last = (store.position().await.unwrap().seq, 0);
        for round in 0..2 {
            store.revoke_client_secret(by, &revocation).await.unwrap();
            let to = ClientState::Suspended;
            store.set_client_state(by, client_id, to, why).await.unwrap();
            let (user_id, to) = (&ada.user_id, UserState::Deactivated);
            let deactivating = store.set_user_state(by, &ada.tenant_id, user_id, to, why);
            deactivating.await.unwrap();
            let to = TenantState::Suspended;
            store.set_tenant_state(by, &tenant_id, to, why).await.unwrap();
            let revoking = store.revoke_caller(by, CallerType::Operator, &eve, why);
            revoking.await.unwrap();
            let (all, first) = (audit::Filter::default(), page());
            let events = audit::list(store.db.read(), &all, &first).await.unwrap();
            let events = events.into_parts().0.len();
            let seq = store.position().await.unwrap().seq;
            assert_eq!(seq, last.0 + 5, "{database:?}: {round}");
            if round > 0 {
                assert_eq!(events, last.1, "{database:?}");
            }
            last = (seq, events);
        }
    }
}
