//! Libraries for Java.

use std::process::Command;

use accord::{
    clock::{Clock, SystemClock},
    dpop::access_token_hash,
    registry::v1 as reg,
    testing::{calls::ok, dpop::ProofKey},
    token::v1::{
        RotateSigningKeyRequest, SigningKeyState, signing_key_service_client::SigningKeyServiceClient,
    },
};
use reqwest::{Client, StatusCode, header, redirect::Policy};
use serde_json::Value;

use super::{
    admin::{Admin, Decision},
    program::{
        KeyType, Scene, connects, connects_by_the_profile, connects_with_a_key, connects_with_nonces,
        verifies,
    },
};
use crate::harness::{
    document::file,
    partner::{SCOPES, code_grant, own_grant},
    suite::java_libraries,
};

tests!(
    nimbus_connects,
    nimbus_binds_its_tokens,
    nimbus_follows_the_fapi_profile,
    nimbus_is_challenged_once_for_a_nonce,
    nimbus_verifies_access_tokens,
    spring_security_connects,
    spring_security_introspects_access_tokens,
    spring_security_takes_bound_tokens_with_a_proof_alone,
);

/// Runs a program from its source.
pub fn java(program: &str) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"])
        .arg(java_libraries().join("*"))
        .arg(file("tests/java").join(program).with_extension("java"));
    command
}

async fn nimbus_connects() {
    let steps = [
        "code",
        "refresh",
        "client_credentials",
        "private_key_jwt",
        "introspect",
        "revoke",
    ];
    connects(java("Nimbus"), KeyType::P256, &steps).await;
}

async fn nimbus_binds_its_tokens() {
    let steps = ["code", "refresh", "client_credentials"];
    connects_with_a_key(java("NimbusDpop"), KeyType::P256, &steps).await;
}

async fn nimbus_follows_the_fapi_profile() {
    let steps = ["code", "refresh", "client_credentials"];
    connects_by_the_profile(java("NimbusDpop"), KeyType::P256, &steps).await;
}

async fn nimbus_is_challenged_once_for_a_nonce() {
    let steps = ["code", "refresh", "client_credentials"];
    connects_with_nonces(java("NimbusDpop"), KeyType::P256, &steps).await;
}

async fn nimbus_verifies_access_tokens() {
    verifies(|| java("NimbusResourceServer")).await;
}

/// An application and a browser at it.
struct Application {
    base: String,
    http: Client,
    cookie: String,
}

impl Application {
    fn at(port: &Value) -> Self {
        Self {
            base: format!("http://127.0.0.1:{}", port.as_u64().expect("port")),
            http: Client::builder().redirect(Policy::none()).build().unwrap(),
            cookie: String::new(),
        }
    }

    async fn get(&mut self, url: &str) -> reqwest::Response {
        let request = self.http.get(url).header(header::COOKIE, &self.cookie);
        let answer = request.send().await.unwrap();
        if let Some(cookie) = answer.headers().get(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            self.cookie = cookie.split(';').next().unwrap().to_owned();
        }
        answer
    }

    async fn location(&mut self, url: &str) -> String {
        let answer = self.get(url).await;
        let location = answer
            .headers()
            .get(header::LOCATION)
            .map(|value| value.to_str().unwrap().to_owned());
        match location {
            Some(location) => location,
            None => panic!("{}: {}", answer.status(), answer.text().await.unwrap()),
        }
    }

    async fn json(&mut self, path: &str) -> Value {
        let answer = self.get(&format!("{}{path}", self.base)).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.json().await.unwrap()
    }
}

async fn spring_security_connects() {
    let scene = Scene::set(KeyType::P256).await;
    let mut program = scene.start(java("SpringClient"));
    let mut application = Application::at(&program.hear().await["port"]);
    let registered = reg::SubmitIntegrationRequestRequest {
        redirect_uris: vec![format!("{}/callback", application.base)],
        ..Default::default()
    };
    let world = &scene.world;
    world.amend_client(&scene.partner, registered).await;

    let connect = format!("{}/connect", application.base);
    let authorization_url = application.location(&connect).await;
    let mut admin = Admin::new(&world.target);
    let back = admin.decide(&authorization_url, Decision::Approve(&SCOPES)).await;
    let to = application.location(back.as_str()).await;
    assert!(to.starts_with(&connect), "{to}");

    // The application redeems the code, and renews its token whenever somebody opens the page.
    let mut refresh_tokens = Vec::new();
    for step in ["code and refresh", "refresh"] {
        let tokens = application.json("/connect").await;
        refresh_tokens.push(scene.good_tokens(step, &tokens).await.1);
    }
    assert_ne!(refresh_tokens[0], refresh_tokens[1]);
    for path in ["/own", "/by-key"] {
        let tokens = application.json(path).await;
        assert_eq!(scene.good_tokens(path, &tokens).await.1, "");
    }
    scene.stop().await;
}

async fn spring_security_introspects_access_tokens() {
    let scene = Scene::set(KeyType::P256).await;
    let mut command = java("SpringResourceServer");
    scene.with_workload(&mut command).await;
    let token = scene.world.first_tokens(&scene.partner).await.access_token;
    let mut program = scene.start(command);
    let server = Application::at(&program.hear().await["port"]);
    let get = async |path: &str, token: &str| {
        let request = server
            .http
            .get(format!("{}{path}", server.base))
            .bearer_auth(token);
        request.send().await.unwrap()
    };
    let answer = get("/contacts", &token).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let seen: Value = answer.json().await.unwrap();
    assert_eq!(seen["client_id"], scene.partner.client_id.as_str());
    assert_eq!(seen["tenant_id"], scene.world.target.tenant_id.as_str());
    assert!(seen["run_as"].as_str().unwrap().starts_with("usr_"), "{seen}");

    assert_eq!(
        get("/by-keys", &token).await.status(),
        StatusCode::UNAUTHORIZED,
        "Ed25519"
    );
    assert_eq!(
        get("/contacts", "no-token").await.status(),
        StatusCode::UNAUTHORIZED
    );
    scene.world.revoke_token(&scene.partner, &token).await;
    assert_eq!(
        get("/contacts", &token).await.status(),
        StatusCode::UNAUTHORIZED,
        "revoked"
    );
    scene.stop().await;
}

async fn spring_security_takes_bound_tokens_with_a_proof_alone() {
    let scene = Scene::set(KeyType::P256).await;
    let world = &scene.world;
    let (key, other) = (ProofKey::es256(), ProofKey::es256());
    let now = || SystemClock.now().as_secs();
    let bound = async |grant| {
        let mut request = world.token_request(&scene.partner, grant);
        let endpoint = format!("{}/oauth2/token", world.target.tenant_authority_url);
        request.dpop_proof = key.proof(&endpoint, now());
        let issued = ok(world.tokens().issue_token(request).await);
        assert_eq!(issued.token_type, "DPoP");
        issued.access_token
    };
    let mut token = bound(code_grant(&world.approve(&scene.partner).await)).await;
    let mut command = java("SpringResourceServer");
    scene.with_workload(&mut command).await;
    let mut program = scene.start(command);
    let server = Application::at(&program.hear().await["port"]);

    for path in ["/contacts", "/by-keys"] {
        if path == "/by-keys" {
            // Spring Security verifies ES256, and no Ed25519.
            let mut keys = SigningKeyServiceClient::new(world.token_operator.clone());
            for state in [SigningKeyState::Next, SigningKeyState::Active] {
                let request = RotateSigningKeyRequest {
                    algorithm: "ES256".into(),
                    force: state == SigningKeyState::Active,
                    ..Default::default()
                };
                let rotated = ok(keys.rotate_signing_key(request).await).signing_key.unwrap();
                assert_eq!(rotated.state(), state);
            }
            token = bound(own_grant()).await;
        }
        let url = format!("{}{path}", server.base);
        let proof = |key: &ProofKey, url: &str, token: &str| {
            key.altered(url, now(), |_, claims| {
                claims["htm"] = "GET".into();
                claims["ath"] = access_token_hash(token).into();
            })
        };
        let get = async |scheme: &str, proof: Option<&str>| {
            let authorization = format!("{scheme} {token}");
            let mut request = server.http.get(&url).header(header::AUTHORIZATION, authorization);
            if let Some(proof) = proof {
                request = request.header("DPoP", proof);
            }
            request.send().await.unwrap()
        };
        let own = proof(&key, &url, &token);
        let answer = get("DPoP", Some(&own)).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let seen: Value = answer.json().await.unwrap();
        assert_eq!(seen["client_id"], scene.partner.client_id.as_str());
        let elsewhere = format!("{}/elsewhere", server.base);
        for (what, scheme, proof) in [
            ("a repeated proof", "DPoP", Some(own)),
            ("another key", "DPoP", Some(proof(&other, &url, &token))),
            ("another URL", "DPoP", Some(proof(&key, &elsewhere, &token))),
            ("another token", "DPoP", Some(proof(&key, &url, "token"))),
            ("no proof", "DPoP", None),
            ("a bearer token", "Bearer", None),
            (
                "a bearer token with a proof",
                "Bearer",
                Some(proof(&key, &url, &token)),
            ),
        ] {
            let status = get(scheme, proof.as_deref()).await.status();
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}: {what}");
        }
    }
    scene.stop().await;
}
