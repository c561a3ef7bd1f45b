//! Libraries for Java.

use std::process::Command;

use accord::{
    clock::{Clock, SystemClock},
    dpop::access_token_hash,
    registry::v1 as reg,
    testing::{calls::ok, dpop::ProofKey},
    token::v1::{
        IssueTokenRequest, RotateSigningKeyRequest, signing_key_service_client::SigningKeyServiceClient,
    },
};
use reqwest::{Client, StatusCode, header, redirect::Policy};
use serde_json::Value;

use super::{
    admin::{Admin, Decision},
    program::{KeyType, Scene, connects, connects_with_a_key, verifies},
};
use crate::harness::{
    document::file,
    partner::{SCOPES, own_grant},
    suite::java_libraries,
};

tests!(
    nimbus_connects,
    nimbus_binds_its_tokens,
    nimbus_verifies_access_tokens,
    spring_security_connects,
    spring_security_introspects_access_tokens,
    spring_security_checks_proofs_of_possession,
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

/// Spring Security takes a bound token only with a proof of its key, from version 6.5 on, without a setting.
async fn spring_security_checks_proofs_of_possession() {
    let scene = Scene::set(KeyType::P256).await;
    let world = &scene.world;
    // The library verifies no Ed25519.
    let mut keys = SigningKeyServiceClient::new(world.token_operator.clone());
    for force in [false, true] {
        let request = RotateSigningKeyRequest {
            algorithm: "ES256".into(),
            force,
            ..Default::default()
        };
        ok(keys.rotate_signing_key(request).await);
    }
    world.first_tokens(&scene.partner).await;
    let now = || SystemClock.now().as_secs();
    let (key, other) = (ProofKey::es256(), ProofKey::es256());
    let endpoint = format!("{}/oauth2/token", world.target.tenant_authority_url);
    let request = IssueTokenRequest {
        dpop_proof: key.proof(&endpoint, now()),
        ..world.token_request(&scene.partner, own_grant())
    };
    let token = ok(world.tokens().issue_token(request).await).access_token;

    let mut command = java("SpringResourceServer");
    scene.with_workload(&mut command).await;
    let mut program = scene.start(command);
    let server = Application::at(&program.hear().await["port"]);
    let url = format!("{}/by-keys", server.base);
    let proof = |key: &ProofKey, method: &'static str, of: &str| {
        key.altered(&url, now(), |_, claims| {
            claims["htm"] = method.into();
            claims["ath"] = access_token_hash(of).into();
        })
    };
    let call = async |scheme: &str, proof: Option<String>| {
        let mut request = server
            .http
            .get(&url)
            .header(header::AUTHORIZATION, format!("{scheme} {token}"));
        if let Some(proof) = proof {
            request = request.header("DPoP", proof);
        }
        request.send().await.unwrap().status()
    };
    // No controller is at the path: the library has let the call through.
    assert_eq!(
        call("DPoP", Some(proof(&key, "GET", &token))).await,
        StatusCode::NOT_FOUND
    );
    for (what, scheme, proof) in [
        ("another key", "DPoP", Some(proof(&other, "GET", &token))),
        ("another method", "DPoP", Some(proof(&key, "POST", &token))),
        ("another token", "DPoP", Some(proof(&key, "GET", "token"))),
        ("no proof", "DPoP", None),
    ] {
        assert_eq!(call(scheme, proof).await, StatusCode::UNAUTHORIZED, "{what}");
    }
    scene.stop().await;
}
