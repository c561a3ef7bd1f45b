//! `ClientService`, and what token-service sees of clients and their secrets.

mod registration;
mod secrets;
mod security;
mod update;

use std::time::Duration;

use accord::{
    clock::Clock,
    registry::v1::{
        self as pb, ClientState, DeliveryMethod, IntegrationRequestState, SecretRevocationReason as Reason,
        client_service_client::ClientServiceClient,
        create_client_secret_response::Credentials as SecretCredentials,
        directory_service_client::DirectoryServiceClient,
        integration_request_service_client::IntegrationRequestServiceClient,
        register_client_response::Credentials,
    },
    rpc::auth::{Role, WorkloadKind},
};
use tonic::{Code, Status};

use crate::harness::{CallerChannel, Harness, PUBLIC_BASE_URL, assert_rejected, assert_violations, ok};

pub const UNKNOWN: &str = "cli_01k9zzzzzzzzzzzzzzzzzzzzzz";

const UNKNOWN_REQUEST: &str = "irq_01k9zzzzzzzzzzzzzzzzzzzzzz";

const UNKNOWN_SECRET: &str = "sec_01k9zzzzzzzzzzzzzzzzzzzzzz";

const HOUR: Duration = Duration::from_secs(3600);

pub fn client(harness: &Harness) -> ClientServiceClient<CallerChannel> {
    ClientServiceClient::new(harness.operator(Role::Admin))
}

/// Adds two tenants and two scopes.
pub async fn seed(harness: &Harness) {
    harness.tenant("acme").await;
    harness.tenant("globex").await;
    harness.scope("contacts.read").await;
    harness.scope("contacts.write").await;
}

async fn seeded() -> Harness {
    let harness = Harness::start().await;
    seed(&harness).await;
    harness
}

pub fn register(integration_request_id: &str, delivery: DeliveryMethod) -> pb::RegisterClientRequest {
    pb::RegisterClientRequest {
        request_id: String::new(),
        integration_request_id: integration_request_id.into(),
        delivery: delivery.into(),
    }
}

/// Registers a client of both tenants. Returns its secret too.
pub async fn registered(harness: &Harness) -> (pb::Client, String) {
    let approved = harness
        .approved_request(&["acme", "globex"], &["contacts.read", "contacts.write"])
        .await;
    let call = register(&approved.integration_request_id, DeliveryMethod::Inline);
    let answer = ok(client(harness).register_client(call).await);
    match answer.credentials.unwrap() {
        Credentials::Bundle(bundle) => (answer.client.unwrap(), bundle.client_secret),
        Credentials::DeliveryLink(_) => panic!("a link was not requested"),
    }
}

/// Registers a client of one tenant, with a link to its secret.
pub async fn registered_with_link(harness: &Harness) -> (pb::Client, pb::DeliveryLink) {
    let approved = harness.approved_request(&["acme"], &["contacts.read"]).await;
    let call = register(&approved.integration_request_id, DeliveryMethod::Link);
    let answer = ok(client(harness).register_client(call).await);
    match answer.credentials.unwrap() {
        Credentials::DeliveryLink(link) => (answer.client.unwrap(), link),
        Credentials::Bundle(_) => panic!("a bundle was not requested"),
    }
}

async fn get(harness: &Harness, client_id: &str) -> pb::Client {
    let request = pb::GetClientRequest {
        client_id: client_id.into(),
    };
    ok(client(harness).get_client(request).await).client.unwrap()
}

async fn profile(harness: &Harness, client_id: &str) -> pb::ClientProfile {
    let mut directory = DirectoryServiceClient::new(harness.workload(WorkloadKind::TokenService));
    let request = pb::GetClientProfileRequest {
        client_id: client_id.into(),
        ..Default::default()
    };
    ok(directory.get_client_profile(request).await).client.unwrap()
}

/// Authenticates a client as token-service does.
pub async fn authenticate(
    harness: &Harness,
    client_id: &str,
    client_secret: &str,
) -> Result<pb::AuthenticateClientResponse, Status> {
    let mut directory = DirectoryServiceClient::new(harness.workload(WorkloadKind::TokenService));
    let request = pb::AuthenticateClientRequest {
        client_id: client_id.into(),
        client_secret: client_secret.into(),
    };
    directory
        .authenticate_client(request)
        .await
        .map(tonic::Response::into_inner)
}

/// The client's secrets, newest first.
pub async fn secrets(harness: &Harness, client_id: &str) -> Vec<pb::ClientSecret> {
    let request = pb::ListClientSecretsRequest {
        client_id: client_id.into(),
        ..Default::default()
    };
    ok(client(harness).list_client_secrets(request).await).secrets
}

async fn add_secret(
    harness: &Harness,
    request: pb::CreateClientSecretRequest,
) -> Result<(pb::ClientSecret, String), Status> {
    let answer = client(harness).create_client_secret(request).await?.into_inner();
    match answer.credentials.unwrap() {
        SecretCredentials::Bundle(bundle) => Ok((answer.secret.unwrap(), bundle.client_secret)),
        SecretCredentials::DeliveryLink(_) => panic!("a link was not requested"),
    }
}

fn new_secret(client_id: &str) -> pb::CreateClientSecretRequest {
    pb::CreateClientSecretRequest {
        client_id: client_id.into(),
        ..Default::default()
    }
}

fn revoke(client_id: &str, secret_id: &str, reason: Reason, force: bool) -> pb::RevokeClientSecretRequest {
    pb::RevokeClientSecretRequest {
        client_id: client_id.into(),
        secret_id: secret_id.into(),
        reason: reason.into(),
        force,
    }
}

async fn revoked(
    harness: &Harness,
    request: pb::RevokeClientSecretRequest,
) -> Result<pb::ClientSecret, Status> {
    let answer = client(harness).revoke_client_secret(request).await?;
    Ok(answer.into_inner().secret.unwrap())
}

async fn suspend(harness: &Harness, client_id: &str) -> Result<pb::Client, Status> {
    let request = pb::SuspendClientRequest {
        client_id: client_id.into(),
        reason: "a test".into(),
    };
    let answer = client(harness).suspend_client(request).await?;
    Ok(answer.into_inner().client.unwrap())
}

async fn reinstate(harness: &Harness, client_id: &str) -> Result<pb::Client, Status> {
    let request = pb::ReinstateClientRequest {
        client_id: client_id.into(),
    };
    let answer = client(harness).reinstate_client(request).await?;
    Ok(answer.into_inner().client.unwrap())
}

async fn integration_request(harness: &Harness, id: &str) -> pb::IntegrationRequest {
    let mut requests = IntegrationRequestServiceClient::new(harness.operator(Role::Admin));
    let request = pb::GetIntegrationRequestRequest {
        integration_request_id: id.into(),
    };
    ok(requests.get_integration_request(request).await)
        .integration_request
        .unwrap()
}

async fn count(harness: &Harness) -> usize {
    let answer = client(harness)
        .list_clients(pb::ListClientsRequest::default())
        .await;
    answer.unwrap().into_inner().clients.len()
}

#[tokio::test]
async fn a_client_has_the_fields_of_its_request() {
    let harness = seeded().await;
    let approved = harness
        .approved_request(&["acme", "globex"], &["contacts.read"])
        .await;
    let call = register(&approved.integration_request_id, DeliveryMethod::Unspecified);
    let answer = ok(client(&harness).register_client(call).await);
    let created = answer.client.unwrap();
    assert_eq!(
        (
            created.display_name.as_str(),
            &created.partner_name,
            &created.purpose
        ),
        ("Contact Sync", &approved.partner_name, &approved.goals)
    );
    assert_eq!(
        (&created.tenant_ids, &created.scopes, &created.redirect_uris),
        (&approved.tenant_ids, &approved.scopes, &approved.redirect_uris)
    );
    assert_eq!(created.integration_request_id, approved.integration_request_id);
    assert_eq!(created.state(), ClientState::Active);
    assert_eq!(get(&harness, &created.client_id).await, created);
    let request = integration_request(&harness, &approved.integration_request_id).await;
    assert_eq!(
        (request.state(), &request.client_id),
        (IntegrationRequestState::Registered, &created.client_id)
    );

    let Some(Credentials::Bundle(bundle)) = answer.credentials else {
        panic!("no bundle")
    };
    assert_eq!(bundle.client_id, created.client_id);
    let endpoints = ["acme", "globex"].map(|tenant_id| pb::Endpoint {
        tenant_id: tenant_id.into(),
        tenant_authority_url: format!("{PUBLIC_BASE_URL}/{tenant_id}"),
        cloud_api_url: format!("https://api.example/{tenant_id}"),
    });
    assert_eq!(bundle.endpoints, endpoints);
    let authenticated = authenticate(&harness, &created.client_id, &bundle.client_secret)
        .await
        .unwrap();
    assert_eq!(
        authenticated.client.unwrap(),
        profile(&harness, &created.client_id).await
    );
    let events = harness.audit_events("client.register").await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].client_id, created.client_id);
    assert!(!format!("{:?}", events[0].detail).contains(&bundle.client_secret));
}

#[tokio::test]
async fn unknown_and_malformed_ids_are_rejected() {
    let harness = seeded().await;
    let mut client = client(&harness);
    let unknown = pb::GetClientRequest {
        client_id: UNKNOWN.into(),
    };
    let metadata = assert_rejected(client.get_client(unknown).await, Code::NotFound, "NOT_FOUND");
    assert_eq!(metadata["resource"], "client");
    let unknown = pb::ListClientSecretsRequest {
        client_id: UNKNOWN.into(),
        ..Default::default()
    };
    assert_rejected(
        client.list_client_secrets(unknown).await,
        Code::NotFound,
        "NOT_FOUND",
    );
    let unknown = client.create_client_secret(new_secret(UNKNOWN)).await;
    assert_rejected(unknown, Code::NotFound, "NOT_FOUND");
    assert_rejected(suspend(&harness, UNKNOWN).await, Code::NotFound, "NOT_FOUND");
    assert_rejected(reinstate(&harness, UNKNOWN).await, Code::NotFound, "NOT_FOUND");

    let malformed = client.get_client(pb::GetClientRequest::default()).await;
    assert_violations(malformed, &["client_id"]);
    assert_violations(suspend(&harness, "1").await, &["client_id"]);
    assert_violations(reinstate(&harness, "1").await, &["client_id"]);
    let malformed = pb::ListClientsRequest {
        tenant_id: "Acme".into(),
        state: 9,
        page_size: -1,
        page_token: String::new(),
    };
    let fields = ["tenant_id", "state", "page_size"];
    assert_violations(client.list_clients(malformed).await, &fields);
    let malformed = pb::ListClientSecretsRequest {
        client_id: "1".into(),
        page_size: -1,
        page_token: String::new(),
    };
    let fields = ["client_id", "page_size"];
    assert_violations(client.list_client_secrets(malformed).await, &fields);
    let malformed = pb::CreateClientSecretRequest {
        request_id: "1".into(),
        client_id: "1".into(),
        expire_time: Some(harness.clock.now().to_timestamp()),
        delivery: 9,
    };
    let fields = ["request_id", "client_id", "expire_time", "delivery"];
    assert_violations(client.create_client_secret(malformed).await, &fields);
    let malformed = client
        .revoke_client_secret(pb::RevokeClientSecretRequest::default())
        .await;
    assert_violations(malformed, &["client_id", "secret_id", "reason"]);
}

#[tokio::test]
async fn clients_are_listed_newest_first_by_tenant_and_state() {
    let harness = seeded().await;
    let mut ids = Vec::new();
    for both in [true, false, true] {
        harness.clock.advance(Duration::from_millis(1));
        let created = if both {
            registered(&harness).await.0
        } else {
            registered_with_link(&harness).await.0
        };
        ids.insert(0, created.client_id);
    }
    suspend(&harness, &ids[2]).await.unwrap();
    let list = async |tenant_id: &str, state: ClientState, page_size, page_token: &str| {
        let request = pb::ListClientsRequest {
            tenant_id: tenant_id.into(),
            state: state.into(),
            page_size,
            page_token: page_token.into(),
        };
        client(&harness).list_clients(request).await.map(|answer| {
            let page = answer.into_inner();
            let ids = page.clients.into_iter().map(|client| client.client_id);
            (ids.collect::<Vec<_>>(), page.next_page_token)
        })
    };
    let (first, token) = list("", ClientState::Unspecified, 2, "").await.unwrap();
    assert_eq!(first, ids[..2]);
    let other = list("acme", ClientState::Unspecified, 2, &token).await;
    assert_violations(other, &["page_token"]);
    let (rest, end) = list("", ClientState::Unspecified, 2, &token).await.unwrap();
    assert_eq!((rest.as_slice(), end.as_str()), (&ids[2..], ""));
    let (globex, _) = list("globex", ClientState::Unspecified, 0, "").await.unwrap();
    assert_eq!(globex, [ids[0].as_str(), &ids[2]]);
    let (suspended, _) = list("", ClientState::Suspended, 0, "").await.unwrap();
    assert_eq!(suspended, ids[2..]);
    let (both, _) = list("globex", ClientState::Active, 0, "").await.unwrap();
    assert_eq!(both, ids[..1]);
}

#[tokio::test]
async fn suspending_ends_tokens_and_may_be_repeated() {
    let harness = seeded().await;
    let (created, secret) = registered(&harness).await;
    let id = &created.client_id;
    let before = profile(&harness, id).await;
    let suspended = suspend(&harness, id).await.unwrap();
    assert_eq!(suspended.state(), ClientState::Suspended);
    let after = profile(&harness, id).await;
    assert!(after.tokens_ended_seq > before.version);
    assert_eq!((after.version, after.families_ended_seq), (before.version, 0));
    let position = harness.registry.store().position().await.unwrap();
    harness.clock.advance(HOUR);
    assert_eq!(suspend(&harness, id).await.unwrap(), suspended);
    // The end is published again, for a cache that has missed it.
    assert_eq!(
        harness.registry.store().position().await.unwrap().seq,
        position.seq + 1
    );
    let refused = authenticate(&harness, id, &secret).await;
    assert_rejected(refused, Code::Unauthenticated, "INVALID_CLIENT");

    let reinstated = reinstate(&harness, id).await.unwrap();
    assert_eq!(reinstated.state(), ClientState::Active);
    assert_eq!(reinstate(&harness, id).await.unwrap(), reinstated);
    let ended = profile(&harness, id).await.tokens_ended_seq;
    assert_eq!(ended, after.tokens_ended_seq);
    authenticate(&harness, id, &secret).await.unwrap();
    assert_eq!(harness.audit_events("client.suspend").await.len(), 1);
    assert_eq!(harness.audit_events("client.reinstate").await.len(), 1);
}
