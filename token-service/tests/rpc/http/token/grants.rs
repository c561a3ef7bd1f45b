//! What each grant refuses over HTTP, and whether the code or token survives it.

use std::time::Duration;

use super::{
    Answer, CREDENTIALS, ask, assert_code_is_good, assert_error, by_code, tokens_issued, with, without,
};
use crate::{
    http::Request,
    world::{REDIRECT_URI, VERIFIER, World},
};

fn by_refresh_token(token: &str) -> Vec<(&str, &str)> {
    vec![("grant_type", "refresh_token"), ("refresh_token", token)]
}

/// The answer to a first redemption.
async fn first_tokens(world: &World) -> Answer {
    let code = world.code().await;
    let answer = ask(world, &world.client, &by_code(&code)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

#[tokio::test]
async fn a_wrong_verifier_or_redirect_uri_burns_the_code() {
    let world = World::start().await;
    let upper = VERIFIER.to_uppercase();
    let long = "v".repeat(129);
    let challenge = crate::world::challenge(VERIFIER);
    let slash = format!("{REDIRECT_URI}/");
    let verifiers = [
        "short",
        &upper,
        &long,
        &challenge,
        "with spaces and ümlauts, but forty-three long",
    ];
    let verifiers = verifiers.map(|value| ("code_verifier", value));
    let uris = [&slash, "https://evil.example/callback"].map(|value| ("redirect_uri", value));
    for flaw in verifiers.into_iter().chain(uris) {
        let code = world.code().await;
        let answer = ask(&world, &world.client, &with(by_code(&code), &[flaw])).await;
        assert_error(&answer, 400, "invalid_grant");
        let right = ask(&world, &world.client, &by_code(&code)).await;
        assert_error(&right, 400, "invalid_grant");
        assert_eq!(right.body, answer.body, "one answer, whatever the reason");
    }
    assert_eq!(world.audit_events("code.refuse").await.len(), 7);
    assert_eq!(world.audit_events("consent.activate").await.len(), 0);
    assert_eq!(tokens_issued(&world).await, 0);
}

#[tokio::test]
async fn a_missing_verifier_or_redirect_uri_leaves_the_code() {
    let world = World::start().await;
    let code = world.code().await;
    for missing in ["code_verifier", "redirect_uri"] {
        for fields in [
            without(by_code(&code), missing),
            with(by_code(&code), &[(missing, "")]),
        ] {
            let answer = ask(&world, &world.client, &fields).await;
            assert_error(&answer, 400, "invalid_request");
            assert!(answer.text("error_description").contains(missing), "{answer:?}");
        }
    }
    assert_eq!(world.audit_events("code.refuse").await.len(), 0);
    assert_code_is_good(&world, &code).await;
}

#[tokio::test]
async fn a_stranger_s_try_leaves_the_code_to_its_client() {
    let world = World::start().await;
    let code = world.code().await;
    let stranger = world.new_client(&["acme", "globex"]);
    assert_error(
        &ask(&world, &stranger, &by_code(&code)).await,
        400,
        "invalid_grant",
    );
    for tenant in ["globex", "nobody-known"] {
        for client in [&world.client, &stranger] {
            let request = Request::post(format!("/{tenant}/oauth2/token")).basic(client);
            let answer = request.form(&by_code(&code)).send(&world).await;
            assert_error(&answer, 400, "invalid_grant");
        }
    }
    for tenant in ["ACME", "a", "acme%00", "%ff", "acme%2f"] {
        let request = Request::post(format!("/{tenant}/oauth2/token")).basic(&world.client);
        let answer = request.form(&by_code(&code)).send(&world).await;
        assert_error(&answer, 404, "not_found");
    }
    let unknown = [
        format!("{code}x"),
        code[..code.len() - 1].to_owned(),
        "acc_x".into(),
        "ü".into(),
    ];
    for wrong in &unknown {
        assert_error(
            &ask(&world, &world.client, &by_code(wrong)).await,
            400,
            "invalid_grant",
        );
    }
    let huge = "c".repeat(17 * 1024);
    assert_error(
        &ask(&world, &world.client, &by_code(&huge)).await,
        400,
        "invalid_request",
    );
    assert_eq!(tokens_issued(&world).await, 0);
    assert_code_is_good(&world, &code).await;
}

#[tokio::test]
async fn a_code_used_twice_ends_its_tokens() {
    let world = World::start().await;
    let code = world.code().await;
    let first = ask(&world, &world.client, &by_code(&code)).await;
    let again = ask(&world, &world.client, &by_code(&code)).await;
    assert_error(&again, 400, "invalid_grant");
    assert!(!world.is_active(&first.text("access_token")).await);
    assert!(!world.is_active(&first.text("refresh_token")).await);
    assert_eq!(world.audit_events("code.replay").await.len(), 1);
}

#[tokio::test]
async fn an_expired_code_is_rejected() {
    let world = World::start().await;
    let code = world.code().await;
    world.clock().advance(Duration::from_secs(60));
    assert_error(
        &ask(&world, &world.client, &by_code(&code)).await,
        400,
        "invalid_grant",
    );
    assert_eq!(tokens_issued(&world).await, 0);
}

#[tokio::test]
async fn scopes_beyond_the_grant_or_malformed_are_rejected() {
    let world = World::start().await;
    let refresh = first_tokens(&world).await.text("refresh_token");
    let issued = tokens_issued(&world).await;
    let many = (0..101).map(|n| format!("s{n}")).collect::<Vec<_>>().join(" ");
    for scope in [
        "files.read",
        "contacts.read files.read",
        "CONTACTS.READ",
        "contacts.read  contacts.write",
        " contacts.read",
        "contacts.read ",
        "contacts.read,contacts.write",
        "contacts.read\tcontacts.write",
        "contacts.read\n",
        "\"contacts.read\"",
        "contacts\\read",
        "kontakte.lesen.für",
        "*",
        &many,
    ] {
        for fields in [vec![CREDENTIALS], by_refresh_token(&refresh)] {
            let answer = ask(&world, &world.client, &with(fields, &[("scope", scope)])).await;
            assert_error(&answer, 400, "invalid_scope");
        }
    }
    assert_eq!(tokens_issued(&world).await, issued);
    let fewer = [
        ("grant_type", "client_credentials"),
        ("scope", "contacts.read contacts.read"),
    ];
    let answer = ask(&world, &world.client, &fewer).await;
    assert_eq!(
        (answer.status, answer.text("scope").as_str()),
        (200, "contacts.read")
    );
    // The refresh token was not used up by what was refused.
    let answer = ask(&world, &world.client, &by_refresh_token(&refresh)).await;
    assert_eq!(
        (answer.status, answer.text("scope").as_str()),
        (200, "contacts.read contacts.write")
    );
}

#[tokio::test]
async fn a_token_is_for_the_tenant_s_api_alone() {
    let world = World::start().await;
    first_tokens(&world).await;
    let url = world.cloud_api_url.clone();
    let issued = tokens_issued(&world).await;
    for resource in [
        "https://evil.example/",
        "https://api.example/globex",
        &format!("{url}/"),
        &format!("{url}#part"),
        &url.to_uppercase(),
        "api",
    ] {
        let answer = ask(
            &world,
            &world.client,
            &with(vec![CREDENTIALS], &[("resource", resource)]),
        )
        .await;
        assert_error(&answer, 400, "invalid_target");
    }
    let twice = |first: &'static str, second: &'static str| {
        let mut twice = vec![CREDENTIALS];
        twice.extend([("resource", first), ("resource", second)]);
        twice
    };
    let right: &'static str = url.clone().leak();
    for second in ["https://evil.example/", "https://api.example"] {
        let answer = ask(&world, &world.client, &twice(right, second)).await;
        assert_error(&answer, 400, "invalid_target");
    }
    assert_eq!(tokens_issued(&world).await, issued);
    for fields in [
        with(vec![CREDENTIALS], &[("resource", right)]),
        twice(right, right),
    ] {
        assert_eq!(ask(&world, &world.client, &fields).await.status, 200);
    }
    // What `new URL().href` makes of a URL without a path, and the reverse.
    for (registered, resource) in [
        ("https://api.acme.example", "https://api.acme.example/"),
        ("https://api.acme.example/", "https://api.acme.example"),
    ] {
        let registry = world.registry();
        registry.edit_tenant("acme", |tenant| tenant.cloud_api_url = registered.into());
        for fields in [
            with(vec![CREDENTIALS], &[("resource", resource)]),
            twice(resource, registered),
        ] {
            let answer = ask(&world, &world.client, &fields).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn offline_access_is_ignored_and_openid_is_explained() {
    let world = World::start().await;
    let refresh = first_tokens(&world).await.text("refresh_token");
    for fields in [vec![CREDENTIALS], by_refresh_token(&refresh)] {
        for (scope, granted) in [
            ("offline_access", "contacts.read contacts.write"),
            ("offline_access contacts.read", "contacts.read"),
        ] {
            let answer = ask(&world, &world.client, &with(fields.clone(), &[("scope", scope)])).await;
            assert_eq!((answer.status, answer.text("scope").as_str()), (200, granted));
        }
        let answer = ask(
            &world,
            &world.client,
            &with(fields, &[("scope", "openid contacts.read")]),
        )
        .await;
        assert_error(&answer, 400, "invalid_scope");
        assert!(answer.text("error_description").contains("not OpenID Connect"));
    }
    let mut request = world.by_client_credentials();
    request.scopes = vec!["offline_access".into()];
    world.issue(request).await.unwrap();
}

#[tokio::test]
async fn without_consent_a_client_gets_nothing() {
    let world = World::start().await;
    assert_error(
        &ask(&world, &world.client, &[CREDENTIALS]).await,
        400,
        "unauthorized_client",
    );
    let code = world.code().await;
    assert_error(
        &ask(&world, &world.client, &[CREDENTIALS]).await,
        400,
        "unauthorized_client",
    );
    for tenant in ["globex", "nobody-known"] {
        let request = Request::post(format!("/{tenant}/oauth2/token")).basic(&world.client);
        let answer = request.form(&[CREDENTIALS]).send(&world).await;
        assert_error(&answer, 400, "unauthorized_client");
    }
    assert_eq!(tokens_issued(&world).await, 0);
    assert_code_is_good(&world, &code).await;
    assert_eq!(ask(&world, &world.client, &[CREDENTIALS]).await.status, 200);
}

#[tokio::test]
async fn a_suspended_or_revoked_party_gets_no_token() {
    let world = World::start().await;
    let tokens = first_tokens(&world).await;
    let refresh = tokens.text("refresh_token");
    for (resource, status, code) in [
        ("client", 401, "invalid_client"),
        ("tenant", 400, "unauthorized_client"),
    ] {
        world.suspend(resource, true);
        for fields in [vec![CREDENTIALS], by_refresh_token(&refresh)] {
            assert_error(&ask(&world, &world.client, &fields).await, status, code);
        }
        world.suspend(resource, false);
        assert_eq!(ask(&world, &world.client, &[CREDENTIALS]).await.status, 200);
    }
    world.deactivate_api_user(true);
    assert_error(
        &ask(&world, &world.client, &[CREDENTIALS]).await,
        400,
        "unauthorized_client",
    );
    world.deactivate_api_user(false);
    assert_eq!(ask(&world, &world.client, &[CREDENTIALS]).await.status, 200);

    world.revoke_consent(&tokens.text("grant_id")).await;
    assert_error(
        &ask(&world, &world.client, &[CREDENTIALS]).await,
        400,
        "unauthorized_client",
    );
    let answer = ask(&world, &world.client, &by_refresh_token(&refresh)).await;
    assert_error(&answer, 400, "invalid_grant");
}

#[tokio::test]
async fn while_the_registry_is_down_clients_get_a_retry_time() {
    let world = World::start().await;
    let code = world.code().await;
    world.registry().set_unavailable(true);
    for path in ["token", "introspect", "revoke"] {
        let request = Request::post(format!("/acme/oauth2/{path}")).basic(&world.client);
        let fields = with(by_code(&code), &[("token", "acr_x")]);
        let answer = request.form(&fields).send(&world).await;
        assert_error(&answer, 503, "temporarily_unavailable");
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds));
    }
    world.registry().set_unavailable(false);
    assert_code_is_good(&world, &code).await;
}

#[tokio::test]
async fn a_refresh_token_is_its_client_s_and_its_tenant_s_alone() {
    let world = World::start().await;
    let refresh = first_tokens(&world).await.text("refresh_token");
    let stranger = world.new_client(&["acme"]);
    let answer = ask(&world, &stranger, &by_refresh_token(&refresh)).await;
    assert_error(&answer, 400, "invalid_grant");
    for tenant in ["globex", "nobody-known"] {
        let request = Request::post(format!("/{tenant}/oauth2/token")).basic(&world.client);
        let answer = request.form(&by_refresh_token(&refresh)).send(&world).await;
        assert_error(&answer, 400, "invalid_grant");
    }
    let altered = accord::testing::calls::altered(&refresh);
    for wrong in ["acr_x", &*altered, &format!("{refresh} "), "é"] {
        let answer = ask(&world, &world.client, &by_refresh_token(wrong)).await;
        assert_error(&answer, 400, "invalid_grant");
    }
    let answer = ask(&world, &world.client, &by_refresh_token(&refresh)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn an_old_refresh_token_ends_the_family() {
    let world = World::start().await;
    let first = first_tokens(&world).await.text("refresh_token");
    let second = ask(&world, &world.client, &by_refresh_token(&first)).await;
    let third = ask(
        &world,
        &world.client,
        &by_refresh_token(&second.text("refresh_token")),
    )
    .await;
    assert_ne!(second.text("refresh_token"), third.text("refresh_token"));
    assert_error(
        &ask(&world, &world.client, &by_refresh_token(&first)).await,
        400,
        "invalid_grant",
    );
    let newest = third.text("refresh_token");
    assert_error(
        &ask(&world, &world.client, &by_refresh_token(&newest)).await,
        400,
        "invalid_grant",
    );
    assert!(!world.is_active(&third.text("access_token")).await);
    // The consent is still active: the client can use its credentials.
    assert_eq!(ask(&world, &world.client, &[CREDENTIALS]).await.status, 200);
}
