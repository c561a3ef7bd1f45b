//! What the endpoint takes, and what it rejects.

use accord::{clock::Clock, testing::dpop::ProofKey};

use super::*;

#[tokio::test]
async fn a_request_is_taken_and_recorded() {
    let world = World::start().await;
    let challenge = challenge(VERIFIER);
    let answer = push_by(&world, &world.client, &parameters(&challenge)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_private(&answer);
    assert_eq!(answer.header("pragma"), Some("no-cache"));
    assert_eq!(answer.json()["expires_in"], 90);
    let request_uri = answer.text("request_uri");
    assert!(request_uri.starts_with("urn:ietf:params:oauth:request_uri:acq_"));
    assert_ne!(pushed(&world).await, request_uri);
    let events = world.audit_events("authorization_request.push").await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].actor_kind(), AuditActorKind::Client);
    assert_eq!(
        (events[0].tenant_id.as_str(), events[0].client_id.as_str()),
        ("acme", world.client_id.as_str())
    );
    let shown = format!("{events:?}");
    assert!(!shown.contains("acq_"), "{shown}");
    assert_eq!(setups_started(&world).await, 0);
}

#[tokio::test]
async fn the_client_authenticates_as_at_the_token_endpoint() {
    let world = World::start().await;
    let challenge = challenge(VERIFIER);
    let fields = parameters(&challenge);
    let TestClient {
        client_id,
        client_secret,
    } = &world.client;
    let by_form = [("client_id", &**client_id), ("client_secret", &**client_secret)];
    let answer = Request::post(PAR)
        .form(&[&fields[..], &by_form].concat())
        .send(&world)
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let both = Request::post(PAR)
        .basic(&world.client)
        .form(&[&fields[..], &by_form].concat());
    assert_error(&both.send(&world).await, 400, "invalid_request");
    let stranger = world.new_client(&["acme"]);
    let named = [&fields[..], &[("client_id", &*stranger.client_id)]].concat();
    let other = push_by(&world, &world.client, &named).await;
    assert_error(&other, 400, "invalid_request");
    let wrong = TestClient {
        client_secret: world.new_client(&["acme"]).client_secret,
        ..world.client.clone()
    };
    assert_error(&push_by(&world, &wrong, &fields).await, 401, "invalid_client");
    let nobody = Request::post(PAR).form(&fields).send(&world).await;
    assert_error(&nobody, 401, "invalid_client");
    let elsewhere = world.new_client(&["globex"]);
    let foreign = push_by(&world, &elsewhere, &fields).await;
    assert_error(&foreign, 400, "unauthorized_client");
    world.suspend("tenant", true);
    let suspended = push_by(&world, &world.client, &fields).await;
    assert_error(&suspended, 400, "unauthorized_client");
}

#[tokio::test]
async fn only_a_post_pushes_and_only_a_form() {
    let world = World::start().await;
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let answer = Request::new(method, PAR).basic(&world.client).send(&world).await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("POST"), "{method}");
    }
    let json = Request::post(PAR)
        .basic(&world.client)
        .header("content-type", "application/json")
        .body("{}");
    assert_error(&json.send(&world).await, 415, "invalid_request");
}

#[tokio::test]
async fn a_request_that_the_page_would_reject_is_rejected() {
    let world = World::start().await;
    let challenge = challenge(VERIFIER);
    let long = "s".repeat(4097);
    for (name, value, code) in [
        ("response_type", "", "invalid_request"),
        ("response_type", "token", "unsupported_response_type"),
        ("response_type", "code id_token", "unsupported_response_type"),
        ("response_mode", "fragment", "invalid_request"),
        ("redirect_uri", "", "invalid_request"),
        (
            "redirect_uri",
            "https://app.partner.example/callback/",
            "invalid_request",
        ),
        ("code_challenge", "", "invalid_request"),
        ("code_challenge", "short", "invalid_request"),
        ("code_challenge_method", "", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("state", &long, "invalid_request"),
        ("scope", "files.read", "invalid_scope"),
        ("scope", "openid", "invalid_scope"),
        ("resource", "https://evil.example/", "invalid_target"),
        ("dpop_jkt", "short", "invalid_request"),
        ("request", "eyJhbGciOiJub25lIn0.e30.", "request_not_supported"),
        (
            "request_uri",
            "urn:ietf:params:oauth:request_uri:x",
            "invalid_request",
        ),
    ] {
        let fields = parameters(&challenge);
        let kept = fields.into_iter().filter(|(known, _)| *known != name);
        let fields: Vec<_> = kept.chain([(name, value)]).collect();
        assert_error(&push_by(&world, &world.client, &fields).await, 400, code);
    }
    let mut repeated = parameters(&challenge);
    repeated.push(("state", "xyz"));
    let answer = push_by(&world, &world.client, &repeated).await;
    assert_error(&answer, 400, "invalid_request");
    assert_eq!(world.audit_events("authorization_request.push").await.len(), 0);
}

/// The error tells the client what is wrong.
#[tokio::test]
async fn a_redirect_uri_that_is_not_registered_is_named() {
    let world = World::start().await;
    let challenge = challenge(VERIFIER);
    let mut fields = parameters(&challenge);
    fields[1].1 = "https://else.example/";
    let answer = push_by(&world, &world.client, &fields).await;
    assert_error(&answer, 400, "invalid_request");
    assert_eq!(
        answer.text("error_description"),
        "redirect_uri must be one that is registered for the client, byte for byte"
    );
}

#[tokio::test]
async fn a_proof_at_par_counts_once_and_is_of_the_key_that_dpop_jkt_names() {
    let world = World::start().await;
    let url = format!("{}/oauth2/par", world.issuer);
    let iat = world.clock().now().as_secs();
    let (key, challenge) = (ProofKey::es256(), challenge(VERIFIER));
    let push = async |proof: &str, jkt: Option<String>| {
        let mut fields = parameters(&challenge).to_vec();
        let jkt = jkt.unwrap_or_default();
        if !jkt.is_empty() {
            fields.push(("dpop_jkt", &jkt));
        }
        let request = Request::post(PAR).basic(&world.client).header("DPoP", proof);
        request.form(&fields).send(&world).await
    };
    let proof = key.proof(&url, iat);
    assert_eq!(push(&proof, Some(key.jkt())).await.status, 201);
    assert_error(&push(&proof, None).await, 400, "invalid_dpop_proof");
    let other = ProofKey::es256().jkt();
    let differing = push(&key.proof(&url, iat), Some(other)).await;
    assert_error(&differing, 400, "invalid_dpop_proof");
    let elsewhere = push(&key.proof(&url.replace("/par", "/token"), iat), None).await;
    assert_error(&elsewhere, 400, "invalid_dpop_proof");
    let bound = push(&key.proof(&url, iat), None).await;
    assert_eq!(bound.status, 201, "{bound:?}");
}

#[tokio::test]
async fn a_key_that_the_client_may_not_use_binds_no_code() {
    let world = World::start().await;
    let (own, other) = (ProofKey::es256().jkt(), ProofKey::es256().jkt());
    world.change_client(|client| client.dpop_jkts = vec![own.clone()]);
    let challenge = challenge(VERIFIER);
    let with = |jkt| [&parameters(&challenge)[..], &[("dpop_jkt", jkt)]].concat();
    let refused = push_by(&world, &world.client, &with(&other)).await;
    assert_error(&refused, 400, "invalid_request");
    assert_eq!(
        refused.text("error_description"),
        "dpop_jkt must be one of the client's dpop_jkts"
    );
    let pushed = push_by(&world, &world.client, &with(&own)).await;
    assert_eq!(pushed.status, 201, "{pushed:?}");
    // The client may lose the key before the page is opened.
    world.change_client(|client| client.dpop_jkts = vec![other]);
    let target = target(&world.client_id, &pushed.text("request_uri"));
    let answer = Request::get(target).send(&world).await;
    assert!(
        answer
            .header("location")
            .unwrap()
            .contains("error=invalid_request")
    );
}
