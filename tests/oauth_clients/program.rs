//! Programs on unmodified libraries, in other languages: they say a line of JSON for each step. `tests/<language>/` holds
//! them; a partner may read them as samples.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use accord::{
    metrics::DPOP_PROOFS_REJECTED,
    registry::v1::{self as reg, operator_service_client::OperatorServiceClient},
    testing::{self, TestDatabase, calls::ok},
    token::v1::GetJsonWebKeySetRequest,
    verify::KeySet,
};
use accord_cli::dev::Dev;
use aws_lc_rs::{
    encoding::AsBigEndian,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{
    admin::{Admin, Decision},
    stop,
};
use crate::{
    harness::{
        dev,
        partner::{Partner, REDIRECT_URI, SCOPES, World},
        services::Services,
    },
    observability::scrape::fetch,
};

/// How long a program may take for a step. A JVM on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// Registers a client that follows the FAPI 2.0 Security Profile, and authenticates by this public key.
pub async fn partner_of_the_profile(world: &World, public: Value) -> Partner {
    let request = reg::SubmitIntegrationRequestRequest {
        security_profile: reg::SecurityProfile::Fapi20.into(),
        token_endpoint_auth_method: "private_key_jwt".into(),
        json_web_key_set: json!({"keys": [public]}).to_string(),
        ..Default::default()
    };
    world.partner_with(request).await
}

/// A running program. It ends when this is dropped.
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// Starts a program with what an operator hands to this partner.
    pub fn start(command: std::process::Command, world: &World, partner: &Partner) -> Self {
        let mut child = Command::from(command)
            .env("TENANT_AUTHORITY_URL", &world.target.tenant_authority_url)
            .env("CLOUD_API_URL", &world.target.cloud_api_url)
            .env("CLIENT_ID", &partner.client_id)
            .env("CLIENT_SECRET", &partner.client_secret)
            .env("REDIRECT_URI", REDIRECT_URI)
            .env("SCOPE", SCOPES.join(" "))
            .env("NO_PROXY", "127.0.0.1,localhost")
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    pub async fn tell(&mut self, line: &str) {
        let line = format!("{line}\n");
        let input = self.input.as_mut().unwrap();
        input.write_all(line.as_bytes()).await.unwrap();
    }

    /// Returns the program's next line; `None` after its end. If it fails, its error message is on stderr.
    pub async fn next(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(PATIENCE, self.output.next_line()).await;
        let Some(line) = line.expect("the program hangs").unwrap() else {
            assert!(self.child.wait().await.unwrap().success(), "the program failed");
            return None;
        };
        Some(serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}")))
    }

    pub async fn hear(&mut self) -> Value {
        self.next().await.expect("another line")
    }

    /// Returns what a resource server says of a token.
    pub async fn judge(&mut self, token: &str) -> Value {
        self.tell(token).await;
        self.hear().await
    }
}

/// The algorithm of a client's own key.
#[derive(Clone, Copy)]
pub enum KeyType {
    Ed25519,
    P256,
}

/// Makes a key. Returns it as a JSON Web Key, and its public half.
pub fn make_key(key_type: KeyType) -> (Value, Value) {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (public, private) = match key_type {
        KeyType::Ed25519 => {
            let key = Ed25519KeyPair::generate().unwrap();
            let x = text(key.public_key().as_ref());
            let public = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "key-1", "alg": "EdDSA"});
            (public, text(key.seed().unwrap().as_be_bytes().unwrap().as_ref()))
        }
        KeyType::P256 => {
            let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            // An uncompressed point: 4, x, y.
            let (x, y) = key.public_key().as_ref()[1..].split_at(32);
            let (x, y) = (text(x), text(y));
            let public = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "key-1", "alg": "ES256"});
            (public, text(key.private_key().as_be_bytes().unwrap().as_ref()))
        }
    };
    let mut key = public.clone();
    key["d"] = private.into();
    (key, public)
}

/// An environment with a partner that has registered a key.
pub struct Scene {
    pub world: World,
    pub partner: Partner,
    /// Whether the partner's programs bind their tokens to a key.
    pub binds_tokens: bool,
    /// Whether its refresh tokens change with each use. Under the FAPI 2.0 profile they don't.
    rotates: bool,
    key: Value,
    environment: Environment,
}

/// What runs behind a scene.
enum Environment {
    Dev(Box<Dev>, TempDir),
    Services(Box<Services>, [TestDatabase; 2]),
}

impl Scene {
    pub async fn set(key_type: KeyType) -> Self {
        let (directory, dev) = dev::start().await;
        let world = World::new(&dev.file);
        let partner = world.partner().await;
        let (key, public) = make_key(key_type);
        let keys = json!({"keys": [public]}).to_string();
        world.add_keys(&partner, keys).await;
        Self {
            world,
            partner,
            binds_tokens: false,
            rotates: true,
            key,
            environment: Environment::Dev(Box::new(dev), directory),
        }
    }

    /// The partner's client follows the FAPI 2.0 Security Profile, and authenticates by its key.
    pub async fn of_the_profile(key_type: KeyType) -> Self {
        let (directory, dev) = dev::start().await;
        let world = World::new(&dev.file);
        Self::of_the_profile_in(world, key_type, Environment::Dev(Box::new(dev), directory)).await
    }

    /// The same where each proof needs a nonce.
    async fn of_the_profile_with_nonces(key_type: KeyType) -> Self {
        let databases = [testing::sqlite(), testing::sqlite()];
        let required = [("ACCORD_TOKEN_DPOP_NONCE", "required")];
        let services = Services::start_with(&databases[0].url, &databases[1].url, &required).await;
        let world = World::new(&services.target);
        let environment = Environment::Services(Box::new(services), databases);
        Self::of_the_profile_in(world, key_type, environment).await
    }

    async fn of_the_profile_in(world: World, key_type: KeyType, environment: Environment) -> Self {
        let (key, public) = make_key(key_type);
        let partner = partner_of_the_profile(&world, public).await;
        assert_eq!(partner.client_secret, "");
        Self {
            world,
            partner,
            binds_tokens: true,
            rotates: false,
            key,
            environment,
        }
    }

    /// Starts a program of the partner.
    pub fn start(&self, mut command: std::process::Command) -> Program {
        command.env("PRIVATE_KEY", self.key.to_string());
        Program::start(command, &self.world, &self.partner)
    }

    /// Gives a program the credentials of an internal service.
    pub async fn with_workload(&self, command: &mut std::process::Command) {
        let request = reg::CreateWorkloadRequest {
            name: "cloud-api".into(),
            kind: reg::WorkloadKind::InternalService.into(),
            ..Default::default()
        };
        let mut operators = OperatorServiceClient::new(self.world.operator.clone());
        let created = ok(operators.create_workload(request).await);
        command
            .env("WORKLOAD_ID", created.workload.unwrap().workload_id)
            .env("WORKLOAD_TOKEN", created.workload_token);
    }

    /// Checks what a program got from the token endpoint. Returns the access token and the refresh token.
    pub async fn good_tokens(&self, step: &str, said: &Value) -> (String, String) {
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        let introspected = self.world.introspect(&text("access_token")).await;
        assert_eq!(introspected.active, Some(true), "{step}");
        assert_eq!(introspected.client_id, self.partner.client_id, "{step}");
        assert_eq!(introspected.scope, SCOPES.join(" "), "{step}");
        assert_eq!(introspected.cnf.is_some(), self.binds_tokens, "{step}");
        self.check_type(step, said);
        (text("access_token"), text("refresh_token"))
    }

    /// Checks that a program was told whether its token is bound to its key (RFC 9449 §5).
    fn check_type(&self, step: &str, said: &Value) {
        // Not every program tells what it was told.
        let Some(token_type) = said["token_type"].as_str() else {
            assert!(!self.binds_tokens, "{step}");
            return;
        };
        let expected = if self.binds_tokens { "DPoP" } else { "Bearer" };
        assert!(token_type.eq_ignore_ascii_case(expected), "{step}: {token_type}");
    }

    /// Checks the signature and the claims of an access token that the program may have revoked meanwhile. Returns it.
    async fn signed_token(&self, step: &str, said: &Value) -> String {
        let mut tokens = self.world.tokens();
        let keys = ok(tokens
            .get_json_web_key_set(GetJsonWebKeySetRequest::default())
            .await);
        let keys = KeySet::from_response(&keys).unwrap();
        let access_token = said["access_token"].as_str().unwrap();
        let claims = keys.verify_signature(access_token).unwrap();
        assert_eq!(claims.client_id, self.partner.client_id, "{step}");
        assert_eq!(claims.scope, SCOPES.join(" "), "{step}");
        assert_eq!(claims.cnf.is_some(), self.binds_tokens, "{step}");
        self.check_type(step, said);
        access_token.to_owned()
    }

    /// Follows a partner's program from the authorization URL to its end. It must go through exactly these steps; each
    /// that yields tokens must yield good ones. `revoke` ends its refresh token.
    pub async fn follow(&self, mut program: Program, steps: &[&str]) {
        let begun = program.hear().await;
        let authorization_url = begun["authorization_url"].as_str().expect("authorization_url");
        let mut admin = Admin::new(&self.world.target);
        let back = admin.decide(authorization_url, Decision::Approve(&SCOPES)).await;
        program.tell(back.as_str()).await;
        program.input = None;

        let (mut gone_through, mut refresh_tokens, mut family) = (Vec::new(), BTreeSet::new(), Vec::new());
        while let Some(said) = program.next().await {
            let step = said["step"].as_str().expect("step").to_owned();
            match step.as_str() {
                "call" => assert!(said["text"].as_str().unwrap().starts_with("usr_"), "{said}"),
                "introspect" | "signed_introspect" => {
                    assert_eq!(said["active"], true, "{step}");
                    assert_eq!(said["client_id"], self.partner.client_id.as_str(), "{step}");
                }
                "errors" => {
                    assert_eq!(said["wrong_secret"], "invalid_client");
                    assert_eq!(said["unknown_scope"], "invalid_scope");
                }
                "code" | "refresh" => {
                    let refresh_token = said["refresh_token"].as_str().unwrap().to_owned();
                    let is_new = refresh_tokens.insert(refresh_token);
                    assert_eq!(is_new, step == "code" || self.rotates, "{step}");
                    family.push(self.signed_token(&step, &said).await);
                }
                "revoke" => {
                    assert_eq!(said["refreshing"], "invalid_grant");
                    for access_token in &family {
                        assert!(!self.world.active(access_token).await, "revoked with its family");
                    }
                }
                _ => {
                    let (_, refresh_token) = self.good_tokens(&step, &said).await;
                    assert_eq!(refresh_token, "", "{step}");
                }
            }
            gone_through.push(step);
        }
        assert_eq!(gone_through, steps);
    }

    pub async fn stop(self) {
        match self.environment {
            Environment::Dev(dev, _directory) => stop(*dev).await,
            Environment::Services(mut services, _databases) => services.stop(),
        }
    }

    /// How many proofs token-service has rejected, by the rule that they broke.
    async fn rejected_proofs(&mut self) -> Vec<String> {
        let Environment::Services(services, _) = &mut self.environment else {
            panic!("a development environment has no metrics");
        };
        let (_, scrape) = fetch(&mut services.token, "/metrics").await;
        let lines = scrape
            .lines()
            .filter_map(|line| line.strip_prefix(DPOP_PROOFS_REJECTED));
        let broken = lines.filter(|line| line.starts_with('{') && !line.ends_with(" 0"));
        broken.map(str::to_owned).collect()
    }
}

/// Runs a partner's program through all of its steps.
pub async fn connects(command: std::process::Command, key_type: KeyType, steps: &[&str]) {
    let scene = Scene::set(key_type).await;
    let program = scene.start(command);
    scene.follow(program, steps).await;
    scene.stop().await;
}

/// Does the same with a program that binds its tokens to a key (RFC 9449).
pub async fn connects_with_a_key(command: std::process::Command, key_type: KeyType, steps: &[&str]) {
    let mut scene = Scene::set(key_type).await;
    scene.binds_tokens = true;
    let program = scene.start(command);
    scene.follow(program, steps).await;
    scene.stop().await;
}

/// Does the same with a client of the FAPI 2.0 Security Profile. It needs all of that: a key in place of a secret, pushed
/// requests (RFC 9126), and proofs.
pub async fn connects_by_the_profile(command: std::process::Command, key_type: KeyType, steps: &[&str]) {
    let scene = Scene::of_the_profile(key_type).await;
    let program = scene.start(command);
    scene.follow(program, steps).await;
    scene.stop().await;
}

/// Does the same where each proof needs a nonce. The program answers the one challenge, and no call after it is challenged.
pub async fn connects_with_nonces(command: std::process::Command, key_type: KeyType, steps: &[&str]) {
    let mut scene = Scene::of_the_profile_with_nonces(key_type).await;
    let program = scene.start(command);
    scene.follow(program, steps).await;
    assert_eq!(scene.rejected_proofs().await, [r#"{rule="nonce"} 1"#]);
    scene.stop().await;
}

/// Runs a resource server's program that reads tokens: it must accept the tenant's access tokens alone, by their
/// signature.
pub async fn verifies(command: impl Fn() -> std::process::Command) {
    let scene = Scene::set(KeyType::P256).await;
    let token = scene.world.first_tokens(&scene.partner).await.access_token;
    let mut program = scene.start(command());
    let accepted = program.judge(&token).await;
    assert_eq!(accepted["accepted"], true, "{accepted}");
    assert_eq!(accepted["client_id"], scene.partner.client_id.as_str());
    assert_eq!(accepted["tenant_id"], scene.world.target.tenant_id.as_str());

    let (signed, signature) = token.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", "A".repeat(signature.len()));
    for bad in [&forged, signed, "", &scene.partner.client_secret] {
        assert_eq!(program.judge(bad).await["accepted"], false, "{bad}");
    }
    // The same token at the server of another tenant.
    let mut other = scene.world.clone();
    other.target.cloud_api_url = "https://api.other.example".to_owned();
    let mut program = Program::start(command(), &other, &scene.partner);
    let refused = program.judge(&token).await;
    assert_eq!(refused["accepted"], false, "another audience");
    scene.stop().await;
}

/// Runs a resource server's program whose library knows no Ed25519: it must not accept what it can't verify.
pub async fn refuses(command: std::process::Command) {
    let scene = Scene::set(KeyType::P256).await;
    let token = scene.world.first_tokens(&scene.partner).await.access_token;
    let refused = scene.start(command).judge(&token).await;
    assert_eq!(refused["accepted"], false, "{refused}");
    scene.stop().await;
}

/// Runs a resource server's program that introspects tokens as an internal service.
pub async fn introspects(mut command: std::process::Command) {
    let scene = Scene::set(KeyType::P256).await;
    scene.with_workload(&mut command).await;
    let token = scene.world.first_tokens(&scene.partner).await.access_token;
    let mut program = scene.start(command);
    let accepted = program.judge(&token).await;
    assert_eq!(accepted["accepted"], true, "{accepted}");
    assert_eq!(accepted["client_id"], scene.partner.client_id.as_str());
    assert_eq!(accepted["tenant_id"], scene.world.target.tenant_id.as_str());
    scene.world.revoke_token(&scene.partner, &token).await;
    assert_eq!(program.judge(&token).await["accepted"], false, "revoked");
    assert_eq!(program.judge("no token").await["accepted"], false);
    scene.stop().await;
}
