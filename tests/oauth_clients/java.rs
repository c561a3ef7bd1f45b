//! Libraries for Java.

use std::process::Command;

use accord::registry::v1 as reg;
use reqwest::{Client, StatusCode, header, redirect::Policy};
use serde_json::Value;

use super::{
    admin::{Admin, Decision},
    program::{KeyType, Scene, connects, connects_with_a_key, verifies},
};
use crate::harness::{document::file, partner::SCOPES, suite::java_libraries};

tests!(
    nimbus_connects,
    nimbus_binds_its_tokens,
    nimbus_verifies_access_tokens,
    spring_security_connects,
    spring_security_introspects_access_tokens,
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
