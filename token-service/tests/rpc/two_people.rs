//! No operator gets a token of a standing grant, or changes what the grant allows, whatever the role.
//!
//! Each calls every method of the contract in its most harmful form, twice, with everything that the answers taught, and with a
//! Tenant Admin's sessions. The client and an internal service show that the attack finds what there is to find, and that each call
//! succeeds for whoever may make it.

use std::collections::BTreeSet;

use accord::{
    audit::v1::{self as audit, audit_service_client::AuditServiceClient},
    registry::v1::ClientOrigin,
    rpc::auth::Role,
    testing::calls::{CallerChannel, methods},
    token::v1::{
        self as pb, consent_service_client::ConsentServiceClient, issue_token_request as issue,
        push_authorization_request_request as push, setup_service_client::SetupServiceClient,
        signing_key_service_client::SigningKeyServiceClient, token_service_client::TokenServiceClient,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;
use token_service::permissions::SERVICES;
use tonic::{Response, Status};

use crate::{
    audit::origin,
    world::{TestClient, World},
};

/// Methods that take away alone, or that prove what is no secret.
const HARMLESS: [&str; 7] = [
    "DenySetup",
    "RevokeConsent",
    "RevokeSigningKey",
    "RevokeToken",
    "SignOutTenantAdmin",
    "GetConsistencyProof",
    "GetInclusionProof",
];
/// What gives access beside access tokens: Client Secrets, codes, refresh tokens, references of pushed requests, and sessions.
const CREDENTIALS: [&str; 5] = ["acs_", "acc_", "acr_", "acq_", "ads_"];

/// Returns whether a text is an access token, and no receipt of a consent, which opens nothing.
fn is_access_token(text: &str) -> bool {
    let header = text.split('.').next().unwrap();
    let header = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    String::from_utf8_lossy(&header).contains("at+jwt")
}

/// What an attacker knows of a standing grant and its tenant.
struct Attack<'a> {
    world: &'a World,
    channel: CallerChannel,
    /// Tokens of the grant.
    tokens: pb::IssueTokenResponse,
    /// The id of its access token.
    jti: String,
    setup_id: String,
    /// A session for the setup.
    setup_session: String,
    /// A session for the tenant's consents.
    admin_session: String,
    /// Credentials that answers held, and those from before.
    known: BTreeSet<String>,
    /// Whether a call has succeeded.
    succeeded: bool,
}

impl Attack<'_> {
    /// Keeps the credentials of an answer.
    fn note<T: Message>(&mut self, answer: Result<Response<T>, Status>) {
        let Ok(answer) = answer else { return };
        self.succeeded = true;
        let answer = answer.into_inner().encode_to_vec();
        let text = String::from_utf8_lossy(&answer);
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        for word in text.split(|c| !is_part(c)) {
            // The number of a field and a length may be letters that stand before a word.
            for (at, _) in word.char_indices().take(3) {
                let rest = &word[at..];
                if CREDENTIALS.iter().any(|prefix| rest.starts_with(prefix)) || is_access_token(rest) {
                    self.known.insert(rest.to_owned());
                }
            }
        }
    }

    /// The credentials known so far, and none.
    fn words(&self) -> Vec<String> {
        self.known.iter().cloned().chain([String::new()]).collect()
    }

    /// Asks for tokens of the client in every way.
    async fn issue(&mut self) {
        let mut tokens = TokenServiceClient::new(self.channel.clone());
        let words = self.words();
        for secret in &words {
            for word in &words {
                let grants = [
                    issue::Grant::ClientCredentials(pb::ClientCredentialsGrant {}),
                    self.world.by_code(word).grant.unwrap(),
                    self.world.by_refresh_token(word).grant.unwrap(),
                ];
                for grant in grants {
                    let authentication = issue::ClientAuthentication::ClientSecret(secret.clone());
                    let request = pb::IssueTokenRequest {
                        client_authentication: (!secret.is_empty()).then_some(authentication),
                        ..self.world.client.asking(grant)
                    };
                    self.note(tokens.issue_token(request).await);
                }
            }
        }
    }

    /// Calls a method in its most harmful form.
    async fn call(&mut self, method: &str) {
        let mut setups = SetupServiceClient::new(self.channel.clone());
        let mut consents = ConsentServiceClient::new(self.channel.clone());
        let mut tokens = TokenServiceClient::new(self.channel.clone());
        let mut keys = SigningKeyServiceClient::new(self.channel.clone());
        let mut audits = AuditServiceClient::new(self.channel.clone());
        let (tenant_id, grant_id) = ("acme".to_owned(), self.tokens.grant_id.clone());
        let (setup_id, admin_session) = (self.setup_id.clone(), self.admin_session.clone());
        // An operator brings no session, so that each is tried.
        macro_rules! consent {
            ($method:ident($request:ident)) => {
                for admin_session in [String::new(), admin_session] {
                    let request = pb::$request {
                        tenant_id: tenant_id.clone(),
                        grant_id: grant_id.clone(),
                        admin_session,
                    };
                    self.note(consents.$method(request).await);
                }
            };
        }
        match method {
            method if HARMLESS.contains(&method) => {}

            "StartSetup" => self.note(setups.start_setup(self.world.request()).await),
            "GetSetup" => self.note(setups.get_setup(pb::GetSetupRequest { setup_id }).await),
            "SignInTenantAdmin" => {
                let credentials = self.world.credentials(&setup_id);
                self.note(setups.sign_in_tenant_admin(credentials).await);
            }
            "ApproveSetup" => {
                let approval = self.world.approval(&setup_id, &self.setup_session);
                self.note(setups.approve_setup(approval).await);
            }

            "GetConsent" => consent!(get_consent(GetConsentRequest)),
            "GetGrantUsage" => consent!(get_grant_usage(GetGrantUsageRequest)),
            "GetConsentReceipt" => consent!(get_consent_receipt(GetConsentReceiptRequest)),
            "ListConsents" => {
                let request = pb::ListConsentsRequest {
                    tenant_id,
                    ..Default::default()
                };
                self.note(consents.list_consents(request).await);
            }
            "ListOperatorActions" => {
                let request = pb::ListOperatorActionsRequest {
                    tenant_id,
                    ..Default::default()
                };
                self.note(consents.list_operator_actions(request).await);
            }
            "ChangeDesignatedUser" => {
                let request = pb::ChangeDesignatedUserRequest {
                    tenant_id,
                    grant_id,
                    admin_session,
                    designated_account_name: self.world.second_user_name().into(),
                };
                self.note(consents.change_designated_user(request).await);
            }
            "ChangeAllowedNetworks" => {
                let request = pb::ChangeAllowedNetworksRequest {
                    tenant_id,
                    grant_id,
                    admin_session,
                    allowed_networks: vec!["0.0.0.0/0".into()],
                };
                self.note(consents.change_allowed_networks(request).await);
            }

            "IssueToken" => self.issue().await,
            "PushAuthorizationRequest" => {
                for secret in self.words() {
                    let request = self.world.request();
                    let authentication = push::ClientAuthentication::ClientSecret(secret.clone());
                    let request = pb::PushAuthorizationRequestRequest {
                        tenant_id: request.tenant_id,
                        client_id: request.client_id,
                        client_authentication: (!secret.is_empty()).then_some(authentication),
                        redirect_uri: request.redirect_uri,
                        code_challenge: request.code_challenge,
                        ..Default::default()
                    };
                    self.note(tokens.push_authorization_request(request).await);
                }
            }
            "IntrospectToken" => {
                let token = self.tokens.access_token.clone();
                for client_secret in self.known.clone() {
                    let client = TestClient {
                        client_secret,
                        ..self.world.client.clone()
                    };
                    self.note(tokens.introspect_token(client.introspecting(&token)).await);
                }
                let request = pb::IntrospectTokenRequest {
                    tenant_id,
                    token,
                    ..Default::default()
                };
                self.note(tokens.introspect_token(request).await);
            }
            "GetJsonWebKeySet" => {
                let request = pb::GetJsonWebKeySetRequest::default();
                self.note(tokens.get_json_web_key_set(request).await);
            }
            "GetAuthorityMetadata" => {
                let request = pb::GetAuthorityMetadataRequest { tenant_id };
                self.note(tokens.get_authority_metadata(request).await);
            }
            "ListRevocations" => {
                let request = pb::ListRevocationsRequest::default();
                self.note(tokens.list_revocations(request).await);
            }

            "ListSigningKeys" => {
                let request = pb::ListSigningKeysRequest::default();
                self.note(keys.list_signing_keys(request).await);
            }
            "RotateSigningKey" => {
                let request = pb::RotateSigningKeyRequest {
                    force: true,
                    ..Default::default()
                };
                self.note(keys.rotate_signing_key(request).await);
            }

            "ListAuditEvents" => {
                let request = audit::ListAuditEventsRequest::default();
                self.note(audits.list_audit_events(request).await);
            }
            "VerifyAuditLog" => self.note(audits.verify_audit_log(audit::VerifyAuditLogRequest {}).await),
            "GetCheckpoint" => self.note(audits.get_checkpoint(audit::GetCheckpointRequest {}).await),
            "TraceToken" => {
                let jti = self.jti.clone();
                self.note(audits.trace_token(audit::TraceTokenRequest { jti }).await);
            }
            other => panic!("say what {other} can do at worst"),
        }
    }
}

/// What an attack has brought.
struct Gains {
    credentials: BTreeSet<String>,
    /// Whether the grant is as before.
    is_same: bool,
    /// The methods that answered.
    methods: BTreeSet<String>,
}

/// Returns the names of all methods.
fn all_methods() -> impl Iterator<Item = String> {
    let all = methods(|service| SERVICES.contains(&service));
    all.into_iter().map(|(_, method)| method)
}

/// Attacks a standing grant as a caller that knows this much.
async fn gains(world: &World, channel: CallerChannel, known: &[&str]) -> Gains {
    let tokens = world.first_tokens().await;
    let jti = world.introspect(&tokens.access_token).await.jti;
    let setup_id = world.setup().await.setup_id;
    let before = world.consent(&tokens.grant_id).await;
    // Receipts and checkpoints need a sealed record.
    world.usage_written().await;
    let known: BTreeSet<_> = known.iter().map(ToString::to_string).collect();
    let mut attack = Attack {
        world,
        channel,
        setup_session: world.sign_in(&setup_id).await,
        admin_session: world.sign_in("").await,
        known: known.clone(),
        tokens,
        jti,
        setup_id,
        succeeded: false,
    };
    let mut answering = BTreeSet::new();
    for _ in 0..2 {
        for method in all_methods() {
            attack.succeeded = false;
            attack.call(&method).await;
            answering.extend(attack.succeeded.then_some(method));
        }
    }
    let after = world.consent(&attack.tokens.grant_id).await;
    let is_same = (&after.designated_user_id, &after.scopes, &after.allowed_networks)
        == (
            &before.designated_user_id,
            &before.scopes,
            &before.allowed_networks,
        );
    Gains {
        credentials: &attack.known - &known,
        is_same,
        methods: answering,
    }
}

#[tokio::test]
async fn no_operator_gets_a_token_of_a_standing_grant() {
    let world = World::start().await;
    let client = ClientOrigin {
        registration: Some(origin("irq_1", 1)),
        amendments: Vec::new(),
    };
    world.registry().set_origin(&world.client_id, client);
    world.registry().tell_operator_actions(Vec::new());
    world.registry().tell_changes();
    let mut answering = BTreeSet::new();
    for role in Role::ALL {
        let gained = gains(&world, world.harness().operator(role), &[]).await;
        assert_eq!(gained.credentials, BTreeSet::new(), "{role:?}");
        assert!(gained.is_same, "{role:?}");
        answering.extend(gained.methods);
    }
    // The client, which knows its secret, gets its token.
    let secret = world.client.client_secret.clone();
    let gained = gains(&world, world.harness().anonymous(), &[&secret]).await;
    let credentials = gained.credentials;
    assert!(
        credentials.iter().any(|word| is_access_token(word)),
        "{credentials:?}"
    );
    answering.extend(gained.methods);
    // An internal service, through which the Tenant Admin acts, approves the setup and changes the grant.
    let gained = gains(&world, world.harness().internal_service(), &[]).await;
    assert!(!gained.is_same);
    answering.extend(gained.methods);
    let expected: BTreeSet<_> = all_methods()
        .filter(|method| !HARMLESS.contains(&method.as_str()))
        .collect();
    assert_eq!(answering, expected, "each call succeeds for somebody");
}
