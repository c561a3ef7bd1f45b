//! Grants.

use super::*;

#[tokio::test]
async fn a_revocation_ends_the_grant_its_families_and_its_access_tokens() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let grant = active(&store, "acme", &client(), None).await;
        let other = active(&store, "acme", &client(), None).await;
        for (family_id, grant) in [("01family", &grant), ("02family", &other)] {
            let family = entity::family::Model {
                tenant_id: "acme".into(),
                family_id: family_id.into(),
                grant_id: grant.grant_id.to_string(),
                client_id: grant.client_id.to_string(),
                used_generation: 0,
                current_generation: 1,
                handed_out_at: 0,
                key_version: 1,
                registry_epoch: "abc".into(),
                registry_seq: 0,
                created_at: 0,
                expires_at: i64::MAX,
                ended_at: None,
                end_reason: None,
                mac: Vec::new(),
            };
            let tx = store.db.write().await.unwrap();
            rows::insert::<entity::family::Entity>(&tx, family).await.unwrap();
            tx.commit().await.unwrap();
        }
        let elsewhere = Grant {
            tenant_id: tenant("other"),
            ..grant.clone()
        };
        let missing = revoke(&store, &elsewhere, None).await;
        assert!(matches!(missing, Err(Error::NotFound("consent"))), "{database:?}");

        let by = session(&store).await;
        let revoked = revoke(&store, &grant, Some(&by)).await.unwrap();
        assert_eq!(
            (revoked.state, revoked.ended_at),
            (StoredState::Revoked, Some(store.now()))
        );
        let position = store.position().await.unwrap();
        clock.advance(Duration::from_secs(5));
        assert_eq!(
            revoke(&store, &grant, None).await.unwrap(),
            revoked,
            "{database:?}"
        );
        // It is published again.
        assert_eq!(store.position().await.unwrap().seq, position.seq + 2);

        let families = entity::family::Entity::find()
            .order_by_asc(entity::family::Column::FamilyId)
            .all(store.db.read())
            .await
            .unwrap();
        assert_eq!(
            families[0].end_reason.as_deref(),
            Some("grant_ended"),
            "{database:?}"
        );
        assert_eq!(families[1].ended_at, None, "{database:?}");
        let rows = revocations(&store).await;
        let seqs: Vec<_> = rows.iter().map(|row| row.seq).collect();
        assert_eq!(seqs, [position.seq, position.seq + 2], "{database:?}");
        assert_eq!(rows[0].kind, "grant");
        assert_eq!(rows[0].id, grant.grant_id.as_str());
        let changes = change::list_after(store.db.read(), 0, 10).await.unwrap();
        let kinds: Vec<_> = changes.iter().map(|change| change.kind.as_str()).collect();
        assert_eq!(
            kinds,
            [change_kind::GRANT, change_kind::REVOCATION].repeat(2),
            "{database:?}"
        );
        let event = events(&store, "consent.revoke").await;
        assert_eq!(
            (event.len(), event[0].detail["reason"].as_str()),
            (1, "no longer needed")
        );
    }
}

#[tokio::test]
async fn only_a_grant_that_has_not_ended_can_be_revoked() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let end = store.now().plus(Duration::from_secs(3600));
        let superseded = pending(&store, "acme", &client(), None).await;
        put(&store, &superseded, StoredState::Superseded).await;
        let lapsed = pending(&store, "acme", &client(), None).await;
        let ended = active(&store, "acme", &client(), Some(end)).await;
        let endless = active(&store, "acme", &client(), None).await;
        clock.set(end);
        let fresh = pending(&store, "acme", &client(), None).await;
        for (grant, refused) in [
            (superseded, Some("SUPERSEDED")),
            (lapsed, Some("EXPIRED")),
            (ended, Some("EXPIRED")),
            (endless, None),
            (fresh, None),
        ] {
            match (revoke(&store, &grant, None).await, refused) {
                (Ok(revoked), None) => assert_eq!(revoked.state, StoredState::Revoked),
                (Err(Error::WrongState { state, .. }), Some(refused)) => assert_eq!(state, refused),
                (other, refused) => panic!("{database:?}: {other:?} instead of {refused:?}"),
            }
        }
    }
}

#[tokio::test]
async fn another_designated_user_ends_access_tokens_alone() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let end = store.now().plus(Duration::from_secs(3600));
        let grant = active(&store, "acme", &client(), Some(end)).await;
        let (by, next) = (session(&store).await, user());
        let changed = designate(&store, &grant, &by, &next).await.unwrap();
        assert_eq!(changed.designated_user_id, next, "{database:?}");
        assert_eq!(find(&store, &grant).await, changed);
        let rows = revocations(&store).await;
        let position = store.position().await.unwrap();
        assert_eq!(
            (rows.len(), rows[0].seq, rows[0].kind.as_str()),
            (1, position.seq, "grant")
        );

        let same = designate(&store, &grant, &by, &next).await.unwrap();
        assert_eq!(
            (same, store.position().await.unwrap()),
            (changed, position),
            "{database:?}"
        );
        let event = events(&store, "consent.change_designated_user").await;
        assert_eq!(event.len(), 1, "{database:?}");
        assert_eq!(event[0].detail["old_user_id"], grant.designated_user_id.as_str());
        assert_eq!(event[0].detail["new_user_id"], next.as_str());

        let waiting = pending(&store, "acme", &client(), None).await;
        let refused = designate(&store, &waiting, &by, &next).await;
        assert!(
            matches!(refused, Err(Error::WrongState { state: "PENDING", .. })),
            "{database:?}"
        );
        clock.set(end);
        let by = session(&store).await;
        let refused = designate(&store, &grant, &by, &user()).await;
        assert!(
            matches!(refused, Err(Error::WrongState { state: "EXPIRED", .. })),
            "{database:?}"
        );
    }
}

#[tokio::test]
async fn racing_revocation_and_change_leave_the_grant_revoked() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let grant = active(&store, "acme", &client(), None).await;
        let mut racers = Vec::new();
        for racer in 0..8 {
            let (store, grant) = (store.clone(), grant.clone());
            racers.push(tokio::spawn(async move {
                let by = session(&store).await;
                match racer % 2 {
                    0 => revoke(&store, &grant, Some(&by)).await,
                    _ => designate(&store, &grant, &by, &user()).await,
                }
            }));
        }
        for racer in racers {
            match racer.await.unwrap() {
                Ok(_) | Err(Error::WrongState { state: "REVOKED", .. }) => {}
                Err(other) => panic!("{database:?}: {other:?}"),
            }
        }
        assert_eq!(
            find(&store, &grant).await.state,
            StoredState::Revoked,
            "{database:?}"
        );
        assert_eq!(events(&store, "consent.revoke").await.len(), 1, "{database:?}");
    }
}

#[tokio::test]
async fn a_tenants_grants_are_listed_newest_first() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let (one, two) = (client(), client());
        let mut all = Vec::new();
        for client_id in [&one, &two, &one, &two, &one] {
            all.push(pending(&store, "acme", client_id, None).await);
            clock.advance(Duration::from_millis(2));
        }
        pending(&store, "other", &one, None).await;
        put(&store, &all[2], StoredState::Active).await;
        put(&store, &all[0], StoredState::Revoked).await;
        let ids = |grants: &[Grant]| -> Vec<GrantId> {
            grants.iter().map(|grant| grant.grant_id.clone()).collect()
        };
        let newest_first: Vec<_> = ids(&all).into_iter().rev().collect();

        let acme = tenant("acme");
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let grants = store
                .list_grants(&acme, &GrantFilter::default(), &PageRequest::test(2, &token))
                .await
                .unwrap();
            let found;
            (found, token) = grants.into_parts();
            seen.extend(ids(&found));
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, newest_first, "{database:?}");

        for (client_id, state, expected) in [
            (Some(&one), None, vec![4, 2, 0]),
            (Some(&one), Some(GrantState::Suspended), vec![2]),
            (None, Some(GrantState::Revoked), vec![4, 3, 2, 1, 0]),
            (None, Some(GrantState::Expired), vec![4, 3, 2, 1]),
            (Some(&two), Some(GrantState::Superseded), vec![]),
        ] {
            let filter = GrantFilter {
                client_id: client_id.cloned(),
                state,
            };
            let grants = store
                .list_grants(&acme, &filter, &PageRequest::first(50))
                .await
                .unwrap();
            let expected: Vec<_> = expected
                .into_iter()
                .map(|index: usize| all[index].grant_id.clone())
                .collect();
            assert_eq!(ids(&grants.into_parts().0), expected, "{database:?} {filter:?}");
        }
        let current = store
            .find_current_grant(&acme, &one)
            .await
            .unwrap()
            .value
            .unwrap();
        assert_eq!(current.grant_id, all[2].grant_id, "{database:?}");
        assert_eq!(
            store
                .find_current_grant(&tenant("other"), &one)
                .await
                .unwrap()
                .value,
            None
        );
    }
}
