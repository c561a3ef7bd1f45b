//! No operator gets a token of a standing grant, or changes what the grant allows, whatever the role.
//!
//! Each calls every method of the contract in its most harmful form, twice, with everything that the answers taught, and with a
//! Tenant Admin's session. The client itself shows that the attack finds what there is to find.

use std::collections::BTreeSet;

use accord::{
    audit::v1::{self as audit, audit_service_client::AuditServiceClient},
    rpc::auth::Role,
    testing::calls::{CallerChannel, methods},
    token::v1::{
        self as pb, consent_service_client::ConsentServiceClient, issue_token_request as issue,
        setup_service_client::SetupServiceClient, signing_key_service_client::SigningKeyServiceClient,
        token_service_client::TokenServiceClient,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;
use token_service::permissions::SERVICES;
use tonic::{Response, Status};

use crate::world::World;

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
    grant_id: String,
    setup_id: String,
    admin_session: String,
    /// Credentials that answers held, and those from before.
    known: BTreeSet<String>,
}

impl Attack<'_> {
    /// Keeps the credentials of an answer.
    fn note<T: Message>(&mut self, answer: Result<Response<T>, Status>) {
        let Ok(answer) = answer else { return };
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

    /// Asks for tokens of the client in every way.
    async fn issue(&mut self) {
        let mut tokens = TokenServiceClient::new(self.channel.clone());
        let words: Vec<_> = self.known.iter().cloned().chain([String::new()]).collect();
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
        let (tenant_id, grant_id) = ("acme".to_owned(), self.grant_id.clone());
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
            // These take away alone.
            "RevokeConsent" | "RevokeToken" | "RevokeSigningKey" | "SignOutTenantAdmin" | "DenySetup" => {}

            "StartSetup" => self.note(setups.start_setup(self.world.request()).await),
            "GetSetup" => self.note(setups.get_setup(pb::GetSetupRequest { setup_id }).await),
            "SignInTenantAdmin" => {
                let credentials = self.world.credentials(&setup_id);
                self.note(setups.sign_in_tenant_admin(credentials).await);
            }
            "ApproveSetup" => {
                let approval = self.world.approval(&setup_id, &admin_session);
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
                let request = self.world.request();
                let request = pb::PushAuthorizationRequestRequest {
                    tenant_id: request.tenant_id,
                    client_id: request.client_id,
                    redirect_uri: request.redirect_uri,
                    code_challenge: request.code_challenge,
                    ..Default::default()
                };
                self.note(tokens.push_authorization_request(request).await);
            }
            "IntrospectToken" => {
                let request = pb::IntrospectTokenRequest {
                    tenant_id,
                    token: grant_id,
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
            "GetInclusionProof" | "GetConsistencyProof" => {}
            "TraceToken" => self.note(audits.trace_token(audit::TraceTokenRequest::default()).await),
            other => panic!("say what {other} can do at worst"),
        }
    }
}

/// Returns the credentials that a caller gains who knows this much, in a world with a standing grant, and whether the grant is as
/// before.
async fn gains(world: &World, channel: CallerChannel, known: &[&str]) -> (BTreeSet<String>, bool) {
    let grant_id = world.first_tokens().await.grant_id;
    let setup_id = world.setup().await.setup_id;
    let before = world.consent(&grant_id).await;
    let known: BTreeSet<_> = known.iter().map(ToString::to_string).collect();
    let mut attack = Attack {
        world,
        channel,
        admin_session: world.sign_in("").await,
        known: known.clone(),
        grant_id,
        setup_id,
    };
    for _ in 0..2 {
        for (_, method) in methods(|service| SERVICES.contains(&service)) {
            attack.call(&method).await;
        }
    }
    let after = world.consent(&attack.grant_id).await;
    let is_same = (&after.designated_user_id, &after.scopes, &after.allowed_networks)
        == (
            &before.designated_user_id,
            &before.scopes,
            &before.allowed_networks,
        );
    (&attack.known - &known, is_same)
}

#[tokio::test]
async fn no_operator_gets_a_token_of_a_standing_grant() {
    let world = World::start().await;
    for role in Role::ALL {
        let (gained, is_same) = gains(&world, world.harness().operator(role), &[]).await;
        assert_eq!(gained, BTreeSet::new(), "{role:?}");
        assert!(is_same, "{role:?}");
    }
    // The client, which knows its secret, gets its token.
    let secret = world.client.client_secret.clone();
    let (gained, _) = gains(&world, world.harness().anonymous(), &[&secret]).await;
    assert!(gained.iter().any(|word| is_access_token(word)), "{gained:?}");
}
