//! A client that proved itself by an assertion, when the registry has to be asked again: the assertion
//! counts once, so it is not presented anew, and yet the client must still be the one whose key signed it.

use std::sync::Arc;

use accord::token::v1::{self as pb, issue_token_request::ClientAuthentication};
use tonic::Code;

use super::{change_meanwhile, world};
use crate::{harness::assert_rejected, http::keys::ClientKey, world::World};

/// A request for client credentials by a new assertion.
fn by_assertion(world: &World, key: &ClientKey) -> pb::IssueTokenRequest {
    pb::IssueTokenRequest {
        client_authentication: Some(ClientAuthentication::ClientAssertion(key.assertion(world))),
        ..world.by_client_credentials()
    }
}

#[tokio::test]
async fn an_assertion_goes_on_counting_while_its_key_does() {
    let world: Arc<World> = world().await;
    world.first_tokens().await;
    let key = ClientKey::of_client(&world, "EdDSA");

    // Another change of the same client's: it is looked at anew, and still the one that signed.
    change_meanwhile(&world, |world| {
        world.change_client(|client| client.display_name = "Renamed".into());
    });
    let tokens = world.issue(by_assertion(&world, &key)).await.unwrap();
    assert!(world.registry().was_delayed());
    assert!(world.is_active(&tokens.access_token).await);

    let changes: [super::Change; 4] = [
        |world| {
            ClientKey::of_client(world, "EdDSA");
        },
        |world| world.suspend("client", true),
        |world| world.change_client(|client| client.token_endpoint_auth_method = "client_secret_post".into()),
        |world| {
            world.change_client(|client| client.jwks_uri = "https://partner.example/keys".into());
        },
    ];
    for change in changes {
        world.suspend("client", false);
        world.change_client(|client| {
            client.token_endpoint_auth_method.clear();
            client.jwks_uri.clear();
        });
        let key = ClientKey::of_client(&world, "EdDSA");
        change_meanwhile(&world, change);
        let refused = world.issue(by_assertion(&world, &key)).await;
        assert!(world.registry().was_delayed());
        assert_rejected(refused, Code::Unauthenticated, "INVALID_CLIENT");
    }
}
