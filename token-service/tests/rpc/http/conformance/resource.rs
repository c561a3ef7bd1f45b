//! A protected resource over https, with `accord::verify` in front: tokens that are bound to a key, and whoever has them without.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use accord::{
    rpc::auth::WorkloadKind,
    testing::{certificates::Subject, dpop::ProofKey},
    text::opaque::sha256,
    verify::{Checker, ClientCertificate, Protect, Tenant, TlsFiles},
};
use axum::{
    Router,
    extract::{ConnectInfo, Request as Incoming, connect_info::Connected},
    middleware::{Next, from_fn},
    response::Response,
    routing::get,
    serve::{IncomingStream, Listener},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
    server::TlsStream,
};

use super::{Deployment, Lines, Variant, proofs};
use crate::http::{
    Answer, Request,
    connection::{connect, tls},
    token::CREDENTIALS,
};

/// Where the resource is, as its clients write it.
const HOST: &str = "api.example";
const PATH: &str = "/acme/contacts";
const URL: &str = "https://api.example/acme/contacts";
/// How soon a resource server has keys and a lease.
const LEASED: Duration = Duration::from_secs(30);

/// A resource server of the world's tenant. It ends when this is dropped.
struct Resource<'a> {
    plan: &'a Deployment,
    address: SocketAddr,
    checker: Checker,
    _server: JoinSet<()>,
}

/// Accepts TLS from clients with a certificate of an authority of partners, and from those without one.
struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// What the client of a connection presented.
#[derive(Clone)]
struct Peer(Option<ClientCertificate>);

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        let (_, connection) = stream.io().get_ref();
        let certificates = connection.peer_certificates().unwrap_or_default();
        Self(certificates.first().map(|der| ClientCertificate((&**der).into())))
    }
}

/// Tells the layer behind it whose certificate the connection has.
async fn with_certificate(
    ConnectInfo(Peer(certificate)): ConnectInfo<Peer>,
    mut request: Incoming,
    next: Next,
) -> Response {
    if let Some(certificate) = certificate {
        request.extensions_mut().insert(certificate);
    }
    next.run(request).await
}

fn acceptor(plan: &Deployment) -> TlsAcceptor {
    let provider = Arc::new(default_provider());
    let mut partners = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(plan.partners.certificate.as_bytes()).unwrap();
    partners.add(authority).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(partners), provider.clone());
    let verifier = verifier.allow_unauthenticated().build().unwrap();
    let pair = plan.workloads.issue(&Subject {
        dns_names: vec![HOST],
        ..Subject::localhost()
    });
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.private_key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_client_cert_verifier(verifier);
    TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()))
}

impl<'a> Resource<'a> {
    async fn start(plan: &'a Deployment) -> Self {
        let harness = plan.world.harness();
        let workload = harness.registry.add_workload(WorkloadKind::InternalService);
        let url = format!("https://localhost:{}", harness.grpc_address.port());
        let files = TlsFiles {
            authorities: plan.authority_file(),
            identity: None,
        };
        let checker = Checker::builder_tls(&url, files, workload.expose()).unwrap();
        let checker = checker.clock(plan.world.clock().clone()).start().unwrap();
        // Revocations are read under a lease of the registry's changes.
        harness.registry.tell_changes();
        let tenant = Tenant {
            tenant_id: "acme".into(),
            issuer: plan.world.issuer.clone(),
            audience: plan.world.cloud_api_url.clone(),
        };
        let app = Router::new()
            .fallback(get(async || "reached"))
            .layer(Protect::tenant(checker.clone(), tenant))
            .layer(from_fn(with_certificate));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TlsListener {
            listener,
            acceptor: acceptor(plan),
        };
        let mut server = JoinSet::new();
        server.spawn(async move {
            let service = app.into_make_service_with_connect_info::<Peer>();
            axum::serve(listener, service).await.unwrap();
        });
        Self {
            plan,
            address,
            checker,
            _server: server,
        }
    }

    /// Sends a request, over a connection with its certificate, as often as the resource says that it can't decide now.
    async fn send(&self, request: &Request) -> Answer {
        let tls = tls(self.plan.workloads.certificate.as_bytes(), request.pair());
        loop {
            timeout(LEASED, self.checker.ready()).await.expect("no lease");
            let stream = connect(self.address, HOST, tls.clone()).await.unwrap();
            let answer = request.exchange(stream).await;
            if answer.status != 503 {
                return answer;
            }
        }
    }

    /// Sends a token with this proof.
    async fn prove(&self, token: &str, proof: &str) -> Answer {
        let request = Request::get(PATH).header("authorization", format!("DPoP {token}"));
        self.send(&request.header("DPoP", proof)).await
    }

    /// A proof for a GET of the resource with this token, after this change. `null` removes a member.
    fn proof(&self, key: &ProofKey, token: &str, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        key.altered(URL, self.plan.now(), |header, claims| {
            claims["htm"] = json!("GET");
            claims["ath"] = json!(URL_SAFE_NO_PAD.encode(sha256(token.as_bytes())));
            change(header, claims);
        })
    }
}

/// Notes whether the resource rejected a request with this error (RFC 6750 §3, RFC 9449 §7.1).
fn note_challenge(lines: &mut Lines, line: &str, answer: &Answer, error: &str) {
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    let is_named = answer.status == 401 && challenge.contains(&format!("error=\"{error}\""));
    lines.holds(line, is_named, answer);
}

#[tokio::test]
async fn a_token_with_a_proof_of_its_key_reaches_the_resource() {
    let plan = Deployment::start(Variant::PrivateKey).await;
    let resource = Resource::start(&plan).await;
    let mut lines = Lines::default();
    for party in &plan.parties {
        let token = plan.first_tokens(party).await.text("access_token");
        for scheme in ["DPoP", "dpop", "DPOP", "dPoP"] {
            let proof = resource.proof(&party.prover, &token, |_, _| ());
            let request = Request::get(PATH).header("authorization", format!("{scheme} {token}"));
            let answer = resource.send(&request.header("DPoP", proof)).await;
            lines.accepted(&format!("the scheme DPoP in any letter case: {scheme}"), &answer);
        }
        for (line, target, htu) in [
            ("htu without the query of the called URL", "?page=2", ""),
            ("htu with the query of the called URL", "?page=2", "?page=2"),
        ] {
            let proof = resource.proof(&party.prover, &token, |_, claims| {
                claims["htu"] = json!(format!("{URL}{htu}"));
            });
            let request = Request::get(format!("{PATH}{target}"));
            let request = request.header("authorization", format!("DPoP {token}"));
            lines.accepted(line, &resource.send(&request.header("DPoP", proof)).await);
        }
        for (line, change) in proofs::RIGHT {
            let proof = resource.proof(&party.prover, &token, change);
            lines.accepted(line, &resource.prove(&token, &proof).await);
        }
        let own = plan.token(party, &[CREDENTIALS]).await.text("access_token");
        let proof = resource.proof(&party.prover, &own, |_, _| ());
        lines.accepted(
            "a token by client credentials",
            &resource.prove(&own, &proof).await,
        );
    }
}

#[tokio::test]
async fn a_token_without_a_proof_of_its_key_is_rejected_by_the_resource() {
    let plan = Deployment::start(Variant::PrivateKey).await;
    let resource = Resource::start(&plan).await;
    let party = &plan.parties[1];
    let (key, mut lines) = (&party.prover, Lines::default());
    let token = plan.first_tokens(party).await.text("access_token");
    let error = "invalid_dpop_proof";
    for (line, change) in proofs::WRONG.iter().chain(&proofs::WITH_WRONG_TOKEN) {
        let proof = resource.proof(key, &token, change);
        note_challenge(&mut lines, line, &resource.prove(&token, &proof).await, error);
    }
    let other = ProofKey::es256();
    let by_other = resource.proof(&other, &token, |_, _| ());
    let answer = resource.prove(&token, &by_other).await;
    note_challenge(&mut lines, "a proof of another key", &answer, error);
    let forged = resource.proof(&other, &token, |header, _| header["jwk"] = key.jwk.clone());
    let answer = resource.prove(&token, &forged).await;
    note_challenge(&mut lines, "a proof signed with another key", &answer, error);

    let with_token = |scheme: &str| Request::get(PATH).header("authorization", format!("{scheme} {token}"));
    let answer = resource.send(&with_token("DPoP")).await;
    note_challenge(&mut lines, "no proof", &answer, error);
    let [one, two] = [(); 2].map(|()| resource.proof(key, &token, |_, _| ()));
    let twice = with_token("DPoP").header("DPoP", &*one).header("DPoP", &*two);
    let answer = resource.send(&twice).await;
    note_challenge(&mut lines, "two DPoP headers", &answer, error);
    let joined = with_token("DPoP").header("DPoP", format!("{one}, {two}"));
    let answer = resource.send(&joined).await;
    note_challenge(&mut lines, "two DPoP headers joined by a comma", &answer, error);
    for bearer in [with_token("Bearer"), with_token("bearer").header("DPoP", &*one)] {
        let answer = resource.send(&bearer).await;
        note_challenge(
            &mut lines,
            "a bound token sent as Bearer",
            &answer,
            "invalid_token",
        );
    }
    // None of these has used a proof up.
    lines.accepted("the first proof", &resource.prove(&token, &one).await);
    lines.accepted("the second proof", &resource.prove(&token, &two).await);
    let answer = resource.prove(&token, &one).await;
    note_challenge(&mut lines, "a proof used before", &answer, error);
}

#[tokio::test]
async fn a_token_of_a_certificate_is_for_its_connection_alone() {
    let plan = Deployment::start(Variant::MutualTls).await;
    let resource = Resource::start(&plan).await;
    let [first, second] = &plan.parties;
    let mut lines = Lines::default();
    for (party, thief) in [(first, second), (second, first)] {
        let token = plan.first_tokens(party).await.text("access_token");
        let request = |scheme: &str| Request::get(PATH).header("authorization", format!("{scheme} {token}"));
        let own = party.certificate.as_ref().unwrap();
        let answer = resource.send(&request("Bearer").certificate(own)).await;
        lines.accepted("a token with its certificate", &answer);
        let answer = resource.send(&request("bearer").certificate(own)).await;
        lines.accepted(
            "a token with its certificate, the scheme in small letters",
            &answer,
        );
        let answer = resource.send(&request("Bearer")).await;
        note_challenge(
            &mut lines,
            "a token without its certificate",
            &answer,
            "invalid_token",
        );
        let others = thief.certificate.as_ref().unwrap();
        let answer = resource.send(&request("Bearer").certificate(others)).await;
        note_challenge(
            &mut lines,
            "a token with another certificate",
            &answer,
            "invalid_token",
        );
        // A renewed certificate is another one: the token was bound to the old one.
        let renewed = plan.partners.issue(&Subject {
            dns_names: vec!["first.partner.example"],
            ..Subject::default()
        });
        let answer = resource.send(&request("Bearer").certificate(&renewed)).await;
        note_challenge(
            &mut lines,
            "a token with a newer certificate",
            &answer,
            "invalid_token",
        );
        let proof = resource.proof(&party.prover, &token, |_, _| ());
        let with_proof = request("DPoP").header("DPoP", proof).certificate(own);
        let answer = resource.send(&with_proof).await;
        note_challenge(
            &mut lines,
            "a token of a certificate sent as DPoP",
            &answer,
            "invalid_token",
        );
    }
}
