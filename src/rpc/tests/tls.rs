//! TLS of listeners: handshakes, certificates that are refused, files that change.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsConnector, client,
    rustls::{
        ClientConfig, HandshakeKind, RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use super::{
    acceptor::Acceptor,
    handshake,
    peer::{CallerCertificate, Peer},
    reload::Reloader,
    server::{Files, ServerTls},
    settings::{PartnerCertificates, TlsSettings},
    *,
};
use crate::{
    clock::{Clock, ManualClock, UnixMillis},
    testing::{
        TEST_START,
        certificates::{Authority, Pair, Subject, presenting},
        test_clock,
    },
};

#[path = "tls/partners.rs"]
mod partners;
#[path = "tls/reload.rs"]
mod reload;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn settings(directory: &Path) -> TlsSettings {
    TlsSettings {
        certificate: directory.join("server.pem"),
        private_key: directory.join("server-key.pem"),
        client_ca: directory.join("ca.pem"),
        partner_ca: Default::default(),
        min_version: "1.3".to_owned(),
        partners: PartnerCertificates::None,
    }
}

/// The TLS of a server on loopback whose authority signs clients too.
pub(in crate::rpc) fn server_tls(authority: &Authority, directory: &Path) -> ServerTls {
    server_with(authority, directory, "1.3", test_clock())
}

fn server_with(
    authority: &Authority,
    directory: &Path,
    min_version: &str,
    clock: Arc<ManualClock>,
) -> ServerTls {
    authority.issue(&Subject::localhost()).write(directory, "server");
    authority.write(directory, "ca.pem");
    let settings = TlsSettings {
        min_version: min_version.to_owned(),
        ..settings(directory)
    };
    ServerTls::load(settings, clock).unwrap().unwrap()
}

/// A client that trusts this authority.
pub(in crate::rpc) fn client(authority: &Authority, pair: Option<&Pair>) -> Arc<ClientConfig> {
    client_with(authority, pair, "1.3")
}

fn client_with(authority: &Authority, pair: Option<&Pair>, min_version: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(provider());
    let config = config
        .with_protocol_versions(versions(min_version).unwrap())
        .unwrap();
    let config = config.with_root_certificates(roots);
    Arc::new(presenting(config, pair))
}

/// A handshake as both sides see it.
struct Handshake {
    server: Result<Option<Peer>, &'static str>,
    client: Option<client::TlsStream<TcpStream>>,
    /// Keeps the server's side open.
    _stream: Option<Box<tokio_rustls::server::TlsStream<TcpStream>>>,
}

async fn shake_hands(tls: &ServerTls, config: Arc<ClientConfig>) -> Handshake {
    shake_hands_as("localhost", tls.current().grpc.clone(), config).await
}

/// Shakes hands with a server of this name.
async fn shake_hands_as(name: &'static str, acceptor: Arc<Acceptor>, config: Arc<ClientConfig>) -> Handshake {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connecting = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name).unwrap();
        TlsConnector::from(config).connect(name, stream).await.ok()
    };
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        handshake::accept(acceptor, stream).await
    };
    let (client, accepted) = tokio::join!(connecting, accepting);
    let (server, stream) = match accepted {
        Ok((stream, peer)) => (Ok(peer), Some(stream)),
        Err(reason) => (Err(reason), None),
    };
    Handshake {
        server,
        client,
        _stream: stream,
    }
}

/// Returns the certificate of a workload or an operator.
fn caller(peer: Result<Option<Peer>, &'static str>) -> CallerCertificate {
    match peer {
        Ok(Some(Peer::Caller(certificate))) => certificate,
        other => panic!("{other:?}"),
    }
}

/// Returns the certificate that a client sees.
async fn presented(tls: &ServerTls, authority: &Authority) -> Vec<u8> {
    let stream = shake_hands(tls, client(authority, None)).await.client.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn der(pair: &Pair) -> Vec<u8> {
    let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes());
    certificate.unwrap().to_vec()
}

#[tokio::test]
async fn the_names_of_a_client_certificate_are_its_dns_names_and_uris() {
    let (authority, directory) = (Authority::new("test"), tempfile::tempdir().unwrap());
    let tls = server_tls(&authority, directory.path());
    let not_after = TEST_START.plus(30 * DAY);
    let pair = authority.issue(&Subject {
        dns_names: vec!["Token.Example"],
        uris: vec!["spiffe://accord.example/token-service"],
        addresses: vec!["10.0.0.7".parse().unwrap()],
        is_for_servers: false,
        not_after,
        ..Subject::default()
    });
    let peer = caller(shake_hands(&tls, client(&authority, Some(&pair))).await.server);
    assert_eq!(
        *peer.names,
        ["token.example", "spiffe://accord.example/token-service"]
    );
    assert_eq!(peer.not_after, not_after);
    let without = shake_hands(&tls, client(&authority, None)).await.server;
    assert_eq!(without, Ok(None));
    let nameless = authority.issue(&Subject::default());
    let peer = shake_hands(&tls, client(&authority, Some(&nameless)))
        .await
        .server;
    assert!(caller(peer).names.is_empty());
}

#[tokio::test]
async fn a_handshake_that_fails_says_why() {
    let (authority, directory) = (Authority::new("test"), tempfile::tempdir().unwrap());
    let clock = test_clock();
    let tls = server_with(&authority, directory.path(), "1.3", clock.clone());
    let id = Subject::spiffe("spiffe://accord.example/gateway");
    let certificate = |change: &dyn Fn(&mut Subject)| {
        let mut subject = id.clone();
        change(&mut subject);
        client(&authority, Some(&authority.issue(&subject)))
    };
    let foreign = Authority::new("foreign");
    let mut http1 = ClientConfig::clone(&client(&authority, None));
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut only_1_2 = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    only_1_2.alpn_protocols = Vec::new();
    for (config, reason) in [
        (
            certificate(&|subject| subject.not_after = clock.now().minus(DAY)),
            "the client's certificate has expired",
        ),
        (
            certificate(&|subject| subject.not_before = clock.now().plus(DAY)),
            "the client's certificate is not valid yet",
        ),
        (
            certificate(&|subject| subject.is_for_clients = false),
            "extended key usage lacks clientAuth",
        ),
        (
            client(&authority, Some(&foreign.issue(&id))),
            "from none of the authorities in --client-ca",
        ),
        (
            client(&foreign, None),
            "does not accept this server's certificate",
        ),
        (Arc::new(http1), "no protocol of this listener"),
        (Arc::new(only_1_2), "no version and cipher suite"),
    ] {
        let failed = shake_hands(&tls, config).await.server.unwrap_err();
        assert!(failed.contains(reason), "{reason}: {failed}");
    }
    // What was good a moment ago.
    let good = certificate(&|subject| subject.not_after = clock.now().plus(DAY));
    assert!(shake_hands(&tls, good.clone()).await.server.is_ok());
    clock.advance(2 * DAY);
    let failed = shake_hands(&tls, good).await.server.unwrap_err();
    assert_eq!(failed, "the client's certificate has expired");
}

#[tokio::test]
async fn no_session_is_resumed() {
    for version in ["1.3", "1.2"] {
        let (authority, directory) = (Authority::new("test"), tempfile::tempdir().unwrap());
        let tls = server_with(&authority, directory.path(), version, test_clock());
        let pair = authority.issue(&Subject::spiffe("spiffe://accord.example/gateway"));
        let config = client_with(&authority, Some(&pair), version);
        for _ in 0..3 {
            let stream = shake_hands(&tls, config.clone()).await.client.unwrap();
            let kind = stream.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(HandshakeKind::Full), "{version}");
        }
    }
}

#[tokio::test]
async fn tls_1_2_is_a_choice_with_aes_gcm_alone() {
    let (authority, directory) = (Authority::new("test"), tempfile::tempdir().unwrap());
    let tls = server_with(&authority, directory.path(), "1.2", test_clock());
    let with_suites = |keep: fn(CipherSuite) -> bool| {
        let mut suites = aws_lc_rs::default_provider();
        suites.cipher_suites.retain(|suite| keep(suite.suite()));
        let config = ClientConfig::builder_with_provider(Arc::new(suites));
        let config = config.with_protocol_versions(&[&TLS12]).unwrap();
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(authority.certificate.as_bytes());
        roots.add(certificate.unwrap()).unwrap();
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    };
    let any = shake_hands(&tls, with_suites(|_| true)).await;
    let stream = any.client.unwrap();
    let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap().suite();
    assert!(format!("{suite:?}").contains("AES_"), "{suite:?}");
    let chacha = shake_hands(
        &tls,
        with_suites(|suite| format!("{suite:?}").contains("CHACHA20")),
    )
    .await;
    assert!(chacha.server.is_err());
}

#[test]
fn a_pair_that_clients_would_reject_is_refused_by_the_name_of_its_setting() {
    let authority = Authority::new("test");
    let server = Subject::localhost();
    let changed = |change: &dyn Fn(&mut Subject)| {
        let mut subject = server.clone();
        change(&mut subject);
        authority.issue(&subject).certificate
    };
    let good = authority.issue(&server);
    let other = authority.issue(&server);
    let now = TEST_START;
    let (certificate, key, ca) = (CERTIFICATE_FILE, KEY_FILE, CA_FILE);
    for (file, content, mode, expected) in [
        (
            certificate,
            String::new(),
            0o600,
            "--tls-certificate must hold certificates in PEM form",
        ),
        (
            certificate,
            good.certificate[..200].to_owned(),
            0o600,
            "--tls-certificate must hold certificates",
        ),
        (
            certificate,
            good.private_key.clone(),
            0o600,
            "--tls-certificate must hold certificates",
        ),
        (
            certificate,
            other.certificate.clone(),
            0o600,
            "--tls-private-key is not the key of the certificate",
        ),
        (
            certificate,
            authority
                .issue(&Subject::spiffe("spiffe://accord.example/token-service"))
                .certificate,
            0o600,
            "--tls-certificate has a certificate with a SPIFFE id alone: clients verify DNS names",
        ),
        (
            certificate,
            authority.issue(&Subject::default()).certificate,
            0o600,
            "--tls-certificate has a certificate without a DNS name",
        ),
        (
            certificate,
            changed(&|subject| subject.is_for_servers = false),
            0o600,
            "--tls-certificate has a certificate whose extended key usage is not for servers",
        ),
        (
            certificate,
            changed(&|subject| subject.not_after = now.minus(DAY)),
            0o600,
            "--tls-certificate has a certificate that has expired",
        ),
        (
            certificate,
            changed(&|subject| subject.not_before = now.plus(DAY)),
            0o600,
            "--tls-certificate has a certificate that is not valid yet",
        ),
        (key, String::new(), 0o600, "--tls-private-key is empty"),
        (
            key,
            good.certificate.clone(),
            0o600,
            "--tls-private-key must hold a private key",
        ),
        (
            key,
            good.private_key.clone(),
            0o644,
            "--tls-private-key must be readable only by its owner",
        ),
        (
            ca,
            "x".to_owned(),
            0o600,
            "--client-ca must hold certificates in PEM form",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        good.write(directory.path(), "server");
        authority.write(directory.path(), "ca.pem");
        let path = directory.path().join(file);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let refused = ServerTls::load(settings(directory.path()), test_clock()).unwrap_err();
        assert!(refused.to_string().starts_with(expected), "{expected}: {refused}");
        fs::remove_file(&path).unwrap();
        let missing = ServerTls::load(settings(directory.path()), test_clock()).unwrap_err();
        assert!(missing.problem.contains("no such file"), "{missing}");
        assert!(!missing.to_string().contains(file), "no value: {missing}");
    }
}

const CERTIFICATE_FILE: &str = "server.pem";
const KEY_FILE: &str = "server-key.pem";
const CA_FILE: &str = "ca.pem";

#[test]
fn the_validity_of_a_certificate_ends_after_its_last_second() {
    let (authority, directory) = (Authority::new("test"), tempfile::tempdir().unwrap());
    let last = UnixMillis::from_millis(TEST_START.as_millis());
    let subject = Subject {
        not_after: last,
        ..Subject::localhost()
    };
    authority.issue(&subject).write(directory.path(), "server");
    authority.write(directory.path(), CA_FILE);
    let clock = test_clock();
    let load = || ServerTls::load(settings(directory.path()), clock.clone()).map(drop);
    assert_eq!(load(), Ok(()));
    clock.advance(Duration::from_millis(999));
    assert_eq!(load(), Ok(()));
    clock.advance(Duration::from_millis(1));
    assert!(load().is_err());
}
