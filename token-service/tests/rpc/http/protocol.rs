//! What HTTP allows and clients send: every endpoint with every method, path spelling, content type, coding and quirk of
//! the headers.

use super::{
    Request,
    client::{FORM, encoded},
};
use crate::world::World;

/// Where clients post a form, with a form that it takes.
const FORMS: [(&str, (&str, &str)); 3] = [
    ("/acme/oauth2/token", ("grant_type", "client_credentials")),
    ("/acme/oauth2/introspect", ("token", "acr_x")),
    ("/acme/oauth2/revoke", ("token", "acr_x")),
];

/// The public documents.
const DOCUMENTS: [&str; 5] = [
    "/.well-known/oauth-authorization-server/acme",
    "/acme/.well-known/oauth-authorization-server",
    "/acme/.well-known/openid-configuration",
    "/acme/jwks.json",
    "/openapi.json",
];

const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get",
];

#[tokio::test]
async fn each_endpoint_has_its_methods() {
    let world = World::start().await;
    for method in METHODS {
        for (path, _) in FORMS {
            let request = Request::new(method, path).header("content-type", FORM);
            let answer = request.send(&world).await;
            let (status, allow) = match method {
                "POST" => (400, None),
                _ => (405, Some("POST")),
            };
            assert_eq!(
                (answer.status, answer.header("allow")),
                (status, allow),
                "{method} {path}"
            );
        }
        for path in DOCUMENTS {
            let answer = Request::new(method, path).send(&world).await;
            let (status, allow) = match method {
                "GET" | "HEAD" => (200, None),
                "OPTIONS" => (204, Some("GET,HEAD")),
                _ => (405, Some("GET,HEAD")),
            };
            assert_eq!(
                (answer.status, answer.header("allow")),
                (status, allow),
                "{method} {path}"
            );
            assert_eq!(
                answer.header("access-control-allow-origin"),
                Some("*"),
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn a_path_has_one_spelling() {
    let world = World::start().await;
    for path in FORMS.map(|(path, _)| path).into_iter().chain(DOCUMENTS) {
        let (parent, last) = path.rsplit_once('/').unwrap();
        // A target that does not begin with a slash is no path at all.
        let slash = if parent.is_empty() { "/%2F" } else { "%2F" };
        for other in [
            format!("{path}/"),
            format!("/{path}"),
            format!("{path}//"),
            format!("{parent}//{last}"),
            format!("{parent}/./{last}"),
            format!("{parent}/x/../{last}"),
            format!("{path}%00"),
            format!("{path};x"),
            format!("{parent}{slash}{last}"),
            format!("{parent}/{}", last.to_uppercase()),
        ] {
            let method = if DOCUMENTS.contains(&path) { "GET" } else { "POST" };
            let answer = Request::new(method, &*other).send(&world).await;
            assert_eq!(answer.status, 404, "{method} {other}");
        }
    }
}

#[tokio::test]
async fn documents_are_json_whatever_is_accepted() {
    let world = World::start().await;
    for path in DOCUMENTS {
        for accept in [
            "application/json",
            "*/*",
            "text/html",
            "application/json;q=0",
            "",
            "\"x",
        ] {
            let request = Request::get(path).header("accept", accept);
            let answer = request.header("accept", accept).send(&world).await;
            assert_eq!(
                (answer.status, answer.header("content-type")),
                (200, Some("application/json"))
            );
            assert_eq!(answer.header("content-encoding"), None);
        }
        // A body does not belong there, and does no harm.
        let request = Request::get(path).header("content-type", FORM).body("x=1");
        assert_eq!(request.send(&world).await.status, 200, "{path}");
    }
}

/// Headers of a request with a good body, and the status of its answer.
const HEADERS: [(&[(&str, &str)], u16); 27] = [
    (&[("content-type", FORM)], 200),
    (&[("Content-Type", "Application/X-WWW-FORM-urlencoded")], 200),
    (
        &[("content-type", "application/x-www-form-urlencoded; charset=utf-8")],
        200,
    ),
    (
        &[(
            "content-type",
            "application/x-www-form-urlencoded;charset=\"UTF-8\"",
        )],
        200,
    ),
    (&[("content-type", " application/x-www-form-urlencoded ;")], 200),
    (&[("content-type", FORM), ("content-encoding", "identity")], 200),
    (&[("content-type", FORM), ("accept", "*/*")], 200),
    (
        &[
            ("content-type", FORM),
            ("accept", "text/html"),
            ("accept", "image/*;q=0.5"),
        ],
        200,
    ),
    (&[("content-type", FORM), ("accept", "application/json;q=0")], 200),
    (&[("content-type", FORM), ("accept-encoding", "gzip, br")], 200),
    (
        &[("content-type", FORM), ("cookie", "a=b"), ("cookie", "c=d")],
        200,
    ),
    (&[("content-type", FORM), ("origin", "null")], 200),
    (
        &[("content-type", FORM), ("x-http-method-override", "DELETE")],
        200,
    ),
    (&[("content-type", FORM), ("x-request-id", "\"; drop")], 200),
    (
        &[
            ("content-type", FORM),
            ("if-none-match", "*"),
            ("range", "bytes=0-1"),
        ],
        200,
    ),
    (&[], 415),
    (&[("content-type", "")], 415),
    (&[("content-type", "application/json")], 415),
    (
        &[(
            "content-type",
            "application/json; x=application/x-www-form-urlencoded",
        )],
        415,
    ),
    (&[("content-type", "multipart/form-data; boundary=x")], 415),
    (&[("content-type", "text/plain")], 415),
    (&[("content-type", FORM), ("content-type", FORM)], 415),
    (
        &[("content-type", FORM), ("content-type", "application/json")],
        415,
    ),
    (&[("content-type", FORM), ("content-encoding", "gzip")], 415),
    (&[("content-type", FORM), ("content-encoding", "")], 415),
    (&[("content-type", FORM), ("content-encoding", "x-unknown")], 415),
    (&[("content-type", FORM), ("authorization", "Bearer x")], 400),
];

#[tokio::test]
async fn headers_decide_as_http_says() {
    let world = World::start().await;
    world.first_tokens().await;
    for (path, field) in FORMS {
        for (headers, status) in HEADERS {
            for in_chunks in [false, true] {
                let mut request = Request::post(path).basic(&world.client).body(encoded(&[field]));
                for (name, value) in headers {
                    request = request.header(name, *value);
                }
                let request = if in_chunks { request.in_chunks() } else { request };
                let answer = request.send(&world).await;
                assert_eq!(answer.status, status, "{path} {headers:?} {answer:?}");
                if status != 200 {
                    super::assert_error(&answer, status, "invalid_request");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_body_may_have_any_form_that_libraries_send() {
    let world = World::start().await;
    world.first_tokens().await;
    let id = &world.client_id;
    let more: String = (0..100).map(|n| format!("&extra_{n}=x")).collect();
    for (path, (name, value)) in FORMS {
        let field = format!("{name}={value}");
        for (body, status) in [
            (field.clone(), 200),
            (format!("{field}&client_id={id}"), 200),
            (
                format!("{field}&scope=&client_secret=&token_type_hint=unknown"),
                200,
            ),
            (format!("&&{field}&=&x"), 200),
            (format!("{field}&{}=%zz", "n".repeat(1000)), 200),
            (format!("{field}{more}"), 200),
            (field.replace('_', "%5f"), 200),
            (format!("{field}&client_id=cli_other"), 400),
            (format!("{field}&client_id={id}&client_id={id}"), 400),
            (format!("{field}&{field}"), 400),
            (format!("\u{feff}{field}"), 400),
            (format!("{{\"{name}\":\"{value}\"}}"), 400),
            (format!("{field}{more}{more}"), 400),
            (String::new(), 400),
        ] {
            let request = Request::post(path)
                .basic(&world.client)
                .header("content-type", FORM);
            let answer = request.body(body.clone()).send(&world).await;
            assert_eq!(answer.status, status, "{path} {body} {answer:?}");
        }
    }
}
