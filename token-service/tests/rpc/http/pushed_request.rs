//! Pushed authorization requests: the endpoint, and the page that a reference opens.

use std::time::Duration;

use accord::audit::v1::AuditActorKind;
use url::Url;

use super::{
    Answer, Request, assert_error, assert_page, assert_private,
    authorize::{assert_taken_in, hidden_request},
    browser::Browser,
    client::{Fields, encoded},
    pages::{approval, assert_leaves},
};
use crate::world::{PASSWORD, REDIRECT_URI, TestClient, VERIFIER, World, challenge};

mod endpoint;
mod page;

const PAR: &str = "/acme/oauth2/par";

/// The parameters of a request that is as it should be.
pub fn parameters(challenge: &str) -> Vec<(&str, &str)> {
    vec![
        ("response_type", "code"),
        ("redirect_uri", REDIRECT_URI),
        ("state", "xyz"),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
    ]
}

/// Pushes these parameters as the client.
async fn push_by(world: &World, client: &TestClient, fields: &Fields<'_>) -> Answer {
    Request::post(PAR).basic(client).form(fields).send(world).await
}

/// Pushes a request of the world's client. Returns its reference.
pub async fn pushed(world: &World) -> String {
    let challenge = challenge(VERIFIER);
    let answer = push_by(world, &world.client, &parameters(&challenge)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.text("request_uri")
}

/// The address that opens a reference in the name of a client.
pub fn target(client_id: &str, request_uri: &str) -> String {
    let query = [("client_id", client_id), ("request_uri", request_uri)];
    format!("/acme/oauth2/authorize?{}", encoded(&query))
}

/// How many setups were stored so far.
async fn setups_started(world: &World) -> usize {
    world.audit_events("setup.start").await.len()
}
