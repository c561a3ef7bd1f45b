//! Client Secrets, on both databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use accord::{
    testing::{databases, postgres},
    text::opaque,
};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::*;
use crate::{
    authentication::client::authenticate,
    model::{
        change_kind,
        client::{Client, State},
        client_secret::MAX_LIVE,
        delivery::Method,
    },
    store::{
        client::tests::{registered, seeded, text},
        testing::{audited, creation, origin, repeatable},
    },
};

const MINUTE: Duration = Duration::from_secs(60);

fn another(client: &Client) -> NewSecret {
    NewSecret {
        client_id: client.client_id.clone(),
        expires_at: None,
        delivery: Method::Inline,
    }
}

fn revocation(secret: &ClientSecret, reason: Reason) -> Revocation {
    Revocation {
        client_id: secret.client_id.clone(),
        secret_id: secret.secret_id.clone(),
        reason,
        force: true,
    }
}

async fn added(store: &Store, new: NewSecret) -> (ClientSecret, String) {
    let (secret, handover) = store
        .create_client_secret(&creation("CreateClientSecret"), new)
        .await
        .unwrap();
    (secret, text(&handover).to_owned())
}

/// The client's secrets, newest first.
async fn secrets(store: &Store, client_id: &ClientId) -> Vec<ClientSecret> {
    let page = PageRequest::first(500);
    let listed = store.list_client_secrets(client_id, &page).await;
    listed.unwrap().into_parts().0
}

#[tokio::test]
async fn a_repeated_call_makes_one_secret() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        clock.advance(MINUTE);
        for delivery in [Method::Inline, Method::Link] {
            let new = NewSecret {
                delivery,
                expires_at: Some(store.now().plus(MINUTE)),
                ..another(&client)
            };
            let call = repeatable("CreateClientSecret", b"1");
            let (first, handover) = store.create_client_secret(&call, new.clone()).await.unwrap();
            let (again, same) = store.create_client_secret(&call, new).await.unwrap();
            assert_eq!((&again, text(&same)), (&first, text(&handover)), "{database:?}");
            assert_eq!(first.awaiting_claim, delivery == Method::Link, "{database:?}");
        }
        assert_eq!(secrets(&store, &client.client_id).await.len(), 3, "{database:?}");
        let events = audited(&store).await;
        let shown_again = events.iter().filter(|action| *action == "secret.show_again");
        assert_eq!(shown_again.count(), 2, "{database:?}");
    }
}

#[tokio::test]
async fn a_right_secret_authenticates_although_its_use_is_not_written() {
    let database = accord::testing::sqlite();
    let (store, _) = seeded(&database.url).await;
    let (client, handover) = registered(&store, Method::Inline).await;
    let reject =
        "CREATE TRIGGER reject BEFORE UPDATE ON client_secrets BEGIN SELECT RAISE(ABORT, 'full'); END";
    store.db.read().execute_unprepared(reject).await.unwrap();
    let (_, secret, _) = authenticate(&store, client.client_id.as_str(), text(&handover))
        .await
        .unwrap();
    assert_eq!(secret.last_used_at, None);
    let stored = secrets(&store, &client.client_id).await;
    assert_eq!(stored[0].last_used_at, None);
}

#[tokio::test]
async fn only_a_live_secret_costs_a_run() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (client, handover) = registered(&store, Method::Inline).await;
        let (other, others) = registered(&store, Method::Inline).await;
        let (suspended, its) = registered(&store, Method::Inline).await;
        store
            .set_client_state(&origin(), &suspended.client_id, State::Suspended, "a test")
            .await
            .unwrap();
        let expiring = NewSecret {
            expires_at: Some(store.now().plus(MINUTE)),
            ..another(&client)
        };
        let (_, expired) = added(&store, expiring).await;
        let (ended, revoked) = added(&store, another(&client)).await;
        store
            .revoke_client_secret(&origin(), &revocation(&ended, Reason::Rotated))
            .await
            .unwrap();
        let unclaimed = NewSecret {
            delivery: Method::Link,
            ..another(&client)
        };
        let (unclaimed, _) = added(&store, unclaimed).await;
        clock.advance(MINUTE);

        let key = store.secret_tag_key().await.unwrap();
        let tagged = |client_id: &ClientId, secret_id: &SecretId| {
            let guess = opaque::ClientSecret::compose(&key, client_id, secret_id.clone(), &[7; 32]);
            guess.expose().to_owned()
        };
        let untagged = |client_id: &ClientId, secret_id: &SecretId| {
            let key = opaque::SecretTagKey::new(1, &[7; 32]);
            let guess = opaque::ClientSecret::compose(&key, client_id, secret_id.clone(), &[7; 32]);
            guess.expose().to_owned()
        };
        let known = &secrets(&store, &other.client_id).await[0].secret_id;
        let unknown = SecretId::generate(&*store.clock, &*store.random);
        let stranger = ClientId::generate(&*store.clock, &*store.random);
        let (client_id, other_id) = (&client.client_id, &other.client_id);
        let secret = text(&handover).to_owned();
        let attempts = [
            ("unknown client", &stranger, untagged(&stranger, known), 0),
            ("guessed secret", other_id, untagged(other_id, known), 0),
            ("another's secret", client_id, text(&others).to_owned(), 0),
            (
                "unknown client, tag key stolen",
                &stranger,
                tagged(&stranger, known),
                0,
            ),
            (
                "unknown secret, tag key stolen",
                client_id,
                tagged(client_id, &unknown),
                0,
            ),
            (
                "wrong secret, tag key stolen",
                other_id,
                tagged(other_id, known),
                1,
            ),
            ("expired", client_id, expired, 0),
            ("revoked", client_id, revoked, 0),
            ("unclaimed", client_id, tagged(client_id, &unclaimed.secret_id), 0),
            ("suspended client", &suspended.client_id, text(&its).to_owned(), 0),
            ("cut", client_id, secret[1..].to_owned(), 0),
            ("nothing", client_id, String::new(), 0),
            ("too long", client_id, secret.repeat(10_000), 0),
            ("right", client_id, secret, 1),
        ];
        for (what, client_id, attempt, runs) in &attempts {
            let before = store.hasher.runs();
            let answer = authenticate(&store, client_id.as_str(), attempt).await;
            let refused = matches!(answer, Err(Error::InvalidClient));
            assert!(refused || answer.is_ok(), "{database:?} {what}");
            assert_eq!(answer.is_ok(), *what == "right", "{database:?} {what}");
            assert_eq!(store.hasher.runs() - before, *runs, "{database:?} {what}");
        }
    }
}

#[tokio::test]
async fn secrets_that_differ_at_their_end_are_different() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        let secret = secrets(&store, &client.client_id).await.remove(0);
        // The last of the 256 bits changes only bytes after the 72nd of the text.
        let mut bytes = [9; 32];
        let key = store.secret_tag_key().await.unwrap();
        let composed = |bits: &[u8; 32]| {
            opaque::ClientSecret::compose(&key, &client.client_id, secret.secret_id.clone(), bits)
        };
        let right = composed(&bytes);
        bytes[31] ^= 1;
        let wrong = composed(&bytes);
        assert_eq!(right.expose()[..72], wrong.expose()[..72]);
        let typed = Zeroizing::new(right.expose().as_bytes().to_vec());
        let hashed = store.hasher.hash(client.client_id.as_str(), typed).await.unwrap();
        let tx = store.db.write().await.unwrap();
        let row = credentials::lock(&tx, &secret.secret_id).await.unwrap();
        let mut row = row.unwrap();
        row.secret_hash = hashed.phc;
        row.save(&tx).await.unwrap();
        let event = Event::test("client_secret.test").subject(secret.secret_id.as_str());
        store.audit(&tx, &origin(), event).await.unwrap();
        commit(tx, ()).await.unwrap();
        let id = client.client_id.as_str();
        let refused = authenticate(&store, id, wrong.expose()).await;
        assert!(matches!(refused, Err(Error::InvalidClient)), "{database:?}");
        authenticate(&store, id, right.expose()).await.unwrap();
    }
}

#[tokio::test]
async fn uses_are_written_once_a_minute_without_change_or_event() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (client, handover) = registered(&store, Method::Inline).await;
        let before = (store.position().await.unwrap(), audited(&store).await);
        let start = store.now();
        let mut seen = Vec::new();
        for _ in 0..3 {
            authenticate(&store, client.client_id.as_str(), text(&handover))
                .await
                .unwrap();
            seen.push(secrets(&store, &client.client_id).await[0].last_used_at);
            clock.advance(MINUTE / 2);
        }
        assert_eq!(
            seen,
            [Some(start), Some(start), Some(start.plus(MINUTE))],
            "{database:?}"
        );
        let after = (store.position().await.unwrap(), audited(&store).await);
        assert_eq!(after, before, "{database:?}");
    }
}

#[tokio::test]
async fn reported_uses_move_forward_to_now_at_most() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        let (other, _) = registered(&store, Method::Inline).await;
        let secret_id = secrets(&store, &client.client_id).await.remove(0).secret_id;
        let start = store.now();
        clock.advance(10 * MINUTE);
        let report = async |client: &Client, used_at| {
            let used = SecretUse {
                client_id: client.client_id.clone(),
                secret_id: secret_id.clone(),
                used_at,
            };
            let unknown = SecretUse {
                secret_id: SecretId::generate(&*store.clock, &*store.random),
                ..used.clone()
            };
            store.write_secret_uses(vec![unknown, used]).await.unwrap();
            secrets(&store, &client.client_id).await[0].last_used_at
        };
        let later = start.plus(5 * MINUTE);
        assert_eq!(report(&other, later).await, None, "{database:?}");
        assert_eq!(report(&client, later).await, Some(later), "{database:?}");
        assert_eq!(report(&client, start).await, Some(later), "{database:?}");
        let future = store.now().plus(MINUTE);
        assert_eq!(report(&client, future).await, Some(store.now()), "{database:?}");
    }
}

#[tokio::test]
async fn a_compromise_ends_tokens_at_the_position_of_its_change() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        let (other, _) = registered(&store, Method::Inline).await;
        let secret = secrets(&store, &client.client_id).await.remove(0);
        let by = origin();
        let foreign = Revocation {
            client_id: other.client_id.clone(),
            ..revocation(&secret, Reason::Compromised)
        };
        let refused = store.revoke_client_secret(&by, &foreign).await;
        assert!(
            matches!(refused, Err(Error::NotFound("client_secret"))),
            "{database:?}"
        );
        let nobodys = Revocation {
            client_id: ClientId::generate(&*store.clock, &*store.random),
            ..foreign
        };
        let refused = store.revoke_client_secret(&by, &nobodys).await;
        assert!(matches!(refused, Err(Error::NotFound("client"))), "{database:?}");

        let rotated = revocation(&secret, Reason::Rotated);
        store.revoke_client_secret(&by, &rotated).await.unwrap();
        let found = store.find_client(&client.client_id).await.unwrap().unwrap();
        assert_eq!(found, client, "{database:?}");
        let compromised = revocation(&secret, Reason::Compromised);
        let rotated_at = store.now();
        clock.advance(Duration::from_secs(60));
        let ended = store.revoke_client_secret(&by, &compromised).await.unwrap();
        assert_eq!(
            ended.revoked,
            Some((rotated_at, Reason::Compromised)),
            "{database:?}"
        );
        let position = store.position().await.unwrap();
        let found = store.find_client(&client.client_id).await.unwrap().unwrap();
        let expected = Client {
            tokens_ended_seq: position.seq,
            families_ended_seq: position.seq,
            ..client
        };
        assert_eq!(found, expected, "{database:?}");
        for repeated in [&rotated, &compromised] {
            let again = store.revoke_client_secret(&by, repeated).await.unwrap();
            assert_eq!(again, ended, "{database:?}");
        }
        // Both are published again, and end no token that came after the first call.
        let changes = accord::store::change::list_after(store.db.read(), position.seq, 10);
        let changes = changes.await.unwrap();
        let kinds: Vec<_> = changes.iter().map(|change| change.kind.as_str()).collect();
        assert_eq!(kinds, [change_kind::CLIENT; 2], "{database:?}");
    }
}

#[tokio::test]
async fn an_altered_secret_keeps_a_client_from_no_new_one() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        for _ in 1..MAX_LIVE {
            added(&store, another(&client)).await;
        }
        let call = creation("CreateClientSecret");
        let refused = store.create_client_secret(&call, another(&client)).await;
        assert!(matches!(refused, Err(Error::TooMany { .. })), "{database:?}");
        let edit = "UPDATE client_secrets SET expires_at = 9000000000000 \
                    WHERE secret_id = (SELECT min(secret_id) FROM client_secrets)";
        database.edit(edit).await;
        let (secret, _) = added(&store, another(&client)).await;
        let found = store.find_client_secret(&client.client_id, &secret.secret_id);
        assert_eq!(found.await.unwrap(), Some(secret), "{database:?}");
    }
}

#[tokio::test]
async fn a_new_secret_waits_for_no_lock_of_another_one() {
    // On SQLite there is one writer at a time.
    if let Some(database) = postgres() {
        let (store, _) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        let held = secrets(&store, &client.client_id).await.remove(0).secret_id;
        let tx = store.db.write().await.unwrap();
        credentials::lock(&tx, &held).await.unwrap();
        added(&store, another(&client)).await;
        commit(tx, ()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_calls_make_no_eleventh_secret() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        for _ in 2..MAX_LIVE {
            added(&store, another(&client)).await;
        }
        let mut calls = JoinSet::new();
        for _ in 0..4 {
            let (store, new) = (store.clone(), another(&client));
            calls.spawn(async move {
                store
                    .create_client_secret(&creation("CreateClientSecret"), new)
                    .await
            });
        }
        let mut created = 0;
        for result in calls.join_all().await {
            match result {
                Ok(_) => created += 1,
                Err(Error::TooMany { limit, .. }) => assert_eq!(limit, MAX_LIVE),
                Err(other) => panic!("{database:?}: {other:?}"),
            }
        }
        assert_eq!(created, 1, "{database:?}");
        let live = secrets(&store, &client.client_id).await;
        assert_eq!(live.len() as u64, MAX_LIVE, "{database:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_about_one_client_do_not_deadlock() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        for round in 0..30 {
            clock.advance(Duration::from_millis(1));
            let linked = NewSecret {
                delivery: Method::Link,
                ..another(&client)
            };
            let (secret, claim_token) = added(&store, linked).await;
            let claim_token = opaque::OpaqueToken::parse(opaque::TokenKind::Claim, &claim_token).unwrap();
            let mut calls = JoinSet::<Result<(), Error>>::new();
            let revoke = revocation(&secret, Reason::Compromised);
            let (one, two, three) = (store.clone(), store.clone(), store.clone());
            let client_id = client.client_id.clone();
            calls.spawn(async move { one.revoke_client_secret(&origin(), &revoke).await.map(drop) });
            calls.spawn(async move {
                two.create_delivery(&creation("CreateDelivery"), &client_id)
                    .await
                    .map(drop)
            });
            calls.spawn(async move {
                match three.claim_delivery(&origin(), &claim_token, None, None).await {
                    Ok(_) | Err(Error::LinkInvalid) => Ok(()),
                    Err(other) => Err(other),
                }
            });
            for result in calls.join_all().await {
                assert!(result.is_ok(), "{database:?} round {round}: {result:?}");
            }
            // In both orders the secret ends with the worse reason and authenticates nothing.
            let after = find(store.db.read(), &client.client_id, &secret.secret_id)
                .await
                .unwrap()
                .unwrap();
            assert!(!after.is_live_at(store.now()), "{database:?} round {round}");
            assert_eq!(
                after.revoked.map(|(_, reason)| reason),
                Some(Reason::Compromised),
                "{database:?} round {round}"
            );
            for left in secrets(&store, &client.client_id).await {
                store
                    .revoke_client_secret(&origin(), &revocation(&left, Reason::Rotated))
                    .await
                    .unwrap();
            }
        }
    }
}
