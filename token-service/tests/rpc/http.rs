//! The HTTP face as partners' libraries and browsers meet it, and as attackers do: raw requests over the
//! real listener. Every refusal is checked for its status, its headers, its body, and for what it leaves
//! behind.

use accord::{rpc::listener::MAX_CONCURRENT_CALLS, testing::http2::hang_up};

use crate::world::World;

pub mod authorize;
pub mod browser;
mod client;
mod client_authentication;
mod conformance;
pub mod connection;
mod discovery;
mod dpop;
mod introspection;
pub mod keys;
mod markup;
pub mod pages;
mod protocol;
pub mod pushed_request;
pub mod token;

pub use client::{Answer, MTLS_HOST, Request};

/// Asserts an error of the endpoints that clients call (RFC 6749 §5.2): JSON that no cache stores, with a
/// challenge if, and only if, it is a 401.
#[track_caller]
pub fn assert_error(answer: &Answer, status: u16, code: &str) {
    let body = answer.json();
    assert_eq!(
        (answer.status, body["error"].as_str()),
        (status, Some(code)),
        "{answer:?}"
    );
    let members = body.as_object().unwrap();
    assert!(
        members
            .keys()
            .all(|name| name == "error" || name == "error_description")
    );
    let description = body["error_description"].as_str().unwrap();
    assert!(
        !description.is_empty()
            && description
                .bytes()
                .all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\'),
        "{description:?}"
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_private(answer);
    let challenge = (status == 401).then_some(r#"Basic realm="accord", charset="UTF-8""#);
    assert_eq!(answer.header("www-authenticate"), challenge, "{answer:?}");
    assert_eq!(
        answer.header("retry-after").is_some(),
        [429, 503].contains(&status),
        "{answer:?}"
    );
}

/// Asserts that no cache stores the response, and that no other site's script reads it.
#[track_caller]
fn assert_private(answer: &Answer) {
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert!(answer.header("x-request-id").is_some());
}

/// How many tokens were issued so far, as the audit record has it.
async fn tokens_issued(world: &World) -> usize {
    world.audit_events("token.issue").await.len()
}

/// Asserts a page as a browser gets it: all that it may load, do and remember is said in its headers, and
/// nothing in it needs more.
#[track_caller]
fn assert_page(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8"),
        "{answer:?}"
    );
    assert_page_headers(answer);
    let body = &answer.body;
    assert!(body.starts_with("<!DOCTYPE html>") && body.trim_end().ends_with("</html>"));
    markup::assert_harmless(body);
}

/// Asserts what the headers of every answer of the pages say.
#[track_caller]
fn assert_page_headers(answer: &Answer) {
    assert_private(answer);
    for (name, value) in [
        (
            "content-security-policy",
            "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'",
        ),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{answer:?}");
    }
}

/// Over HTTP/2, as the gateway speaks it.
#[tokio::test]
async fn many_cancelled_calls_do_not_end_the_shared_connection() {
    let world = World::start().await;
    let server = world.http_address();
    let calling = tokio::task::spawn_blocking(move || hang_up(server, MAX_CONCURRENT_CALLS - 1));
    calling.await.unwrap();
}
