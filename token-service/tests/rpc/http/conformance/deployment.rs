//! A deployment as a plan asks for it: https, and two clients under the profile, each with keys of its own.

use accord::{
    clock::Clock,
    registry::v1::SecurityProfile,
    testing::{
        certificates::{Authority, Pair, Subject},
        dpop::ProofKey,
    },
};
use serde_json::Value;
use tempfile::TempDir;
use token_service::config::Settings;
use url::Url;

use crate::{
    http::{
        Answer, Request,
        browser::Browser,
        client::{Fields, MTLS_HOST},
        client_authentication::ASSERTION_TYPE,
        keys::{ClientKey, key_set},
        pages::{approval, assert_leaves},
        pushed_request::{parameters, target},
        token::{CREDENTIALS, by_code, with},
    },
    world::{REDIRECT_URI, VERIFIER, World, challenge, tls::Authorities},
};

/// The second client's redirect URI, whose query must survive.
const SECOND_REDIRECT_URI: &str = "https://app.partner.example/callback?dummy1=lorem&dummy2=ipsum";
/// The names in the clients' certificates.
const NAMES: [&str; 2] = ["first.partner.example", "second.partner.example"];

/// How the clients of a plan authenticate, and what their tokens are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// They sign assertions, and their tokens are bound to the key of a DPoP proof.
    PrivateKey,
    /// They present a certificate, and their tokens are bound to it.
    MutualTls,
}

impl Variant {
    /// Both.
    pub const ALL: [Self; 2] = [Self::PrivateKey, Self::MutualTls];
}

/// A client with its keys.
pub struct Party {
    pub client_id: String,
    pub redirect_uri: &'static str,
    /// Signs its assertions.
    pub signer: ClientKey,
    /// Signs its proofs.
    pub prover: ProofKey,
    /// With mutual TLS, the certificate that it authenticates by.
    pub certificate: Option<Pair>,
}

/// A token-service with TLS, and the two clients of a plan.
pub struct Deployment {
    pub world: World,
    pub parties: [Party; 2],
    /// Signs the servers.
    pub workloads: Authority,
    /// Signs the clients.
    pub partners: Authority,
    challenge: String,
    directory: TempDir,
}

impl Deployment {
    pub async fn start(variant: Variant) -> Self {
        Self::start_with(variant, |_| ()).await
    }

    /// The same with other settings.
    pub async fn start_with(variant: Variant, change: impl FnOnce(&mut Settings)) -> Self {
        let (world, authorities) = World::start_with_tls(&["auth.example", MTLS_HOST], |settings| {
            settings.mtls_base_url = format!("https://{MTLS_HOST}");
            change(settings);
        })
        .await;
        let Authorities {
            workloads,
            partners,
            chain: _,
            directory,
        } = authorities;
        let ids = [world.client_id.clone(), world.new_client(&["acme"]).client_id];
        let [first, second] = ids;
        let parties = [
            Party::new(first, REDIRECT_URI, "ES256"),
            Party::new(second, SECOND_REDIRECT_URI, "PS256"),
        ];
        let mut deployment = Self {
            world,
            parties,
            workloads,
            partners,
            challenge: challenge(VERIFIER),
            directory,
        };
        for index in 0..2 {
            deployment.register(index, variant);
        }
        deployment
    }

    fn register(&mut self, index: usize, variant: Variant) {
        let now = self.world.clock().now().to_timestamp();
        let party = &mut self.parties[index];
        if variant == Variant::MutualTls {
            party.certificate = Some(self.partners.issue(&Subject {
                dns_names: vec![NAMES[index]],
                is_for_servers: false,
                ..Subject::default()
            }));
        }
        self.world.registry().edit_client(&party.client_id, |client| {
            client.security_profile = SecurityProfile::Fapi20.into();
            client.profile_start_time = Some(now);
            client.redirect_uris = vec![party.redirect_uri.into()];
            match variant {
                Variant::PrivateKey => {
                    client.token_endpoint_auth_method = "private_key_jwt".into();
                    client.json_web_key_set = key_set(&[&party.signer]);
                }
                Variant::MutualTls => {
                    client.token_endpoint_auth_method = "tls_client_auth".into();
                    client.tls_client_auth_san_dns = NAMES[index].into();
                }
            }
        });
    }

    /// The file of the authority that signs the servers.
    pub fn authority_file(&self) -> std::path::PathBuf {
        self.directory.path().join("ca.pem")
    }

    pub fn now(&self) -> i64 {
        self.world.clock().now().as_secs()
    }

    /// The URL of an endpoint, as the metadata has it.
    pub fn url(&self, endpoint: &str) -> String {
        format!("{}/oauth2/{endpoint}", self.world.issuer)
    }

    /// A new assertion of a client, after this change of its header and claims.
    pub fn assertion(&self, party: &Party, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        self.assertion_by(&party.signer, party, change)
    }

    /// The same, signed by this key.
    pub fn assertion_by(
        &self,
        signer: &ClientKey,
        party: &Party,
        change: impl FnOnce(&mut Value, &mut Value),
    ) -> String {
        signer.assertion_with(&self.world, |header, claims| {
            claims["iss"] = party.client_id.as_str().into();
            claims["sub"] = party.client_id.as_str().into();
            change(header, claims);
        })
    }

    /// A new proof of this key for an endpoint.
    pub fn proof(&self, key: &ProofKey, endpoint: &str) -> String {
        key.proof(&self.url(endpoint), self.now())
    }

    /// A request that this assertion authenticates.
    pub fn asserted(&self, endpoint: &str, fields: &Fields<'_>, assertion: &str) -> Request {
        let more = [
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion),
        ];
        Request::post(format!("/acme/oauth2/{endpoint}")).form(&[fields, &more].concat())
    }

    /// A request that names a client and does not authenticate it.
    pub fn bare(&self, party: &Party, endpoint: &str, fields: &Fields<'_>) -> Request {
        let id = [("client_id", &*party.client_id)];
        Request::post(format!("/acme/oauth2/{endpoint}")).form(&[fields, &id].concat())
    }

    /// A request of a client that is authenticated, without a proof.
    pub fn authenticated(&self, party: &Party, endpoint: &str, fields: &Fields<'_>) -> Request {
        match &party.certificate {
            None => self.asserted(endpoint, fields, &self.assertion(party, |_, _| ())),
            Some(pair) => self.bare(party, endpoint, fields).certificate(pair),
        }
    }

    /// Requests a token as a client should: authenticated, and as the holder of its key.
    pub async fn token(&self, party: &Party, fields: &Fields<'_>) -> Answer {
        let request = self.authenticated(party, "token", fields);
        let request = match party.certificate {
            Some(_) => request,
            None => request.header("DPoP", self.proof(&party.prover, "token")),
        };
        request.send(&self.world).await
    }

    /// The parameters of an authorization request that is as it should be.
    pub fn parameters<'a>(&'a self, party: &'a Party) -> Vec<(&'a str, &'a str)> {
        with(
            parameters(&self.challenge),
            &[("redirect_uri", party.redirect_uri)],
        )
    }

    /// The endpoints that a client authenticates at, each with fields that are as they should be.
    pub fn endpoints<'a>(&'a self, party: &'a Party) -> [(&'static str, Vec<(&'a str, &'a str)>); 2] {
        [("par", self.parameters(party)), ("token", vec![CREDENTIALS])]
    }

    pub async fn push(&self, party: &Party, fields: &Fields<'_>) -> Answer {
        self.authenticated(party, "par", fields).send(&self.world).await
    }

    /// Pushes a request of a client. Returns its reference.
    pub async fn pushed(&self, party: &Party) -> String {
        let answer = self.push(party, &self.parameters(party)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.text("request_uri")
    }

    /// Opens a reference, signs the Tenant Admin in, and presses `approve` or `deny`. Returns where the browser is sent.
    pub async fn decide(&self, party: &Party, request_uri: &str, decision: &str) -> Url {
        let target = target(&party.client_id, request_uri);
        self.decide_at(&mut Browser::new(&self.world), &target, decision)
            .await
    }

    /// The same in this browser, at this address of the authorization endpoint.
    pub async fn decide_at(&self, browser: &mut Browser<'_>, target: &str, decision: &str) -> Url {
        let path = browser.start_setup(target).await;
        browser.get(&path).await;
        let fields = match decision {
            "approve" => approval(&self.world),
            _ => Vec::new(),
        };
        let answer = browser.submit(&format!("{path}/{decision}"), &fields).await;
        Url::parse(&assert_leaves(&answer)).unwrap()
    }

    /// A code of a request that a client has pushed with these fields.
    pub async fn code_for(&self, party: &Party, request: Request) -> String {
        let answer = request.send(&self.world).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let request_uri = answer.text("request_uri");
        let url = self.decide(party, &request_uri, "approve").await;
        parameter(&url, "code").unwrap()
    }

    pub async fn code(&self, party: &Party) -> String {
        let request = self.authenticated(party, "par", &self.parameters(party));
        self.code_for(party, request).await
    }

    /// The first tokens of a client.
    pub async fn first_tokens(&self, party: &Party) -> Answer {
        let code = self.code(party).await;
        let answer = self.token(party, &party.by_code(&code)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }
}

impl Party {
    fn new(client_id: String, redirect_uri: &'static str, algorithm: &'static str) -> Self {
        Self {
            client_id,
            redirect_uri,
            signer: ClientKey::generate(algorithm, "key-1"),
            prover: ProofKey::es256(),
            certificate: None,
        }
    }

    /// The fields that redeem a code.
    pub fn by_code<'a>(&self, code: &'a str) -> Vec<(&'a str, &'a str)> {
        with(by_code(code), &[("redirect_uri", self.redirect_uri)])
    }
}

/// The value of a parameter of a URL's query.
pub fn parameter(url: &Url, name: &str) -> Option<String> {
    let mut pairs = url.query_pairs();
    pairs
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
}
