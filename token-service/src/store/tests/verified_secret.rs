//! Verified secrets, on both databases.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use accord::{
    random::SystemRandom,
    testing::{databases, test_clock},
    text::{id::SecretId, opaque::SecretTagKey},
};

use super::*;
use crate::store::fixture::store;

fn client() -> ClientId {
    ClientId::generate(&*test_clock(), &SystemRandom)
}

fn secret(client_id: &ClientId, secret_id: &SecretId, bits: u8) -> ClientSecret {
    let key = SecretTagKey::new(1, &[7; 32]);
    ClientSecret::compose(&key, client_id, secret_id.clone(), &[bits; 32])
}

#[tokio::test]
async fn a_verified_secret_is_one_text_of_one_client_until_it_leaves() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let (one, other) = (client(), client());
        let ids: Vec<_> = (0..3)
            .map(|_| SecretId::generate(&*clock, &SystemRandom))
            .collect();
        let secrets: Vec<_> = ids.iter().map(|id| secret(&one, id, 1)).collect();
        let ends = store.now().plus(Duration::from_secs(60));
        for expires_at in [Some(ends), None] {
            // A second replica may verify it at the same time.
            for secret in &secrets {
                store
                    .insert_verified_secret(&one, secret, expires_at)
                    .await
                    .unwrap();
            }
        }
        let known = async || {
            let known = secrets
                .iter()
                .map(|secret| store.is_verified_secret(&one, secret));
            let known = futures_util::future::try_join_all(known);
            known.await.unwrap()
        };
        assert_eq!(known().await, [true; 3], "{database:?}");
        for (client_id, wrong) in [
            (&one, secret(&one, &ids[0], 2)),
            (&one, secret(&other, &ids[0], 1)),
            (&other, secrets[0].clone()),
        ] {
            assert!(!store.is_verified_secret(client_id, &wrong).await.unwrap());
        }

        // One was revoked, and another one ends.
        let live = |index: usize, expires_at| LiveSecret {
            secret_id: ids[index].clone(),
            expires_at,
        };
        store.retain_verified_secrets(&other, &[]).await.unwrap();
        store
            .retain_verified_secrets(&one, &[live(0, None), live(1, Some(ends))])
            .await
            .unwrap();
        assert_eq!(known().await, [true, true, false], "{database:?}");
        store.delete_ended_rows(ends, store.now()).await.unwrap();
        assert_eq!(known().await, [true, false, false], "{database:?}");
    }
}
