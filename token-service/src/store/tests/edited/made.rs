//! Rows that somebody has copied or made, or edited between a read and its change.

use accord::text::{id::FamilyId, opaque::TokenKind};
use sea_orm::IntoActiveModel;

use super::*;
use crate::model::{
    family::Generations,
    signing_key::{NewKey, State},
};

/// Inserts a row as it is.
pub(super) async fn put_row<E: rows::Protected>(store: &Store, row: E::Model) {
    let row = row.into_active_model().reset_all();
    E::insert(row)
        .exec_without_returning(store.db.read())
        .await
        .unwrap();
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
        let listed = async |of: &TenantId| {
            store
                .list_grants(of, &GrantFilter::default(), &PageRequest::first(50))
                .await
        };
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
        let moved = store.advance_family(by.clone(), &family, to, Event::new(audit::action::TOKEN_ISSUE));
        assert!(moved.await.unwrap(), "{context}");
        let found = store.find_family(&family.tenant_id, &family.family_id).await;
        assert_altered(found, "families", context);
        let ended = store
            .end_family(&by, &family, "revoked", Event::test("test.event"))
            .await;
        assert_altered(ended, "families", context);
        // The forged family keeps the grant from nothing.
        revoke(&store, &grant, None).await.unwrap();
        let found = store.find_family(&family.tenant_id, &family.family_id).await;
        assert_altered(found, "families", context);

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
            .redeem_again(&by, &used, &family, Event::new(audit::action::TOKEN_ISSUE))
            .await;
        assert_altered(again, "codes", context);
        let burnt = store.invalidate_code(&by, &used, Event::test("test.event")).await;
        assert_altered(burnt, "codes", context);
    }
}

/// A row that is rejected stands in no way of ending everything after a restore, but a key does: it may be published.
#[tokio::test]
async fn a_restored_copy_loses_edited_families_and_sessions_too() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let (context, read) = (database.label, store.db.read());
        redeemed(&store).await;
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
        // More than one transaction deletes.
        let row = entity::family::Entity::find().one(read).await.unwrap().unwrap();
        let tx = store.db.write().await.unwrap();
        for _ in 0..2 * accord::store::removal::DELETED_AT_ONCE {
            let family_id = FamilyId::generate(&*store.clock, &*store.random).into();
            let copy = entity::family::Model {
                family_id,
                ..row.clone()
            };
            rows::insert::<entity::family::Entity>(&tx, copy).await.unwrap();
        }
        tx.commit().await.unwrap();
        let restore =
            async || Ok::<_, Error>(end_all_before(&store.db, &*store.clock, &*store.random).await?);
        restore().await.unwrap();
        let found = entity::family::Entity::find().one(read).await;
        assert_eq!(found.unwrap(), None, "{context}");
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
