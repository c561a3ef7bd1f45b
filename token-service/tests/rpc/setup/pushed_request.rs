//! Requests that the client has pushed, over gRPC.

use accord::{testing::dpop::ProofKey, token::v1::push_authorization_request_request::ClientAuthentication};

use super::*;
use crate::harness::ok;

/// The client's request, pushed.
fn push(world: &World) -> pb::PushAuthorizationRequestRequest {
    let given = world.request();
    pb::PushAuthorizationRequestRequest {
        tenant_id: given.tenant_id,
        client_id: given.client_id,
        client_authentication: Some(ClientAuthentication::ClientSecret(
            world.client.client_secret.clone(),
        )),
        redirect_uri: given.redirect_uri,
        state: "a state".into(),
        code_challenge: given.code_challenge,
        ..Default::default()
    }
}

async fn pushed(world: &World) -> String {
    let answer = ok(world.tokens().push_authorization_request(push(world)).await);
    assert_eq!(answer.expires_in, 90);
    answer.request_uri
}

fn start(world: &World, request_uri: &str) -> pb::StartSetupRequest {
    pb::StartSetupRequest {
        request_id: request_id(),
        tenant_id: "acme".into(),
        client_id: world.client_id.clone(),
        request_uri: request_uri.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_pushed_request_starts_one_setup_that_is_decided_once() {
    for world in World::start_on_all().await {
        let request_uri = pushed(&world).await;
        let first = start(&world, &request_uri);
        let setup = ok(world.setups().start_setup(first.clone()).await).setup.unwrap();
        assert_eq!(setup.redirect_uri, REDIRECT_URI);
        for repeated in [first, start(&world, &request_uri)] {
            let again = ok(world.setups().start_setup(repeated).await).setup.unwrap();
            assert_eq!(again.setup_id, setup.setup_id);
        }
        let sessions = [
            world.sign_in(&setup.setup_id).await,
            world.sign_in(&setup.setup_id).await,
        ];
        let approval = world.approval(&setup.setup_id, &sessions[0]);
        let approved = ok(world.setups().approve_setup(approval).await);
        assert!(approved.redirect_url.contains("&state=a+state&iss="));
        let second = world.approval(&setup.setup_id, &sessions[1]);
        let refused = world.setups().approve_setup(second).await;
        assert_rejected(refused, Code::FailedPrecondition, "WRONG_STATE");
        let refused = world.setups().start_setup(start(&world, &request_uri)).await;
        assert_rejected(refused, Code::FailedPrecondition, "WRONG_STATE");
    }
}

#[tokio::test]
async fn a_request_uri_comes_alone_and_in_time() {
    let world = World::start().await;
    let request_uri = pushed(&world).await;
    let both = pb::StartSetupRequest {
        request_uri: request_uri.clone(),
        scopes: vec!["contacts.read".into()],
        state: "s".into(),
        resource: world.cloud_api_url.clone(),
        dpop_jkt: "k".repeat(43),
        ..world.request()
    };
    let fields = [
        "redirect_uri",
        "scopes",
        "state",
        "code_challenge",
        "resource",
        "dpop_jkt",
    ];
    assert_violations(world.setups().start_setup(both).await, &fields);

    let scoped = pb::StartSetupRequest {
        scopes: vec!["contacts.read".into()],
        ..start(&world, &request_uri)
    };
    let refused = world.setups().start_setup(scoped).await;
    assert_rejected(refused, Code::InvalidArgument, "INVALID_FIELDS");

    let other = world.new_client(&["acme"]);
    let foreign = pb::StartSetupRequest {
        client_id: other.client_id,
        ..start(&world, &request_uri)
    };
    let unknown = start(&world, "urn:ietf:params:oauth:request_uri:x");
    for bad in [foreign, unknown] {
        assert_violations(world.setups().start_setup(bad).await, &["request_uri"]);
    }
    world.clock().advance(Duration::from_secs(90));
    let late = start(&world, &request_uri);
    assert_violations(world.setups().start_setup(late).await, &["request_uri"]);
}

#[tokio::test]
async fn a_push_is_rejected_with_all_violations_or_for_its_client() {
    let world = World::start().await;
    let bad = pb::PushAuthorizationRequestRequest {
        tenant_id: "?".into(),
        redirect_uri: String::new(),
        scopes: vec!["a b".into()],
        state: "s".repeat(4097),
        code_challenge: "short".into(),
        dpop_jkt: "short".into(),
        ..push(&world)
    };
    let fields = [
        "tenant_id",
        "redirect_uri",
        "scopes[0]",
        "state",
        "code_challenge",
        "dpop_jkt",
    ];
    assert_violations(world.tokens().push_authorization_request(bad).await, &fields);

    let refused_with = async |change: fn(&mut pb::PushAuthorizationRequestRequest)| {
        let mut request = push(&world);
        change(&mut request);
        world.tokens().push_authorization_request(request).await
    };
    let malformed = refused_with(|request| request.scopes = vec!["a b".into()]).await;
    assert_rejected(malformed, Code::InvalidArgument, "INVALID_SCOPE");
    let unregistered = refused_with(|request| request.redirect_uri.push('/')).await;
    assert_violations(unregistered, &["redirect_uri"]);
    let refused = refused_with(|request| request.client_authentication = None).await;
    assert_rejected(refused, Code::Unauthenticated, "INVALID_CLIENT");
    for tenant in ["globex", "nowhere"] {
        let mut request = push(&world);
        request.tenant_id = tenant.into();
        let refused = world.tokens().push_authorization_request(request).await;
        assert_rejected(refused, Code::NotFound, "NOT_FOUND");
    }
    let refused = refused_with(|request| request.scopes = vec!["files.read".into()]).await;
    assert_rejected(refused, Code::InvalidArgument, "INVALID_SCOPE");
    let refused = refused_with(|request| request.resource = "https://evil.example".into()).await;
    assert_rejected(refused, Code::InvalidArgument, "INVALID_TARGET");
    world.suspend("tenant", true);
    let refused = refused_with(|_| ()).await;
    assert_rejected(refused, Code::FailedPrecondition, "WRONG_STATE");
}

#[tokio::test]
async fn a_proof_binds_the_code_to_its_key() {
    let world = World::start().await;
    let key = ProofKey::es256();
    let now = world.clock().now().as_secs();
    let endpoint = |name: &str| format!("{}/oauth2/{name}", world.issuer);
    let with_proof = pb::PushAuthorizationRequestRequest {
        dpop_proof: key.proof(&endpoint("par"), now),
        ..push(&world)
    };
    let pushed = ok(world.tokens().push_authorization_request(with_proof).await);
    let setup = world
        .setups()
        .start_setup(start(&world, &pushed.request_uri))
        .await;
    let setup_id = ok(setup).setup.unwrap().setup_id;
    let approval = world.approval(&setup_id, &world.sign_in(&setup_id).await);
    let code = ok(world.setups().approve_setup(approval).await).authorization_code;
    let redeem = async |dpop_proof: String| {
        let request = world.by_code(&code);
        world
            .issue(pb::IssueTokenRequest {
                dpop_proof,
                ..request
            })
            .await
    };
    for proof in [String::new(), ProofKey::es256().proof(&endpoint("token"), now)] {
        assert!(redeem(proof).await.is_err());
    }
    let redeemed = redeem(key.proof(&endpoint("token"), now)).await.unwrap();
    assert_eq!(redeemed.token_type, "DPoP");
}
