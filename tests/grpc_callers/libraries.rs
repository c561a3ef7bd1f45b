//! What Accord sends fits what gRPC libraries accept by default: Python's grpcio, and grpcurl.

use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use accord::{
    audit::v1::{GetCheckpointRequest, audit_service_client::AuditServiceClient},
    registry::v1::{
        self as reg, integration_request_service_client::IntegrationRequestServiceClient,
        scope_service_client::ScopeServiceClient,
    },
    testing::calls::ok,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use prost::Message;
use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use serde_json::{Value as Json, json};
use tokio::time::sleep;
use tonic::Code;

use super::{Tokens, methods};
use crate::harness::{
    dev,
    document::file,
    partner::{REDIRECT_URI, World},
    suite::python,
};

tests!(every_violation_fits_a_trailer, every_page_fits_a_message,);

/// How soon a record has a signed head.
const SEALED: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Makes these calls with grpcio. Returns an object for each call, as `tests/python/grpc_calls.py` says.
fn grpcio(calls: &[Json]) -> Vec<Json> {
    let mut script = python()
        .arg(file("tests/python/grpc_calls.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = script.stdin.take().unwrap();
    let lines: String = calls.iter().map(|call| format!("{call}\n")).collect();
    let written = thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = script.wait_with_output().unwrap();
    written.join().unwrap();
    assert!(output.status.success());
    let output = String::from_utf8(output.stdout).unwrap();
    output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn every_violation_fits_a_trailer() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let tokens = Tokens::new(&world).await;
    sealed(&world).await;
    let (mut calls, mut paths) = (Vec::new(), Vec::new());
    for (path, method) in methods() {
        let address = match path.starts_with("/accord.registry.") {
            true => &dev.file.registry_grpc,
            false => &dev.file.token_grpc,
        };
        calls.push(json!({
            "address": address,
            "path": path,
            "token": tokens.of(&path),
            "body": STANDARD.encode(invalid(&method.input(), 0).encode_to_vec()),
            "times": 20,
        }));
        paths.push(path);
    }
    let results = tokio::task::spawn_blocking(move || grpcio(&calls)).await.unwrap();
    assert_eq!(results.len(), paths.len());
    let mut invalid = 0;
    for (path, result) in paths.iter().zip(&results) {
        let codes: Vec<_> = result["codes"].as_array().unwrap().iter().collect();
        assert_eq!(codes.len(), 20, "{path}");
        assert!(codes.iter().all(|code| *code == codes[0]), "{path}: {codes:?}");
        invalid += usize::from(codes[0] == "INVALID_ARGUMENT");
        let is_fault = ["RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN"].contains(&codes[0].as_str().unwrap());
        assert!(!is_fault, "{path}: {codes:?}");
    }
    assert!(invalid > 40, "{invalid} methods found the message invalid");
    dev.stop().await.unwrap();
}

/// Waits until the record of token-service has a signed head, without which its log answers UNAVAILABLE.
async fn sealed(world: &World) {
    let mut record = AuditServiceClient::new(world.token_operator.clone());
    let started = Instant::now();
    while let Err(error) = record.get_checkpoint(GetCheckpointRequest {}).await {
        assert!(
            error.code() == Code::Unavailable && started.elapsed() < SEALED,
            "{error}"
        );
        sleep(POLL).await;
    }
}

/// A message with a wrong value in every text, 60 times in every list.
fn invalid(descriptor: &MessageDescriptor, depth: u32) -> DynamicMessage {
    fn value(field: &FieldDescriptor, depth: u32) -> Option<Value> {
        match field.kind() {
            Kind::String => Some(Value::String("a wrong \u{7} value".into())),
            Kind::Message(message) => Some(Value::Message(invalid(&message, depth + 1))),
            _ => None,
        }
    }
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields().filter(|_| depth < 4) {
        let Some(value) = value(&field, depth) else {
            continue;
        };
        let value = match field.cardinality() {
            Cardinality::Repeated => Value::List(vec![value; 60]),
            _ => value,
        };
        message.set_field(&field, value);
    }
    message
}

async fn every_page_fits_a_message() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let mut catalogue = ScopeServiceClient::new(world.operator.clone());
    let mut scopes = Vec::new();
    for index in 0..100 {
        let name = format!("scope.{index}");
        let request = reg::CreateScopeRequest {
            name: name.clone(),
            description: "d".repeat(500),
            ..Default::default()
        };
        ok(catalogue.create_scope(request).await);
        let reason = "r".repeat(1_000);
        scopes.push(reg::RequestedScope { name, reason });
    }
    let mut requests = IntegrationRequestServiceClient::new(world.operator.clone());
    for _ in 0..50 {
        let request = reg::SubmitIntegrationRequestRequest {
            partner_name: "Partner".into(),
            display_name: "Integration".into(),
            contact_email: "dev@partner.example".into(),
            goals: "To be listed.".into(),
            tenant_ids: vec![dev.file.tenant_id.clone()],
            scopes: scopes.clone(),
            redirect_uris: vec![REDIRECT_URI.into()],
            ..Default::default()
        };
        ok(requests.submit_integration_request(request).await);
    }

    let (mut token, mut sizes) = (String::new(), Vec::new());
    loop {
        let request = reg::ListIntegrationRequestsRequest {
            page_token: token,
            ..Default::default()
        };
        let calls = [json!({
            "address": dev.file.registry_grpc,
            "path": "/accord.registry.v1.IntegrationRequestService/ListIntegrationRequests",
            "token": dev.file.operator_token,
            "body": STANDARD.encode(request.encode_to_vec()),
            "times": 1,
        })];
        let results = tokio::task::spawn_blocking(move || grpcio(&calls)).await.unwrap();
        assert_eq!(results[0]["codes"], json!(["OK"]));
        let body = STANDARD.decode(results[0]["body"].as_str().unwrap()).unwrap();
        let page = reg::ListIntegrationRequestsResponse::decode(&*body).unwrap();
        sizes.push(page.integration_requests.len());
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(sizes.iter().sum::<usize>(), 50, "{sizes:?}");
    assert!(sizes.len() > 1, "{sizes:?}");

    let listed = Command::new("grpcurl")
        .args([
            "-plaintext",
            "-expand-headers",
            "-H",
            "authorization: Bearer ${TOKEN}",
        ])
        .args(["-d", r#"{"page_size": 500}"#, &dev.file.registry_grpc])
        .arg("accord.registry.v1.IntegrationRequestService/ListIntegrationRequests")
        .env("TOKEN", &dev.file.operator_token)
        .output()
        .unwrap();
    assert!(
        listed.status.success(),
        "{}",
        String::from_utf8_lossy(&listed.stderr)
    );
    assert!(String::from_utf8_lossy(&listed.stdout).contains("nextPageToken"));
    dev.stop().await.unwrap();
}
