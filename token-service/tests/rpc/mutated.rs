//! No message makes a method fail by itself.

use accord::testing::mutated::{bombard, messages};

use crate::world::{REDIRECT_URI, VERIFIER, World};

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_the_fault_of_the_service() {
    // A limited client would not reach what is behind the limit.
    let world = World::start_with(|settings| settings.client_calls_per_second = 0).await;
    world.registry().tell_changes();
    let tokens = world.first_tokens().await;
    let known = [
        ("tenant_id", "acme"),
        ("client_id", &world.client_id),
        ("client_secret", &world.client.client_secret),
        ("grant_id", &tokens.grant_id),
        ("token", &tokens.access_token),
        ("code_verifier", VERIFIER),
        ("redirect_uri", REDIRECT_URI),
        ("resource", &world.cloud_api_url),
        ("request_id", "7d8cb5bd-6a4e-4d4b-9c1f-0d4a6a0c3f10"),
        ("scopes", "contacts.read"),
    ];
    let harness = world.harness();
    let token = |path: &str| harness.token_for(path).expose().to_owned();
    bombard(&harness.server, messages(), token, &known).await;
}
