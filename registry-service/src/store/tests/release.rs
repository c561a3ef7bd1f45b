//! Releases of one-time links, on both databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeSet, time::Duration};

use accord::{
    store::{
        Creation,
        audit::{self, EventRow, Outcome},
    },
    testing::databases,
    text::{
        account_name::AccountName,
        caller::Role::{Admin, Approver, Registrar},
        opaque::OpaqueToken,
        page::PageRequest,
    },
};
use sea_orm::entity::prelude::*;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::*;
use crate::{
    authentication::{client::authenticate, tenant_admin::complete_enrolment},
    model::{
        client_secret::Reason,
        delivery::{Handover, LINK_LIFETIME, Link, Method},
        link::MAX_WRONG_CODES,
        user::{Completion, NewUser, Selector, User, password::Password},
    },
    store::{
        client::tests::{registered, seeded},
        testing::{creation, operator, repeatable},
    },
};

#[path = "release/rule.rs"]
mod rule;

const PASSWORD: &str = "correct horse battery staple";

/// A store that requires a second operator, with a registrar, an approver and another credential of the registrar.
struct Scene {
    store: Store,
    clock: std::sync::Arc<accord::clock::ManualClock>,
    creator: Origin,
    same_person: Origin,
    other: Origin,
    anyone: Origin,
}

impl Scene {
    async fn set(url: &str) -> Self {
        let (mut store, clock) = seeded(url).await;
        store.second_operator = true;
        let creator = operator(&store, "Ada", &[Registrar], Some("Ada")).await;
        // Also an admin releases nothing that the same person created.
        let same_person = operator(&store, "Ada too", &[Approver, Admin], Some("ADA")).await;
        let other = operator(&store, "Eve", &[Approver], Some("Eve")).await;
        Self {
            store,
            clock,
            creator,
            same_person,
            other,
            anyone: Origin::system("anyone"),
        }
    }

    fn call(&self, method: &'static str) -> Creation {
        Creation {
            origin: self.creator.clone(),
            ..creation(method)
        }
    }

    /// A link to a new secret of a new client.
    async fn link(&self) -> Link {
        let (client, _) = registered(&self.store, Method::Link).await;
        let call = self.call("CreateDelivery");
        self.store
            .create_delivery(&call, &client.client_id)
            .await
            .unwrap()
    }

    async fn claim(&self, link: &Link, code: Option<&ReleaseCode>) -> Result<String> {
        self.claim_as(link, code, None).await
    }

    async fn claim_as(&self, link: &Link, code: Option<&ReleaseCode>, id: Option<Uuid>) -> Result<String> {
        let claim = self
            .store
            .claim_delivery(&self.anyone, &link.claim_token, id, code);
        Ok(claim.await?.client_secret.unwrap().expose().to_owned())
    }

    async fn release(&self, link: &Link) -> ReleaseCode {
        let release = self.store.release_delivery(&self.other, &link.delivery_id);
        release.await.unwrap().code
    }

    async fn delivery(&self, link: &Link) -> link::Model {
        let row = link::Entity::find_by_id(link.delivery_id.as_str());
        row.one(self.store.db.read()).await.unwrap().unwrap()
    }

    /// A Tenant Admin with an open enrolment.
    async fn admin(&self, name: &str) -> (User, OpaqueToken) {
        let new = NewUser {
            tenant_id: TenantId::parse("acme").unwrap(),
            account_name: AccountName::parse(name).unwrap(),
            label: "Administrator".into(),
            tenant_admin: true,
        };
        let created = self.store.create_user(&self.call("RegisterUser"), new).await;
        let (user, token) = created.unwrap();
        (user, token.unwrap())
    }

    async fn enrol(&self, token: &OpaqueToken, code: Option<&ReleaseCode>, password: &str) -> Result<()> {
        self.enrol_as(token, code, password, None).await
    }

    async fn enrol_as(
        &self,
        token: &OpaqueToken,
        code: Option<&ReleaseCode>,
        password: &str,
        request_id: Option<Uuid>,
    ) -> Result<()> {
        let completion = Completion {
            token: token.clone(),
            release_code: code.cloned(),
            password: Password::parse(password).unwrap(),
            request_id,
        };
        let enrolled = complete_enrolment(&self.store, self.anyone.clone(), completion).await;
        enrolled.map(drop)
    }

    async fn release_for(&self, user: &User) -> ReleaseCode {
        let release = self
            .store
            .release_enrolment(&self.other, &user.tenant_id, &user.user_id);
        release.await.unwrap().code
    }

    /// Whether the user has a password.
    async fn is_enrolled(&self, user: &User) -> bool {
        let selector = Selector::Id(user.user_id.clone());
        let user = self.store.find_user(&user.tenant_id, &selector).await.unwrap();
        user.unwrap().password.is_some()
    }

    /// The events of an action, newest first: what was refused and why.
    async fn events(&self, action: &str) -> Vec<EventRow> {
        let page = PageRequest::first(500);
        let filter = audit::Filter {
            action: Some(action.into()),
            ..audit::Filter::default()
        };
        let events = audit::list(self.store.db.read(), &filter, &page).await;
        events.unwrap().into_parts().0
    }

    async fn refusals(&self, action: &str) -> Vec<String> {
        let events = self.events(action).await.into_iter();
        let refused = events.filter(|event| event.outcome == Outcome::Refused);
        refused.map(|event| event.detail["why"].clone()).collect()
    }
}

/// A code that is not the right one.
fn other_than(right: &ReleaseCode) -> ReleaseCode {
    let text = if right.expose() == "00000000" {
        "11111111"
    } else {
        "00000000"
    };
    ReleaseCode::parse(text).unwrap()
}

fn is_invalid<T: std::fmt::Debug>(answer: Result<T>) {
    assert!(matches!(answer, Err(Error::LinkInvalid)), "{answer:?}");
}

#[tokio::test]
async fn a_link_to_credentials_opens_with_the_code_of_another_person() {
    for database in databases() {
        let scene = Scene::set(&database.url).await;
        let link = scene.link().await;
        is_invalid(scene.claim(&link, None).await);
        let guess = ReleaseCode::parse("7KQ2M9XD").unwrap();
        is_invalid(scene.claim(&link, Some(&guess)).await);
        for same in [&scene.creator, &scene.same_person] {
            let refused = scene.store.release_delivery(same, &link.delivery_id).await;
            let Err(Error::SecondOperatorRequired { event, .. }) = refused else {
                panic!("{database:?}: {refused:?}");
            };
            // The middleware records it.
            assert_eq!(
                (event.action, event.outcome),
                (action::DELIVERY_RELEASE, Outcome::Refused)
            );
            assert_eq!(event.detail["same_person"], "created it");
        }
        let row = scene.delivery(&link).await;
        assert_eq!(
            (row.release_mac, row.wrong_codes),
            (None, 0),
            "nothing was released"
        );

        let first = scene.release(&link).await;
        let code = scene.release(&link).await;
        assert_ne!(first.expose(), code.expose());
        is_invalid(scene.claim(&link, None).await);
        is_invalid(scene.claim(&link, Some(&first)).await);
        let row = scene.delivery(&link).await;
        assert_eq!(row.wrong_codes, 1, "{database:?}: an earlier code is a wrong one");
        let stored = format!("{row:?}");
        assert!(!stored.contains(code.expose()));

        let id = Some(Uuid::from_u128(1));
        let secret = scene.claim_as(&link, Some(&code), id).await.unwrap();
        // The same call again, and others.
        assert_eq!(scene.claim_as(&link, Some(&code), id).await.unwrap(), secret);
        is_invalid(scene.claim_as(&link, None, id).await);
        is_invalid(scene.claim_as(&link, Some(&first), id).await);
        let opened = scene.claim(&link, Some(&code)).await;
        assert!(matches!(opened, Err(Error::LinkOpened { .. })), "{database:?}");
        let again = scene
            .store
            .release_delivery(&scene.other, &link.delivery_id)
            .await;
        assert!(
            matches!(&again, Err(Error::WrongState { state, .. }) if state == "USED"),
            "{database:?}: {again:?}"
        );
        let row = scene.delivery(&link).await;
        let authenticated = authenticate(&scene.store, &row.client_id, &secret).await;
        assert_eq!(authenticated.unwrap().1.secret_id.as_str(), row.secret_id);

        assert_eq!(
            scene.refusals("delivery.claim").await,
            [
                "opened before",
                "opened before",
                "opened before",
                "wrong release code",
                "no release code",
                "not released",
                "not released",
            ],
            "{database:?}"
        );
        let events = scene.events("delivery.release").await;
        let outcomes: Vec<_> = events.iter().map(|event| event.outcome).collect();
        assert_eq!(outcomes, [Outcome::Success; 2], "{database:?}");
        assert_eq!(events[0].actor.id, scene.other.actor.id);
        assert!(!format!("{events:?}").contains(code.expose()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_wrong_codes_end_a_link_and_its_secret_whoever_races() {
    for database in databases() {
        let scene = std::sync::Arc::new(Scene::set(&database.url).await);
        let link = scene.link().await;
        let code = scene.release(&link).await;
        for _ in 1..MAX_WRONG_CODES {
            is_invalid(scene.claim(&link, Some(&other_than(&code))).await);
        }
        // A new code gives no new guesses.
        let code = scene.release(&link).await;
        let position = scene.store.position().await.unwrap();
        let mut calls = JoinSet::new();
        for _ in 0..8 {
            let (scene, link, code) = (scene.clone(), link.clone(), other_than(&code));
            calls.spawn(async move { scene.claim(&link, Some(&code)).await });
        }
        for answer in calls.join_all().await {
            is_invalid(answer);
        }
        is_invalid(scene.claim(&link, Some(&code)).await);
        let row = scene.delivery(&link).await;
        assert_eq!(
            (row.wrong_codes, row.nonce),
            (MAX_WRONG_CODES, None),
            "{database:?}"
        );
        assert!(row.ended_at.is_some() && row.claimed_at.is_none(), "{database:?}");
        let secret_id = accord::text::id::SecretId::parse(&row.secret_id).unwrap();
        let client_id = accord::text::id::ClientId::parse(&row.client_id).unwrap();
        let secret = scene.store.find_client_secret(&client_id, &secret_id).await;
        let revoked = secret.unwrap().unwrap().revoked;
        assert_eq!(
            revoked.map(|(_, reason)| reason),
            Some(Reason::Unclaimed),
            "{database:?}"
        );
        assert_eq!(
            scene.store.position().await.unwrap().seq,
            position.seq + 1,
            "{database:?}: token-service learns once that the secret ended"
        );
        let refused = scene
            .store
            .release_delivery(&scene.other, &link.delivery_id)
            .await;
        assert!(matches!(&refused, Err(Error::WrongState { state, .. }) if state == "ENDED"));

        // The right code among racing wrong ones either opens the link or comes too late.
        let link = scene.link().await;
        let code = scene.release(&link).await;
        let mut calls = JoinSet::new();
        for n in 0..12 {
            let code = if n == 6 { code.clone() } else { other_than(&code) };
            let (scene, link) = (scene.clone(), link.clone());
            calls.spawn(async move { scene.claim(&link, Some(&code)).await });
        }
        let opened = calls.join_all().await.into_iter().filter(Result::is_ok).count();
        let row = scene.delivery(&link).await;
        match opened {
            0 => assert!(row.ended_at.is_some() && row.wrong_codes == MAX_WRONG_CODES),
            _ => assert!(row.claimed_at.is_some() && row.wrong_codes < MAX_WRONG_CODES),
        }
    }
}

#[tokio::test]
async fn a_link_that_has_expired_is_not_released_and_counts_no_codes() {
    for database in databases() {
        let scene = Scene::set(&database.url).await;
        let link = scene.link().await;
        let (user, token) = scene.admin("ada").await;
        let code = scene.release(&link).await;
        let enrolment_code = scene.release_for(&user).await;
        scene.clock.advance(LINK_LIFETIME);
        is_invalid(scene.claim(&link, Some(&code)).await);
        is_invalid(scene.claim(&link, Some(&other_than(&code))).await);
        assert_eq!(scene.delivery(&link).await.wrong_codes, 0, "{database:?}");
        is_invalid(scene.enrol(&token, Some(&enrolment_code), PASSWORD).await);
        let refused = scene
            .store
            .release_delivery(&scene.other, &link.delivery_id)
            .await;
        assert!(matches!(refused, Err(Error::WrongState { .. })), "{database:?}");
        let release = scene
            .store
            .release_enrolment(&scene.other, &user.tenant_id, &user.user_id);
        assert!(
            matches!(release.await, Err(Error::NoOpenEnrolment { state: "ENDED" })),
            "{database:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enrolment_needs_the_code_of_another_person() {
    for database in databases() {
        let scene = Scene::set(&database.url).await;
        let (user, token) = scene.admin("ada").await;
        let guess = ReleaseCode::parse("7KQ2M9XD").unwrap();
        is_invalid(scene.enrol(&token, None, PASSWORD).await);
        is_invalid(scene.enrol(&token, Some(&guess), PASSWORD).await);
        for same in [&scene.creator, &scene.same_person] {
            let release = scene
                .store
                .release_enrolment(same, &user.tenant_id, &user.user_id);
            assert!(matches!(release.await, Err(Error::SecondOperatorRequired { .. })));
        }
        let runs = scene.store.hasher.runs();
        let code = scene.release_for(&user).await;
        is_invalid(scene.enrol(&token, None, PASSWORD).await);
        // The password tells a stranger nothing, and costs nothing.
        is_invalid(
            scene
                .enrol(&token, Some(&other_than(&code)), "passwordpassword")
                .await,
        );
        assert_eq!(scene.store.hasher.runs(), runs, "{database:?}: no argon2 run");
        let weak = scene.enrol(&token, Some(&code), "passwordpassword").await;
        assert!(matches!(weak, Err(Error::Invalid(_))), "{database:?}: {weak:?}");
        assert!(!scene.is_enrolled(&user).await, "{database:?}");

        let id = Some(Uuid::from_u128(1));
        scene.enrol_as(&token, Some(&code), PASSWORD, id).await.unwrap();
        scene.enrol_as(&token, Some(&code), PASSWORD, id).await.unwrap();
        is_invalid(scene.enrol_as(&token, None, PASSWORD, id).await);
        let used = scene.enrol(&token, Some(&code), PASSWORD).await;
        assert!(
            matches!(used, Err(Error::EnrolmentUsed { .. })),
            "{database:?}: {used:?}"
        );
        assert!(scene.is_enrolled(&user).await, "{database:?}");
        let release = scene
            .store
            .release_enrolment(&scene.other, &user.tenant_id, &user.user_id);
        assert!(matches!(
            release.await,
            Err(Error::NoOpenEnrolment { state: "USED" })
        ));
        assert_eq!(
            scene.refusals("user.enrol").await,
            [
                "used before",
                "used before",
                "wrong release code",
                "no release code",
                "not released",
                "not released",
            ],
            "{database:?}"
        );

        // So does the link of a reset, whose code is another one.
        let reset = scene.call("ResetUserPassword");
        let reset = scene
            .store
            .reset_user_password(&reset, &user.tenant_id, &user.user_id);
        let (_, token) = reset.await.unwrap();
        is_invalid(scene.enrol(&token, Some(&code), PASSWORD).await);
        let code = scene.release_for(&user).await;
        scene.enrol(&token, Some(&code), PASSWORD).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_wrong_codes_end_an_enrolment_whoever_races() {
    for database in databases() {
        let scene = std::sync::Arc::new(Scene::set(&database.url).await);
        let (user, token) = scene.admin("ada").await;
        let code = scene.release_for(&user).await;
        let mut calls = JoinSet::new();
        for _ in 0..MAX_WRONG_CODES + 3 {
            let (scene, token, wrong) = (scene.clone(), token.clone(), other_than(&code));
            calls.spawn(async move { scene.enrol(&token, Some(&wrong), PASSWORD).await });
        }
        for answer in calls.join_all().await {
            is_invalid(answer);
        }
        is_invalid(scene.enrol(&token, Some(&code), PASSWORD).await);
        assert!(!scene.is_enrolled(&user).await, "{database:?}");
        let row = enrolment::Entity::find_by_id(token.digest().to_vec());
        let row = row.one(scene.store.db.read()).await.unwrap().unwrap();
        assert_eq!(row.wrong_codes, MAX_WRONG_CODES, "{database:?}");
        assert!(row.ended_at.is_some(), "{database:?}");
    }
}
