//! What the setting decides, and who counts as a second person.

use super::*;

#[tokio::test]
async fn without_the_setting_a_link_opens_alone_until_it_is_released() {
    for database in databases() {
        let mut scene = Scene::set(&database.url).await;
        let strict = scene.link().await;
        scene.store.second_operator = false;
        // The setting of the moment a link was created stays with it.
        is_invalid(scene.claim(&strict, None).await);
        let plain = scene.link().await;
        scene.store.second_operator = true;
        is_invalid(scene.claim(&plain, None).await);
        scene.store.second_operator = false;
        scene.claim(&plain, None).await.unwrap();

        // One operator is enough to create and release, and then the link needs its code.
        let link = scene.link().await;
        let code = scene
            .store
            .release_delivery(&scene.same_person, &link.delivery_id)
            .await;
        is_invalid(scene.claim(&link, None).await);
        // A repeated call returns another code, and ends the first.
        let again = scene
            .store
            .release_delivery(&scene.same_person, &link.delivery_id)
            .await;
        is_invalid(scene.claim(&link, Some(&code.unwrap().code)).await);
        scene.claim(&link, Some(&again.unwrap().code)).await.unwrap();
        let (user, token) = scene.admin("eve").await;
        let release = async || {
            let release = scene
                .store
                .release_enrolment(&scene.same_person, &user.tenant_id, &user.user_id);
            release.await.unwrap().code
        };
        let (first, second) = (release().await, release().await);
        is_invalid(scene.enrol(&token, Some(&first), PASSWORD).await);
        scene.enrol(&token, Some(&second), PASSWORD).await.unwrap();
        let (_, token) = scene.admin("ada").await;
        scene.enrol(&token, None, PASSWORD).await.unwrap();
        assert_eq!(
            scene.events("delivery.release").await[0].detail["same_person"],
            "created it"
        );
    }
}

#[tokio::test]
async fn every_way_to_create_a_link_makes_one_that_needs_a_release() {
    let database = accord::testing::sqlite();
    let scene = Scene::set(&database.url).await;
    let (client, handover) = registered(&scene.store, Method::Link).await;
    let Handover::Link(first) = handover else { panic!() };
    let new = crate::model::client_secret::NewSecret {
        client_id: client.client_id.clone(),
        expires_at: None,
        delivery: Method::Link,
    };
    let call = repeatable("CreateClientSecret", b"1");
    let mut tokens = BTreeSet::new();
    for _ in 0..2 {
        let created = scene.store.create_client_secret(&call, new.clone()).await;
        let Handover::Link(link) = created.unwrap().1 else {
            panic!()
        };
        is_invalid(scene.claim(&link, None).await);
        tokens.insert(link.claim_token.expose().to_owned());
    }
    assert_eq!(tokens.len(), 1, "a repeated call returns the same link");
    is_invalid(scene.claim(&first, None).await);
    scene.clock.advance(Duration::from_millis(1));
    let code = scene.release(&first).await;
    scene.claim(&first, Some(&code)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_at_the_same_time_are_no_more_than_five() {
    for database in databases() {
        let scene = std::sync::Arc::new(Scene::set(&database.url).await);
        let (user, token) = scene.admin("ada").await;
        let code = scene.release_for(&user).await;
        let wrong = other_than(&code);
        let guesses = (0..12).map(|_| {
            let (scene, token, wrong) = (scene.clone(), token.clone(), wrong.clone());
            tokio::spawn(async move { scene.enrol(&token, Some(&wrong), PASSWORD).await })
        });
        for guess in guesses.collect::<Vec<_>>() {
            is_invalid(guess.await.unwrap());
        }
        let compared = scene.refusals("user.enrol").await;
        let wrong = compared.iter().filter(|why| *why == "wrong release code");
        assert_eq!(wrong.count(), 5, "{database:?}: {compared:?}");
        is_invalid(scene.enrol(&token, Some(&code), PASSWORD).await);
    }
}

#[tokio::test]
async fn a_release_from_before_the_rule_counts_only_if_it_was_another_persons() {
    for database in databases() {
        let mut scene = Scene::set(&database.url).await;
        for (releaser, opens) in [(scene.same_person.clone(), false), (scene.other.clone(), true)] {
            scene.store.second_operator = false;
            let link = scene.link().await;
            let released = scene.store.release_delivery(&releaser, &link.delivery_id).await;
            let code = released.unwrap().code;
            let (user, token) = scene.admin(&format!("user{opens}")).await;
            let released = scene
                .store
                .release_enrolment(&releaser, &user.tenant_id, &user.user_id);
            let password_code = released.await.unwrap().code;
            scene.store.second_operator = true;
            assert_eq!(
                scene.claim(&link, Some(&code)).await.is_ok(),
                opens,
                "{database:?}"
            );
            let enrolled = scene.enrol(&token, Some(&password_code), PASSWORD).await;
            assert_eq!(enrolled.is_ok(), opens, "{database:?}: {enrolled:?}");
        }
    }
}

#[tokio::test]
async fn an_operator_whom_nobody_named_releases_nothing() {
    for database in databases() {
        let scene = Scene::set(&database.url).await;
        let unnamed = operator(&scene.store, "U", &[Approver], None).await;
        let link = scene.link().await;
        let refused = scene.store.release_delivery(&unnamed, &link.delivery_id).await;
        let Err(Error::SecondOperatorRequired { event, .. }) = refused else {
            panic!("{database:?}: {refused:?}");
        };
        assert_eq!(event.detail["second_person"], "not named");
        assert_eq!(event.tenants.len(), 2, "their Tenant Admins see it");
    }
}
