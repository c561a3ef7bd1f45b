//! Rows that somebody has edited who can write the database but holds no key.

use sea_orm::{Iterable, ModelTrait, PrimaryKeyToColumn, Value};
use serde_json::json;

use super::{
    pushed_request::pushed,
    together::{pending_code, redemption, said},
    *,
};
use crate::{
    model::{revocation::RevocationKind, signing_key::Algorithm},
    store::StoredFamily,
};

mod made;
mod put_back;
mod renewed;

/// The active grant of a client, its family, and its code.
async fn redeemed(store: &Store) -> (Grant, StoredFamily, OpaqueToken) {
    let (grant, token, code) = pending_code(store, &client()).await;
    let redemption = redemption(store, &grant, &code);
    let family_id = redemption.family.family_id.clone();
    assert_eq!(said(store.redeem_code(redemption).await.unwrap()), "redeemed");
    let family = store.find_family(&grant.tenant_id, &family_id).await;
    (find(store, &grant).await, family.unwrap().unwrap(), token)
}

fn is_altered(error: &Error, table: &str) -> bool {
    let expected = format!("a row of {table} was changed by somebody without the keys");
    matches!(error, Error::Internal(error) if error.to_string() == expected)
}

fn assert_altered<T>(result: Result<T, Error>, table: &str, context: &str) {
    match result {
        Err(error) if is_altered(&error, table) => {}
        Err(error) => panic!("{table}: {error:?}, {context}"),
        Ok(_) => panic!("{table}: accepted, {context}"),
    }
}

/// Returns another value of the same type.
fn other_value(value: Value) -> Value {
    match value {
        Value::Bool(value) => (!value.unwrap_or_default()).into(),
        Value::Int(value) => (value.unwrap_or_default() + 1).into(),
        Value::BigInt(value) => (value.unwrap_or_default() + 1).into(),
        Value::String(value) => format!("{}x", value.as_deref().unwrap_or_default()).into(),
        Value::Bytes(value) => [value.as_deref().unwrap_or_default(), &[1]].concat().into(),
        Value::Json(_) => json!(["api:write"]).into(),
        value => panic!("{value:?}"),
    }
}

/// Edits each protected column of `row`, to the value that the row `own` has if it is another one, the MAC included. Requires
/// that `is_used` fails, but for the columns `hides`, which it looks the row up by.
async fn assert_no_edit_is_used<E: rows::Protected>(
    store: &Store,
    row: E::Model,
    own: E::Model,
    hides: &[&str],
    is_used: impl AsyncFn() -> Result<bool>,
) {
    let table = E::default().table_name();
    let keys: Vec<_> = E::PrimaryKey::iter().map(|key| key.into_column()).collect();
    let is_key = |column: &E::Column| keys.iter().any(|key| key.as_str() == column.as_str());
    let write = async |column: E::Column, from: &Value, to: &Value| {
        let mut update = E::update_many().col_expr(column, Expr::value(to.clone()));
        for key in &keys {
            let is_edited = key.as_str() == column.as_str();
            let value = if is_edited { from.clone() } else { row.get(*key) };
            update = update.filter(key.eq(value));
        }
        update
            .exec(store.db.read())
            .await
            .map(|written| written.rows_affected)
    };
    assert!(is_used().await.unwrap(), "{table}");
    for column in E::Column::iter() {
        let (name, before) = (column.as_str().to_owned(), row.get(column));
        let mut after = own.get(column);
        let taken = match after == before || is_key(&column) {
            true => false,
            // A unique index may reject it.
            false => write(column, &before, &after).await.is_ok(),
        };
        if !taken {
            after = other_value(before.clone());
            assert_eq!(write(column, &before, &after).await.unwrap(), 1, "{table}.{name}");
        }
        match is_used().await {
            Err(error) => assert!(is_altered(&error, table), "{table}.{name}: {error:?}"),
            Ok(is_used) => assert!(!is_used && hides.contains(&&*name), "{table}.{name} = {after:?}"),
        }
        assert_eq!(write(column, &after, &before).await.unwrap(), 1, "{table}.{name}");
        assert!(is_used().await.unwrap(), "{table}.{name}");
    }
}

#[tokio::test]
async fn no_column_that_confers_authority_can_be_edited() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let read = store.db.read();

        store.ensure_signing_keys(Algorithm::EdDsa).await.unwrap();
        let keys = entity::signing_key::Entity::find().all(read).await.unwrap();
        let [one, two] = keys.try_into().unwrap();
        assert_no_edit_is_used::<entity::signing_key::Entity>(&store, one, two, &[], async || {
            store.live_signing_keys().await.map(|keys| keys.len() == 2)
        })
        .await;

        let [one, two] = [started(&store, &client()).await, started(&store, &client()).await];
        let row = async |setup: &Setup| {
            let row = entity::setup::Entity::find_by_id(setup.setup_id.as_str()).one(read);
            row.await.unwrap().unwrap()
        };
        let (row, own) = (row(&one).await, row(&two).await);
        assert_no_edit_is_used::<entity::setup::Entity>(
            &store,
            row,
            own,
            &["setup_id"],
            async || match store.get_setup(&one.setup_id).await {
                Err(Error::NotFound(_)) => Ok(false),
                found => found.map(|_| true),
            },
        )
        .await;

        let [one, two] = [pushed(&store).await, pushed(&store).await];
        let row = async |reference: &OpaqueToken| {
            let key = ("acme".to_owned(), reference.digest().to_vec());
            let row = entity::pushed_request::Entity::find_by_id(key).one(read);
            row.await.unwrap().unwrap()
        };
        let (row, own) = (row(&one).await, row(&two).await);
        let hides = ["tenant_id", "reference_hash"];
        assert_no_edit_is_used::<entity::pushed_request::Entity>(&store, row, own, &hides, async || {
            let found = store.find_pushed_request(&tenant("acme"), &one).await?;
            Ok(found.is_some())
        })
        .await;

        let [one, two] = [session(&store).await, session(&store).await];
        clock.advance(Duration::from_secs(1));
        store
            .end_admin_session(&workload_named("pages"), &two.digest, EndReason::SignedOut)
            .await
            .unwrap();
        let row = async |session: &AdminSession| {
            let row = entity::admin_session::Entity::find_by_id(session.digest.to_vec()).one(read);
            row.await.unwrap().unwrap()
        };
        let (row, own) = (row(&one).await, row(&two).await);
        let hides = ["session_hash"];
        assert_no_edit_is_used::<entity::admin_session::Entity>(&store, row, own, &hides, async || {
            Ok(store.find_admin_session(&one.digest).await?.is_some())
        })
        .await;

        let [one, two] = [redeemed(&store).await, redeemed(&store).await];
        let row = async |grant: &Grant| {
            let id = (grant.tenant_id.to_string(), grant.grant_id.to_string());
            entity::grant::Entity::find_by_id(id)
                .one(read)
                .await
                .unwrap()
                .unwrap()
        };
        let (grant_row, own) = (row(&one.0).await, row(&two.0).await);
        let hides = ["tenant_id", "grant_id"];
        let grant = &one.0;
        assert_no_edit_is_used::<entity::grant::Entity>(
            &store,
            grant_row.clone(),
            own.clone(),
            &hides,
            async || {
                let found = store.find_grant(&grant.tenant_id, &grant.grant_id).await?;
                Ok(found.is_some())
            },
        )
        .await;
        let hides = ["tenant_id", "client_id", "state"];
        assert_no_edit_is_used::<entity::grant::Entity>(&store, grant_row, own, &hides, async || {
            let found = store
                .find_current_grant(&grant.tenant_id, &grant.client_id)
                .await?;
            Ok(found.value.is_some())
        })
        .await;

        let hides = ["tenant_id", "family_id"];
        let (row, own) = (one.1.row().clone(), two.1.row().clone());
        assert_no_edit_is_used::<entity::family::Entity>(&store, row, own, &hides, async || {
            let found = store.find_family(&grant.tenant_id, &one.1.family_id).await?;
            Ok(found.is_some())
        })
        .await;

        let code_row = async |token: &OpaqueToken| {
            let row = entity::code::Entity::find_by_id(token.digest().to_vec()).one(read);
            row.await.unwrap().unwrap()
        };
        let (row, own) = (code_row(&one.2).await, code_row(&two.2).await);
        let hides = ["code_hash", "tenant_id"];
        assert_no_edit_is_used::<entity::code::Entity>(&store, row, own, &hides, async || {
            let found = store.find_code(&grant.tenant_id, &one.2).await?;
            Ok(found.is_some())
        })
        .await;

        for (grant, ..) in [&one, &two] {
            revoke(&store, grant, None).await.unwrap();
        }
        let [row, own] = revocations(&store).await.try_into().unwrap();
        let id = row.id.clone();
        let hides = ["kind", "id"];
        assert_no_edit_is_used::<entity::revocation::Entity>(
            &store,
            row.clone(),
            own.clone(),
            &hides,
            async || {
                let named = [(RevocationKind::Grant, id.as_str())];
                Ok(store.last_revocation(&named).await?.is_some())
            },
        )
        .await;
        let (first, through) = (row.seq - 1, row.seq);
        assert_no_edit_is_used::<entity::revocation::Entity>(&store, row, own, &["seq"], async || {
            Ok(store.revocations_between(first, through).await?.len() == 1)
        })
        .await;
    }
}
