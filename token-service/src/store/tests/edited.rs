//! Rows that somebody has edited, copied or made who can write the database but holds no key.

use accord::text::{id::FamilyId, opaque::TokenKind};
use sea_orm::{IntoActiveModel, Iterable, ModelTrait, PrimaryKeyToColumn, Value};
use serde_json::json;

use super::{
    together::{pending_code, redemption, said},
    *,
};
use crate::{
    model::{
        family::Generations,
        revocation::RevocationKind,
        signing_key::{Algorithm, NewKey, State},
    },
    store::StoredFamily,
};

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

/// Inserts a row as it is.
async fn put_row<E: rows::Protected>(store: &Store, row: E::Model) {
    let row = row.into_active_model().reset_all();
    E::insert(row)
        .exec_without_returning(store.db.read())
        .await
        .unwrap();
}

/// Returns another value of the same type.
fn other_value(value: Value) -> Value {
    match value {
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
    let is_unprotected = |column: &E::Column| {
        E::UNPROTECTED
            .iter()
            .any(|other| other.as_str() == column.as_str())
    };
    assert!(is_used().await.unwrap(), "{table}");
    for column in E::Column::iter().filter(|column| !is_unprotected(column)) {
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
            let found = store.find_admin_session(&one.digest).await?.is_some();
            let touched = store.touch_admin_session(&one.digest).await?;
            assert_eq!(found, touched);
            Ok(found)
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

#[tokio::test]
async fn no_row_can_be_copied_or_made() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let (grant, family, _) = redeemed(&store).await;
        let (partner, other) = (client(), tenant("other"));
        let id = (grant.tenant_id.to_string(), grant.grant_id.to_string());
        let row = entity::grant::Entity::find_by_id(id).one(store.db.read()).await;
        let row = row.unwrap().unwrap();
        let context = database.label;

        // The consent of another tenant, and that to another client.
        put_row::<entity::grant::Entity>(
            &store,
            entity::grant::Model {
                tenant_id: other.to_string(),
                ..row.clone()
            },
        )
        .await;
        put_row::<entity::grant::Entity>(
            &store,
            entity::grant::Model {
                grant_id: GrantId::generate(&*store.clock, &*store.random).into(),
                client_id: partner.to_string(),
                ..row
            },
        )
        .await;
        let listed = async |of: &TenantId| store.list_grants(of, &GrantFilter::default(), &page(0, "")).await;
        for (of, by) in [(&other, &grant.client_id), (&grant.tenant_id, &partner)] {
            assert_altered(store.find_current_grant(of, by).await, "grants", context);
            assert_altered(listed(of).await, "grants", context);
        }
        assert_altered(store.find_grant(&other, &grant.grant_id).await, "grants", context);
        // Others go on, also in one group with them.
        listed(&tenant("third")).await.unwrap();
        let (bad, good) = tokio::join!(
            store.find_current_grant(&other, &grant.client_id),
            store.find_current_grant(&grant.tenant_id, &grant.client_id),
        );
        assert_altered(bad, "grants", context);
        assert_eq!(good.unwrap().value.as_ref(), Some(&grant), "{context}");

        // A family that did not begin with a code.
        let family_id = FamilyId::generate(&*store.clock, &*store.random);
        put_row::<entity::family::Entity>(
            &store,
            entity::family::Model {
                family_id: family_id.to_string(),
                ..family.row().clone()
            },
        )
        .await;
        let found = store.find_family(&grant.tenant_id, &family_id).await;
        assert_altered(found, "families", context);

        // A session of the admin that consented.
        let by = session(&store).await;
        let row = entity::admin_session::Entity::find_by_id(by.digest.to_vec()).one(store.db.read());
        let token = OpaqueToken::generate(TokenKind::AdminSession, &*store.random);
        put_row::<entity::admin_session::Entity>(
            &store,
            entity::admin_session::Model {
                session_hash: token.digest().to_vec(),
                user_id: grant.granted_by.to_string(),
                ..row.await.unwrap().unwrap()
            },
        )
        .await;
        let found = store.find_admin_session(&token.digest()).await;
        assert_altered(found, "admin_sessions", context);
        let acts = AdminSession {
            digest: token.digest(),
            ..by
        };
        assert_altered(
            revoke(&store, &grant, Some(&acts)).await,
            "admin_sessions",
            context,
        );

        // A key of their own, as one that has signed.
        store.ensure_signing_keys(Algorithm::EdDsa).await.unwrap();
        let active = entity::signing_key::Entity::find().one(store.db.read()).await;
        let own = NewKey::generate(Algorithm::EdDsa).unwrap();
        put_row::<entity::signing_key::Entity>(
            &store,
            entity::signing_key::Model {
                kid: own.kid.clone(),
                public_key: own.public_key.to_json(),
                state: State::Retired.as_ref().to_owned(),
                retired_at: Some(store.now().as_millis()),
                ..active.unwrap().unwrap()
            },
        )
        .await;
        assert_altered(store.live_signing_keys().await, "signing_keys", context);
    }
}

/// What was read and checked is what a change writes. An edit in between leaves a row that nobody accepts.
#[tokio::test]
async fn an_edit_between_read_and_change_leaves_a_row_that_is_rejected() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let (context, read) = (database.label, store.db.read());

        let (grant, _, code) = pending_code(&store, &client()).await;
        entity::grant::Entity::update_many()
            .filter(entity::grant::Column::GrantId.eq(grant.grant_id.as_str()))
            .col_expr(entity::grant::Column::DesignatedUserId, user().as_str().into())
            .exec(read)
            .await
            .unwrap();
        let redeemed_code = store
            .redeem_code(redemption(&store, &grant, &code))
            .await
            .unwrap();
        assert_eq!(said(redeemed_code), "redeemed", "{context}");
        let found = store.find_grant(&grant.tenant_id, &grant.grant_id).await;
        assert_altered(found, "grants", context);
        assert_altered(revoke(&store, &grant, None).await, "grants", context);
        let current = store.find_current_grant(&grant.tenant_id, &grant.client_id).await;
        assert_altered(current, "grants", context);

        // The client's next consent can't supersede it, and its code stays as it is. Other clients' codes are redeemed.
        let (next, next_token, next_code) = pending_code(&store, &grant.client_id).await;
        let (others, _, others_code) = pending_code(&store, &client()).await;
        let (refused, others) = tokio::join!(
            store.redeem_code(redemption(&store, &next, &next_code)),
            store.redeem_code(redemption(&store, &others, &others_code)),
        );
        assert_altered(refused, "grants", context);
        assert_eq!(said(others.unwrap()), "redeemed", "{context}");
        let unused = store
            .find_code(&next.tenant_id, &next_token)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(unused.0.used_at, None, "{context}");

        let (grant, family, token) = redeemed(&store).await;
        let to = Generations {
            used: 1,
            current: 2,
            handed_out_at: store.now(),
        };
        entity::family::Entity::update_many()
            .filter(entity::family::Column::FamilyId.eq(family.family_id.as_str()))
            .col_expr(entity::family::Column::ExpiresAt, i64::MAX.into())
            .exec(read)
            .await
            .unwrap();
        let by = workload();
        let moved = store.advance_family(by.clone(), &family, to, Event::new(audit::ISSUE));
        assert!(moved.await.unwrap(), "{context}");
        let found = store.find_family(&family.tenant_id, &family.family_id).await;
        assert_altered(found, "families", context);
        let ended = store
            .end_family(&by, &family, "revoked", Event::new("test.event"))
            .await;
        assert_altered(ended, "families", context);
        assert_altered(revoke(&store, &grant, None).await, "families", context);

        // A code that was used is made usable again.
        let used = store
            .find_code(&grant.tenant_id, &token)
            .await
            .unwrap()
            .unwrap()
            .0;
        entity::code::Entity::update_many()
            .filter(entity::code::Column::CodeHash.eq(used.digest.to_vec()))
            .col_expr(entity::code::Column::UsedAt, Expr::value(None::<i64>))
            .exec(read)
            .await
            .unwrap();
        assert_altered(store.find_code(&grant.tenant_id, &token).await, "codes", context);
        let again = store
            .redeem_again(&by, &used, &family, Event::new(audit::ISSUE))
            .await;
        assert_altered(again, "codes", context);
        let burnt = store.invalidate_code(&by, &used, Event::new("test.event")).await;
        assert_altered(burnt, "codes", context);
    }
}

/// A row that is rejected stands in no way of ending everything after a restore, but a key does: it may be published.
#[tokio::test]
async fn a_restored_copy_loses_edited_families_and_sessions_too() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let (context, read) = (database.label, store.db.read());
        let (_, family, _) = redeemed(&store).await;
        let by = session(&store).await;
        entity::family::Entity::update_many()
            .col_expr(entity::family::Column::ExpiresAt, i64::MAX.into())
            .exec(read)
            .await
            .unwrap();
        entity::admin_session::Entity::update_many()
            .col_expr(entity::admin_session::Column::SignedInAt, i64::MAX.into())
            .exec(read)
            .await
            .unwrap();
        store.ensure_signing_keys(Algorithm::EdDsa).await.unwrap();
        let restore = async || {
            let tx = store.db.write().await?;
            end_all_before(&tx, &*store.clock, &*store.random).await?;
            Ok::<_, Error>(tx.commit().await?)
        };
        restore().await.unwrap();
        let found = store.find_family(&family.tenant_id, &family.family_id).await;
        assert!(found.unwrap().is_none(), "{context}");
        assert_eq!(
            store.find_admin_session(&by.digest).await.unwrap(),
            None,
            "{context}"
        );

        store.ensure_signing_keys(Algorithm::EdDsa).await.unwrap();
        entity::signing_key::Entity::update_many()
            .filter(entity::signing_key::Column::State.eq(State::Next.as_ref()))
            .col_expr(entity::signing_key::Column::CreatedAt, 0.into())
            .exec(read)
            .await
            .unwrap();
        assert_altered(restore().await, "signing_keys", context);
    }
}
