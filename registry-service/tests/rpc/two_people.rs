//! With `--second-operator`, no single person but an admin reaches a tenant's data, widens a client or redirects anything.
//!
//! Each attacker calls every method of the contract in its most harmful form, three times over, with everything that the
//! answers taught. Two persons who work together show that the attack finds what there is to find.

use std::collections::BTreeSet;

use accord::{
    audit::v1::{self as audit, audit_service_client::AuditServiceClient},
    registry::v1::{
        self as pb, client_service_client::ClientServiceClient,
        directory_service_client::DirectoryServiceClient,
        integration_request_service_client::IntegrationRequestServiceClient,
        operator_service_client::OperatorServiceClient,
        provisioning_service_client::ProvisioningServiceClient, scope_service_client::ScopeServiceClient,
        tenant_service_client::TenantServiceClient, user_service_client::UserServiceClient,
    },
    rpc::auth::{Role, WorkloadKind},
    testing::calls::methods,
    text::network::AllowedNetworks,
};
use prost::Message;
use prost_types::FieldMask;
use registry_service::permissions::SERVICES;
use tonic::{Code, Response, Status};

use self::attack::{Known, attack};
use crate::{
    client::register,
    harness::{CallerChannel, Harness, assert_rejected, assert_violations, ok, submission},
};

mod approvals;
mod attack;
mod links;

const EVIL: &str = "https://evil.example/callback";
const PASSWORD: &str = "correct horse battery staple";
const OPERATORS: [Role; 4] = [Role::Registrar, Role::Approver, Role::Security, Role::Auditor];

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask {
        paths: paths.iter().map(ToString::to_string).collect(),
    })
}

/// Creates an operator as an admin. Returns its channel.
async fn operator(harness: &Harness, name: &str, roles: &[Role], person: &str) -> CallerChannel {
    let request = pb::CreateOperatorRequest {
        name: name.into(),
        roles: roles
            .iter()
            .map(|role| pb::OperatorRole::from(*role).into())
            .collect(),
        person: person.into(),
        ..Default::default()
    };
    let mut operators = OperatorServiceClient::new(harness.operator(Role::Admin));
    harness.token(&ok(operators.create_operator(request).await).operator_token)
}

/// What operators may only change together: what each client may do, where tenants' data is, what consent pages say, and
/// who may call.
#[derive(Debug)]
struct Authority {
    clients: Vec<pb::Client>,
    tenants: Vec<pb::Tenant>,
    scopes: Vec<pb::Scope>,
    callers: usize,
}

impl Authority {
    async fn read(harness: &Harness) -> Self {
        let admin = || harness.operator(Role::Admin);
        let clients = ClientServiceClient::new(admin())
            .list_clients(pb::ListClientsRequest::default())
            .await;
        let tenants = TenantServiceClient::new(admin())
            .list_tenants(pb::ListTenantsRequest::default())
            .await;
        let scopes = ScopeServiceClient::new(admin())
            .list_scopes(pb::ListScopesRequest::default())
            .await;
        let mut callers = OperatorServiceClient::new(admin());
        let operators = ok(callers.list_operators(pb::ListOperatorsRequest::default()).await).operators;
        let workloads = ok(callers.list_workloads(pb::ListWorkloadsRequest::default()).await).workloads;
        Self {
            clients: ok(clients).clients,
            tenants: ok(tenants).tenants,
            scopes: ok(scopes).scopes,
            callers: operators.len() + workloads.len(),
        }
    }

    /// What is more afterwards.
    fn gained(&self, after: &Self) -> Vec<String> {
        let mut gained = Vec::new();
        for client in &after.clients {
            let before = self
                .clients
                .iter()
                .find(|before| before.client_id == client.client_id);
            // A new client is as others approved it.
            let is_within = match before {
                Some(before) => {
                    let has = |uri| before.redirect_uris.contains(uri);
                    client.display_name == before.display_name
                        && client.redirect_uris.iter().all(has)
                        && client.scopes.iter().all(|scope| before.scopes.contains(scope))
                        && client.tenant_ids.iter().all(|id| before.tenant_ids.contains(id))
                        && client.json_web_key_set == before.json_web_key_set
                        && !is_looser(client, before)
                }
                None => !client.redirect_uris.iter().any(|uri| uri == EVIL),
            };
            if let Some(before) = before {
                let has_left = client.security_profile != before.security_profile;
                gained.extend(has_left.then(|| "a client that left its profile".to_owned()));
                let has_others = client.dpop_jkts != before.dpop_jkts;
                gained.extend(has_others.then(|| "other keys of proofs".to_owned()));
                let [now, then] = [client, before].map(networks);
                gained.extend((!now.are_within(&then)).then(|| "other networks".to_owned()));
            }
            if !is_within {
                gained.push(format!("a wider client: {}", client.display_name));
            }
        }
        for tenant in &self.tenants {
            let now = after
                .tenants
                .iter()
                .find(|now| now.tenant_id == tenant.tenant_id)
                .unwrap();
            if now.cloud_api_url != tenant.cloud_api_url {
                gained.push("another Cloud API".to_owned());
            }
        }
        for scope in &self.scopes {
            if !after.scopes.contains(scope) {
                gained.push("another description".to_owned());
            }
        }
        if after.callers != self.callers {
            gained.push("another caller".to_owned());
        }
        gained
    }
}

/// Requests of a client with a secret and no limit, of one that is limited to a key and a network, of one that follows the
/// profile, and of two that sign with keys, in their request or at a URL.
fn requested() -> [pb::SubmitIntegrationRequestRequest; 5] {
    let by_secret = pb::SubmitIntegrationRequestRequest {
        dpop_jkts: vec!["0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".into()],
        allowed_networks: vec!["192.0.2.0/24".into()],
        ..submission(&["acme"], &["contacts.read"])
    };
    let by_certificate = pb::SubmitIntegrationRequestRequest {
        token_endpoint_auth_method: "tls_client_auth".into(),
        tls_client_auth_san_dns: "sync.partner.example".into(),
        security_profile: pb::SecurityProfile::Fapi20.into(),
        ..by_secret.clone()
    };
    let unlimited = submission(&["acme"], &["contacts.read"]);
    let by_keys = pb::SubmitIntegrationRequestRequest {
        token_endpoint_auth_method: "private_key_jwt".into(),
        json_web_key_set: crate::integration_request::security::KEYS.into(),
        ..unlimited.clone()
    };
    let by_url = pb::SubmitIntegrationRequestRequest {
        json_web_key_set: String::new(),
        jwks_uri: "https://partner.example/jwks".into(),
        ..by_keys.clone()
    };
    [unlimited, by_secret, by_certificate, by_keys, by_url]
}

fn networks(client: &pb::Client) -> AllowedNetworks {
    AllowedNetworks::parse(&client.allowed_networks).unwrap()
}

/// Whether a client authenticates in another way, follows another profile, or may use other keys or networks.
fn is_looser(client: &pb::Client, before: &pb::Client) -> bool {
    let how = |client: &pb::Client| {
        (
            client.token_endpoint_auth_method.clone(),
            client.jwks_uri.clone(),
            client.tls_client_auth_san_dns.clone(),
            client.security_profile,
            client.profile_start_time,
        )
    };
    let has = |jkt| before.dpop_jkts.contains(jkt);
    how(client) != how(before)
        || !client.dpop_jkts.iter().all(has)
        || client.dpop_jkts.is_empty() != before.dpop_jkts.is_empty()
        || !networks(client).are_within(&networks(before))
}

/// Everything that the attackers gain together. In their world others have submitted, approved and created what there is.
async fn gains(harness: &Harness, attackers: &[CallerChannel]) -> BTreeSet<String> {
    harness.tenant("acme").await;
    harness.tenant("globex").await;
    harness.scope("contacts.read").await;
    harness.scope("contacts.write").await;
    let approved = async || harness.approved_request(&["acme"], &["contacts.read"]).await;
    let mut clients = ClientServiceClient::new(harness.operator(Role::Registrar));
    for request in requested() {
        let approved = harness.approved(request).await;
        ok(clients
            .register_client(register(&approved, pb::DeliveryMethod::Link))
            .await);
    }
    approved().await;
    harness.submitted_request(&["acme"], &["contacts.write"]).await;
    let mut users = UserServiceClient::new(harness.operator(Role::Registrar));
    let user = pb::RegisterUserRequest {
        tenant_id: "acme".into(),
        account_name: "ada".into(),
        label: "Administrator 1".into(),
        tenant_admin: true,
        ..Default::default()
    };
    ok(users.register_user(user).await);

    let before = Authority::read(harness).await;
    let (mut known, mut gained) = (Known::default(), BTreeSet::new());
    for _ in 0..3 {
        for (service, method) in methods(|service| SERVICES.contains(&service)) {
            for attacker in attackers {
                gained.extend(attack(attacker, &service, &method, &mut known).await);
            }
        }
    }
    gained.extend(before.gained(&Authority::read(harness).await));
    for (prefix, what) in [
        ("acs_", "a Client Secret"),
        ("aco_", "an operator"),
        ("acw_", "a workload"),
    ] {
        if !known.of(prefix).is_empty() {
            gained.insert(what.to_owned());
        }
    }
    assert!(
        !known.of("cli_").is_empty(),
        "the attackers read what everybody reads"
    );
    gained
}

#[tokio::test]
async fn no_single_person_but_an_admin_gains_anything() {
    for role in OPERATORS {
        let harness = Harness::start_with_second_operator().await;
        let attacker = operator(&harness, "Eve", &[role], "Eve").await;
        assert_eq!(gains(&harness, &[attacker]).await, BTreeSet::new(), "{role:?}");
    }
}

#[tokio::test]
async fn every_role_but_admin_is_not_enough_for_one_person() {
    let harness = Harness::start_with_second_operator().await;
    let attacker = operator(&harness, "Eve", &OPERATORS, "Eve").await;
    assert_eq!(gains(&harness, &[attacker]).await, BTreeSet::new());

    let harness = Harness::start_with_second_operator().await;
    let one = operator(&harness, "Eve", &[Role::Registrar], "Eve").await;
    let other = operator(&harness, "Eve's laptop", &[Role::Approver, Role::Security], "EVE").await;
    assert_eq!(gains(&harness, &[one, other]).await, BTreeSet::new());
}

#[tokio::test]
async fn two_persons_gain_what_the_attack_looks_for() {
    let harness = Harness::start_with_second_operator().await;
    let one = operator(&harness, "Eve", &[Role::Registrar], "Eve").await;
    let other = operator(&harness, "Mallory", &[Role::Approver], "Mallory").await;
    let gained = gains(&harness, &[one, other]).await;
    for what in [
        "a Client Secret",
        "a Tenant Admin's password",
        "a wider client: Harmless",
        "a client that left its profile",
        "other keys of proofs",
        "other networks",
    ] {
        assert!(gained.contains(what), "{what}: {gained:?}");
    }
    let harness = Harness::start_with_second_operator().await;
    let admin = operator(&harness, "Root", &[Role::Admin], "Root").await;
    let gained = gains(&harness, &[admin]).await;
    for what in [
        "an operator",
        "a workload",
        "another Cloud API",
        "another description",
    ] {
        assert!(gained.contains(what), "{what}: {gained:?}");
    }
}
