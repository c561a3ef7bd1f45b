//! Clients' keys: amendments add them, `ClientService.SetClientKeys` removes them. And who sees them.

use std::time::Duration;

use accord::{
    audit::v1::AuditOutcome,
    registry::v1::{
        self as pb, ChangeKind, client_service_client::ClientServiceClient,
        directory_service_client::DirectoryServiceClient,
        integration_request_service_client::IntegrationRequestServiceClient,
    },
    rpc::auth::{Role, WorkloadKind},
    testing::certificates::{KeyKind, Pair, Subject},
    text::jwk::certificate::public_key,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use prost_types::FieldMask;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::{
    client::{UNKNOWN, authenticate, client, registered, seed},
    harness::{CallerChannel, Harness, assert_rejected, assert_violations, ok, submission},
};

async fn seeded() -> Harness {
    let harness = Harness::start().await;
    seed(&harness).await;
    harness
}

/// The P-256 key of RFC 7517 appendix A.1.
fn p256(kid: &str) -> Value {
    json!({
        "kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    })
}

/// The Ed25519 key of RFC 8037 appendix A.2.
fn ed25519(kid: &str) -> Value {
    json!({
        "kty": "OKP", "crv": "Ed25519", "kid": kid, "alg": "EdDSA",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    })
}

fn key_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn set(client_id: &str, json_web_key_set: &str) -> pb::SetClientKeysRequest {
    pb::SetClientKeysRequest {
        client_id: client_id.into(),
        json_web_key_set: json_web_key_set.into(),
    }
}

async fn set_by(
    mut clients: ClientServiceClient<CallerChannel>,
    request: pb::SetClientKeysRequest,
) -> Result<pb::Client, Status> {
    let answer = clients.set_client_keys(request).await?;
    Ok(answer.into_inner().client.unwrap())
}

/// Adds keys to a client by an amendment.
async fn added(harness: &Harness, client_id: &str, json_web_key_set: &str) -> pb::Client {
    let additions = pb::SubmitIntegrationRequestRequest {
        json_web_key_set: json_web_key_set.into(),
        ..Default::default()
    };
    harness.amend(client_id, additions).await
}

/// Returns the client as both GetClient and ListClients show it.
async fn shown(harness: &Harness, client_id: &str) -> pb::Client {
    let request = pb::GetClientRequest {
        client_id: client_id.into(),
    };
    let got = ok(client(harness).get_client(request).await).client.unwrap();
    let listed = client(harness)
        .list_clients(pb::ListClientsRequest::default())
        .await;
    let listed = listed.unwrap().into_inner().clients;
    assert!(listed.contains(&got), "{listed:?}");
    got
}

/// Returns the client's profile and its position.
async fn profile(harness: &Harness, client_id: &str) -> (pb::ClientProfile, pb::FeedPosition) {
    let mut directory = DirectoryServiceClient::new(harness.workload(WorkloadKind::TokenService));
    let request = pb::GetClientProfileRequest {
        client_id: client_id.into(),
        ..Default::default()
    };
    let answer = ok(directory.get_client_profile(request).await);
    (answer.client.unwrap(), answer.position.unwrap())
}

/// The names and algorithms of the keys of a set.
fn names(json_web_key_set: &str) -> Vec<(String, String)> {
    let set: Value = serde_json::from_str(json_web_key_set).unwrap();
    let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
    let keys = set["keys"].as_array().unwrap().iter();
    keys.map(|key| (text(key, "kid"), text(key, "alg"))).collect()
}

#[tokio::test]
async fn a_certificate_in_a_request_reaches_token_service() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let id = &created.client_id;
    let certified = |kind| {
        let der = Pair::self_signed(&Subject::default(), kind).der();
        let mut key = public_key(&der).unwrap();
        key["x5c"] = json!([STANDARD.encode(der)]);
        key
    };
    let (p384, rsa) = (certified(KeyKind::P384), certified(KeyKind::Rsa2048));
    let additions = pb::SubmitIntegrationRequestRequest {
        json_web_key_set: key_set(std::slice::from_ref(&p384)),
        token_endpoint_auth_method: "self_signed_tls_client_auth".into(),
        ..Default::default()
    };
    // The key of this certificate signs no assertions.
    let by_assertion = pb::SubmitIntegrationRequestRequest {
        client_id: id.clone(),
        token_endpoint_auth_method: "private_key_jwt".into(),
        ..additions.clone()
    };
    let mut requests = IntegrationRequestServiceClient::new(harness.operator(Role::Registrar));
    let refused = requests.submit_integration_request(by_assertion).await;
    assert_violations(refused, &["json_web_key_set"]);

    harness.amend(id, additions).await;
    added(&harness, id, &key_set(std::slice::from_ref(&rsa))).await;
    let (seen, _) = profile(&harness, id).await;
    let found: Value = serde_json::from_str(&seen.json_web_key_set).unwrap();
    let certificates: Vec<_> = found["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| &key["x5c"])
        .collect();
    assert_eq!(certificates.len(), 2);
    assert!(certificates.contains(&&p384["x5c"]) && certificates.contains(&&rsa["x5c"]));
    // Whoever keeps a key keeps its certificate.
    let only = key_set(&[rsa]);
    set_by(client(&harness), set(id, &only)).await.unwrap();
    let (seen, _) = profile(&harness, id).await;
    let left: Value = serde_json::from_str(&seen.json_web_key_set).unwrap();
    assert_eq!(left["keys"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn keys_are_shown_to_operators_and_to_token_service() {
    let harness = seeded().await;
    let (created, secret) = registered(&harness).await;
    let id = &created.client_id;
    assert_eq!(created.json_web_key_set, "");
    let (before, position) = profile(&harness, id).await;
    assert_eq!(before.json_web_key_set, "");

    harness.clock.advance(Duration::from_secs(1));
    let both = key_set(&[p256("next"), ed25519("2026, first")]);
    let with_keys = added(&harness, id, &both).await;
    let expected = pb::Client {
        json_web_key_set: with_keys.json_web_key_set.clone(),
        update_time: with_keys.update_time,
        etag: "2".into(),
        ..created.clone()
    };
    assert_eq!(with_keys, expected);
    assert!(with_keys.update_time != created.update_time);
    let pair = |kid: &str, alg: &str| (kid.to_owned(), alg.to_owned());
    assert_eq!(
        names(&with_keys.json_web_key_set),
        [pair("2026, first", "EdDSA"), pair("next", "ES256")]
    );
    assert_eq!(shown(&harness, id).await, with_keys);

    // Tokens and open setups stay valid.
    let (seen, after) = profile(&harness, id).await;
    let expected = pb::ClientProfile {
        json_web_key_set: with_keys.json_web_key_set.clone(),
        ..before
    };
    assert_eq!(seen, expected);
    assert_eq!(after.seq, position.seq + 1);
    let authenticated = authenticate(&harness, id, &secret).await.unwrap();
    assert_eq!(authenticated.client, Some(seen));
    let mut directory = DirectoryServiceClient::new(harness.workload(WorkloadKind::TokenService));
    let request = pb::ListChangesRequest {
        after: Some(position),
        ..Default::default()
    };
    let changes = ok(directory.list_changes(request).await).changes;
    let changes: Vec<_> = changes.iter().map(|change| (change.kind(), &change.id)).collect();
    assert_eq!(changes, [(ChangeKind::Client, id)]);

    let left = key_set(&[p256("next")]);
    set_by(client(&harness), set(id, &left)).await.unwrap();
    for action in ["client.amend", "client.set_keys"] {
        let events = harness.audit_events(action).await;
        assert_eq!(events.len(), 1);
        assert_eq!(
            (events[0].outcome(), &events[0].client_id, &events[0].subject),
            (AuditOutcome::Success, id, id)
        );
        assert!(events[0].detail["json_web_key_set"].contains("2026, first"));
        assert!(events[0].actor_id.starts_with("opr_"));
    }
    let events = harness.audit_events("client.set_keys").await;
    assert_eq!(events[0].detail["kids"], r#"["next"]"#);
}

#[tokio::test]
async fn setting_equal_keys_in_another_form_changes_nothing() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let id = &created.client_id;
    let first = added(&harness, id, &key_set(&[p256("a"), ed25519("b")])).await;
    let position = harness.registry.store().position().await.unwrap();
    harness.clock.advance(Duration::from_secs(1));
    let mut decorated = p256("a");
    decorated["use"] = "sig".into();
    decorated["key_ops"] = json!(["verify"]);
    decorated["comment"] = "the one in the vault".into();
    for same in [
        key_set(&[ed25519("b"), decorated]),
        format!(" {} \n", key_set(&[p256("a"), ed25519("b")])),
        first.json_web_key_set.clone(),
    ] {
        let again = set_by(client(&harness), set(id, &same)).await.unwrap();
        assert_eq!(again, first);
    }
    assert_eq!(harness.registry.store().position().await.unwrap(), position);
    assert!(harness.audit_events("client.set_keys").await.is_empty());
}

#[tokio::test]
async fn keys_are_removed_but_not_added() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let (other, _) = registered(&harness).await;
    let id = &created.client_id;
    let [a, b, c] = [p256("a"), ed25519("b"), p256("c")];
    let all = added(&harness, id, &key_set(&[a.clone(), b.clone()])).await;
    // Another key, the same key by another name, and another key of the same name.
    for other in [&[a.clone(), c.clone()][..], &[p256("b")], &[ed25519("a")]] {
        let refused = set_by(client(&harness), set(id, &key_set(other))).await;
        assert_violations(refused, &["json_web_key_set"]);
    }
    assert_eq!(shown(&harness, id).await, all);
    for (keys, left) in [(key_set(&[b]), "b"), (key_set(&[]), "")] {
        let answer = set_by(client(&harness), set(id, &keys)).await.unwrap();
        assert_eq!(shown(&harness, id).await, answer);
        match answer.json_web_key_set.as_str() {
            "" => assert_eq!(left, ""),
            keys => assert_eq!(names(keys).remove(0).0, left),
        }
    }
    let refused = set_by(client(&harness), set(id, &key_set(&[a]))).await;
    assert_violations(refused, &["json_web_key_set"]);
    let mut events = harness.audit_events("client.set_keys").await;
    events.reverse();
    let events: Vec<_> = events.iter().map(|event| event.detail["kids"].as_str()).collect();
    assert_eq!(events, [r#"["b"]"#, "[]"]);
    assert_eq!(shown(&harness, &other.client_id).await, other);
    // A second amendment adds to what is left.
    added(&harness, id, &key_set(&[p256("a")])).await;
    let again = added(&harness, id, &key_set(&[c])).await;
    let kids: Vec<_> = names(&again.json_web_key_set)
        .into_iter()
        .map(|(kid, _)| kid)
        .collect();
    assert_eq!(kids, ["a", "c"]);
}

#[tokio::test]
async fn a_client_has_the_keys_of_its_first_request() {
    let harness = seeded().await;
    let request = pb::SubmitIntegrationRequestRequest {
        json_web_key_set: key_set(&[ed25519("b"), p256("a")]),
        ..submission(&["acme"], &["contacts.read"])
    };
    let mut requests = IntegrationRequestServiceClient::new(harness.operator(Role::Registrar));
    let submitted = ok(requests.submit_integration_request(request).await);
    let submitted = submitted.integration_request.unwrap();
    let pair = |kid: &str, alg: &str| (kid.to_owned(), alg.to_owned());
    let expected = [pair("a", "ES256"), pair("b", "EdDSA")];
    assert_eq!(names(&submitted.json_web_key_set), expected);
    let integration_request_id = submitted.integration_request_id;
    let approve = pb::ApproveIntegrationRequestRequest {
        integration_request_id: integration_request_id.clone(),
    };
    let mut requests = IntegrationRequestServiceClient::new(harness.operator(Role::Approver));
    ok(requests.approve_integration_request(approve).await);
    let register = pb::RegisterClientRequest {
        integration_request_id,
        ..Default::default()
    };
    let registered = ok(client(&harness).register_client(register).await)
        .client
        .unwrap();
    assert_eq!(registered.json_web_key_set, submitted.json_web_key_set);
    assert_eq!(shown(&harness, &registered.client_id).await, registered);
}

#[tokio::test]
async fn a_rejected_key_set_reports_all_violations_and_changes_nothing() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let id = &created.client_id;
    let stored = added(&harness, id, &key_set(&[p256("a")])).await;
    let mut private = ed25519("a");
    private["d"] = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A".into();
    private["x"] = "AA".into();
    let shared = json!({"kty": "oct", "kid": "s", "alg": "HS256", "k": "c2VjcmV0"});
    let bad = set("cli_1", &key_set(&[p256("a"), private, shared]));
    let result = set_by(client(&harness), bad).await;
    let said = format!("{result:?}");
    assert!(!said.contains("nWGxne") && !said.contains("c2VjcmV0"));
    let fields = [
        "client_id",
        "json_web_key_set.keys[1].d",
        "json_web_key_set.keys[1].x",
        "json_web_key_set.keys[2].k",
    ];
    assert_violations(result, &fields);
    // A key set of private keys: the response names each member and still fits into the headers.
    let wrong = ["d", "dp", "dq", "e", "n", "p", "q", "qi"];
    let pasted = |index: usize| {
        let mut key = json!({"kty": "RSA", "kid": index.to_string()});
        for name in wrong {
            key[name] = "c2VjcmV0".into();
        }
        key
    };
    let path = |index: usize| wrong.map(|name| format!("json_web_key_set.keys[{index}].{name}"));
    let fields: Vec<_> = (0..5).flat_map(path).collect();
    let fields: Vec<_> = fields.iter().map(String::as_str).collect();
    let file = key_set(&(0..5).map(pasted).collect::<Vec<_>>());
    assert_violations(set_by(client(&harness), set(id, &file)).await, &fields);
    let malformed = set_by(client(&harness), set(id, "-----BEGIN PUBLIC KEY-----")).await;
    assert_violations(malformed, &["json_web_key_set"]);
    let empty = set_by(client(&harness), pb::SetClientKeysRequest::default()).await;
    assert_violations(empty, &["client_id"]);
    let unknown = set_by(client(&harness), set(UNKNOWN, &key_set(&[p256("a")]))).await;
    let metadata = assert_rejected(unknown, Code::NotFound, "NOT_FOUND");
    assert_eq!(metadata["resource"], "client");
    assert_eq!(shown(&harness, id).await, stored);
    assert!(harness.audit_events("client.set_keys").await.is_empty());
}

#[tokio::test]
async fn only_registrars_and_admins_set_keys() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let id = &created.client_id;
    let stored = added(&harness, id, &key_set(&[p256("a")])).await;
    let mut admitted = Vec::new();
    for role in Role::ALL {
        let clients = ClientServiceClient::new(harness.operator(role));
        match set_by(clients, set(id, &stored.json_web_key_set)).await {
            Ok(_) => admitted.push(role),
            refused => {
                assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
            }
        }
    }
    admitted.sort_unstable();
    let mut expected = [Role::Registrar, Role::Admin];
    expected.sort_unstable();
    assert_eq!(admitted, expected);
    for kind in WorkloadKind::ALL {
        let clients = ClientServiceClient::new(harness.workload(kind));
        let refused = set_by(clients, set(id, "")).await;
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    let nobody = set_by(ClientServiceClient::new(harness.anonymous()), set(id, "")).await;
    assert_rejected(nobody, Code::Unauthenticated, "UNAUTHENTICATED");
    assert_eq!(shown(&harness, id).await, stored);
}

#[tokio::test]
async fn an_update_does_not_change_keys() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let stored = added(&harness, &created.client_id, &key_set(&[p256("a")])).await;
    let update = |paths: &[&str]| pb::UpdateClientRequest {
        client: Some(pb::Client {
            client_id: created.client_id.clone(),
            tenant_ids: vec!["acme".into()],
            json_web_key_set: String::new(),
            ..Default::default()
        }),
        update_mask: Some(FieldMask {
            paths: paths.iter().map(ToString::to_string).collect(),
        }),
    };
    let refused = client(&harness)
        .update_client(update(&["tenant_ids", "json_web_key_set"]))
        .await;
    assert_violations(refused, &["update_mask"]);
    assert_eq!(shown(&harness, &created.client_id).await, stored);
    let narrower = client(&harness).update_client(update(&["tenant_ids"])).await;
    let narrower = narrower.unwrap().into_inner().client.unwrap();
    assert_eq!(
        (narrower.tenant_ids, narrower.json_web_key_set),
        (vec!["acme".to_owned()], stored.json_web_key_set)
    );
}
