//! What an attacker tries, and what the answers taught.

use super::*;

/// The one key of an attacker.
fn own_key() -> String {
    let x = "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw";
    format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"evil","x":"{x}"}}]}}"#)
}

/// The thumbprint of an attacker's key of proofs.
const EVIL_JKT: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";

/// What an attacker has learned: every word of every answer.
#[derive(Default)]
pub(super) struct Known(BTreeSet<String>);

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

    pub(super) fn of(&self, prefix: &str) -> Vec<String> {
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
pub(super) async fn attack(
    channel: &CallerChannel,
    service: &str,
    method: &str,
    known: &mut Known,
) -> Vec<String> {
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
                    token_endpoint_auth_method: "private_key_jwt".into(),
                    security_profile: pb::SecurityProfile::None.into(),
                    dpop_jkts: vec![EVIL_JKT.into()],
                    allowed_networks: vec!["0.0.0.0/0".into(), "::/0".into()],
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
                for path in [
                    "redirect_uris",
                    "scopes",
                    "tenant_ids",
                    "display_name",
                    "dpop_jkts",
                    "allowed_networks",
                    "token_endpoint_auth_method",
                    "security_profile",
                ] {
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
                            token_endpoint_auth_method: "client_secret_post".into(),
                            dpop_jkts: vec![EVIL_JKT.into()],
                            allowed_networks: vec!["0.0.0.0/0".into(), "::/0".into()],
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
                person: "Somebody else".into(),
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
