//! Errors at the client's redirect URI.

use url::Url;

use super::{Query, assert_client_error, assert_taken_in, send, setups_started};
use crate::world::{REDIRECT_URI, VERIFIER, World, challenge};

#[tokio::test]
async fn a_request_that_is_not_ours_is_answered_at_the_client_s() {
    let world = World::start().await;
    let query = Query::of(&world);
    let plain = query.with("code_challenge_method", "plain");
    let many = (0..101).map(|n| format!("s{n}")).collect::<Vec<_>>().join(" ");
    let api = world.cloud_api_url.clone();
    for (error, query) in [
        ("invalid_request", query.without("response_type")),
        ("invalid_request", query.with("response_type", "")),
        ("unsupported_response_type", query.with("response_type", "token")),
        (
            "unsupported_response_type",
            query.with("response_type", "code token"),
        ),
        (
            "unsupported_response_type",
            query.with("response_type", "id_token"),
        ),
        ("unsupported_response_type", query.with("response_type", "CODE")),
        ("invalid_request", query.and("response_type", "code")),
        ("invalid_request", query.and("response_mode", "fragment")),
        ("invalid_request", query.and("response_mode", "form_post")),
        ("invalid_request", query.and("response_mode", "query.jwt")),
        ("invalid_request", query.without("code_challenge")),
        ("invalid_request", query.without("code_challenge_method")),
        (
            "invalid_request",
            query.without("code_challenge").without("code_challenge_method"),
        ),
        ("invalid_request", plain.clone()),
        ("invalid_request", plain.with("code_challenge", VERIFIER)),
        ("invalid_request", query.with("code_challenge_method", "s256")),
        ("invalid_request", query.with("code_challenge", "short")),
        (
            "invalid_request",
            query.with("code_challenge", &challenge(VERIFIER)[1..]),
        ),
        (
            "invalid_request",
            query.with("code_challenge", &format!("{}=", challenge(VERIFIER))),
        ),
        ("invalid_request", query.with("code_challenge", &"+".repeat(43))),
        ("invalid_request", query.and("code_challenge", &challenge("x"))),
        (
            "invalid_request",
            query.and("scope", "contacts.read").and("scope", "contacts.write"),
        ),
        (
            "invalid_request",
            query.and("scope", "contacts.read").and("scope", "contacts.read"),
        ),
        ("invalid_request", query.and("unknown", "a").and("unknown", "b")),
        (
            "request_not_supported",
            query.and("request", "eyJhbGciOiJub25lIn0.e30."),
        ),
        ("invalid_scope", query.and("scope", "files.read")),
        ("invalid_scope", query.and("scope", "contacts.read files.read")),
        (
            "invalid_scope",
            query.and("scope", "contacts.read  contacts.write"),
        ),
        ("invalid_scope", query.and("scope", "openid contacts.read")),
        ("invalid_scope", query.and("scope", "\"><script>")),
        ("invalid_scope", query.and("scope", &many)),
        ("invalid_target", query.and("resource", "https://evil.example/")),
        ("invalid_target", query.and("resource", &format!("{api}/"))),
        (
            "invalid_target",
            query
                .and("resource", &api)
                .and("resource", "https://evil.example/"),
        ),
    ] {
        let answer = query.send(&world).await;
        assert_client_error(&world, &answer, error, Some("xyz"));
    }
    for (scope, told) in [
        ("contacts.read files.read", "not registered for this client"),
        ("contacts.read,contacts.write", "not by commas"),
    ] {
        let answer = query.and("scope", scope).send(&world).await;
        let location = Url::parse(answer.header("location").unwrap()).unwrap();
        let mut pairs = location.query_pairs();
        let (_, description) = pairs.find(|(name, _)| name == "error_description").unwrap();
        assert!(description.contains(told), "{description}");
    }
    world.change_client(|client| client.dpop_jkts = vec!["j".repeat(43)]);
    let other_key = query.and("dpop_jkt", &"k".repeat(43)).send(&world).await;
    assert_client_error(&world, &other_key, "invalid_request", Some("xyz"));
    assert_eq!(setups_started(&world).await, 0);
}

#[tokio::test]
async fn a_suspended_client_or_tenant_starts_no_setup() {
    let world = World::start().await;
    for resource in ["client", "tenant"] {
        world.suspend(resource, true);
        let answer = Query::of(&world).send(&world).await;
        assert_client_error(&world, &answer, "unauthorized_client", Some("xyz"));
        world.suspend(resource, false);
    }
    world.change_client(|client| client.scopes.clear());
    assert_client_error(
        &world,
        &Query::of(&world).send(&world).await,
        "invalid_scope",
        Some("xyz"),
    );
    assert_eq!(setups_started(&world).await, 0);
}

#[tokio::test]
async fn a_state_returns_unchanged_and_encoded() {
    let world = World::start().await;
    let bad = Query::of(&world).with("response_type", "token").without("state");
    let longest = "s".repeat(4096);
    for state in [
        "\"><script>alert(document.domain)</script>",
        "'\"` onload=alert(1) x=",
        "a b+c%20d%2Be",
        "&code=acc_1&error=none&iss=https://evil.example",
        "#fragment?query=1",
        "\\..\\//evil.example/",
        "=&;%00%0d%0a",
        "a;b,c|d^e~{f}[g]",
        "%",
        " ",
        &longest,
    ] {
        let answer = bad.and("state", state).send(&world).await;
        assert_client_error(&world, &answer, "unsupported_response_type", Some(state));
        let location = answer.header("location").unwrap();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b":/?&=%+-._*".contains(&b);
        assert!(location.bytes().all(allowed), "{location}");
        assert_eq!(location.matches('?').count(), 1);
        assert_eq!(
            location.matches("iss=").count() + location.matches("code=").count(),
            1
        );
    }
    // Without a state there is none in the answer.
    let answer = bad.send(&world).await;
    assert_client_error(&world, &answer, "unsupported_response_type", None);
}

#[tokio::test]
async fn a_state_returns_byte_for_byte_whatever_it_holds() {
    let world = World::start().await;
    let query = Query::of(&world).without("state");
    let bad = query.with("response_type", "token");
    for state in [
        "a%0Ab",
        "a%0D%0Alocation%3A+https%3A%2F%2Fevil.example%2F",
        "%00",
        "zustand-f%C3%BCr",
        "%E2%80%AE",
        // Bytes that are no text at all, a space in the other form, digits in small letters.
        "%ff%fe%20%c3",
    ] {
        let answer = send(&world, &format!("{}&state={state}", bad.encoded())).await;
        let location = answer.header("location").unwrap();
        assert!(location.contains(&format!("&state={state}&iss=")), "{location}");
        assert!(
            !answer
                .headers
                .values()
                .any(|value| value.as_bytes().starts_with(b"https://evil"))
        );
        let taken = send(&world, &format!("{}&state={state}", query.encoded())).await;
        assert_taken_in(&taken);
    }
    // One that makes the URL too long for a header leads back by a page.
    let state = "%C3%BC".repeat(2048);
    let answer = send(&world, &format!("{}&state={state}", bad.encoded())).await;
    assert_eq!((answer.status, answer.header("location")), (200, None));
    let headers = answer.headers.iter();
    let header_bytes: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    assert!(header_bytes < 8 * 1024, "{header_bytes}");
    let refresh =
        format!(r#"http-equiv="refresh" content="0;url={REDIRECT_URI}?error=unsupported_response_type"#);
    let rest = format!("&#38;state={state}&#38;iss=");
    assert!(
        answer.body.contains(&refresh) && answer.body.contains(&rest),
        "{}",
        answer.body
    );
    assert!(answer.body.contains("Nothing was shared"));
    assert_taken_in(&send(&world, &format!("{}&state={state}", query.encoded())).await);
    let started = setups_started(&world).await;
    // A repeated one is an error (RFC 6749 §3.1), which the client gets with the first.
    for second in ["a", "b"] {
        let answer = query.and("state", "a").and("state", second).send(&world).await;
        assert_client_error(&world, &answer, "invalid_request", Some("a"));
    }
    let long = "s".repeat(4097);
    let answer = query.and("state", &long).send(&world).await;
    assert_client_error(&world, &answer, "invalid_request", Some(&long));
    assert_eq!(setups_started(&world).await, started);
}

#[tokio::test]
async fn the_query_of_a_redirect_uri_is_unchanged() {
    let world = World::start().await;
    let registered = format!("{REDIRECT_URI}?tenant=%61cme&empty&x=1+2");
    world.change_client(|client| client.redirect_uris.push(registered.clone()));
    let query = Query::of(&world).with("redirect_uri", &registered);
    let answer = query.with("response_type", "token").send(&world).await;
    let location = answer.header("location").unwrap();
    assert!(
        location.starts_with(&format!("{registered}&error=unsupported_response_type&")),
        "{location}"
    );
    assert_eq!(answer.status, 303);
}
