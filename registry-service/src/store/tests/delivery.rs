//! One-time links, on both databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use accord::{testing::databases, text::opaque::TokenKind};
use tokio::task::JoinSet;

use super::*;
use crate::{
    authentication::client::authenticate,
    model::{
        client::security::AuthMethod,
        client_secret::{ClientSecret, Reason, Revocation},
        delivery::{Handover, LINK_LIFETIME},
        integration_request::RequestedSecurityProfile,
    },
    store::{
        client::tests::{addition, amend, registered, seeded},
        testing::{count, creation, origin, repeatable},
    },
};

const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Registers a client with a link to its secret.
async fn linked(store: &Store) -> (ClientId, Link) {
    let (client, handover) = registered(store, Method::Link).await;
    match handover {
        Handover::Link(link) => (client.client_id, link),
        Handover::Bundle(_) => panic!("a bundle was not requested"),
    }
}

/// The client's secrets, newest first.
async fn secrets(store: &Store, client_id: &ClientId) -> Vec<ClientSecret> {
    let page = accord::text::page::PageRequest::first(500);
    let listed = store.list_client_secrets(client_id, &page).await;
    listed.unwrap().into_parts().0
}

async fn row(store: &Store, link: &Link) -> Model {
    let row = Entity::find_by_id(link.delivery_id.as_str());
    row.one(store.db.read()).await.unwrap().unwrap()
}

#[tokio::test]
async fn an_opened_link_returns_a_secret_that_is_not_stored() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (client_id, link) = linked(&store).await;
        assert!(row(&store, &link).await.nonce.is_some(), "{database:?}");
        let bundle = store
            .claim_delivery(&origin(), &link.claim_token, None, None)
            .await
            .unwrap();
        let opened = row(&store, &link).await;
        assert_eq!(
            (opened.nonce, opened.claimed_at, opened.ended_at),
            (None, Some(store.now().as_millis()), None),
            "{database:?}"
        );
        assert_eq!(opened.claim_hash, link.claim_token.digest(), "{database:?}");
        let authenticated =
            authenticate(&store, client_id.as_str(), bundle.client_secret.unwrap().expose()).await;
        let (_, secret, _) = authenticated.unwrap();
        assert_eq!(secret.secret_id.as_str(), opened.secret_id, "{database:?}");

        // Only the event of the rejected attempt is committed.
        let (position, opened_at) = (store.position().await.unwrap(), store.now());
        clock.advance(Duration::from_secs(1));
        let again = store
            .claim_delivery(&origin(), &link.claim_token, None, None)
            .await;
        assert!(
            matches!(again, Err(Error::LinkOpened { claimed_at }) if claimed_at == opened_at),
            "{database:?}"
        );
        assert_eq!(store.position().await.unwrap(), position, "{database:?}");
        assert_eq!(count(&store, "delivery.claim").await, 2, "{database:?}");

        let stranger = OpaqueToken::generate(TokenKind::Claim, &*store.random);
        let unknown = store.claim_delivery(&origin(), &stranger, None, None).await;
        assert!(matches!(unknown, Err(Error::LinkInvalid)), "{database:?}");
        assert_eq!(count(&store, "delivery.claim").await, 2, "{database:?}");
    }
}

#[tokio::test]
async fn an_unknown_claim_token_waits_for_no_writer() {
    let database = accord::testing::sqlite();
    let (store, _) = seeded(&database.url).await;
    let _held = store.db.write().await.unwrap();
    let stranger = OpaqueToken::generate(TokenKind::Claim, &*store.random);
    let unknown = store.claim_delivery(&origin(), &stranger, None, None).await;
    assert!(matches!(unknown, Err(Error::LinkInvalid)), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_claim_gets_the_same_secret_for_a_minute() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (client_id, link) = linked(&store).await;
        let claim = |id: u128| {
            let (store, token) = (store.clone(), link.claim_token.clone());
            async move {
                let id = Some(Uuid::from_u128(id));
                let bundle = store.claim_delivery(&origin(), &token, id, None).await?;
                Ok::<_, Error>(bundle.client_secret.unwrap().expose().to_owned())
            }
        };
        let racing: JoinSet<_> = (0..4).map(|_| claim(1)).collect();
        let mut secrets: Vec<_> = racing.join_all().await.into_iter().map(Result::unwrap).collect();
        clock.advance(Duration::from_millis(59_999));
        secrets.push(claim(1).await.unwrap());
        secrets.dedup();
        assert_eq!(secrets.len(), 1, "{database:?}");
        authenticate(&store, client_id.as_str(), &secrets[0])
            .await
            .unwrap();
        let events = (
            count(&store, "delivery.claim").await,
            count(&store, "delivery.repeat").await,
        );
        assert_eq!(events, (1, 4), "{database:?}");

        let turned_away = async |id| {
            let answer = claim(id).await;
            assert!(
                matches!(answer, Err(Error::LinkOpened { .. })),
                "{database:?}: {answer:?}"
            );
        };
        turned_away(2).await;
        assert!(row(&store, &link).await.nonce.is_some(), "{database:?}");
        clock.advance(Duration::from_millis(1));
        turned_away(1).await;
        assert_eq!(count(&store, "delivery.claim").await, 3, "{database:?}");
        // From then on nobody can derive the secret.
        assert_eq!(store.expire_deliveries().await.unwrap(), 0, "{database:?}");
        assert_eq!(row(&store, &link).await.nonce, None, "{database:?}");
    }
}

#[tokio::test]
async fn a_revoked_secret_is_not_shown_again() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (client_id, link) = linked(&store).await;
        let id = Some(Uuid::from_u128(1));
        store
            .claim_delivery(&origin(), &link.claim_token, id, None)
            .await
            .unwrap();
        let revocation = Revocation {
            client_id: client_id.clone(),
            secret_id: secrets(&store, &client_id).await.remove(0).secret_id,
            reason: Reason::Compromised,
            force: true,
        };
        store.revoke_client_secret(&origin(), &revocation).await.unwrap();
        let again = store.claim_delivery(&origin(), &link.claim_token, id, None).await;
        assert!(matches!(again, Err(Error::LinkOpened { .. })), "{database:?}");
    }
}

#[tokio::test]
async fn links_that_expire_unopened_end_with_their_secrets() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (claimed, opened) = linked(&store).await;
        let (unclaimed, link) = linked(&store).await;
        store
            .claim_delivery(&origin(), &opened.claim_token, None, None)
            .await
            .unwrap();
        clock.advance(LINK_LIFETIME - Duration::from_millis(1));
        assert_eq!(store.expire_deliveries().await.unwrap(), 0, "{database:?}");
        clock.advance(Duration::from_millis(1));
        let before = store.position().await.unwrap();
        assert_eq!(store.expire_deliveries().await.unwrap(), 1, "{database:?}");
        let after = store.position().await.unwrap();
        assert_eq!(after.seq, before.seq + 1, "{database:?}");
        assert_eq!(store.expire_deliveries().await.unwrap(), 0, "{database:?}");
        assert_eq!(store.position().await.unwrap(), after, "{database:?}");

        let ended = row(&store, &link).await;
        assert_eq!(
            (ended.nonce, ended.claimed_at, ended.ended_at),
            (None, None, Some(store.now().as_millis())),
            "{database:?}"
        );
        let secret = secrets(&store, &unclaimed).await.remove(0);
        assert_eq!(
            secret.revoked,
            Some((store.now(), Reason::Unclaimed)),
            "{database:?}"
        );
        assert_eq!(secrets(&store, &claimed).await[0].revoked, None, "{database:?}");
        assert_eq!(count(&store, "delivery.end").await, 1, "{database:?}");
    }
}

#[tokio::test]
async fn a_link_ends_with_its_secret_and_where_the_client_takes_none() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (client_id, _) = linked(&store).await;
        let new = NewSecret {
            client_id: client_id.clone(),
            expires_at: Some(store.now().plus(Duration::from_secs(3600))),
            delivery: Method::Link,
        };
        let issued = store
            .create_client_secret(&creation("CreateClientSecret"), new)
            .await;
        let Handover::Link(link) = issued.unwrap().1 else {
            panic!("a link was requested")
        };
        clock.advance(Duration::from_secs(3600));
        let refused = store
            .claim_delivery(&origin(), &link.claim_token, None, None)
            .await;
        assert!(matches!(refused, Err(Error::LinkInvalid)), "{database:?}");

        // The client enters the profile after the link was made.
        let (client_id, link) = linked(&store).await;
        let mut entry = addition(&client_id);
        entry.json_web_key_set = KEYS.into();
        entry.security.authentication.method = Some(AuthMethod::PrivateKeyJwt);
        entry.security_profile = RequestedSecurityProfile::Fapi2 {
            from: Some(store.now().plus(Duration::from_secs(60))),
        };
        amend(&store, entry).await.unwrap();
        clock.advance(Duration::from_secs(60));
        let refused = store
            .claim_delivery(&origin(), &link.claim_token, None, None)
            .await;
        assert!(matches!(refused, Err(Error::LinkInvalid)), "{database:?}");
    }
}

#[tokio::test]
async fn a_new_link_ends_all_unopened_ones() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (client_id, first) = linked(&store).await;
        clock.advance(Duration::from_millis(1));
        let call = repeatable("CreateDelivery", b"1");
        let second = store.create_delivery(&call, &client_id).await.unwrap();
        let again = store.create_delivery(&call, &client_id).await.unwrap();
        assert_eq!(
            (again.delivery_id, again.claim_token.digest()),
            (second.delivery_id, second.claim_token.digest()),
            "{database:?}"
        );
        assert_eq!(count(&store, "secret.show_again").await, 1, "{database:?}");
        let reasons: Vec<_> = secrets(&store, &client_id)
            .await
            .into_iter()
            .map(|secret| secret.revoked.map(|(_, reason)| reason))
            .collect();
        assert_eq!(reasons, [None, Some(Reason::Unclaimed)], "{database:?}");
        let refused = store
            .claim_delivery(&origin(), &first.claim_token, None, None)
            .await;
        assert!(matches!(refused, Err(Error::LinkInvalid)), "{database:?}");
        store
            .claim_delivery(&origin(), &second.claim_token, None, None)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_deliveries_one_link_stays() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (client_id, _) = linked(&store).await;
        let mut calls = JoinSet::new();
        for _ in 0..4 {
            let (store, client_id) = (store.clone(), client_id.clone());
            calls.spawn(async move {
                store
                    .create_delivery(&creation("CreateDelivery"), &client_id)
                    .await
            });
        }
        let mut open = 0;
        for link in calls.join_all().await {
            let claimed = store
                .claim_delivery(&origin(), &link.unwrap().claim_token, None, None)
                .await;
            open += usize::from(claimed.is_ok());
        }
        assert_eq!(open, 1, "{database:?}");
        let live = secrets(&store, &client_id).await;
        let live = live.iter().filter(|secret| secret.is_live_at(store.now()));
        assert_eq!(live.count(), 1, "{database:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_ends_once_by_opening_expiry_or_replacement() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        for round in 0..20 {
            // Each of two clients has as many links as one call ends.
            let (first, link) = linked(&store).await;
            let (second, _) = linked(&store).await;
            clock.advance(LINK_LIFETIME);
            let mut calls = JoinSet::<Result<(), Error>>::new();
            for client_id in [&first, &second] {
                let (store, client_id) = (store.clone(), client_id.clone());
                calls.spawn(async move {
                    store
                        .create_delivery(&creation("CreateDelivery"), &client_id)
                        .await
                        .map(drop)
                });
            }
            for _ in 0..2 {
                let store = store.clone();
                calls.spawn(async move { store.expire_deliveries().await.map(drop) });
            }
            for result in calls.join_all().await {
                assert!(result.is_ok(), "{database:?} round {round}: {result:?}");
            }
            let ended = row(&store, &link).await;
            assert!(
                ended.ended_at.is_some() && ended.claimed_at.is_none(),
                "{database:?}"
            );
        }
        // Two links of each round were replaced or expired, none of them twice; those of the last
        // round's replacements still wait, the others have expired.
        assert_eq!(
            count(&store, "delivery.end").await,
            20 * 2 + 19 * 2,
            "{database:?}"
        );
    }
}
