//! Clients under the FAPI 2.0 Security Profile and keys for RS256, on both databases: never both, whoever is first.

#![allow(clippy::unwrap_used, clippy::panic)]

use accord::{testing::databases, text::id::IntegrationRequestId};

use super::*;
use crate::{
    model::client::security::{AuthMethod, Authentication, Security},
    store::{
        client::tests::{approved_for, seeded},
        testing::{count, creation, origin},
    },
};

const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// An approved request for a client under the profile.
async fn approved(store: &Store) -> IntegrationRequestId {
    let security = Security {
        authentication: Authentication {
            method: Some(AuthMethod::PrivateKeyJwt),
            ..Authentication::default()
        },
        ..Security::default()
    };
    approved_for(
        store,
        KEYS,
        security,
        RequestedSecurityProfile::Fapi2 { from: None },
    )
    .await
}

#[tokio::test]
async fn of_a_client_under_the_profile_and_a_key_for_rs256_the_second_is_rejected() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        for _ in 0..8 {
            let request_id = approved(&store).await;
            let call = creation("RegisterClient");
            let (origin, rs256) = (origin(), names(&["EdDSA", RS256]));
            let (registered, reported) = tokio::join!(
                store.register_client(&call, &request_id, None),
                store.report_signing_algorithms(&origin, &rs256),
            );
            match (registered, reported) {
                (Ok((client, _)), Err(Error::ProfileForbidsRs256(named))) => {
                    assert_eq!(named, client.client_id.as_str(), "{database:?}");
                    break;
                }
                (Err(Error::UnsuitableSigningKey), Ok(())) => {}
                other => panic!("{database:?}: {other:?}"),
            }
            // Another key takes the place of the one for RS256.
            let eddsa = names(&["EdDSA"]);
            store.report_signing_algorithms(&origin, &eddsa).await.unwrap();
        }
    }
}

#[tokio::test]
async fn each_is_rejected_beside_the_other() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (eddsa, rs256) = (names(&["EdDSA"]), names(&["EdDSA", RS256]));
        let request_id = approved(&store).await;
        let call = creation("RegisterClient");
        store.report_signing_algorithms(&origin(), &rs256).await.unwrap();
        let refused = store.register_client(&call, &request_id, None).await;
        assert!(
            matches!(refused, Err(Error::UnsuitableSigningKey)),
            "{database:?}"
        );
        store.report_signing_algorithms(&origin(), &eddsa).await.unwrap();
        assert!(store.register_client(&call, &request_id, None).await.is_ok());
        let refused = store.report_signing_algorithms(&origin(), &rs256).await;
        assert!(
            matches!(refused, Err(Error::ProfileForbidsRs256(_))),
            "{database:?}"
        );
    }
}

#[tokio::test]
async fn only_a_change_of_the_algorithms_is_an_event() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        for report in [
            &["EdDSA"][..],
            &["EdDSA"],
            &["PS256", "EdDSA"],
            &["EdDSA", "PS256"],
        ] {
            let told = store.report_signing_algorithms(&origin(), &names(report)).await;
            told.unwrap();
        }
        assert_eq!(
            count(&store, "signing_algorithms.report").await,
            2,
            "{database:?}"
        );
    }
}
