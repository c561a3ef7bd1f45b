//! Certificates of partners, which no authority of the listener has signed.

use tokio_rustls::rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};

use super::*;

fn server(authority: &Authority, directory: &Path, partners: PartnerCertificates) -> ServerTls {
    authority
        .issue(&Subject {
            dns_names: vec!["localhost", "mtls.example"],
            ..Subject::localhost()
        })
        .write(directory, "server");
    authority.write(directory, CA_FILE);
    let settings = TlsSettings {
        partners,
        ..settings(directory)
    };
    ServerTls::load(settings, test_clock()).unwrap().unwrap()
}

#[tokio::test]
async fn a_certificate_of_anybody_is_no_certificate_of_a_caller() {
    let (authority, directory) = (Authority::new("workloads"), tempfile::tempdir().unwrap());
    let tls = server(&authority, directory.path(), PartnerCertificates::Everywhere);
    let id = Subject::spiffe("spiffe://accord.example/gateway");
    let workload = authority.issue(&id);
    let expired = authority.issue(&Subject {
        not_after: TEST_START.minus(DAY),
        ..id.clone()
    });
    let for_servers = authority.issue(&Subject {
        is_for_clients: false,
        ..id.clone()
    });
    // The same name, by an authority that calls itself the same, and by nobody.
    let imitated = Authority::new("workloads").issue(&id);
    for acceptor in [tls.current().grpc.clone(), tls.current().http.clone()] {
        let shake_hands = |pair: Option<&Pair>| {
            shake_hands_as("localhost", acceptor.clone(), http_client(&authority, pair))
        };
        let peer = caller(shake_hands(Some(&workload)).await.server);
        assert_eq!(*peer.names, ["spiffe://accord.example/gateway"]);
        for pair in [&expired, &for_servers, &imitated] {
            match shake_hands(Some(pair)).await.server {
                Ok(Some(Peer::Client(certificate))) => assert_eq!(certificate.der(), der(pair)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(shake_hands(None).await.server, Ok(None));
    }
}

/// What a partner's authority signs is never a workload's, although the authority of workloads has signed that authority by way of
/// another one, which no file holds.
#[tokio::test]
async fn a_chain_through_an_authority_of_partners_is_no_workloads() {
    let (workloads, directory) = (Authority::new("workloads"), tempfile::tempdir().unwrap());
    let between = workloads.intermediate("between");
    let partners = between.intermediate("partners");
    let partner_ca = partners.write(directory.path(), "partners.pem");
    server(&workloads, directory.path(), PartnerCertificates::None);
    let id = Subject::spiffe("spiffe://accord.example/gateway");
    let through = |authorities: &[&Authority]| {
        let pair = authorities[0].issue(&id);
        let chain = authorities.iter().map(|authority| &*authority.certificate);
        let certificate = pair.certificate.clone() + &chain.collect::<String>();
        client(&workloads, Some(&Pair { certificate, ..pair }))
    };
    for place in [PartnerCertificates::None, PartnerCertificates::Everywhere] {
        let admits_partners = place == PartnerCertificates::Everywhere;
        let settings = TlsSettings {
            partners: place,
            partner_ca: partner_ca.clone(),
            ..settings(directory.path())
        };
        let tls = ServerTls::load(settings.clone(), test_clock()).unwrap().unwrap();
        let peer = shake_hands(&tls, through(&[&partners, &between])).await.server;
        match peer {
            Ok(Some(Peer::Client(_))) => assert!(admits_partners),
            Err(reason) => assert!(!admits_partners && reason.ends_with("is a partner's"), "{reason}"),
            other => panic!("{other:?}"),
        }
        caller(shake_hands(&tls, through(&[&between])).await.server);
        between.write(directory.path(), CA_FILE);
        let problem = ServerTls::load(settings, test_clock()).unwrap_err();
        assert_eq!(problem.key, "partner_ca");
        workloads.write(directory.path(), CA_FILE);
    }
}

#[tokio::test]
async fn without_a_client_authority_nobody_is_a_caller() {
    let (authority, directory) = (Authority::new("test"), tempfile::tempdir().unwrap());
    authority
        .issue(&Subject::localhost())
        .write(directory.path(), "server");
    let settings = TlsSettings {
        partners: PartnerCertificates::Everywhere,
        client_ca: Default::default(),
        ..settings(directory.path())
    };
    let tls = ServerTls::load(settings, test_clock()).unwrap().unwrap();
    let pair = authority.issue(&Subject::spiffe("spiffe://accord.example/gateway"));
    let peer = shake_hands(&tls, client(&authority, Some(&pair))).await.server;
    assert!(matches!(peer, Ok(Some(Peer::Client(_)))), "{peer:?}");
}

#[tokio::test]
async fn over_http_only_the_host_of_partners_takes_certificates_of_anybody() {
    let (authority, directory) = (Authority::new("test"), tempfile::tempdir().unwrap());
    let host = PartnerCertificates::AtHost("mtls.example".to_owned());
    let tls = server(&authority, directory.path(), host);
    let pair = Authority::new("partner").issue(&Subject::default());
    let config = http_client(&authority, Some(&pair));
    let http = tls.current().http.clone();
    let elsewhere = async |config| shake_hands_as("localhost", http.clone(), config).await.server;
    let refused = elsewhere(config.clone()).await.unwrap_err();
    assert!(
        refused.contains("none of the authorities in --client-ca"),
        "{refused}"
    );
    assert_eq!(elsewhere(http_client(&authority, None)).await, Ok(None));
    // A gateway's is known there, too.
    let gateway = authority.issue(&Subject::spiffe("spiffe://accord.example/gateway"));
    caller(elsewhere(http_client(&authority, Some(&gateway))).await);
    let peer = shake_hands_as("mtls.example", http.clone(), config).await.server;
    assert!(matches!(peer, Ok(Some(Peer::Client(_)))), "{peer:?}");
    // gRPC has no pages.
    let peer = shake_hands(&tls, client(&authority, Some(&pair))).await.server;
    assert!(matches!(peer, Ok(Some(Peer::Client(_)))), "{peer:?}");
}

#[tokio::test]
async fn a_client_without_the_private_key_is_refused() {
    let (authority, directory) = (Authority::new("test"), tempfile::tempdir().unwrap());
    let tls = server(&authority, directory.path(), PartnerCertificates::Everywhere);
    let (one, other) = (
        authority.issue(&Subject::default()),
        authority.issue(&Subject::default()),
    );
    let stolen = StolenCertificate(Arc::new(CertifiedKey::new(
        vec![CertificateDer::from_pem_slice(one.certificate.as_bytes()).unwrap()],
        provider()
            .key_provider
            .load_private_key(PrivateKeyDer::from_pem_slice(other.private_key.as_bytes()).unwrap())
            .unwrap(),
    )));
    let mut config = ClientConfig::clone(&client(&authority, None));
    config.client_auth_cert_resolver = Arc::new(stolen);
    let failed = shake_hands(&tls, Arc::new(config)).await.server;
    assert!(failed.is_err(), "{failed:?}");
}

/// A certificate with the private key of another.
#[derive(Debug)]
struct StolenCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for StolenCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A client that takes the protocol that the server chooses.
fn http_client(authority: &Authority, pair: Option<&Pair>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(&client(authority, pair));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}
