//! Python's unmodified `requests-oauthlib`: `tests/python/client.py` uses it for every grant.

use std::{process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{
    admin::{Admin, Decision, parameter},
    stop,
};
use crate::harness::{
    dev,
    document::file,
    partner::{REDIRECT_URI, SCOPES, World},
    suite::python,
};

tests!(requests_oauthlib_needs_the_tenant_authority_url_alone,);

/// How long the script may take for a step.
const PATIENCE: Duration = Duration::from_secs(60);

/// The running script. It ends when this is dropped.
struct Script {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Script {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::from(python())
            .arg(file("tests/python/client.py"))
            .args(arguments)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            // The library accepts only https, but this is loopback.
            .env("OAUTHLIB_INSECURE_TRANSPORT", "1")
            .env("NO_PROXY", "127.0.0.1")
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()).lines(),
            _child: child,
        }
    }

    async fn tell(&mut self, line: &str) {
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    /// Returns the script's next line. After the last one its traceback is on stderr.
    async fn hear(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.output.next_line()).await;
        let line = line
            .expect("the script hangs")
            .unwrap()
            .expect("the script has failed");
        serde_json::from_str(&line).unwrap()
    }

    async fn step(&mut self, name: &str) -> Value {
        let said = self.hear().await;
        assert_eq!(said["step"], name);
        said
    }
}

async fn requests_oauthlib_needs_the_tenant_authority_url_alone() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let issuer = world.target.tenant_authority_url.as_str();
    let mut arguments = vec![issuer, partner.client_id.as_str(), REDIRECT_URI];
    arguments.extend(SCOPES);
    let mut script = Script::start(&arguments);
    script.tell(&partner.client_secret).await;

    let begun = script.hear().await;
    let authorization_url = begun["authorization_url"].as_str().unwrap();
    let mut admin = Admin::new(&world.target);
    let back = admin.decide(authorization_url, Decision::Approve(&SCOPES)).await;
    assert_eq!(parameter(&back, "state").as_deref(), begun["state"].as_str());
    script.tell(back.as_str()).await;

    let code = script.step("code").await;
    assert_eq!(code["token_type"], "Bearer");
    assert_eq!(code["expires_in"], 300);
    assert_eq!(code["scope"], serde_json::json!(SCOPES));
    let token = |answer: &Value, name: &str| answer[name].as_str().unwrap_or_default().to_owned();

    let refresh = script.step("refresh").await;
    assert_ne!(token(&refresh, "refresh_token"), token(&code, "refresh_token"));
    for name in ["client_credentials", "client_secret_post"] {
        let own = script.step(name).await;
        assert_eq!(own["refresh_token"], Value::Null);
        let introspected = world.introspect(&token(&own, "access_token")).await;
        assert_eq!(
            (introspected.active, introspected.client_id),
            (Some(true), partner.client_id.clone())
        );
    }
    let errors = script.step("errors").await;
    assert_eq!(errors["wrong_secret"], "invalid_client");
    assert_eq!(errors["unknown_scope"], "invalid_scope");

    let revoke = script.step("revoke").await;
    assert_eq!(revoke["status"], 200);
    assert_eq!(revoke["refreshing"], "invalid_grant");
    assert!(!world.active(&token(&refresh, "access_token")).await);
    stop(dev).await;
}
