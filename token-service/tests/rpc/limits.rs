//! Limits on calls: who is limited, what the caller learns, and that nobody uses up the calls of another.

use std::time::{Duration, Instant};

use accord::{clock::Clock, testing::dpop::ProofKey};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    harness::assert_rejected,
    http::{
        Request, assert_error,
        keys::ClientKey,
        token::{CREDENTIALS, TOKEN},
    },
    world::{TestClient, World},
};

/// Two calls at once, and one more each second.
const CALLS_PER_SECOND: u32 = 1;

async fn limited_clients() -> World {
    let world = World::start_with(|settings| settings.client_calls_per_second = CALLS_PER_SECOND).await;
    let code = world.code().await;
    world.issue(world.by_code(&code)).await.unwrap();
    world
}

/// Calls until the client is limited. Returns the status.
async fn until_limited(world: &World) -> tonic::Status {
    loop {
        if let Err(status) = world.issue(world.by_client_credentials()).await {
            return status;
        }
    }
}

#[tokio::test]
async fn a_client_that_calls_too_often_learns_when_to_come_again() {
    let world = limited_clients().await;
    let status = until_limited(&world).await;
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(
        wait > Duration::ZERO && wait <= Duration::from_secs(1),
        "{wait:?}"
    );
    assert_rejected::<()>(Err(status), Code::ResourceExhausted, "RESOURCE_EXHAUSTED");
    let answer = loop {
        let request = Request::post(TOKEN).basic(&world.client).form(&[CREDENTIALS]);
        let answer = request.send(&world).await;
        if answer.status != 200 {
            break answer;
        }
    };
    assert_error(&answer, 429, "temporarily_unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn nobody_uses_up_the_calls_of_another_client() {
    let world = limited_clients().await;
    let thief = TestClient {
        client_id: world.client_id.clone(),
        client_secret: world.new_client(&["acme"]).client_secret,
    };
    for _ in 0..20 {
        let request = Request::post(TOKEN).basic(&thief).form(&[CREDENTIALS]);
        assert_error(&request.send(&world).await, 401, "invalid_client");
    }
    world.issue(world.by_client_credentials()).await.unwrap();
    until_limited(&world).await;
    let other = world.new_client(&["acme"]);
    let request = Request::post(TOKEN).basic(&other).form(&[CREDENTIALS]);
    // It has no grant.
    assert_error(&request.send(&world).await, 400, "unauthorized_client");
}

#[tokio::test]
async fn a_limited_call_can_be_repeated_with_its_assertion_and_its_proof() {
    let world = limited_clients().await;
    let key = ClientKey::of_client(&world, "ES256");
    let bound = ProofKey::es256();
    let endpoint = format!("{}/oauth2/token", world.issuer);
    let started = Instant::now();
    let mut limited = 0;
    while limited == 0 {
        let assertion = key.assertion(&world);
        let proof = bound.proof(&endpoint, world.clock().now().as_secs());
        let send = async || {
            let fields = [
                CREDENTIALS,
                (
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                ),
                ("client_assertion", &*assertion),
            ];
            let request = Request::post(TOKEN).header("DPoP", &*proof).form(&fields);
            request.send(&world).await.status
        };
        let mut status = send().await;
        while status == 429 {
            limited += 1;
            status = send().await;
        }
        assert_eq!(status, 200);
        assert!(started.elapsed() < Duration::from_secs(60));
    }
}

#[tokio::test]
async fn an_address_that_calls_too_often_is_limited_on_both_faces() {
    let world =
        World::start_with(|settings| settings.service.address_calls_per_second = CALLS_PER_SECOND).await;
    let metadata = async |address: &str| {
        let path = "/acme/.well-known/openid-configuration";
        Request::get(path)
            .header("x-forwarded-for", address)
            .send(&world)
            .await
    };
    let answer = loop {
        let answer = metadata("192.0.2.1").await;
        if answer.status != 200 {
            break answer;
        }
    };
    assert_error(&answer, 429, "temporarily_unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(metadata("192.0.2.2").await.status, 200);
    let status = loop {
        let mut request = tonic::Request::new(Default::default());
        let address = "192.0.2.3".parse().unwrap();
        request.metadata_mut().insert("x-forwarded-for", address);
        if let Err(status) = world.tokens().get_json_web_key_set(request).await {
            break status;
        }
    };
    assert!(status.get_details_retry_info().is_some());
    assert_rejected::<()>(Err(status), Code::ResourceExhausted, "RESOURCE_EXHAUSTED");
    // Calls that no gateway forwarded are the deployment's own.
    for _ in 0..20 {
        world
            .tokens()
            .get_json_web_key_set(tonic::Request::new(Default::default()))
            .await
            .unwrap();
    }
}
