//! The longest access token that Accord can issue: everything that takes tokens takes it.

use accord::{
    clock::Clock,
    token::v1::GetJsonWebKeySetRequest,
    verify::{KeySet, Tenant},
};

use super::{ask, by_code};
use crate::{harness::ok, http::Request, world::World};

/// The characters of all scope names of a client, with the spaces between them, and of a base URL.
const SCOPES: usize = 3072;
const BASE_URL: usize = 256;
/// The bytes of a signature by RSA with 4,096 bits, in base64url.
const LONGEST_SIGNATURE: usize = 683;
/// What proxies and servers commonly take as one header.
const HEADER: usize = 8 * 1024;

fn url(start: &str, length: usize) -> String {
    format!("{start}{}", "x".repeat(length - start.len()))
}

#[tokio::test]
async fn the_longest_token_fits_a_header_and_everything_that_takes_tokens() {
    let world = World::start().await;
    let tenant = Tenant {
        tenant_id: "acme".into(),
        // The base, a slash, and the longest tenant id.
        issuer: url("https://accord.example/", BASE_URL + 1 + 40),
        audience: url("https://api.example/", BASE_URL),
    };
    world.registry().edit_tenant("acme", |profile| {
        profile.tenant_authority_url = tenant.issuer.clone();
        profile.cloud_api_url = tenant.audience.clone();
    });
    // 30 names of 100 characters and a last one, joined by spaces.
    let mut names: Vec<_> = (0..30).map(|n| format!("{n:0>100}")).collect();
    names.push("s".repeat(SCOPES - 30 * 101));
    assert_eq!(names.join(" ").len(), SCOPES);
    world.change_client(|client| {
        let scope = client.scopes[0].clone();
        let named = |name: &String| {
            let mut scope = scope.clone();
            scope.name.clone_from(name);
            scope
        };
        client.scopes = names.iter().map(named).collect();
    });

    let code = world.code().await;
    let answer = ask(&world, &world.client, &by_code(&code)).await;
    assert_eq!(answer.text("scope").len(), SCOPES);
    let token = answer.text("access_token");
    let signature = token.rsplit('.').next().unwrap().len();
    let header = "authorization: Bearer ".len() + token.len() - signature + LONGEST_SIGNATURE;
    // The tenant's id has four characters here, and may have forty.
    assert!(header + 36 * 4 / 3 < HEADER, "{header}");

    assert!(world.is_active(&token).await);
    let introspected = Request::post("/acme/oauth2/introspect")
        .basic(&world.client)
        .form(&[("token", &token)])
        .send(&world)
        .await;
    assert_eq!(introspected.json()["active"], true);
    let request = GetJsonWebKeySetRequest::default();
    let keys = ok(world.tokens().get_json_web_key_set(request).await);
    let keys = KeySet::from_response(&keys).unwrap();
    keys.verify(&token, &tenant, world.clock().now().as_secs())
        .unwrap();
    world.revoke(&token).await.unwrap();
    assert!(!world.is_active(&token).await);
}
