//! Older rows that somebody has put back, removed rows, and how what they stand for is ended all the same.

use accord::{
    store::{
        audit::{Verified, check_rows},
        rows::{Protected, version},
    },
    testing::edited_rows::{put_back, remove, replace, version_of},
};
use sea_orm::ConnectionTrait;

use super::*;
use crate::{
    model::{revocation::RevocationKind, signing_key::State},
    store::entity::grant_receipt as receipt,
};

/// Returns what a verification says of the rows.
async fn verified(store: &Store) -> String {
    let (tables, nothing) = (recorded_tables(), Verified::default());
    let found = check_rows(store.db.read(), &tables, &nothing, store.now()).await;
    let faults = found.unwrap().faults.into_iter().map(|fault| fault.what);
    faults.collect::<Vec<_>>().join("; ")
}

async fn stored<E: Protected>(store: &Store, find: Select<E>) -> E::Model {
    find.one(store.db.read()).await.unwrap().unwrap()
}

/// Asserts that a verification names one row of the table.
async fn assert_named(store: &Store, table: &str, how: &str) {
    let named = verified(store).await;
    let is_row = named.starts_with(&format!("the row {table}/"));
    assert!(is_row && named.ends_with(how), "{named}");
}

/// Puts an older row back, removes its version, and puts both back. Requires that `read` fails but after the last one, and
/// that a verification names each.
async fn put_back_and_read<E: Protected, T>(
    store: &Store,
    (old, version): (&E::Model, &version::Model),
    find: Select<E>,
    read: impl AsyncFn() -> Result<T>,
) where
    E::ActiveModel: Send,
{
    let table = E::default().table_name().to_owned();
    let new = stored(store, find).await;
    let newest = version_of::<E>(&store.db, &new).await;
    read().await.unwrap();
    assert_eq!(verified(store).await, "", "{table}");

    replace::<E>(&store.db, &new, old).await;
    assert_altered(read().await, &table, "an older row");
    assert_named(store, &table, "is not as the event has left it").await;
    replace::<E>(&store.db, old, &new).await;
    read().await.unwrap();

    remove::<version::Entity>(&store.db, &newest).await;
    assert_altered(read().await, &table, "without a version");
    assert_named(store, &table, "has no version in row_versions").await;
    made::put_row::<version::Entity>(store, newest.clone()).await;
    read().await.unwrap();

    put_back::<E>(&store.db, &new, (old, version)).await;
    read().await.unwrap();
    assert_named(store, &table, "is not as the event has left it").await;
    put_back::<E>(&store.db, old, (&new, &newest)).await;
    assert_eq!(verified(store).await, "", "{table}");
}

#[tokio::test]
async fn an_old_row_that_is_put_back_is_rejected_and_named() {
    for database in databases() {
        let (store, _) = store(&database.url).await;

        // A grant that was revoked.
        let (grant, ..) = redeemed(&store).await;
        let find = || {
            let id = (grant.tenant_id.to_string(), grant.grant_id.to_string());
            Entity::find_by_id(id)
        };
        let old = stored(&store, find()).await;
        let version = version_of::<Entity>(&store.db, &old).await;
        revoke(&store, &grant, None).await.unwrap();
        let read = async || {
            let (tenant_id, client_id) = (&grant.tenant_id, &grant.client_id);
            let found = store.find_grant(tenant_id, &grant.grant_id).await;
            let listed = store
                .list_grants(tenant_id, &GrantFilter::default(), &PageRequest::first(50))
                .await;
            assert_eq!(found.is_err(), listed.is_err());
            // The revoked one is none. That of the moment before is not accepted.
            store.find_current_grant(tenant_id, client_id).await?;
            found
        };
        put_back_and_read::<Entity, _>(&store, (&old, &version), find(), read).await;

        // A signing key that was revoked after it had been replaced.
        store.ensure_signing_keys(Algorithm::EdDsa).await.unwrap();
        let key = store.active_signing_key().await.unwrap();
        let rotating = store.rotate_signing_key(&creation(None, b""), None, true).await;
        rotating.unwrap();
        let find = || entity::signing_key::Entity::find_by_id(&key);
        let old = stored(&store, find()).await;
        let version = version_of::<entity::signing_key::Entity>(&store.db, &old).await;
        store
            .revoke_signing_key(&workload(), &key, "stolen")
            .await
            .unwrap();
        let revoked = stored(&store, find()).await;
        assert_eq!(revoked.state, State::Revoked.as_ref());
        let read = async || store.list_signing_keys(None, &PageRequest::first(50)).await;
        put_back_and_read::<entity::signing_key::Entity, _>(&store, (&old, &version), find(), read).await;

        // What a receipt says, from before the designated user was another one.
        let tx = store.db.write().await.unwrap();
        let mut row = receipt::Entity::look_up().lock_one(&tx).await.unwrap().unwrap();
        let old = row.stored().into_row();
        let version = version_of::<receipt::Entity>(&store.db, &old).await;
        row.user_changes = json!(["another"]);
        row.save(&tx).await.unwrap();
        store.audit(&tx, &workload(), Event::test("row.test")).await;
        tx.commit().await.unwrap();
        let find = receipt::Entity::find().filter(receipt::Column::GrantId.eq(old.grant_id.as_str()));
        let read = async || {
            let rows = receipt::Entity::look_up().read_all(store.db.read()).await;
            rows.map_err(Error::from)
        };
        put_back_and_read::<receipt::Entity, _>(&store, (&old, &version), find, read).await;
    }
}

/// Returns how many rows of a table have a version.
async fn versions(store: &Store, table: &str) -> usize {
    let of_table = version::Column::RowName.starts_with(format!("{table}/"));
    let rows = version::Entity::find().filter(of_table).all(store.db.read());
    rows.await.unwrap().len()
}

/// Puts back the row from before it ended, with the version of the end and without it. Requires that `read` fails while there is a
/// version, and that a verification names each.
async fn put_back_from_before_the_end<E: Protected, T>(
    store: &Store,
    old: &E::Model,
    find: Select<E>,
    read: impl AsyncFn() -> Result<T>,
) where
    E::ActiveModel: Send,
{
    let table = E::default().table_name().to_owned();
    let new = stored(store, find).await;
    let newest = version_of::<E>(&store.db, &new).await;
    read().await.unwrap();
    assert_eq!(verified(store).await, "", "{table}");

    replace::<E>(&store.db, &new, old).await;
    assert_altered(read().await, &table, "an older row");
    assert_named(store, &table, "is not as the event has left it").await;
    remove::<version::Entity>(&store.db, &newest).await;
    // Only the record tells it apart from one that has not ended.
    read().await.unwrap();
    assert_named(store, &table, "is not as the event has left it").await;
    replace::<E>(&store.db, old, &new).await;
    read().await.unwrap();
    assert_named(store, &table, "has no version in row_versions").await;
    made::put_row::<version::Entity>(store, newest).await;
    assert_eq!(verified(store).await, "", "{table}");

    // It goes with its time, and gives nothing once it is gone.
    remove::<E>(&store.db, &new).await;
    assert_eq!(verified(store).await, "", "{table}");
    made::put_row::<E>(store, new).await;
}

#[tokio::test]
async fn what_has_ended_is_rejected_and_named_if_it_is_put_back() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let (by, event) = (workload_named("pages"), || Event::test("test.event"));

        let admin = session(&store).await;
        let find = || entity::admin_session::Entity::find_by_id(admin.digest.to_vec());
        store.touch_admin_session(&admin.digest).await.unwrap();
        let old = stored(&store, find()).await;
        assert_eq!(versions(&store, "admin_sessions").await, 0, "{database:?}");
        let end = store.end_admin_session(&by, &admin.digest, EndReason::SignedOut);
        end.await.unwrap();
        let read = async || store.find_admin_session(&admin.digest).await;
        put_back_from_before_the_end(&store, &old, find(), read).await;
        replace::<entity::admin_session::Entity>(&store.db, &old, &old).await;
        let touched = store.touch_admin_session(&admin.digest).await;
        assert_altered(touched, "admin_sessions", database.label);
        let setup = started(&store, &client()).await;
        let approved = approve(&store, &setup, &admin, None).await;
        assert_altered(approved, "admin_sessions", database.label);
        // Waits for the rollback: a deletion skips the rows that another transaction has locked.
        replace::<entity::admin_session::Entity>(&store.db, &old, &old).await;
        store.delete_ended_rows(store.now(), store.now()).await.unwrap();

        let admin = session(&store).await;
        let find = || entity::setup::Entity::find_by_id(setup.setup_id.as_str());
        let old = stored(&store, find()).await;
        assert_eq!(versions(&store, "setups").await, 0, "{database:?}");
        let denial = decision(&admin, &setup, b"deny");
        store.deny_setup(&denial, &admin, &setup).await.unwrap();
        let read = async || store.get_setup(&setup.setup_id).await;
        put_back_from_before_the_end(&store, &old, find(), read).await;

        // A code that was burnt.
        let (grant, token, code) = pending_code(&store, &client()).await;
        let find = || entity::code::Entity::find_by_id(token.digest().to_vec());
        let old = stored(&store, find()).await;
        assert!(store.invalidate_code(&by, &code, event()).await.unwrap());
        assert_eq!(versions(&store, "codes").await, 1, "{database:?}");
        let read = async || store.find_code(&grant.tenant_id, &token).await;
        put_back_from_before_the_end(&store, &old, find(), read).await;

        // Families that end by themselves, with their grant, and when their client has a newer grant.
        for end in ["family", "grant", "newer grant"] {
            let (grant, family, token) = redeemed(&store).await;
            let find = || {
                let id = (family.tenant_id.to_string(), family.family_id.to_string());
                entity::family::Entity::find_by_id(id)
            };
            let old = stored(&store, find()).await;
            let before = versions(&store, "families").await;
            match end {
                "family" => {
                    let ended = store.end_family(&by, &family, "revoked", event()).await;
                    assert!(ended.unwrap(), "{database:?}");
                }
                "grant" => drop(revoke(&store, &grant, None).await.unwrap()),
                _ => {
                    let (next, _, code) = pending_code(&store, &grant.client_id).await;
                    let outcome = store.redeem_code(redemption(&store, &next, &code)).await;
                    assert_eq!(said(outcome.unwrap()), "superseding", "{database:?}");
                }
            }
            assert_eq!(versions(&store, "families").await, before + 1, "{end}");
            let read = async || store.find_family(&family.tenant_id, &family.family_id).await;
            put_back_from_before_the_end(&store, &old, find(), read).await;
            // Its code was redeemed without a version.
            assert_eq!(versions(&store, "codes").await, 1, "{end}");
            store.find_code(&grant.tenant_id, &token).await.unwrap();
        }

        // One that has not ended is named if it was edited.
        let edit = "UPDATE families SET expires_at = expires_at + 1 WHERE ended_at IS NULL";
        store.db.read().execute_unprepared(edit).await.unwrap();
        let named = verified(&store).await;
        assert!(named.starts_with("the row families/"), "{named}");

        // Versions go with their rows.
        let late = store.now().plus(Duration::from_secs(365 * 24 * 3600));
        store.delete_ended_rows(store.now(), late).await.unwrap();
        for table in ["admin_sessions", "setups", "codes", "families"] {
            assert_eq!(versions(&store, table).await, 0, "{table}, {database:?}");
        }
        assert_eq!(verified(&store).await, "", "{database:?}");
    }
}

#[tokio::test]
async fn a_grant_that_was_altered_or_removed_can_be_revoked() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let (grant, family, _) = redeemed(&store).await;
        for edit in [
            "UPDATE grants SET scopes = '[\"api:write\"]'",
            "DELETE FROM row_versions",
            "DELETE FROM grants",
        ] {
            store.db.read().execute_unprepared(edit).await.unwrap();
            let first = store.position().await.unwrap().seq;
            assert_altered(revoke(&store, &grant, None).await, "grants", edit);
            let named = [(RevocationKind::Grant, grant.grant_id.as_str())];
            let last = store.last_revocation(&named).await.unwrap();
            assert!(last.is_some_and(|last| last > first), "{database:?}: {edit}");
            let changes = change::list_after(store.db.read(), first, 10).await.unwrap();
            let kinds: Vec<_> = changes.iter().map(|change| change.kind.as_str()).collect();
            assert_eq!(
                kinds,
                [change_kind::GRANT, change_kind::REVOCATION],
                "{database:?}: {edit}"
            );
            let family = store.find_family(&grant.tenant_id, &family.family_id).await;
            assert!(
                family.unwrap().unwrap().ended_at.is_some(),
                "{database:?}: {edit}"
            );
        }
        let filter = audit::Filter {
            action: Some("consent.revoke".into()),
            ..Default::default()
        };
        let events = audit::list(store.db.read(), &filter, &PageRequest::first(50))
            .await
            .unwrap();
        let events = events.into_parts().0;
        assert_eq!(events.len(), 3, "{database:?}");
        assert!(events.iter().all(|event| event.detail["altered"] == "grants"));
    }
}
