//! The services as processes: their command lines, the settings that they reject, and how they stop.

use std::{
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

use accord::{
    random::SystemRandom,
    registry::v1::{ListTenantsRequest, tenant_service_client::TenantServiceClient},
    testing,
    text::opaque::{OpaqueToken, TokenKind},
    token::v1::{GetJsonWebKeySetRequest, IntrospectTokenRequest, token_service_client::TokenServiceClient},
};
use accord_cli::call::with_token;
use tonic::{Code, Response};

use crate::harness::{
    partner::{World, own_grant, refresh_grant},
    process::accord,
    refusal::{INVALID_GRANT, refused, soon},
    services::Services,
};

tests!(
    an_unknown_variable_key_or_flag_is_an_error,
    creating_callers_prints_the_token_alone,
    plaintext_listeners_are_for_loopback,
    both_services_stop_on_sigterm_and_logs_are_json_lines,
    without_the_registry_calls_are_unavailable_and_recover,
    a_request_id_is_found_in_the_logs_of_both_services,
    after_a_restore_older_tokens_are_rejected_and_grants_remain,
);

fn output(mut command: Command) -> Output {
    command.output().unwrap()
}

fn registry(directory: &std::path::Path) -> Command {
    let mut command = accord();
    command.arg("registry").env(
        "ACCORD_REGISTRY_DATABASE_URL",
        format!("sqlite://{}", directory.join("registry.db").display()),
    );
    command
}

async fn an_unknown_variable_key_or_flag_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = registry(directory.path());
    command
        .arg("migrate")
        .env("ACCORD_REGISTRY_LISTNE", "127.0.0.1:1");
    let refused = output(command);
    assert!(!refused.status.success());
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("ACCORD_REGISTRY_LISTNE is unknown"),
        "{refused:?}"
    );

    let file = directory.path().join("registry.toml");
    std::fs::write(&file, "databse_url = 'sqlite://x'").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let mut command = registry(directory.path());
    command.arg("migrate").arg("--config").arg(&file);
    let refused = output(command);
    assert!(!refused.status.success());
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("`databse_url`"),
        "{refused:?}"
    );

    let mut command = registry(directory.path());
    command.args(["migrate", "--listne", "127.0.0.1:1"]);
    assert!(!output(command).status.success());

    // Names of other subjects are not configuration.
    let mut command = registry(directory.path());
    command
        .arg("migrate")
        .env("ACCORD_TEST_ANYTHING", "x")
        .env("ACCORD_REQUIRE_ALL", "1");
    let migrated = output(command);
    assert!(migrated.status.success(), "{migrated:?}");
}

async fn creating_callers_prints_the_token_alone() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, b"a master key of tests: 32 bytes.").unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let with_key = |arguments: &[&str]| {
        let mut command = registry(directory.path());
        command
            .args(arguments)
            .env("ACCORD_REGISTRY_MASTER_KEY_FILE", &key);
        output(command)
    };
    let early = with_key(&["operator", "create", "ada", "--role", "admin"]);
    assert!(
        !early.status.success(),
        "a database without tables can't hold operators"
    );
    assert!(
        String::from_utf8_lossy(&early.stderr).contains("migrate"),
        "{early:?}"
    );

    assert!(with_key(&["migrate"]).status.success());
    let created = with_key(&[
        "operator", "create", "ada", "--role", "admin", "--role", "auditor",
    ]);
    let printed = String::from_utf8(created.stdout).unwrap();
    assert!(
        printed.starts_with("aco_") && printed.trim_end().lines().count() == 1,
        "{printed}"
    );
    let created = with_key(&["workload", "create", "pages", "--kind", "internal-service"]);
    let printed = String::from_utf8(created.stdout).unwrap();
    assert!(
        printed.starts_with("acw_") && printed.trim_end().lines().count() == 1,
        "{printed}"
    );

    for refused in [
        with_key(&["operator", "create", "ada", "--role", "admin"]),
        with_key(&["operator", "create", "eve", "--role", "root"]),
        with_key(&["operator", "create", "eve"]),
        with_key(&["workload", "create", "eve", "--kind", "other"]),
    ] {
        assert!(
            !refused.status.success() && refused.stdout.is_empty(),
            "{refused:?}"
        );
    }

    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let refused = with_key(&["operator", "create", "eve", "--role", "admin"]);
    assert!(
        !refused.status.success(),
        "a master key that others can read must be refused"
    );
}

async fn plaintext_listeners_are_for_loopback() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, b"a master key of tests: 32 bytes.").unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let mut command = registry(directory.path());
    assert!(
        output({
            command.arg("migrate");
            command
        })
        .status
        .success()
    );
    let mut command = registry(directory.path());
    command
        .args([
            "serve",
            "--listen",
            "0.0.0.0:0",
            "--public-base-url",
            "https://auth.example",
        ])
        .arg("--master-key-file")
        .arg(&key);
    let refused = output(command);
    assert!(!refused.status.success());
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("loopback"),
        "{refused:?}"
    );
}

async fn both_services_stop_on_sigterm_and_logs_are_json_lines() {
    let (registry, token) = (testing::sqlite(), testing::sqlite());
    let mut services = Services::start(&registry.url, &token.url).await;
    let target = services.target.clone();
    let mut tenants =
        TenantServiceClient::new(with_token(&target.registry_grpc, &target.operator_token).unwrap());
    let request = ListTenantsRequest {
        page_size: -1,
        ..Default::default()
    };
    tenants.list_tenants(request).await.unwrap_err();
    // A call that succeeds leaves no line.
    let mut tokens = TokenServiceClient::new(with_token(&target.token_grpc, &target.workload_token).unwrap());
    tokens
        .get_json_web_key_set(GetJsonWebKeySetRequest::default())
        .await
        .unwrap();

    for process in [&mut services.token, &mut services.registry] {
        process.signal("TERM");
        assert!(process.wait().success(), "{}", process.stderr());
        for line in process.stderr().lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
            assert!(line["level"].is_string(), "{line}");
        }
    }
    assert!(services.registry.stderr().contains("ListTenants"));
    assert!(!services.token.stderr().contains("GetJsonWebKeySet"));
}

async fn without_the_registry_calls_are_unavailable_and_recover() {
    let (registry, token) = (testing::sqlite(), testing::sqlite());
    let mut services = Services::start(&registry.url, &token.url).await;
    let target = services.target.clone();
    let tokens = TokenServiceClient::new(with_token(&target.token_grpc, &target.workload_token).unwrap());
    let introspect = async || {
        let mut request = tonic::Request::new(IntrospectTokenRequest {
            tenant_id: target.tenant_id.clone(),
            token: "not-a-token".to_owned(),
            ..Default::default()
        });
        request.set_timeout(std::time::Duration::from_millis(500));
        tokens
            .clone()
            .introspect_token(request)
            .await
            .map(Response::into_inner)
    };
    assert_eq!(introspect().await.unwrap().active, Some(false));

    services.registry.signal("STOP");
    soon("nothing is answered", async || {
        let unknown = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled];
        introspect()
            .await
            .is_err_and(|status| unknown.contains(&status.code()))
    })
    .await;

    services.registry.signal("CONT");
    soon("it is answered again", async || introspect().await.is_ok()).await;

    services.registry.signal("TERM");
    services.registry.wait();
    soon("nothing is answered", async || {
        introspect()
            .await
            .is_err_and(|status| status.code() == Code::Unavailable)
    })
    .await;
}

async fn a_request_id_is_found_in_the_logs_of_both_services() {
    let (registry, token) = (testing::sqlite(), testing::sqlite());
    let mut services = Services::start(&registry.url, &token.url).await;
    let target = services.target.clone();
    // Only the registry knows that this token is unknown.
    let nobody = OpaqueToken::generate(TokenKind::Workload, &SystemRandom);
    let mut tokens = TokenServiceClient::new(with_token(&target.token_grpc, nobody.expose()).unwrap());
    // The hop of this test's own channel passes the id of its scope on, as a service would.
    let context = accord::rpc::context::CallContext {
        address: None,
        request_id: "trace-me-0001".to_owned(),
        deadline: tokio::time::Instant::now() + std::time::Duration::from_secs(20),
        trace: None,
        notes: Default::default(),
    };
    let request = IntrospectTokenRequest {
        tenant_id: target.tenant_id.clone(),
        token: "not-a-token".to_owned(),
        ..Default::default()
    };
    let refused = accord::rpc::context::scope(context, tokens.introspect_token(request))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(refused.metadata().get("x-request-id").unwrap(), "trace-me-0001");
    for process in [&mut services.registry, &mut services.token] {
        // Lines are written by a thread of their own.
        process.wait_for("a line with the request id", |process| {
            process.stderr().contains("trace-me-0001").then_some(())
        });
    }
}

async fn after_a_restore_older_tokens_are_rejected_and_grants_remain() {
    let (registry, token) = (testing::sqlite(), testing::sqlite());
    let mut services = Services::start(&registry.url, &token.url).await;
    let world = World::new(&services.target);
    let partner = world.partner().await;
    let tokens = world.first_tokens(&partner).await;
    assert!(world.active(&tokens.access_token).await);

    services.restore_token_service();
    let world = World::new(&services.target);
    assert!(!world.active(&tokens.access_token).await && !world.active(&tokens.refresh_token).await);
    let result = world.issue(&partner, refresh_grant(&tokens.refresh_token)).await;
    refused(result, INVALID_GRANT);
    let own = world.issue(&partner, own_grant()).await.unwrap();
    assert_eq!(own.grant_id, tokens.grant_id);
    assert!(world.active(&own.access_token).await);
}
