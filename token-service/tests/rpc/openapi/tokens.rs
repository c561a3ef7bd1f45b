//! The endpoints that clients call themselves.

use accord::{clock::Clock, rpc::auth::WorkloadKind, testing::dpop::ProofKey};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use token_service::oauth::client_authentication::ASSERTION_TYPE;
use uuid::Uuid;

use super::{Face, INTROSPECT, PAR, Parameters, REVOKE, Request, TOKEN};
use crate::world::{REDIRECT_URI, TestClient, VERIFIER, World, challenge};

const JWT: &str = "application/token-introspection+jwt";

/// A key that the world's client signs with.
struct ClientKey(EncodingKey);

impl ClientKey {
    /// Makes a key and registers it.
    fn registered(world: &World) -> Self {
        let key = Ed25519KeyPair::generate_pkcs8v1(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let public = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.as_ref()).unwrap();
        let x = URL_SAFE_NO_PAD.encode(public.public_key().as_ref());
        let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "one", "alg": "EdDSA"}]});
        world.change_client(|client| client.json_web_key_set = keys.to_string());
        Self(EncodingKey::from_ed_der(key.as_ref()))
    }

    /// An assertion that counts once.
    fn assertion(&self, world: &World) -> String {
        let claims = json!({
            "iss": world.client_id,
            "sub": world.client_id,
            "aud": world.issuer,
            "exp": world.clock().now().as_secs() + 60,
            "jti": Uuid::new_v4(),
        });
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.0).unwrap()
    }
}

fn by_code(code: &str) -> [(&str, &str); 4] {
    [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", VERIFIER),
    ]
}

/// Tokens, by each grant and each way to authenticate.
pub async fn issued(face: &mut Face<'_>) {
    let world = face.world;
    let code = world.code().await;
    let first = face.post(TOKEN, &by_code(&code)).await.json();
    let refresh_token = first["refresh_token"].as_str().unwrap();
    assert_eq!(first["scope"], "contacts.read contacts.write");

    let TestClient {
        client_id,
        client_secret,
    } = &world.client;
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token),
        ("scope", "contacts.read"),
        ("client_id", client_id),
        ("client_secret", client_secret),
    ];
    let second = face.post_by(TOKEN, &form, |request| request).await.json();
    assert_eq!(second["scope"], "contacts.read");
    assert_ne!(second["refresh_token"], first["refresh_token"]);

    let assertion = ClientKey::registered(world).assertion(world);
    let form = [
        ("grant_type", "client_credentials"),
        ("resource", &world.cloud_api_url),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", &assertion),
    ];
    let third = face.post_by(TOKEN, &form, |request| request).await.json();
    assert!(third.get("refresh_token").is_none(), "{third}");
    let again = face.ask(TOKEN, "acme", |request| request.form(&form)).await;
    assert_eq!(
        again.error(),
        (401, "invalid_client".into()),
        "an assertion counts once"
    );
}

/// Every error of the token endpoint.
pub async fn refused(face: &mut Face<'_>) {
    let world = face.world;
    let stranger = world.new_client(&["acme"]);
    let credentials = [("grant_type", "client_credentials")];
    let twice = [credentials[0], credentials[0]];
    let cases: [(&TestClient, &Parameters, u16, &str); 9] = [
        (&world.client, &[], 400, "invalid_request"),
        (&world.client, &twice, 400, "invalid_request"),
        (
            &world.client,
            &[("grant_type", "refresh_token")],
            400,
            "invalid_request",
        ),
        (
            &world.client,
            &[("grant_type", "password")],
            400,
            "unsupported_grant_type",
        ),
        (&world.client, &by_code("acc_1"), 400, "invalid_grant"),
        (
            &world.client,
            &[credentials[0], ("scope", "a\"b")],
            400,
            "invalid_scope",
        ),
        (
            &world.client,
            &[credentials[0], ("scope", "unknown")],
            400,
            "invalid_scope",
        ),
        (
            &world.client,
            &[credentials[0], ("resource", "https://else.example")],
            400,
            "invalid_target",
        ),
        (&stranger, &credentials, 400, "unauthorized_client"),
    ];
    for (client, form, status, code) in cases {
        let answer = face
            .ask(TOKEN, "acme", |request| request.basic(client).form(form))
            .await;
        assert_eq!(answer.error(), (status, code.into()), "{form:?}");
    }
    // A proof may need a nonce of this service, and counts once.
    let key = ProofKey::ed25519();
    let endpoint = format!("{}/oauth2/token", world.issuer);
    let now = world.clock().now().as_secs();
    let foreign = key.altered(&endpoint, now, |_, claims| {
        claims["nonce"] = json!("of another server")
    });
    let good = key.proof(&endpoint, now);
    for (proof, status, code) in [
        (&foreign, 400, "use_dpop_nonce"),
        (&good, 200, ""),
        (&good, 400, "invalid_dpop_proof"),
    ] {
        let with_proof = |request: Request| request.header("dpop", proof).basic(&world.client);
        let answer = face
            .ask(TOKEN, "acme", |request| with_proof(request).form(&credentials))
            .await;
        assert_eq!(answer.status, status, "{answer:?}");
        if status != 200 {
            assert_eq!(answer.error(), (status, code.into()));
            continue;
        }
        let token = answer.json();
        assert_eq!(token["token_type"], "DPoP");
        let form = [("token", token["access_token"].as_str().unwrap())];
        let introspected = face.post(INTROSPECT, &form).await.json();
        assert_eq!(introspected["cnf"], json!({"jkt": key.jkt()}));
    }
    // A client without access must not learn whether a tenant exists.
    let answer = face
        .ask(TOKEN, "nowhere", |request| {
            request.basic(&world.client).form(&credentials)
        })
        .await;
    assert_eq!(answer.error(), (400, "unauthorized_client".into()));
}

/// Introspection, plain and signed.
pub async fn introspected(face: &mut Face<'_>) {
    let world = face.world;
    let tokens = world.first_tokens().await;
    let client = world.client.clone();
    for (token, active, kind) in [
        (&*tokens.access_token, true, json!("Bearer")),
        (&*tokens.refresh_token, true, json!("refresh_token")),
        ("acr_1", false, json!(null)),
    ] {
        let form = [("token", token), ("token_type_hint", "access_token")];
        let plain = face.post(INTROSPECT, &form).await.json();
        assert_eq!((&plain["active"], &plain["token_type"]), (&json!(active), &kind));
        let by = |request: Request| request.basic(&client).header("accept", JWT);
        let signed = face.post_by(INTROSPECT, &form, by).await;
        assert_eq!(signed.media_type(), Some(JWT));
        let payload = URL_SAFE_NO_PAD
            .decode(signed.body.split('.').nth(1).unwrap())
            .unwrap();
        let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(payload["token_introspection"], plain);
    }
}

/// Introspection by workloads.
pub async fn introspected_by_workloads(face: &mut Face<'_>) {
    let world = face.world;
    let tokens = world.first_tokens().await;
    let form = [("token", &*tokens.access_token)];
    for (kind, status) in [(WorkloadKind::InternalService, 200), (WorkloadKind::Gateway, 403)] {
        let bearer = format!("Bearer {}", world.registry().add_workload(kind).expose());
        let by = |request: Request| request.form(&form).header("authorization", bearer);
        let answer = face.ask(INTROSPECT, "acme", by).await;
        assert_eq!(answer.status, status, "{kind:?}");
    }
    let unknown = |request: Request| request.form(&form).header("authorization", "Bearer acw_1");
    let answer = face.ask(INTROSPECT, "acme", unknown).await;
    assert_eq!(answer.error(), (401, "invalid_token".into()));
}

/// Revocation ends a token, and says nothing.
pub async fn revoked(face: &mut Face<'_>) {
    let tokens = face.world.first_tokens().await;
    face.post(REVOKE, &[("token", &tokens.refresh_token)]).await;
    assert!(!face.world.is_active(&tokens.access_token).await);
    face.post(REVOKE, &[("token", "acr_1")]).await;
}

/// A form that has a meaning at each endpoint.
fn meaningful(challenge: &str) -> [(&str, &str); 6] {
    [
        ("grant_type", "client_credentials"),
        ("token", "acr_1"),
        ("response_type", "code"),
        ("redirect_uri", REDIRECT_URI),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
    ]
}

/// Errors of all four: requests that can't be read, or have no valid client.
pub async fn requests_without_meaning(face: &mut Face<'_>) {
    let world = face.world;
    let wrong = TestClient {
        client_secret: world.new_client(&["acme"]).client_secret,
        ..world.client.clone()
    };
    let fill = "x".repeat(64 * 1024);
    let challenge = challenge(VERIFIER);
    for path in [TOKEN, PAR, INTROSPECT, REVOKE] {
        let form = &meaningful(&challenge);
        let invalid_client = (401, "invalid_client".to_owned());
        let answer = face.ask(path, "acme", |request| request.form(form)).await;
        assert_eq!(answer.error(), invalid_client, "nobody, at {path}");
        let answer = face
            .ask(path, "acme", |request| request.basic(&wrong).form(form))
            .await;
        assert_eq!(answer.error(), invalid_client, "another's secret, at {path}");

        let invalid_request = (400, "invalid_request".to_owned());
        let two_ways = [&form[..], &[("client_secret", "acs_1")]].concat();
        let answer = face
            .ask(path, "acme", |request| {
                request.basic(&world.client).form(&two_ways)
            })
            .await;
        assert_eq!(answer.error(), invalid_request, "two ways, at {path}");
        let answer = face
            .ask(path, "acme", |request| request.basic(&world.client))
            .await;
        assert_eq!(
            answer.error(),
            (415, "invalid_request".into()),
            "no form, at {path}"
        );
        let empty = face
            .ask(path, "acme", |request| request.basic(&world.client).form(&[]))
            .await;
        assert_eq!(empty.error(), invalid_request, "nothing asked, at {path}");

        let large = face
            .ask(path, "acme", |request| {
                request.basic(&world.client).form(&[("token", &fill)])
            })
            .await;
        assert_eq!(large.error(), (413, "invalid_request".into()), "{path}");
        let answer = face
            .ask(path, "No-Tenant", |request| {
                request.basic(&world.client).form(form)
            })
            .await;
        assert_eq!(answer.error(), (404, "not_found".into()), "{path}");
    }
}

/// The registry says of the client what the contract does not allow.
pub async fn not_our_day(face: &mut Face<'_>) {
    face.world.change_client(|client| client.scopes[0].name.clear());
    let challenge = challenge(VERIFIER);
    for path in [TOKEN, PAR, INTROSPECT, REVOKE] {
        let form = meaningful(&challenge);
        let answer = face
            .ask(path, "acme", |request| {
                request.basic(&face.world.client).form(&form)
            })
            .await;
        assert_eq!(answer.error(), (500, "server_error".into()), "{path}");
    }
    face.world
        .change_client(|client| client.scopes[0].name = "contacts.read".into());
}
