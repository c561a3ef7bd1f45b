//! The authorization endpoint: where the browser goes.

use accord::token::v1 as pb;

use super::{AUTHORIZE, Answer, Face, encoded};
use crate::{
    harness::ok,
    http::browser::Browser,
    world::{REDIRECT_URI, VERIFIER, challenge},
};

type Query = Vec<(&'static str, String)>;

/// A value of the client, which comes back as it is.
const STATE: &str = "a state & more, caf\u{e9}";

/// An authorization request with everything that it may have.
fn query(face: &Face) -> Query {
    vec![
        ("response_type", "code".into()),
        ("client_id", face.world.client_id.clone()),
        ("redirect_uri", REDIRECT_URI.into()),
        ("scope", "contacts.read".into()),
        ("state", STATE.into()),
        ("code_challenge", challenge(VERIFIER)),
        ("code_challenge_method", "S256".into()),
        ("resource", face.world.cloud_api_url.clone()),
        ("response_mode", "query".into()),
    ]
}

/// The request with one parameter changed; with none, if the value is empty.
fn with(face: &Face, name: &'static str, value: &str) -> Query {
    let mut query = query(face);
    query.retain(|(known, _)| *known != name);
    if !value.is_empty() {
        query.push((name, value.to_owned()));
    }
    query
}

async fn ask(face: &mut Face<'_>, tenant: &str, query: &Query) -> Answer {
    let parameters: Vec<_> = query.iter().map(|(name, value)| (*name, &**value)).collect();
    let query = encoded(&parameters);
    face.ask(AUTHORIZE, tenant, |mut request| {
        request.target = format!("{}?{query}", request.target);
        request
    })
    .await
}

/// A setup begins, is decided, and the answer comes back.
pub async fn started(face: &mut Face<'_>) {
    let world = face.world;
    for approve in [true, false] {
        let query = query(face);
        let parameters: Vec<_> = query.iter().map(|(name, value)| (*name, &**value)).collect();
        let operation = face.description.operation(AUTHORIZE, "get");
        face.description.assert_query(operation, &parameters);
        assert_eq!(ask(face, "acme", &query).await.status, 200);
        let target = format!("/acme/oauth2/authorize?{}", encoded(&parameters));
        let path = Browser::new(world).start_setup(&target).await;
        let setup_id = path.strip_prefix("/acme/setups/").unwrap();
        let session = world.sign_in(setup_id).await;
        let url = if approve {
            let approval = world.approval(setup_id, &session);
            ok(world.setups().approve_setup(approval).await).redirect_url
        } else {
            let denial = pb::DenySetupRequest {
                setup_id: setup_id.into(),
                admin_session: session,
            };
            ok(world.setups().deny_setup(denial).await).redirect_url
        };
        let answer = face.description.assert_callback(&url, REDIRECT_URI);
        assert!(answer.contains(&("state".into(), STATE.into())));
        assert_eq!(answer.iter().any(|(name, _)| name == "code"), approve);
    }
}

/// Asserts that the client gets this error.
async fn assert_client_error(face: &mut Face<'_>, query: Query, code: &str) {
    let answer = ask(face, "acme", &query).await;
    let location = match answer.header("location") {
        Some(location) => location.to_owned(),
        // Too long for a header, so that a page leads back.
        None => {
            let (_, rest) = answer.body.split_once("content=\"0;url=").unwrap();
            let (location, _) = rest.split_once('"').unwrap();
            assert!(location.len() > 6 * 1024, "{location}");
            location.replace("&#38;", "&")
        }
    };
    let status = if answer.header("location").is_some() {
        303
    } else {
        200
    };
    assert_eq!(answer.status, status, "{query:?}");
    let parameters = face.description.assert_callback(&location, REDIRECT_URI);
    assert!(
        parameters.contains(&("error".into(), code.into())),
        "{query:?}: {parameters:?}"
    );
    assert!(
        parameters.contains(&("iss".into(), face.world.issuer.clone())),
        "{parameters:?}"
    );
}

/// Errors that go to the redirect URI.
pub async fn refused(face: &mut Face<'_>) {
    let too_long = "\u{e9}".repeat(2049);
    for (name, value, code) in [
        ("response_type", "token", "unsupported_response_type"),
        ("response_type", "", "invalid_request"),
        ("response_mode", "fragment", "invalid_request"),
        ("code_challenge", "", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("state", &too_long, "invalid_request"),
        ("scope", "unknown", "invalid_scope"),
        ("resource", "https://else.example", "invalid_target"),
        ("request", "eyJ9.e30.", "request_not_supported"),
    ] {
        assert_client_error(face, with(face, name, value), code).await;
    }
    let mut repeated = query(face);
    repeated.push(("state", "another".into()));
    assert_client_error(face, repeated, "invalid_request").await;

    face.world.suspend("client", true);
    assert_client_error(face, query(face), "unauthorized_client").await;
    face.world.suspend("client", false);
}

/// Errors that only the person sees.
pub async fn not_redirected(face: &mut Face<'_>) {
    for (tenant, name, value, status) in [
        ("acme", "client_id", "", 400),
        ("acme", "client_id", "cli_00000000000000000000000000", 400),
        ("acme", "redirect_uri", "", 400),
        ("acme", "redirect_uri", "https://else.example/callback", 400),
        ("nowhere", "state", "s", 404),
        ("No-Tenant", "state", "s", 404),
    ] {
        let answer = ask(face, tenant, &with(face, name, value)).await;
        assert_eq!(answer.status, status, "{tenant} {name} {value}");
    }
    assert_eq!(ask(face, "acme", &Vec::new()).await.status, 400);
    // Nothing is known of client and redirect URI then.
    face.world.registry().set_unavailable(true);
    assert_eq!(ask(face, "acme", &query(face)).await.status, 503);
    face.world.registry().set_unavailable(false);
    face.world.change_client(|client| client.scopes[0].name.clear());
    assert_eq!(ask(face, "acme", &query(face)).await.status, 500);
    face.world
        .change_client(|client| client.scopes[0].name = "contacts.read".into());
}
