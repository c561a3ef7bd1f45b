//! Client authentication: each way that works, and what comes in two ways, broken, or not at all.

use super::{
    Answer, Request, assert_error,
    client::{FORM, Fields, encoded},
    keys::{ALGORITHMS, ClientKey},
    token::{CREDENTIALS, TOKEN},
    tokens_issued,
};
use crate::world::{TestClient, World};

mod assertion;
mod assertion_rpc;
mod jwks_uri;

pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Where a client authenticates, with what it asks there.
const ENDPOINTS: [(&str, (&str, &str)); 3] = [
    (TOKEN, CREDENTIALS),
    ("/acme/oauth2/introspect", ("token", "acr_x")),
    ("/acme/oauth2/revoke", ("token", "acr_x")),
];

/// The fields of `private_key_jwt`.
fn by_assertion(jwt: &str) -> [(&str, &str); 3] {
    [
        CREDENTIALS,
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", jwt),
    ]
}

async fn post(world: &World, fields: &Fields<'_>) -> Answer {
    Request::post(TOKEN).form(fields).send(world).await
}

/// A world whose client has a grant, so that it could ask for tokens by itself.
async fn world_with_grant() -> World {
    let world = World::start().await;
    world.first_tokens().await;
    world
}

#[tokio::test]
async fn each_way_of_authenticating_gives_a_token() {
    let world = world_with_grant().await;
    let TestClient {
        client_id,
        client_secret,
    } = &world.client;
    let basic = Request::post(TOKEN).basic(&world.client);
    let with_client_id = basic.clone().form(&[CREDENTIALS, ("client_id", client_id)]);
    let unpadded = Request::post(TOKEN).header("authorization", {
        let padded = base64_of(&format!("{client_id}:{client_secret}"));
        format!("bAsIc  {}", padded.trim_end_matches('='))
    });
    // RFC 6749 §2.3.1: both parts are form-encoded, and any character may be.
    let escaped: String = client_secret.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let escaped = Request::post(TOKEN).authorization_basic(&format!("{client_id}:{escaped}"));
    let post = [
        CREDENTIALS,
        ("client_id", client_id),
        ("client_secret", client_secret),
    ];
    for request in [
        basic.form(&[CREDENTIALS]),
        with_client_id,
        unpadded.form(&[CREDENTIALS]),
        escaped.form(&[CREDENTIALS]),
        Request::post(TOKEN).form(&post),
    ] {
        let answer = request.send(&world).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(world.is_active(&answer.text("access_token")).await);
    }
    for algorithm in ALGORITHMS {
        let key = ClientKey::of_client(&world, algorithm);
        for client_id in ["", client_id] {
            let jwt = key.assertion(&world);
            let fields = [by_assertion(&jwt).as_slice(), &[("client_id", client_id)]].concat();
            let answer = Request::post(TOKEN).form(&fields).send(&world).await;
            assert_eq!(answer.status, 200, "{algorithm}: {answer:?}");
            assert!(world.is_active(&answer.text("access_token")).await);
        }
    }
}

#[tokio::test]
async fn a_registered_place_of_the_secret_is_the_only_one() {
    let world = world_with_grant().await;
    let TestClient {
        client_id,
        client_secret,
    } = &world.client;
    let secret = [("client_id", &**client_id), ("client_secret", &**client_secret)];
    for (path, asks) in ENDPOINTS {
        let in_header = Request::post(path).basic(&world.client).form(&[asks]);
        let in_form = Request::post(path).form(&[&[asks][..], &secret].concat());
        for (method, right, wrong) in [
            ("client_secret_basic", &in_header, &in_form),
            ("client_secret_post", &in_form, &in_header),
        ] {
            world.change_client(|client| client.token_endpoint_auth_method = method.into());
            assert_eq!(right.clone().send(&world).await.status, 200, "{path} {method}");
            let answer = wrong.clone().send(&world).await;
            assert_error(&answer, 401, "invalid_client");
            let description = answer.text("error_description");
            assert!(description.ends_with(method), "{path}: {description}");
            // gRPC has neither header nor form.
            assert!(
                world.issue(world.by_client_credentials()).await.is_ok(),
                "{method}"
            );
        }
    }
}

fn base64_of(text: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(text)
}

#[tokio::test]
async fn two_ways_at_once_are_none() {
    let world = world_with_grant().await;
    let issued = tokens_issued(&world).await;
    let key = ClientKey::of_client(&world, "EdDSA");
    let jwt = key.assertion(&world);
    let TestClient {
        client_id,
        client_secret,
    } = &world.client;
    let id = ("client_id", &**client_id);
    let secret = ("client_secret", &**client_secret);
    let assertion = by_assertion(&jwt);
    for (path, asks) in ENDPOINTS {
        let request = || Request::post(path);
        let basic = || request().basic(&world.client);
        let other = world.new_client(&["acme"]);
        for request in [
            basic().form(&[asks, secret]),
            basic().form(&[asks, id, secret]),
            basic().form(&[asks, ("client_secret", "x")]),
            basic().form(&[asks, assertion[1], assertion[2]]),
            basic().form(&[asks, ("client_assertion", "x")]),
            request().form(&[asks, id, secret, assertion[1], assertion[2]]),
            basic().basic(&world.client).form(&[asks]),
            basic().basic(&other).form(&[asks]),
            basic().header("authorization", "Bearer x").form(&[asks]),
            request()
                .header("authorization", "")
                .header("authorization", "")
                .form(&[asks]),
            // The header's client and that of the body differ.
            basic().form(&[asks, ("client_id", &other.client_id)]),
            basic().form(&[asks, ("client_id", "x")]),
            request().form(&[asks, id, id, secret]),
            request().form(&[asks, id, secret, secret]),
            request().form(&[asks, assertion[1], assertion[2], assertion[2]]),
        ] {
            assert_error(&request.send(&world).await, 400, "invalid_request");
        }
    }
    assert_eq!(tokens_issued(&world).await, issued);
    // Nothing of that used the assertion up.
    assert_eq!(post(&world, &assertion).await.status, 200);
}

#[tokio::test]
async fn a_broken_or_unknown_scheme_authenticates_no_client() {
    let world = world_with_grant().await;
    let issued = tokens_issued(&world).await;
    let TestClient {
        client_id,
        client_secret,
    } = &world.client;
    let pair = base64_of(&format!("{client_id}:{client_secret}"));
    let other = world.new_client(&["acme"]);
    let changed = base64_of(&format!(
        "{client_id}:{}",
        &client_secret[..client_secret.len() - 1]
    ));
    let swapped = base64_of(&format!("{client_id}:{}", other.client_secret));
    let reversed = base64_of(&format!("{client_secret}:{client_id}"));
    let without_colon = base64_of(&format!("{client_id}{client_secret}"));
    let ampersand = base64_of(&format!("{client_id}:{client_secret}&x=y"));
    let newline = base64_of(&format!("{client_id}:{client_secret}\n"));
    let authorizations = [
        String::new(),
        "Basic".into(),
        "Basic ".into(),
        format!("Basic{pair}"),
        format!("Basic {pair}!"),
        format!("Basic \"{pair}\""),
        format!("Basic {}", &pair[1..]),
        format!("Basic {pair}, Basic {pair}"),
        format!("Bearer {pair}"),
        format!("Bearer {client_secret}"),
        format!("Digest {pair}"),
        format!("Negotiate {pair}"),
        pair,
        format!("Basic {changed}"),
        format!("Basic {swapped}"),
        format!("Basic {reversed}"),
        format!("Basic {without_colon}"),
        format!("Basic {ampersand}"),
        format!("Basic {newline}"),
        format!("Basic {}", base64_of(":")),
        format!("Basic {}", base64_of(&format!("{client_id}:"))),
        format!("Basic {}", base64_of(&format!(":{client_secret}"))),
        "Basic /////w==".into(),
    ];
    let body = encoded(&[CREDENTIALS]);
    for authorization in authorizations {
        let request = Request::post(TOKEN)
            .header("authorization", authorization)
            .header("content-type", FORM)
            .body(body.clone());
        assert_error(&request.send(&world).await, 401, "invalid_client");
    }
    assert_eq!(tokens_issued(&world).await, issued);
}

#[tokio::test]
async fn an_unknown_client_and_a_wrong_secret_get_one_answer() {
    let world = world_with_grant().await;
    let issued = tokens_issued(&world).await;
    let TestClient {
        client_id,
        client_secret,
    } = &world.client;
    let mut unknown = client_id.clone();
    unknown.replace_range(4..8, "7zzz");
    let (mut bodies, mut without) = (Vec::new(), Vec::new());
    for (path, asks) in ENDPOINTS {
        for id in ["", client_id, &unknown] {
            let fields = [asks, ("client_id", id), ("client_secret", "")];
            let answer = Request::post(path).form(&fields).send(&world).await;
            assert_error(&answer, 401, "invalid_client");
            without.push(answer.body);
        }
        for (id, secret) in [
            ("", &**client_secret),
            (client_id, "x"),
            (client_id, "acs_x"),
            (&unknown, client_secret),
            ("cli_x", client_secret),
            ("ü", "ü"),
            (&client_id.to_uppercase(), client_secret),
            (client_id, &client_secret.to_uppercase()),
        ] {
            let fields = [asks, ("client_id", id), ("client_secret", secret)];
            let answer = Request::post(path).form(&fields).send(&world).await;
            assert_error(&answer, 401, "invalid_client");
            bodies.push(answer.body);
        }
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    // Without a credential neither does the answer depend on what exists.
    without.dedup();
    assert_eq!(without.len(), 1, "{without:?}");
    assert!(
        without[0].contains("no client authentication came"),
        "{without:?}"
    );
    assert!(!bodies[0].contains(client_id.as_str()));
    assert_eq!(tokens_issued(&world).await, issued);
}
