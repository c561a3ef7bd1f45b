//! A partner whose keys are at a URL of its own (RFC 7591 §2), from its request to its tokens: token-service fetches them by https
//! from an address that an operator allows, and trusts the authorities that its machine trusts.

use accord::{
    registry::v1 as reg,
    testing::{
        calls::assert_rejected,
        dpop::ProofKey,
        https::{HttpsServer, ok},
    },
    token::v1::{
        IssueTokenRequest, IssueTokenResponse,
        issue_token_request::{ClientAuthentication, Grant},
    },
};
use tonic::{Code, Response, Status};

use crate::harness::{
    partner::{Partner, World, by_key, code_grant, key_set, own_grant, refresh_grant},
    services::Services,
};

tests!(a_partner_authenticates_by_the_keys_at_its_url,);

/// Asks for a token as a partner that signs with this key.
async fn issue(
    world: &World,
    partner: &Partner,
    key: &ProofKey,
    grant: Grant,
) -> Result<IssueTokenResponse, Status> {
    let [_, (_, assertion)] = by_key(key, partner, &world.target.tenant_authority_url);
    let request = IssueTokenRequest {
        client_authentication: Some(ClientAuthentication::ClientAssertion(assertion)),
        ..world.token_request(partner, grant)
    };
    world
        .tokens()
        .issue_token(request)
        .await
        .map(Response::into_inner)
}

async fn a_partner_authenticates_by_the_keys_at_its_url() {
    let [old, new] = [(); 2].map(|()| ProofKey::es256());
    let server = HttpsServer::start("keys.partner.example", ok(&key_set(&old)), false).await;
    let directory = tempfile::tempdir().unwrap();
    let authorities = server.authority.write(directory.path(), "authorities.pem");
    let (registry, token) = (accord::testing::sqlite(), accord::testing::sqlite());
    let settings = [
        ("ACCORD_TOKEN_JWKS_ALLOWED_NETWORKS", "127.0.0.1/32"),
        ("SSL_CERT_FILE", authorities.to_str().unwrap()),
    ];
    let mut services = Services::start_with(&registry.url, &token.url, &settings).await;
    let world = World::new(&services.target);
    let request = reg::SubmitIntegrationRequestRequest {
        token_endpoint_auth_method: "private_key_jwt".into(),
        jwks_uri: format!("https://localhost:{}/jwks.json", server.address.port()),
        ..Default::default()
    };
    let partner = world.partner_with(request).await;
    let approved = world.approve(&partner).await;
    let refused = issue(&world, &partner, &new, code_grant(&approved)).await;
    assert_rejected(refused, Code::Unauthenticated, "INVALID_CLIENT");
    let tokens = issue(&world, &partner, &old, code_grant(&approved))
        .await
        .unwrap();
    let renewal = refresh_grant(&tokens.refresh_token);
    for grant in [renewal, own_grant()] {
        let tokens = issue(&world, &partner, &old, grant).await.unwrap();
        assert!(world.active(&tokens.access_token).await);
    }
    assert_eq!(server.connections(), 1);

    // The partner replaces its key. A replica that has not fetched the old one knows the new one alone.
    server.set_answer(ok(&key_set(&new)));
    let (_replica, address) = services.another_token_service();
    let mut target = services.target.clone();
    target.token_grpc = address;
    let elsewhere = World::new(&target);
    issue(&elsewhere, &partner, &new, own_grant()).await.unwrap();
    let refused = issue(&elsewhere, &partner, &old, own_grant()).await;
    assert_rejected(refused, Code::Unauthenticated, "INVALID_CLIENT");
    assert_eq!(server.connections(), 2);
    services.stop();
}
