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
    rpc::auth::Role,
    testing::calls::methods,
};
use prost::Message;
use prost_types::FieldMask;
use registry_service::permissions::SERVICES;
use tonic::{Code, Response, Status};

use crate::harness::{CallerChannel, Harness, assert_refused, assert_violations, ok, submission};

const EVIL: &str = "https://evil.example/callback";
const PASSWORD: &str = "correct horse battery staple";
const OPERATORS: [Role; 4] = [Role::Registrar, Role::Approver, Role::Security, Role::Auditor];

/// The one key of an attacker.
fn own_key() -> String {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"evil","x":"{x}"}}]}}"#)
}

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

/// What an attacker has learned: every word of every answer.
#[derive(Default)]
struct Known(BTreeSet<String>);

impl Known {
    fn learn(&mut self, answer: &[u8]) {
        let text = String::from_utf8_lossy(answer);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
        // A length, or a field's number, may be a letter that stands before a word.
        for word in words {
            for (at, _) in word.char_indices() {
                let rest = &word[at..];
                let is_id = [
                    "acl_", "ace_", "acs_", "aco_", "acw_", "cli_", "usr_", "irq_", "dlv_",
                ]
                .iter()
                .any(|prefix| rest.starts_with(prefix));
                if is_id {
                    self.0.insert(rest.to_owned());
                }
            }
        }
    }

    fn of(&self, prefix: &str) -> Vec<String> {
        let words = self.0.iter().filter(|word| word.starts_with(prefix));
        words.cloned().collect()
    }
}

/// Keeps what a call taught.
fn note<T: Message>(known: &mut Known, answer: Result<Response<T>, Status>) -> bool {
    match answer {
        Ok(answer) => {
            known.learn(&answer.get_ref().encode_to_vec());
            true
        }
        Err(_) => false,
    }
}

/// Tries a release code, or none, on every link to credentials.
async fn claim(
    channel: &mut ProvisioningServiceClient<CallerChannel>,
    known: &mut Known,
    release_code: &str,
) {
    for claim_token in known.of("acl_") {
        let request = pb::ClaimDeliveryRequest {
            claim_token,
            release_code: release_code.into(),
            ..Default::default()
        };
        note(known, channel.claim_delivery(request).await);
    }
}

/// Tries a release code, or none, on every enrolment link. Returns what it gained.
async fn enrol(
    channel: &mut UserServiceClient<CallerChannel>,
    known: &mut Known,
    release_code: &str,
) -> Option<String> {
    let mut gained = None;
    for enrolment_token in known.of("ace_") {
        let request = pb::CompleteEnrolmentRequest {
            enrolment_token,
            password: PASSWORD.into(),
            release_code: release_code.into(),
            ..Default::default()
        };
        if note(known, channel.complete_enrolment(request).await) {
            gained = Some("a Tenant Admin's password".to_owned());
        }
    }
    gained
}

/// Calls a method in its most harmful forms. Returns what it gained beyond what answers taught.
async fn attack(channel: &CallerChannel, service: &str, method: &str, known: &mut Known) -> Vec<String> {
    let (tenant_id, mut gained) = ("acme".to_owned(), Vec::new());
    let mut requests = IntegrationRequestServiceClient::new(channel.clone());
    let mut tenants = TenantServiceClient::new(channel.clone());
    let mut users = UserServiceClient::new(channel.clone());
    let mut scopes = ScopeServiceClient::new(channel.clone());
    let mut clients = ClientServiceClient::new(channel.clone());
    let mut provisioning = ProvisioningServiceClient::new(channel.clone());
    let mut operators = OperatorServiceClient::new(channel.clone());
    let mut directory = DirectoryServiceClient::new(channel.clone());
    let mut audits = AuditServiceClient::new(channel.clone());
    // Calls with default messages, whose answers may teach something.
    macro_rules! plain {
        ($client:ident.$method:ident($package:ident::$request:ident)) => {
            _ = note(known, $client.$method($package::$request::default()).await)
        };
    }
    match (service.rsplit('.').next().unwrap(), method) {
        // These take away alone.
        (_, "RejectIntegrationRequest" | "SuspendTenant" | "DeactivateUser" | "SuspendClient") => {}
        (_, "RevokeClientSecret" | "RevokeOperator" | "RevokeWorkload") => {}

        (_, "SubmitIntegrationRequest") => {
            let scope = |name: &str| pb::RequestedScope {
                name: name.into(),
                reason: "harmless".into(),
            };
            let evil = pb::SubmitIntegrationRequestRequest {
                redirect_uris: vec![EVIL.into()],
                scopes: ["contacts.read", "contacts.write"].map(scope).into(),
                json_web_key_set: own_key(),
                display_name: "Harmless".into(),
                ..submission(&["acme", "globex"], &[])
            };
            note(known, requests.submit_integration_request(evil.clone()).await);
            for client_id in known.of("cli_") {
                let amendment = pb::SubmitIntegrationRequestRequest {
                    client_id,
                    partner_name: String::new(),
                    ..evil.clone()
                };
                note(known, requests.submit_integration_request(amendment).await);
            }
        }
        (_, "ListIntegrationRequests") => {
            plain!(requests.list_integration_requests(pb::ListIntegrationRequestsRequest));
        }
        (_, "GetIntegrationRequest") => {
            plain!(requests.get_integration_request(pb::GetIntegrationRequestRequest));
        }
        (_, "ApproveIntegrationRequest") => {
            for integration_request_id in known.of("irq_") {
                let request = pb::ApproveIntegrationRequestRequest {
                    integration_request_id,
                };
                note(known, requests.approve_integration_request(request).await);
            }
        }

        (_, "CreateTenant") => {
            let request = pb::CreateTenantRequest {
                tenant_id: "evil".into(),
                display_name: "Acme".into(),
                cloud_api_url: EVIL.into(),
                ..Default::default()
            };
            note(known, tenants.create_tenant(request).await);
        }
        (_, "GetTenant") => plain!(tenants.get_tenant(pb::GetTenantRequest)),
        (_, "ListTenants") => plain!(tenants.list_tenants(pb::ListTenantsRequest)),
        (_, "UpdateTenant") => {
            let request = pb::UpdateTenantRequest {
                tenant: Some(pb::Tenant {
                    tenant_id,
                    cloud_api_url: EVIL.into(),
                    ..Default::default()
                }),
                update_mask: mask(&["cloud_api_url"]),
            };
            note(known, tenants.update_tenant(request).await);
        }
        (_, "ReinstateTenant") => {
            let request = pb::ReinstateTenantRequest { tenant_id };
            note(known, tenants.reinstate_tenant(request).await);
        }

        (_, "RegisterUser") => {
            let request = pb::RegisterUserRequest {
                tenant_id,
                account_name: format!("evil{}", known.of("usr_").len()),
                label: "Administrator".into(),
                tenant_admin: true,
                ..Default::default()
            };
            note(known, users.register_user(request).await);
        }
        (_, "FindUser") => plain!(users.find_user(pb::FindUserRequest)),
        (_, "ListUsers") => {
            let request = pb::ListUsersRequest {
                tenant_id,
                ..Default::default()
            };
            note(known, users.list_users(request).await);
        }
        (_, "ReactivateUser") => {
            for user_id in known.of("usr_") {
                let tenant_id = tenant_id.clone();
                let request = pb::ReactivateUserRequest { tenant_id, user_id };
                note(known, users.reactivate_user(request).await);
            }
        }
        (_, "ResetUserPassword") => {
            for user_id in known.of("usr_") {
                let request = pb::ResetUserPasswordRequest {
                    tenant_id: tenant_id.clone(),
                    user_id,
                    ..Default::default()
                };
                note(known, users.reset_user_password(request).await);
            }
        }
        (_, "CompleteEnrolment") => gained.extend(enrol(&mut users, known, "").await),
        (_, "ReleaseEnrolment") => {
            for user_id in known.of("usr_") {
                let tenant_id = tenant_id.clone();
                let request = pb::ReleaseEnrolmentRequest { tenant_id, user_id };
                if let Ok(released) = users.release_enrolment(request).await {
                    let code = released.into_inner().release_code;
                    gained.extend(enrol(&mut users, known, &code).await);
                }
            }
        }

        (_, "CreateScope") => {
            let request = pb::CreateScopeRequest {
                name: "evil".into(),
                description: "Harmless".into(),
                ..Default::default()
            };
            note(known, scopes.create_scope(request).await);
        }
        (_, "ListScopes") => plain!(scopes.list_scopes(pb::ListScopesRequest)),
        (_, "UpdateScope") => {
            let request = pb::UpdateScopeRequest {
                scope: Some(pb::Scope {
                    name: "contacts.read".into(),
                    description: "Harmless".into(),
                    enabled: true,
                    ..Default::default()
                }),
                update_mask: mask(&["description", "enabled"]),
            };
            note(known, scopes.update_scope(request).await);
        }

        (_, "RegisterClient") => {
            for integration_request_id in known.of("irq_") {
                for delivery in [
                    0,
                    pb::DeliveryMethod::Inline.into(),
                    pb::DeliveryMethod::Link.into(),
                ] {
                    let request = pb::RegisterClientRequest {
                        integration_request_id: integration_request_id.clone(),
                        delivery,
                        ..Default::default()
                    };
                    note(known, clients.register_client(request).await);
                }
            }
        }
        (_, "GetClient") => plain!(clients.get_client(pb::GetClientRequest)),
        (_, "ListClients") => plain!(clients.list_clients(pb::ListClientsRequest)),
        (_, "UpdateClient") => {
            for client_id in known.of("cli_") {
                for path in ["redirect_uris", "scopes", "tenant_ids", "display_name"] {
                    let scope = pb::RequestedScope {
                        name: "contacts.write".into(),
                        reason: "harmless".into(),
                    };
                    let request = pb::UpdateClientRequest {
                        client: Some(pb::Client {
                            client_id: client_id.clone(),
                            redirect_uris: vec![EVIL.into()],
                            scopes: vec![scope],
                            tenant_ids: vec!["acme".into(), "globex".into()],
                            display_name: "Harmless".into(),
                            ..Default::default()
                        }),
                        update_mask: mask(&[path]),
                    };
                    note(known, clients.update_client(request).await);
                }
            }
        }
        (_, "AmendClient") => {
            for integration_request_id in known.of("irq_") {
                let request = pb::AmendClientRequest {
                    integration_request_id,
                };
                note(known, clients.amend_client(request).await);
            }
        }
        (_, "ReinstateClient") => {
            for client_id in known.of("cli_") {
                let request = pb::ReinstateClientRequest { client_id };
                note(known, clients.reinstate_client(request).await);
            }
        }
        (_, "CreateClientSecret") => {
            for client_id in known.of("cli_") {
                for delivery in [
                    0,
                    pb::DeliveryMethod::Inline.into(),
                    pb::DeliveryMethod::Link.into(),
                ] {
                    let request = pb::CreateClientSecretRequest {
                        client_id: client_id.clone(),
                        delivery,
                        ..Default::default()
                    };
                    note(known, clients.create_client_secret(request).await);
                }
            }
        }
        (_, "ListClientSecrets") => plain!(clients.list_client_secrets(pb::ListClientSecretsRequest)),
        (_, "SetClientKeys") => {
            for client_id in known.of("cli_") {
                let json_web_key_set = own_key();
                let request = pb::SetClientKeysRequest {
                    client_id,
                    json_web_key_set,
                };
                note(known, clients.set_client_keys(request).await);
            }
        }

        (_, "CreateDelivery") => {
            for client_id in known.of("cli_") {
                let request = pb::CreateDeliveryRequest {
                    client_id,
                    ..Default::default()
                };
                note(known, provisioning.create_delivery(request).await);
            }
        }
        (_, "ReleaseDelivery") => {
            for delivery_id in known.of("dlv_") {
                let request = pb::ReleaseDeliveryRequest { delivery_id };
                if let Ok(released) = provisioning.release_delivery(request).await {
                    claim(&mut provisioning, known, &released.into_inner().release_code).await;
                }
            }
        }
        (_, "ClaimDelivery") => claim(&mut provisioning, known, "").await,

        (_, "CreateOperator") => {
            let request = pb::CreateOperatorRequest {
                name: "Evil".into(),
                roles: vec![pb::OperatorRole::Admin.into()],
                ..Default::default()
            };
            note(known, operators.create_operator(request).await);
        }
        (_, "CreateWorkload") => {
            let request = pb::CreateWorkloadRequest {
                name: "evil".into(),
                kind: pb::WorkloadKind::TokenService.into(),
                ..Default::default()
            };
            note(known, operators.create_workload(request).await);
        }
        (_, "ListOperators") => plain!(operators.list_operators(pb::ListOperatorsRequest)),
        (_, "ListWorkloads") => plain!(operators.list_workloads(pb::ListWorkloadsRequest)),

        ("DirectoryService", _) => {
            let request = pb::GetClientProfileRequest {
                client_id: known.of("cli_").pop().unwrap_or_default(),
                ..Default::default()
            };
            if note(known, directory.get_client_profile(request).await) {
                gained.push("the directory".to_owned());
            }
        }
        ("AuditService", _) => plain!(audits.list_audit_events(audit::ListAuditEventsRequest)),
        other => panic!("say what {other:?} can do at worst"),
    }
    gained
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
                }
                None => !client.redirect_uris.iter().any(|uri| uri == EVIL),
            };
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

/// Everything that the attackers gain together. In their world others have submitted, approved and created what there is.
async fn gains(harness: &Harness, attackers: &[CallerChannel]) -> BTreeSet<String> {
    harness.tenant("acme").await;
    harness.tenant("globex").await;
    harness.scope("contacts.read").await;
    harness.scope("contacts.write").await;
    let register = |integration_request_id: String| pb::RegisterClientRequest {
        integration_request_id,
        delivery: pb::DeliveryMethod::Link.into(),
        ..Default::default()
    };
    let approved = async || harness.approved_request(&["acme"], &["contacts.read"]).await;
    let mut clients = ClientServiceClient::new(harness.operator(Role::Registrar));
    ok(clients
        .register_client(register(approved().await.integration_request_id))
        .await);
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
        let attacker = operator(&harness, "Eve", &[role], "").await;
        assert_eq!(gains(&harness, &[attacker]).await, BTreeSet::new(), "{role:?}");
    }
}

#[tokio::test]
async fn every_role_but_admin_is_not_enough_for_one_person() {
    let harness = Harness::start_with_second_operator().await;
    let attacker = operator(&harness, "Eve", &OPERATORS, "").await;
    assert_eq!(gains(&harness, &[attacker]).await, BTreeSet::new());

    let harness = Harness::start_with_second_operator().await;
    let one = operator(&harness, "Eve", &[Role::Registrar], "Eve").await;
    let other = operator(&harness, "Eve's laptop", &[Role::Approver, Role::Security], "EVE").await;
    assert_eq!(gains(&harness, &[one, other]).await, BTreeSet::new());
}

#[tokio::test]
async fn two_persons_gain_what_the_attack_looks_for() {
    let harness = Harness::start_with_second_operator().await;
    let one = operator(&harness, "Eve", &[Role::Registrar], "").await;
    let other = operator(&harness, "Mallory", &[Role::Approver], "").await;
    let gained = gains(&harness, &[one, other]).await;
    for what in [
        "a Client Secret",
        "a Tenant Admin's password",
        "a wider client: Harmless",
    ] {
        assert!(gained.contains(what), "{what}: {gained:?}");
    }
    let harness = Harness::start_with_second_operator().await;
    let admin = operator(&harness, "Root", &[Role::Admin], "").await;
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

#[tokio::test]
async fn credentials_go_by_a_link_and_open_with_the_code_of_a_second_person() {
    let harness = Harness::start_with_second_operator().await;
    harness.tenant("acme").await;
    harness.scope("contacts.read").await;
    let mut registrar = ClientServiceClient::new(harness.operator(Role::Registrar));
    let approved = harness.approved_request(&["acme"], &["contacts.read"]).await;
    let register = |delivery: pb::DeliveryMethod| pb::RegisterClientRequest {
        integration_request_id: approved.integration_request_id.clone(),
        delivery: delivery.into(),
        ..Default::default()
    };
    for inline in [pb::DeliveryMethod::Unspecified, pb::DeliveryMethod::Inline] {
        let refused = registrar.register_client(register(inline)).await;
        assert_violations(refused, &["delivery"]);
        let secret = pb::CreateClientSecretRequest {
            client_id: crate::client::UNKNOWN.into(),
            delivery: inline.into(),
            ..Default::default()
        };
        assert_violations(registrar.create_client_secret(secret).await, &["delivery"]);
    }
    let registered = ok(registrar
        .register_client(register(pb::DeliveryMethod::Link))
        .await);
    let Some(pb::register_client_response::Credentials::DeliveryLink(link)) = registered.credentials else {
        panic!("no link");
    };
    let claim = async |release_code: &str| {
        let request = pb::ClaimDeliveryRequest {
            claim_token: link.claim_token.clone(),
            release_code: release_code.into(),
            ..Default::default()
        };
        let mut partner = ProvisioningServiceClient::new(harness.anonymous());
        partner.claim_delivery(request).await.map(Response::into_inner)
    };
    let nothing_told = |answer: Result<pb::ClaimDeliveryResponse, Status>| {
        let metadata = assert_refused(answer, Code::FailedPrecondition, "LINK_INVALID");
        assert_eq!(metadata, Default::default());
    };
    nothing_told(claim("").await);
    assert_violations(claim("7KQ2-M9X").await, &["release_code"]);
    let release = pb::ReleaseDeliveryRequest {
        delivery_id: link.delivery_id.clone(),
    };
    // Whoever created it has no role for the release, or is the same person.
    let refused = ProvisioningServiceClient::new(harness.operator(Role::Registrar))
        .release_delivery(release.clone())
        .await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    let mut admin = ProvisioningServiceClient::new(harness.operator(Role::Admin));
    let deliver = pb::CreateDeliveryRequest {
        client_id: registered.client.unwrap().client_id,
        ..Default::default()
    };
    let other = ok(admin.create_delivery(deliver).await).delivery_link.unwrap();
    let refused = admin
        .release_delivery(pb::ReleaseDeliveryRequest {
            delivery_id: other.delivery_id,
        })
        .await;
    assert_refused(refused, Code::PermissionDenied, "SECOND_OPERATOR_REQUIRED");
    // A new link has ended the one before.
    let mut approver = ProvisioningServiceClient::new(harness.operator(Role::Approver));
    let metadata = assert_refused(
        approver.release_delivery(release).await,
        Code::FailedPrecondition,
        "WRONG_STATE",
    );
    assert_eq!(
        (&*metadata["resource"], &*metadata["state"]),
        ("delivery", "ENDED")
    );
    nothing_told(claim("").await);
    for (id, code, reason) in [
        ("dlv_01k9zzzzzzzzzzzzzzzzzzzzzz", Code::NotFound, "NOT_FOUND"),
        ("dlv_1", Code::InvalidArgument, "INVALID_FIELDS"),
    ] {
        let release = pb::ReleaseDeliveryRequest {
            delivery_id: id.into(),
        };
        assert_refused(approver.release_delivery(release).await, code, reason);
    }
}

#[tokio::test]
async fn a_release_code_opens_links_in_whatever_form_it_is_typed() {
    let harness = Harness::start_with_second_operator().await;
    harness.tenant("acme").await;
    harness.scope("contacts.read").await;
    let approved = harness.approved_request(&["acme"], &["contacts.read"]).await;
    let register = pb::RegisterClientRequest {
        integration_request_id: approved.integration_request_id,
        delivery: pb::DeliveryMethod::Link.into(),
        ..Default::default()
    };
    let mut registrar = ClientServiceClient::new(harness.operator(Role::Registrar));
    let registered = ok(registrar.register_client(register).await);
    let Some(pb::register_client_response::Credentials::DeliveryLink(link)) = registered.credentials else {
        panic!("no link");
    };
    let mut approver = ProvisioningServiceClient::new(harness.operator(Role::Approver));
    let delivery_id = link.delivery_id;
    let released = approver
        .release_delivery(pb::ReleaseDeliveryRequest { delivery_id })
        .await;
    let released = ok(released);
    // What the approver compares before passing the code on.
    assert_eq!(released.client_id, registered.client.as_ref().unwrap().client_id);
    assert_eq!(
        released.client_display_name,
        registered.client.as_ref().unwrap().display_name
    );
    assert_eq!(released.contact_email, "dev@partner.example");
    assert!(!released.creator.is_empty() && released.create_time.is_some());
    let code = released.release_code;
    assert_eq!((code.len(), &code[4..5]), (9, "-"), "two groups of four");
    let claim = pb::ClaimDeliveryRequest {
        claim_token: link.claim_token,
        release_code: code.replace('-', " ").to_lowercase(),
        ..Default::default()
    };
    let mut partner = ProvisioningServiceClient::new(harness.anonymous());
    let bundle = ok(partner.claim_delivery(claim).await).bundle.unwrap();
    let client_id = registered.client.unwrap().client_id;
    let authenticated = crate::client::authenticate(&harness, &client_id, &bundle.client_secret).await;
    assert!(authenticated.is_ok());

    let mut users = UserServiceClient::new(harness.operator(Role::Registrar));
    let register = pb::RegisterUserRequest {
        tenant_id: "acme".into(),
        account_name: "ada".into(),
        label: "Administrator 1".into(),
        tenant_admin: true,
        ..Default::default()
    };
    let registered = ok(users.register_user(register).await);
    let user = registered.user.unwrap();
    let release = pb::ReleaseEnrolmentRequest {
        tenant_id: "acme".into(),
        user_id: user.user_id.clone(),
    };
    let mut approver = UserServiceClient::new(harness.operator(Role::Approver));
    let released = ok(approver.release_enrolment(release).await);
    assert_eq!(released.label, "Administrator 1");
    assert!(!released.creator.is_empty() && released.create_time.is_some());
    let code = released.release_code;
    let enrol = async |release_code: &str| {
        let request = pb::CompleteEnrolmentRequest {
            enrolment_token: registered.enrolment_token.clone(),
            password: PASSWORD.into(),
            release_code: release_code.into(),
            ..Default::default()
        };
        UserServiceClient::new(harness.anonymous())
            .complete_enrolment(request)
            .await
    };
    let metadata = assert_refused(enrol("").await, Code::FailedPrecondition, "LINK_INVALID");
    assert_eq!(metadata, Default::default());
    enrol(&code.replace('-', "")).await.unwrap();
    for (tenant_id, user_id, code, reason) in [
        ("acme", &*user.user_id, Code::FailedPrecondition, "WRONG_STATE"),
        (
            "acme",
            "usr_01k9zzzzzzzzzzzzzzzzzzzzzz",
            Code::NotFound,
            "NOT_FOUND",
        ),
        ("globex", &*user.user_id, Code::NotFound, "NOT_FOUND"),
        ("", "", Code::InvalidArgument, "INVALID_FIELDS"),
    ] {
        let release = pb::ReleaseEnrolmentRequest {
            tenant_id: tenant_id.into(),
            user_id: user_id.into(),
        };
        assert_refused(approver.release_enrolment(release).await, code, reason);
    }
}

#[tokio::test]
async fn who_submitted_a_request_needs_another_to_approve_it() {
    let harness = Harness::start_with_second_operator().await;
    harness.tenant("acme").await;
    harness.scope("contacts.read").await;
    let both = operator(&harness, "Eve", &[Role::Registrar, Role::Approver], "").await;
    let admin = harness.operator(Role::Admin);
    for (channel, is_admin) in [(both, false), (admin, true)] {
        let mut requests = IntegrationRequestServiceClient::new(channel);
        let submit = submission(&["acme"], &["contacts.read"]);
        let submitted = ok(requests.submit_integration_request(submit).await)
            .integration_request
            .unwrap();
        let approve = pb::ApproveIntegrationRequestRequest {
            integration_request_id: submitted.integration_request_id,
        };
        let answer = requests.approve_integration_request(approve.clone()).await;
        if is_admin {
            ok(answer);
        } else {
            assert_refused(answer, Code::PermissionDenied, "SECOND_OPERATOR_REQUIRED");
            let mut approver = IntegrationRequestServiceClient::new(harness.operator(Role::Approver));
            ok(approver.approve_integration_request(approve).await);
        }
    }
    let events = harness.audit_events("integration_request.approve").await;
    let same: Vec<_> = events
        .iter()
        .map(|event| event.detail.contains_key("same_person"))
        .collect();
    assert_eq!(
        same,
        [true, false, true],
        "the admin's, the other person's, and the rejected one"
    );
}
