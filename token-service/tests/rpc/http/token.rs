//! The token endpoint: requests that are no token requests, and what each grant refuses.

use super::{
    Answer, Request, assert_error, assert_private,
    client::{FORM, Fields, encoded},
    tokens_issued,
};
use crate::world::{REDIRECT_URI, TestClient, VERIFIER, World};

mod grants;
mod largest;

pub const TOKEN: &str = "/acme/oauth2/token";

/// What asks for a token by client credentials.
pub const CREDENTIALS: (&str, &str) = ("grant_type", "client_credentials");

/// The fields that redeem a code, to be changed.
pub fn by_code(code: &str) -> Vec<(&str, &str)> {
    vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", VERIFIER),
    ]
}

/// These fields with others instead, or beside them.
pub fn with<'a>(mut fields: Vec<(&'a str, &'a str)>, changes: &Fields<'a>) -> Vec<(&'a str, &'a str)> {
    for change in changes {
        fields.retain(|(name, _)| *name != change.0);
        fields.push(*change);
    }
    fields
}

/// These fields but for one.
pub fn without<'a>(mut fields: Vec<(&'a str, &'a str)>, name: &str) -> Vec<(&'a str, &'a str)> {
    fields.retain(|(known, _)| *known != name);
    fields
}

/// What the client gets for these fields, with its secret in the header.
async fn ask(world: &World, client: &TestClient, fields: &Fields<'_>) -> Answer {
    Request::post(TOKEN).basic(client).form(fields).send(world).await
}

/// Asserts that a code is still as good as new.
async fn assert_code_is_good(world: &World, code: &str) {
    let answer = ask(world, &world.client, &by_code(code)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_request_that_is_no_form_changes_nothing() {
    let world = World::start().await;
    let code = world.code().await;
    let body = encoded(&by_code(&code));
    let request = || Request::post(TOKEN).basic(&world.client);
    let json = format!(r#"{{"grant_type":"authorization_code","code":"{code}"}}"#);
    let form = || request().header("content-type", FORM);
    for request in [
        request().body(body.clone()),
        request().header("content-type", "text/plain").body(body.clone()),
        request().header("content-type", "application/json").body(json),
        request()
            .header("content-type", "multipart/form-data; boundary=x")
            .body(body.clone()),
        request()
            .header("content-type", "application/x-www-form-urlencodedx")
            .body(body.clone()),
        request().header("content-type", "").body(body.clone()),
        form().header("content-type", FORM).body(body.clone()),
        form()
            .header("content-encoding", "gzip")
            .body(vec![0x1f, 0x8b, 8]),
        form().header("content-encoding", "br").body(body.clone()),
        form()
            .header("content-encoding", "identity, gzip")
            .body(body.clone()),
        form()
            .header("content-encoding", "identity")
            .header("content-encoding", "deflate")
            .body(body.clone()),
    ] {
        let answer = request.send(&world).await;
        assert_error(&answer, 415, "invalid_request");
        assert_eq!(answer.header("accept-encoding"), Some("identity"));
    }
    for request in [
        form(),
        form().body(vec![0xff, 0xfe, 0x00]),
        form().body([b"\xef\xbb\xbf", body.as_bytes()].concat()),
        // The parameters of a token request are never in the address (RFC 6749 §3.2).
        Request::post(format!("{TOKEN}?{body}"))
            .basic(&world.client)
            .header("content-type", FORM),
    ] {
        assert_error(&request.send(&world).await, 400, "invalid_request");
    }
    assert_eq!(tokens_issued(&world).await, 0);
    assert_code_is_good(&world, &code).await;
}

#[tokio::test]
async fn a_form_may_say_how_it_is_encoded() {
    let world = World::start().await;
    for content_type in [
        "application/x-www-form-urlencoded;charset=UTF-8",
        "Application/X-WWW-Form-Urlencoded ; charset=utf-8",
    ] {
        let code = world.code().await;
        let request = Request::post(TOKEN)
            .basic(&world.client)
            .header("content-type", content_type)
            .header("content-encoding", "Identity")
            .body(encoded(&by_code(&code)));
        assert_eq!(request.send(&world).await.status, 200, "{content_type}");
    }
}

#[tokio::test]
async fn the_token_endpoint_takes_posts_alone() {
    let world = World::start().await;
    let code = world.code().await;
    let query = encoded(&by_code(&code));
    for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        for target in [TOKEN.to_owned(), format!("{TOKEN}?{query}")] {
            let request = Request::new(method, target).basic(&world.client);
            let answer = request.send(&world).await;
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("POST")),
                "{method}"
            );
            assert_eq!(answer.body, "");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    assert_code_is_good(&world, &code).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read() {
    let world = World::start().await;
    let code = world.code().await;
    for size in [64 * 1024, 1024 * 1024] {
        let padding = "x".repeat(size);
        let fields = with(by_code(&code), &[("padding", &padding)]);
        let request = Request::post(TOKEN).basic(&world.client).form(&fields);
        // However long it says it is, or does not say.
        assert_error(&request.send(&world).await, 413, "invalid_request");
        assert_error(&request.in_chunks().send(&world).await, 413, "invalid_request");
    }
    assert_eq!(tokens_issued(&world).await, 0);
    assert_code_is_good(&world, &code).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_not_read() {
    let world = World::start().await;
    let code = world.code().await;
    let large = "x".repeat(20 * 1024);
    let query = format!("{TOKEN}?{large}");
    for request in [
        Request::post(TOKEN).header("x-large", &*large),
        Request::post(TOKEN).header("cookie", &*large),
        Request::post(TOKEN).header("authorization", format!("Basic {large}")),
        Request::post(query),
    ] {
        let answer = request
            .basic(&world.client)
            .form(&by_code(&code))
            .send(&world)
            .await;
        assert!(matches!(answer.status, 414 | 431), "{answer:?}");
        assert_eq!(answer.body, "");
    }
    assert_eq!(tokens_issued(&world).await, 0);
    assert_code_is_good(&world, &code).await;
}

#[tokio::test]
async fn there_are_only_so_many_parameters() {
    let world = World::start().await;
    let code = world.code().await;
    let names: Vec<_> = (0..5000).map(|n| format!("p{n}")).collect();
    let many = names.iter().map(|name| (&**name, "x"));
    let fields: Vec<_> = by_code(&code).into_iter().chain(many).collect();
    assert_error(&ask(&world, &world.client, &fields).await, 400, "invalid_request");
    assert_eq!(tokens_issued(&world).await, 0);
    assert_code_is_good(&world, &code).await;
}

#[tokio::test]
async fn every_repeated_parameter_is_rejected() {
    let world = World::start().await;
    let code = world.code().await;
    let fields = by_code(&code);
    let extra = [("scope", "contacts.read"), ("state", "x"), ("unknown", "x")];
    for (name, value) in fields.iter().chain(&extra) {
        for second in [*value, "something else"] {
            let mut twice = with(fields.clone(), &[(*name, *value)]);
            twice.push((name, second));
            assert_error(&ask(&world, &world.client, &twice).await, 400, "invalid_request");
        }
    }
    // Also where the name is spelt in another way.
    let body = format!("{}&%67rant_type=client_credentials", encoded(&fields));
    let request = Request::post(TOKEN)
        .basic(&world.client)
        .header("content-type", FORM);
    assert_error(&request.body(body).send(&world).await, 400, "invalid_request");
    assert_eq!(tokens_issued(&world).await, 0);
    assert_code_is_good(&world, &code).await;
}

#[tokio::test]
async fn a_parameter_without_a_value_counts_as_not_sent() {
    let world = World::start().await;
    let code = world.code().await;
    let mut fields = by_code(&code);
    fields.extend([
        ("code", ""),
        ("scope", ""),
        ("resource", ""),
        ("client_secret", ""),
    ]);
    let answer = ask(&world, &world.client, &fields).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let none = with(by_code(&code), &[("grant_type", "")]);
    assert_error(&ask(&world, &world.client, &none).await, 400, "invalid_request");
}

#[tokio::test]
async fn an_unknown_grant_type_differs_from_a_missing_one() {
    let world = World::start().await;
    let code = world.code().await;
    let missing = without(by_code(&code), "grant_type");
    assert_error(
        &ask(&world, &world.client, &missing).await,
        400,
        "invalid_request",
    );
    for grant_type in [
        "password",
        "implicit",
        "Authorization_Code",
        "authorization_code ",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:ietf:params:oauth:grant-type:device_code",
        "urn:ietf:params:oauth:grant-type:token-exchange",
        "<script>",
    ] {
        let other = with(by_code(&code), &[("grant_type", grant_type)]);
        let answer = ask(&world, &world.client, &other).await;
        assert_error(&answer, 400, "unsupported_grant_type");
        let description = answer.text("error_description");
        for supported in ["authorization_code", "refresh_token", "client_credentials"] {
            assert!(description.contains(supported), "{description}");
        }
        assert!(!answer.body.contains("<script>"));
    }
    for (grant_type, needs) in [("authorization_code", "code"), ("refresh_token", "refresh_token")] {
        let answer = ask(&world, &world.client, &[("grant_type", grant_type)]).await;
        assert_error(&answer, 400, "invalid_request");
        assert!(answer.text("error_description").contains(needs));
    }
    assert_eq!(tokens_issued(&world).await, 0);
    assert_code_is_good(&world, &code).await;
}

#[tokio::test]
async fn a_token_response_is_complete_and_not_cached() {
    let world = World::start().await;
    let code = world.code().await;
    let answer = ask(&world, &world.client, &by_code(&code)).await;
    assert_eq!(answer.status, 200);
    assert_private(&answer);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("pragma"), Some("no-cache"));
    let body = answer.json();
    assert_eq!(
        (&body["token_type"], &body["expires_in"]),
        (&"Bearer".into(), &300.into())
    );
    assert_eq!(body["scope"], "contacts.read contacts.write");
    let mut names: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
    names.sort();
    let expected = [
        "access_token",
        "expires_in",
        "grant_id",
        "refresh_token",
        "scope",
        "token_type",
    ];
    assert_eq!(names, expected);
    assert!(world.is_active(&answer.text("access_token")).await);
    assert!(world.is_active(&answer.text("refresh_token")).await);
}
