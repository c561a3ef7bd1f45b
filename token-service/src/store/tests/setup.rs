//! Setups, the decisions about them, and the sessions that decide.

use super::*;

#[tokio::test]
async fn a_setup_is_stored_as_it_was_shown_and_a_repeated_start_returns_the_same() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let call = creation(Some(Uuid::new_v4()), b"content");
        assert_eq!(store.repeat_setup(&call).await.unwrap(), None);
        let started = store
            .create_setup(&call, new_setup("acme", &client()))
            .await
            .unwrap();
        assert_eq!(store.get_setup(&started.setup_id).await.unwrap(), started);
        assert_eq!(started.expires_at, store.now().plus(LIFETIME));
        assert_eq!((started.client_version, started.scopes.len()), (7, 2));

        assert_eq!(
            store.repeat_setup(&call).await.unwrap().as_ref(),
            Some(&started),
            "{database:?}"
        );
        let again = store
            .create_setup(&call, new_setup("other", &client()))
            .await
            .unwrap();
        assert_eq!(again, started);
        let other = Creation {
            content: Zeroizing::new(b"other".to_vec()),
            ..call.clone()
        };
        assert!(matches!(
            store.repeat_setup(&other).await,
            Err(Error::RequestIdReused)
        ));
        clock.advance(Duration::from_secs(601));
        assert!(matches!(
            store.repeat_setup(&call).await,
            Err(Error::RequestIdReused)
        ));
        assert_eq!(events(&store, "setup.start").await.len(), 1, "{database:?}");
        let unknown = SetupId::generate(&*store.clock, &SystemRandom);
        let found = store.get_setup(&unknown).await;
        assert!(matches!(found, Err(Error::NotFound("setup"))), "{database:?}");
    }
}

#[tokio::test]
async fn an_approval_creates_a_pending_grant_and_a_code_for_a_minute() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let setup = started(&store, &client()).await;
        let by = session(&store).await;
        let end = store.now().plus(Duration::from_secs(1_000_000));
        let (grant, code) = approve(&store, &setup, &by, Some(end)).await.unwrap();
        let found = store.find_grant(&setup.tenant_id, &grant.grant_id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&grant), "{database:?}");
        assert_eq!(grant.state, StoredState::Pending);
        assert_eq!(grant.redeem_until, store.now().plus(CODE_LIFETIME));
        assert_eq!(
            (grant.expires_at, grant.activated_at, grant.ended_at),
            (Some(end), None, None)
        );
        assert_eq!(grant.scopes, [setup.scopes[0].name.clone()]);
        assert_eq!((&grant.granted_by, &grant.display), (&by.user_id, &setup.display));
        assert_eq!(
            store.find_grant(&tenant("other"), &grant.grant_id).await.unwrap(),
            None
        );
        assert_eq!(
            store
                .find_current_grant(&setup.tenant_id, &setup.client_id)
                .await
                .unwrap()
                .value,
            None
        );

        let row = entity::code::Entity::find_by_id(code.digest().to_vec())
            .one(store.db.read())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(row.grant_id, grant.grant_id.as_str());
        assert_eq!(row.expires_at, grant.redeem_until.as_millis());
        assert_eq!(
            (row.redirect_uri, row.code_challenge),
            (setup.redirect_uri.clone(), setup.code_challenge.clone())
        );
        assert_eq!((row.resource, row.used_at), (setup.resource.clone(), None));

        let event = events(&store, "consent.approve").await.remove(0);
        assert_eq!(
            (event.actor.kind, event.actor.id.as_str()),
            (ActorKind::TenantAdmin, by.user_id.as_str())
        );
        assert_eq!(event.subject.as_deref(), Some(grant.grant_id.as_str()));
        assert_eq!(
            (event.detail["scopes"].as_str(), event.detail["workload"].as_str()),
            ("contacts.read", "pages")
        );
        let decided = store.get_setup(&setup.setup_id).await.unwrap();
        assert_eq!(decided.state_at(store.now()), SetupState::Approved);
        assert_eq!(decided.decided_at, Some(store.now()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_repeats_its_decision_gets_the_same_answer_while_the_code_is_good() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let setup = started(&store, &client()).await;
        let by = session(&store).await;
        let racing: tokio::task::JoinSet<_> = (0..4)
            .map(|_| {
                let (store, setup, by) = (store.clone(), setup.clone(), by.clone());
                async move {
                    let (grant, code) = approve(&store, &setup, &by, None).await.unwrap();
                    (grant, code.expose().to_owned())
                }
            })
            .collect();
        let mut answers = racing.join_all().await;
        let repeat = async |content: &[u8]| {
            let repeated = store
                .repeat_approval(&decision(&by, &setup, content), &by, &setup)
                .await;
            repeated.map(|(grant, code)| (grant, code.expose().to_owned()))
        };
        clock.advance(CODE_LIFETIME - Duration::from_millis(1));
        answers.push(repeat(b"approve").await.unwrap());
        answers.dedup();
        assert_eq!(answers.len(), 1, "{database:?}");
        assert_eq!(events(&store, "consent.approve").await.len(), 1, "{database:?}");
        assert_eq!(events(&store, "consent.repeat").await.len(), 4, "{database:?}");

        let is_decided = |answer: Result<_, Error>| {
            matches!(
                answer,
                Err(Error::WrongState {
                    state: "APPROVED",
                    ..
                })
            )
        };
        // Other choices, another decision, another session.
        assert!(is_decided(repeat(b"other choices").await), "{database:?}");
        let denied = store
            .deny_setup(&decision(&by, &setup, b"deny"), &by, &setup)
            .await;
        assert!(is_decided(denied.map(|_| unreachable!())), "{database:?}");
        let other = session(&store).await;
        assert!(is_decided(
            approve(&store, &setup, &other, None)
                .await
                .map(|_| unreachable!())
        ));
        // The code is good for a minute.
        clock.advance(Duration::from_millis(1));
        assert!(is_decided(repeat(b"approve").await), "{database:?}");

        let setup = started(&store, &client()).await;
        let deny = decision(&other, &setup, b"deny");
        let first = store.deny_setup(&deny, &other, &setup).await.unwrap();
        let again = store.deny_setup(&deny, &other, &setup).await.unwrap();
        assert_eq!(again, first, "{database:?}");
        assert_eq!(events(&store, "consent.deny").await.len(), 1, "{database:?}");
    }
}

#[tokio::test]
async fn of_racing_decisions_one_succeeds() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let setup = started(&store, &client()).await;
        let mut racers = Vec::new();
        for racer in 0..16 {
            let (store, setup) = (store.clone(), setup.clone());
            racers.push(tokio::spawn(async move {
                let by = session(&store).await;
                if racer % 2 == 0 {
                    let approved = approve(&store, &setup, &by, None).await;
                    approved.map(|_| Decision::Approved)
                } else {
                    let denied = store
                        .deny_setup(&decision(&by, &setup, b"deny"), &by, &setup)
                        .await;
                    denied.map(|_| Decision::Denied)
                }
            }));
        }
        let mut made = Vec::new();
        for racer in racers {
            match racer.await.unwrap() {
                Ok(decision) => made.push(decision),
                Err(Error::WrongState { resource, state }) => {
                    assert_eq!(resource, "setup");
                    assert!(["APPROVED", "DENIED"].contains(&state), "{state}");
                }
                Err(other) => panic!("{database:?}: {other:?}"),
            }
        }
        let [decision] = made[..] else {
            panic!("{database:?}: {made:?}");
        };
        assert_eq!(
            store.get_setup(&setup.setup_id).await.unwrap().decision,
            Some(decision)
        );
        let grants = Entity::find().count(store.db.read()).await.unwrap();
        assert_eq!(grants, u64::from(decision == Decision::Approved), "{database:?}");
        let decisions =
            events(&store, "consent.approve").await.len() + events(&store, "consent.deny").await.len();
        assert_eq!(decisions, 1, "{database:?}");
    }
}

#[tokio::test]
async fn an_expired_setup_can_not_be_decided() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let setup = started(&store, &client()).await;
        clock.advance(LIFETIME);
        let by = session(&store).await;
        let approved = approve(&store, &setup, &by, None).await;
        assert!(
            matches!(approved, Err(Error::WrongState { state: "EXPIRED", .. })),
            "{database:?}"
        );
        let denied = store
            .deny_setup(&decision(&by, &setup, b"deny"), &by, &setup)
            .await;
        assert!(
            matches!(denied, Err(Error::WrongState { state: "EXPIRED", .. })),
            "{database:?}"
        );
        assert!(events(&store, "consent.approve").await.is_empty());
    }
}

#[tokio::test]
async fn a_session_is_open_while_it_is_used_until_it_is_ended() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let by = workload();
        let new = NewSession {
            tenant_id: tenant("acme"),
            user_id: user(),
            setup_id: Some(SetupId::generate(&*store.clock, &SystemRandom)),
            position: Position {
                epoch: accord::testing::epoch("abc"),
                seq: 4,
            },
        };
        let (token, opened_at) = store.open_admin_session(&by, new.clone()).await.unwrap();
        let digest = token.digest();
        let found = store.find_admin_session(&digest).await.unwrap().unwrap();
        assert_eq!(
            (&found.tenant_id, &found.user_id),
            (&new.tenant_id, &new.user_id),
            "{database:?}"
        );
        assert_eq!((&found.setup_id, &found.position), (&new.setup_id, &new.position));
        assert_eq!(
            (found.workload.as_str(), found.signed_in_at),
            (by.actor.id.as_str(), opened_at)
        );

        for _ in 0..4 {
            clock.advance(IDLE - Duration::from_millis(1));
            assert!(store.touch_admin_session(&digest).await.unwrap(), "{database:?}");
        }
        let used = store.find_admin_session(&digest).await.unwrap().unwrap();
        assert_eq!(used.last_used_at, store.now());
        clock.set(opened_at.plus(SESSION_LIFETIME));
        assert!(!store.touch_admin_session(&digest).await.unwrap(), "{database:?}");

        let (token, _) = store.open_admin_session(&by, new.clone()).await.unwrap();
        clock.advance(IDLE);
        assert!(
            !store.touch_admin_session(&token.digest()).await.unwrap(),
            "{database:?}"
        );

        let (token, _) = store.open_admin_session(&by, new).await.unwrap();
        let digest = token.digest();
        store
            .end_admin_session(&workload(), &digest, EndReason::SignedOut)
            .await
            .unwrap();
        assert!(
            store.touch_admin_session(&digest).await.unwrap(),
            "another workload's call has no effect"
        );
        store
            .end_admin_session(&by, &digest, EndReason::SignedOut)
            .await
            .unwrap();
        store
            .end_admin_session(&by, &digest, EndReason::SignedOut)
            .await
            .unwrap();
        assert!(!store.touch_admin_session(&digest).await.unwrap(), "{database:?}");
        assert_eq!(events(&store, "admin_session.end").await.len(), 1, "{database:?}");
        assert_eq!(events(&store, "admin_session.open").await.len(), 3);
    }
}

#[tokio::test]
async fn the_end_of_an_unknown_session_waits_for_no_writer() {
    let database = sqlite();
    let (store, _) = store(&database.url).await;
    let _held = store.db.write().await.unwrap();
    let ended = store
        .end_admin_session(&workload(), &[7; 32], EndReason::SignedOut)
        .await;
    ended.unwrap();
}

#[tokio::test]
async fn a_session_that_has_ended_decides_nothing() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let grant = active(&store, "acme", &client(), None).await;
        let setup = started(&store, &client()).await;
        for ending in ["sign-out", "idleness", "age"] {
            let by = session(&store).await;
            match ending {
                "sign-out" => store
                    .end_admin_session(&workload_named("pages"), &by.digest, EndReason::SignedOut)
                    .await
                    .unwrap(),
                "idleness" => clock.advance(IDLE),
                _ => {
                    for _ in 0..4 {
                        clock.advance(IDLE - Duration::from_millis(1));
                        store.touch_admin_session(&by.digest).await.unwrap();
                    }
                    clock.advance(Duration::from_millis(4));
                }
            }
            let refused = [
                approve(&store, &setup, &by, None).await.map(drop),
                store
                    .deny_setup(&decision(&by, &setup, b"deny"), &by, &setup)
                    .await
                    .map(drop),
                revoke(&store, &grant, Some(&by)).await.map(drop),
                designate(&store, &grant, &by, &user()).await.map(drop),
            ];
            for (index, refused) in refused.into_iter().enumerate() {
                assert!(
                    matches!(refused, Err(Error::AdminSessionInvalid)),
                    "{database:?}: {ending}, {index}: {refused:?}"
                );
            }
        }
        let setup = store.get_setup(&setup.setup_id).await.unwrap();
        assert_eq!(setup.decision, None, "{database:?}");
        assert_eq!(find(&store, &grant).await, grant, "{database:?}");
        for action in ["consent.deny", "consent.revoke", "consent.change_designated_user"] {
            assert!(events(&store, action).await.is_empty(), "{database:?}: {action}");
        }
    }
}
