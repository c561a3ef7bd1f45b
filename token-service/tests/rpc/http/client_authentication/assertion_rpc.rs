//! The same assertions in the RPCs that clients call: `client_assertion` proves what it proves over HTTP,
//! and no more.

use accord::token::v1::{
    IntrospectTokenRequest, IssueTokenRequest, RevokeTokenRequest, introspect_token_request,
    issue_token_request, revoke_token_request,
};
use tonic::Code;

use super::{assertion::bad::bad_assertions, tokens_issued};
use crate::{
    harness::assert_rejected,
    http::keys::{ALGORITHMS, ClientKey},
    world::World,
};

pub fn issuing(world: &World, jwt: &str) -> IssueTokenRequest {
    IssueTokenRequest {
        client_id: String::new(),
        client_authentication: Some(issue_token_request::ClientAuthentication::ClientAssertion(
            jwt.into(),
        )),
        ..world.by_client_credentials()
    }
}

fn introspecting(world: &World, token: &str, jwt: &str) -> IntrospectTokenRequest {
    IntrospectTokenRequest {
        client_id: String::new(),
        client_authentication: Some(introspect_token_request::ClientAuthentication::ClientAssertion(
            jwt.into(),
        )),
        ..world.client.introspecting(token)
    }
}

fn revoking(world: &World, token: &str, jwt: &str) -> RevokeTokenRequest {
    RevokeTokenRequest {
        client_id: String::new(),
        client_authentication: Some(revoke_token_request::ClientAuthentication::ClientAssertion(
            jwt.into(),
        )),
        ..world.client.revoking(token)
    }
}

#[tokio::test]
async fn an_assertion_proves_the_client_in_each_call_once() {
    let world = World::start().await;
    world.first_tokens().await;
    for algorithm in ALGORITHMS {
        let key = ClientKey::of_client(&world, algorithm);
        let jwt = key.assertion(&world);
        let tokens = world.issue(issuing(&world, &jwt)).await.unwrap();
        assert_rejected(
            world.issue(issuing(&world, &jwt)).await,
            Code::Unauthenticated,
            "INVALID_CLIENT",
        );
        let token = &tokens.access_token;

        let jwt = key.assertion(&world);
        let request = introspecting(&world, token, &jwt);
        let answer = world.tokens().introspect_token(request.clone()).await.unwrap();
        assert_eq!(answer.into_inner().active, Some(true), "{algorithm}");
        let again = world.tokens().introspect_token(request).await;
        assert_rejected(again, Code::Unauthenticated, "INVALID_CLIENT");

        // One that introspection used up can't revoke.
        let refused = world.tokens().revoke_token(revoking(&world, token, &jwt)).await;
        assert_rejected(refused, Code::Unauthenticated, "INVALID_CLIENT");
        assert!(world.is_active(token).await);
        let request = revoking(&world, token, &key.assertion(&world));
        world.tokens().revoke_token(request).await.unwrap();
        assert!(!world.is_active(token).await);
    }
}

#[tokio::test]
async fn a_bad_assertion_authenticates_no_client_in_any_call() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let issued = tokens_issued(&world).await;
    let key = ClientKey::of_client(&world, "ES256");
    for (flaw, jwt) in bad_assertions(&world, &key) {
        let refused = [
            world.issue(issuing(&world, &jwt)).await.map(drop),
            introspect(&world, &tokens.access_token, &jwt).await,
            revoke(&world, &tokens.access_token, &jwt).await,
        ];
        for (call, refused) in refused.into_iter().enumerate() {
            let status = refused.expect_err(&flaw);
            assert_eq!(
                status.code(),
                Code::Unauthenticated,
                "{flaw}, call {call}: {status:?}"
            );
            assert_rejected::<()>(Err(status), Code::Unauthenticated, "INVALID_CLIENT");
        }
    }
    assert_eq!(tokens_issued(&world).await, issued);
    assert!(world.is_active(&tokens.access_token).await);
    assert!(world.is_active(&tokens.refresh_token).await);
}

async fn introspect(world: &World, token: &str, jwt: &str) -> Result<(), tonic::Status> {
    let request = introspecting(world, token, jwt);
    world.tokens().introspect_token(request).await.map(drop)
}

async fn revoke(world: &World, token: &str, jwt: &str) -> Result<(), tonic::Status> {
    let request = revoking(world, token, jwt);
    world.tokens().revoke_token(request).await.map(drop)
}

#[tokio::test]
async fn a_client_id_beside_an_assertion_must_be_its_own() {
    let world = World::start().await;
    world.first_tokens().await;
    let key = ClientKey::of_client(&world, "EdDSA");
    let other = world.new_client(&["acme"]);
    let jwt = key.assertion(&world);
    let named = |client_id: &str| IssueTokenRequest {
        client_id: client_id.into(),
        ..issuing(&world, &jwt)
    };
    let refused = world.issue(named(&other.client_id)).await;
    assert_rejected(refused, Code::Unauthenticated, "INVALID_CLIENT");
    world.issue(named(&world.client_id)).await.unwrap();
}
