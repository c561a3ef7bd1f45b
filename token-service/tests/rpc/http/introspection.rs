//! Introspection by internal services, as the resource servers of other frameworks do it: by the workload's token, as
//! bearer or as the password of HTTP Basic.

use accord::rpc::auth::{Role, WorkloadKind};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::{Answer, Request};
use crate::world::World;

const INTROSPECT: &str = "/acme/oauth2/introspect";

async fn introspect(world: &World, token: &str, authorize: impl FnOnce(Request) -> Request) -> Answer {
    let form = [("token", token), ("token_type_hint", "something_new")];
    authorize(Request::post(INTROSPECT).form(&form)).send(world).await
}

fn bearer(token: &str) -> impl FnOnce(Request) -> Request {
    let value = format!("bearer {token}");
    |request| request.header("authorization", value)
}

#[tokio::test]
async fn an_internal_service_sees_every_token_of_the_tenant() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let (workload_id, workload) = world.registry().new_workload(WorkloadKind::InternalService);
    let workload = workload.expose();
    for token in [&tokens.access_token, &tokens.refresh_token] {
        let by_rpc = world.introspect(token).await;
        let answers = [
            introspect(&world, token, bearer(workload)).await,
            introspect(&world, token, |request| request.basic_of(&workload_id, workload)).await,
        ];
        for answer in answers {
            assert_eq!(answer.status, 200, "{answer:?}");
            super::assert_private(&answer);
            assert_eq!(answer.json(), serde_json::to_value(&by_rpc).unwrap());
        }
    }
    let unknown = introspect(&world, "acr_x", bearer(workload)).await;
    assert_eq!(unknown.body, r#"{"active":false}"#);
    let elsewhere = Request::post("/globex/oauth2/introspect").form(&[("token", &tokens.access_token)]);
    let elsewhere = bearer(workload)(elsewhere).send(&world).await;
    assert_eq!(elsewhere.body, r#"{"active":false}"#);
}

#[tokio::test]
async fn a_signed_response_is_for_the_workload() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let (workload_id, workload) = world.registry().new_workload(WorkloadKind::InternalService);
    let answer = introspect(&world, &tokens.access_token, |request| {
        bearer(workload.expose())(request).header("accept", "application/token-introspection+jwt")
    });
    let answer = answer.await;
    let payload = answer.body.split('.').nth(1).unwrap();
    let payload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    assert_eq!(payload["aud"], workload_id.as_str());
    assert_eq!(payload["token_introspection"]["active"], true);
}

#[tokio::test]
async fn only_what_the_permission_table_admits_may_introspect() {
    let world = World::start().await;
    let token = world.first_tokens().await.access_token;
    let (workload_id, workload) = world.registry().new_workload(WorkloadKind::InternalService);
    let (other_id, _) = world.registry().new_workload(WorkloadKind::InternalService);
    let workload = workload.expose();
    let altered = accord::testing::calls::altered(workload);
    for unknown in [&*altered, "acw_x", "x", &token, &world.client.client_secret] {
        let answer = introspect(&world, &token, bearer(unknown)).await;
        assert_eq!(
            (answer.status, answer.text("error").as_str()),
            (401, "invalid_token")
        );
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, Some(r#"Bearer realm="accord", error="invalid_token""#));
        super::assert_private(&answer);
    }
    for (id, secret) in [
        (&other_id, workload),
        (&workload_id, &altered),
        (&workload_id, ""),
    ] {
        let answer = introspect(&world, &token, |request| request.basic_of(id, secret)).await;
        super::assert_error(&answer, 401, "invalid_client");
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        assert!(challenge.starts_with("Basic "), "{challenge}");
    }
    // An id that is encoded is no workload's, because the gateway could not recognise it.
    let encoded = format!("%77{}:{workload}", &workload_id[1..]);
    let answer = introspect(&world, &token, |request| request.authorization_basic(&encoded)).await;
    super::assert_error(&answer, 401, "invalid_client");

    let (_, gateway) = world.registry().new_workload(WorkloadKind::Gateway);
    for known in [gateway, world.registry().add_operator(Role::Admin)] {
        let answer = introspect(&world, &token, bearer(known.expose())).await;
        super::assert_error(&answer, 403, "access_denied");
    }
    // With a client's proof beside it nobody is meant.
    let two = [("token", &*token), ("client_secret", &world.client.client_secret)];
    let answer = bearer(workload)(Request::post(INTROSPECT).form(&two))
        .send(&world)
        .await;
    super::assert_error(&answer, 400, "invalid_request");
    // It is of no use anywhere else.
    for path in ["/acme/oauth2/token", "/acme/oauth2/revoke"] {
        let form = [("grant_type", "client_credentials"), ("token", &token)];
        let answer = bearer(workload)(Request::post(path).form(&form))
            .send(&world)
            .await;
        super::assert_error(&answer, 401, "invalid_client");
    }
    assert!(world.is_active(&token).await);
}
