//! An incident drill: somebody has copied all that partners send and store but their private keys, and uses the copy from
//! another network, with a key of their own.

use std::{net::Ipv4Addr, sync::Arc};

use accord::{
    audit::v1::{AuditEvent, ListAuditEventsRequest, audit_service_client::AuditServiceClient},
    clock::{Clock, SystemClock},
    dpop::access_token_hash,
    registry::v1 as reg,
    testing::{calls::ok, dpop::ProofKey},
    token::v1::{self as tok, token_service_client::TokenServiceClient},
};
use accord_cli::{dev::Dev, resource};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    dev,
    partner::{Approved, Partner, REDIRECT_URI, World, by_key, key_set},
};

tests!(a_copy_of_all_that_partners_hold_is_worth_nothing_without_their_keys);

/// The network that the limited partners call from.
const NETWORK: &str = "198.51.100.0/24";
const PARTNERS_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const THIEFS_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// How many rejected calls of a client are listed in a minute.
const LISTED: usize = 10;
/// The grants of each kind: 1,000 in all in the long form.
const GRANTS: usize = 2;
const MANY_GRANTS: usize = 250;

/// How a partner protects itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It authenticates by a key, and its tokens are bound to one.
    Key,
    /// The same, and it has registered that key as the only one of its proofs.
    KeyAndProofKey,
    /// It authenticates by a secret, and has registered the key of its proofs.
    RegisteredProofKey,
    /// It authenticates by a secret from its own network.
    Network,
    /// It authenticates by a secret, from anywhere.
    SecretAlone,
}

const KINDS: [Kind; 5] = [
    Kind::Key,
    Kind::KeyAndProofKey,
    Kind::RegisteredProofKey,
    Kind::Network,
    Kind::SecretAlone,
];

async fn a_copy_of_all_that_partners_hold_is_worth_nothing_without_their_keys() {
    let stage = Stage::set().await;
    let grants = match std::env::var_os("ACCORD_TEST_LONG") {
        Some(_) => MANY_GRANTS,
        None => GRANTS,
    };
    for kind in KINDS {
        for _ in 0..grants {
            let mut copied = stage.connect(kind).await;
            let (token, thief) = (copied.access_token.clone(), ProofKey::es256());
            let proofs = [
                copied.proof_of_call.clone(),
                Some(stage.proof(&thief, &token)),
                None,
            ];

            // Where tokens are used, before the thief asks for others: offline, and by an internal service that introspects.
            for proof in &proofs {
                let status = stage.call(&token, proof.as_deref()).await;
                let is_active = stage.is_active(&token, proof.clone(), THIEFS_ADDRESS).await;
                match kind {
                    Kind::Key | Kind::KeyAndProofKey | Kind::RegisteredProofKey => {
                        assert_eq!(status, StatusCode::UNAUTHORIZED, "{kind:?}: {proof:?}");
                        assert!(!is_active, "{kind:?}: {proof:?}");
                    }
                    // Nothing offline knows networks.
                    Kind::Network => assert!(!is_active, "{proof:?}"),
                    Kind::SecretAlone => {}
                }
            }

            let (stolen, attempts) = stage.thefts(&copied).await;
            if kind == Kind::SecretAlone {
                assert!(stolen > 0, "a secret alone protects nothing");
                continue;
            }
            assert_eq!(stolen, 0, "{kind:?}");
            // Each attempt is an event: the first ones of a client in a minute are listed, the others counted.
            let rejections = stage.rejections(&copied.partner.client_id).await;
            assert!(
                attempts > LISTED && rejections.len() >= LISTED,
                "{kind:?}: {rejections:?}"
            );
            let thiefs = |event: &AuditEvent| {
                let told = event.detail.get("client_address");
                *told.unwrap_or(&event.caller_address) == THIEFS_ADDRESS.to_string()
            };
            assert!(rejections.iter().all(thiefs), "{kind:?}: {rejections:?}");
            let has = |action: &str| rejections.iter().any(|event| event.action == action);
            assert!(has("token_use.refuse"), "{kind:?}: {rejections:?}");
            assert!(
                has("token.refuse") || has("dpop_key.refuse"),
                "{kind:?}: {rejections:?}"
            );

            // The partner notices nothing.
            let refresh_token = copied.refresh_token.clone();
            stage.renew(&mut copied, &refresh(&refresh_token)).await;
            let own = copied.own_proof(&stage);
            let status = stage.call(&copied.access_token, own.as_deref()).await;
            assert_eq!(status, StatusCode::OK, "{kind:?}");
            let own = copied.own_proof(&stage);
            let is_active = stage.is_active(&copied.access_token, own, PARTNERS_ADDRESS).await;
            assert!(is_active, "{kind:?}");
        }
    }
    stage.shutdown.cancel();
    stage.dev.stop().await.unwrap();
}

/// A request to the token endpoint, as it went over the wire.
#[derive(Clone)]
struct Sent {
    form: Vec<(&'static str, String)>,
    proof: Option<String>,
}

/// A partner with a consent.
struct Integration {
    kind: Kind,
    partner: Partner,
    /// Authenticates the partner, or binds its tokens, or both. It is never copied.
    key: ProofKey,
    /// All that it sent to the token endpoint.
    sent: Vec<Sent>,
    /// The proof of its call of the Cloud API.
    proof_of_call: Option<String>,
    access_token: String,
    refresh_token: String,
}

/// The environment, a Cloud API that checks tokens offline, and a gateway that forwards the addresses of callers.
struct Stage {
    world: World,
    http: Client,
    endpoint: String,
    contacts: String,
    /// The URL of the Cloud API that partners know.
    public_contacts: String,
    dev: Dev,
    shutdown: CancellationToken,
    _directory: TempDir,
}

impl Stage {
    async fn set() -> Self {
        let (directory, dev) = dev::start().await;
        let world = World::new(&dev.file);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let path = url::Url::parse(&dev.file.cloud_api_url).unwrap();
        let path = format!("{}/contacts", path.path().trim_end_matches('/'));
        let contacts = format!("http://{}{path}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let api = resource::serve(listener, &dev.file, Arc::new(SystemClock), shutdown.clone());
        tokio::spawn(api.await.unwrap());
        Self {
            endpoint: format!("{}/oauth2/token", world.target.tenant_authority_url),
            public_contacts: format!("{}/contacts", world.target.cloud_api_url.trim_end_matches('/')),
            world,
            http: Client::new(),
            contacts,
            dev,
            shutdown,
            _directory: directory,
        }
    }

    /// Sends a token request from an address.
    async fn send(&self, address: Ipv4Addr, sent: &Sent) -> (StatusCode, Value) {
        let request = self.http.post(&self.endpoint).form(&sent.form);
        let mut request = request.header("X-Forwarded-For", address.to_string());
        if let Some(proof) = &sent.proof {
            request = request.header("DPoP", proof);
        }
        let response = request.send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    /// Calls the Cloud API.
    async fn call(&self, token: &str, proof: Option<&str>) -> StatusCode {
        let scheme = if proof.is_some() { "DPoP" } else { "Bearer" };
        let request = self.http.get(&self.contacts);
        let mut request = request.header("Authorization", format!("{scheme} {token}"));
        if let Some(proof) = proof {
            request = request.header("DPoP", proof);
        }
        request.send().await.unwrap().status()
    }

    /// Returns whether an internal service that passes on what it got is told that a token is active.
    async fn is_active(&self, token: &str, proof: Option<String>, address: Ipv4Addr) -> bool {
        let request = tok::IntrospectTokenRequest {
            tenant_id: self.world.target.tenant_id.clone(),
            token: token.into(),
            binding: Some(tok::TokenBinding {
                dpop_proof: proof.unwrap_or_default(),
                method: "GET".into(),
                url: self.public_contacts.clone(),
                client_address: address.to_string(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut tokens = TokenServiceClient::new(self.world.workload.clone());
        ok(tokens.introspect_token(request).await).active.unwrap()
    }

    /// Connects a partner: it redeems a code, renews its token and calls the Cloud API.
    async fn connect(&self, kind: Kind) -> Integration {
        let key = ProofKey::es256();
        let mut request = reg::SubmitIntegrationRequestRequest::default();
        match kind {
            Kind::Key | Kind::KeyAndProofKey => {
                request.token_endpoint_auth_method = "private_key_jwt".into();
                request.json_web_key_set = key_set(&key);
                request
                    .dpop_jkts
                    .extend((kind == Kind::KeyAndProofKey).then(|| key.jkt()));
            }
            Kind::RegisteredProofKey => request.dpop_jkts = vec![key.jkt()],
            Kind::Network => request.allowed_networks = vec![NETWORK.into()],
            Kind::SecretAlone => {}
        }
        let partner = self.world.partner_with(request).await;
        let approved = self.world.approve(&partner).await;
        let mut integration = Integration {
            kind,
            partner,
            key,
            sent: Vec::new(),
            proof_of_call: None,
            access_token: String::new(),
            refresh_token: String::new(),
        };
        self.renew(&mut integration, &code(&approved)).await;
        let refresh_token = integration.refresh_token.clone();
        self.renew(&mut integration, &refresh(&refresh_token)).await;
        let own = integration.own_proof(self);
        assert_eq!(
            self.call(&integration.access_token, own.as_deref()).await,
            StatusCode::OK,
            "{kind:?}"
        );
        // The same call is introspected, so that its proof is spent there, too.
        let token = &integration.access_token;
        assert!(
            self.is_active(token, own.clone(), PARTNERS_ADDRESS).await,
            "{kind:?}"
        );
        integration.proof_of_call = own;
        integration
    }

    /// Obtains tokens as the partner does.
    async fn renew(&self, integration: &mut Integration, grant: &[(&'static str, String)]) {
        let sent = Sent {
            form: [&self.credentials(integration)[..], grant].concat(),
            proof: integration
                .signs_calls()
                .then(|| integration.key.proof(&self.endpoint, now())),
        };
        let (status, tokens) = self.send(PARTNERS_ADDRESS, &sent).await;
        assert_eq!(status, StatusCode::OK, "{:?}: {tokens}", integration.kind);
        let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
        (integration.access_token, integration.refresh_token) = (text("access_token"), text("refresh_token"));
        integration.sent.push(sent);
    }

    fn credentials(&self, integration: &Integration) -> Vec<(&'static str, String)> {
        let Partner {
            client_id,
            client_secret,
        } = &integration.partner;
        if !matches!(integration.kind, Kind::Key | Kind::KeyAndProofKey) {
            return vec![
                ("client_id", client_id.clone()),
                ("client_secret", client_secret.clone()),
            ];
        }
        by_key(
            &integration.key,
            &integration.partner,
            &self.world.target.tenant_authority_url,
        )
        .into()
    }

    /// A proof for a call of the Cloud API.
    fn proof(&self, key: &ProofKey, access_token: &str) -> String {
        key.altered(&self.public_contacts, now(), |_, claims| {
            claims["htm"] = "GET".into();
            claims["ath"] = access_token_hash(access_token).into();
        })
    }

    /// Returns how many of the token requests that a copy allows succeed, and how many those are.
    async fn thefts(&self, copy: &Integration) -> (usize, usize) {
        let thief = ProofKey::es256();
        let mut attempts = Vec::new();
        for sent in &copy.sent {
            let credentials = sent.form.iter().take_while(|(name, _)| *name != "grant_type");
            let credentials: Vec<_> = credentials.cloned().collect();
            let renewal = [&credentials[..], &refresh(&copy.refresh_token)].concat();
            let own = [&credentials[..], &[("grant_type", "client_credentials".into())]].concat();
            for form in [sent.form.clone(), renewal, own] {
                for proof in [sent.proof.clone(), None, Some(thief.proof(&self.endpoint, now()))] {
                    attempts.push(Sent {
                        form: form.clone(),
                        proof,
                    });
                }
            }
        }
        if copy.kind == Kind::KeyAndProofKey {
            // An assertion of a call that was rejected before it was spent. Without `dpop_jkts` it would be worth a token.
            let own = ("grant_type", "client_credentials".into());
            attempts.push(Sent {
                form: [self.credentials(copy), vec![own]].concat(),
                proof: Some(thief.proof(&self.endpoint, now())),
            });
        }
        let mut succeeded = 0;
        for attempt in &attempts {
            let (status, answer) = self.send(THIEFS_ADDRESS, attempt).await;
            assert!(
                status.is_success() || status.is_client_error(),
                "{status}: {answer}"
            );
            succeeded += usize::from(status.is_success());
        }
        (succeeded, attempts.len())
    }

    /// Lists the rejections that the record has of a client.
    async fn rejections(&self, client_id: &str) -> Vec<AuditEvent> {
        let request = ListAuditEventsRequest {
            client_id: client_id.into(),
            page_size: 500,
            ..Default::default()
        };
        let mut audit = AuditServiceClient::new(self.world.token_operator.clone());
        let mut events = ok(audit.list_audit_events(request).await).audit_events;
        events.retain(|event| event.detail.contains_key("error_reason"));
        events
    }
}

impl Integration {
    fn signs_calls(&self) -> bool {
        !matches!(self.kind, Kind::Network | Kind::SecretAlone)
    }

    /// The partner's own proof for a call of the Cloud API.
    fn own_proof(&self, stage: &Stage) -> Option<String> {
        self.signs_calls()
            .then(|| stage.proof(&self.key, &self.access_token))
    }
}

fn now() -> i64 {
    SystemClock.now().as_secs()
}

fn code(approved: &Approved) -> Vec<(&'static str, String)> {
    vec![
        ("grant_type", "authorization_code".into()),
        ("code", approved.code.clone()),
        ("redirect_uri", REDIRECT_URI.into()),
        ("code_verifier", approved.verifier.clone()),
    ]
}

fn refresh(refresh_token: &str) -> Vec<(&'static str, String)> {
    vec![
        ("grant_type", "refresh_token".into()),
        ("refresh_token", refresh_token.into()),
    ]
}
