//! The endpoint for pushed authorization requests, and their references at the authorization endpoint.

use super::{AUTHORIZE, Face, PAR, Parameters, encoded};
use crate::{
    harness::ok,
    world::{REDIRECT_URI, VERIFIER, challenge},
};

fn form(challenge: &str) -> [(&str, &str); 5] {
    [
        ("response_type", "code"),
        ("redirect_uri", REDIRECT_URI),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
        ("state", "xyz"),
    ]
}

/// Opens a reference. Returns the status.
async fn open(face: &mut Face<'_>, request_uri: &str) -> u16 {
    let query = [
        ("client_id", &*face.world.client_id.clone()),
        ("request_uri", request_uri),
    ];
    let query = encoded(&query);
    let opened = face.ask(AUTHORIZE, "acme", |mut request| {
        request.target = format!("{}?{query}", request.target);
        request
    });
    opened.await.status
}

/// A request is pushed, opened and decided.
pub async fn pushed(face: &mut Face<'_>) {
    let world = face.world;
    let challenge = challenge(VERIFIER);
    let all = [
        ("scope", "contacts.read"),
        ("resource", &*world.cloud_api_url),
        ("response_mode", "query"),
        ("dpop_jkt", &*challenge),
        ("client_id", &*world.client_id),
    ];
    face.post(PAR, &[&form(&challenge)[..], &all].concat()).await;
    let answer = face.post(PAR, &form(&challenge)).await.json();
    let request_uri = answer["request_uri"].as_str().unwrap();
    assert_eq!(open(face, request_uri).await, 200);
    let start = accord::token::v1::StartSetupRequest {
        tenant_id: "acme".into(),
        client_id: world.client_id.clone(),
        request_uri: request_uri.into(),
        ..Default::default()
    };
    let setup = ok(world.setups().start_setup(start).await).setup.unwrap();
    let session = world.sign_in(&setup.setup_id).await;
    ok(world
        .setups()
        .approve_setup(world.approval(&setup.setup_id, &session))
        .await);
    assert_eq!(open(face, request_uri).await, 409);
    assert_eq!(open(face, "urn:example:unknown").await, 400);
}

/// Every error of the endpoint.
pub async fn refused(face: &mut Face<'_>) {
    let elsewhere = face.world.new_client(&["globex"]);
    let challenge = challenge(VERIFIER);
    for (name, value, code) in [
        ("response_type", "token", "unsupported_response_type"),
        ("response_type", "", "invalid_request"),
        ("redirect_uri", "", "invalid_request"),
        ("redirect_uri", "https://else.example/callback", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("dpop_jkt", "short", "invalid_request"),
        ("request_uri", "urn:example:1", "invalid_request"),
        ("request", "eyJ9.e30.", "request_not_supported"),
        ("scope", "unknown", "invalid_scope"),
        ("resource", "https://else.example", "invalid_target"),
    ] {
        let kept = form(&challenge).into_iter().filter(|(known, _)| *known != name);
        let changed: Vec<_> = kept.chain([(name, value)]).collect();
        let changed: &Parameters = &changed;
        let client = face.world.client.clone();
        let answer = face
            .ask(PAR, "acme", |request| request.basic(&client).form(changed))
            .await;
        assert_eq!(answer.error(), (400, code.into()), "{name} {value}");
    }
    // A client without access must not learn whether a tenant exists.
    for tenant in ["acme", "nowhere"] {
        let answer = face
            .ask(PAR, tenant, |request| {
                request.basic(&elsewhere).form(&form(&challenge))
            })
            .await;
        assert_eq!(answer.error(), (400, "unauthorized_client".into()), "{tenant}");
    }
}
