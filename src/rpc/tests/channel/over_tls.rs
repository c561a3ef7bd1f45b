//! Hops over TLS.

use super::*;

/// Serves gRPC with TLS on loopback, as a replica does that has no database. Returns its port.
async fn serve_tls(directory: &Path, server: &Pair, authority: &Authority, stop: &CancellationToken) -> u16 {
    let (certificate, private_key) = server.write(directory, "server");
    let settings = TlsSettings {
        certificate,
        private_key,
        client_ca: authority.write(directory, "client-ca.pem"),
        partner_ca: Default::default(),
        min_version: "1.3".into(),
        partners: PartnerCertificates::None,
    };
    let tls = ServerTls::load(settings, Arc::new(SystemClock)).unwrap().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let replica = Replica::start(Behaviour::Answer).await;
    let stop = stop.clone();
    tokio::spawn(async move {
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let (stream, _) = accepted.unwrap();
            let config = tls.current().grpc.clone();
            let address = replica.address;
            tokio::spawn(async move {
                let (mut stream, peer) = handshake::accept(config, stream).await.ok()?;
                let peer = peer.map(|peer| match peer {
                    Peer::Caller(certificate) => certificate,
                    Peer::Client(_) => panic!("no certificate of a partner is let through"),
                });
                // The proof that the client has presented a certificate: without one it is hung up on.
                peer.filter(|peer| peer.names.iter().any(|name| name.starts_with("spiffe://")))?;
                let mut plain = tokio::net::TcpStream::connect(address).await.ok()?;
                tokio::io::copy_bidirectional(&mut stream, &mut plain).await.ok()
            });
        }
    });
    port
}

/// A channel with TLS to this host.
fn tls_channel(host: &str, port: u16, files: TlsFiles) -> HopChannel {
    let addresses = Addresses::parse(&format!("https://{host}:{port}")).unwrap();
    let tls = ClientTls::load(files).unwrap();
    HopChannel::new(Target::new(addresses, Some(tls)).unwrap(), None)
}

#[tokio::test]
async fn tls_verifies_the_server_and_presents_the_certificate_of_the_newest_files() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let port = serve_tls(at, &authority.issue(&Subject::localhost()), &authority, &stop).await;
    let own = Subject::spiffe("spiffe://example.org/token-service");
    let (certificate, key) = authority.issue(&own).write(at, "client");
    let ca = authority.write(at, "ca.pem");
    let files = TlsFiles::new(&ca, &certificate, &key);
    read(&tls_channel("localhost", port, files.clone()))
        .await
        .unwrap();

    let cause = async |host: &str, files: TlsFiles| {
        let tls = ClientTls::load(files).unwrap();
        let mut connector = tls::Connector {
            tls,
            server_name: host.to_owned().try_into().unwrap(),
            address: tls::Destination::Address(([127, 0, 0, 1], port).into()),
        };
        let connected = Service::call(&mut connector, http::Uri::from_static("https://x")).await;
        tls::cause(&connected.err().unwrap())
    };
    let wrong_ca = TlsFiles::new(other.write(at, "other.pem"), &certificate, &key);
    assert!(
        cause("localhost", wrong_ca)
            .await
            .contains("none of the given authorities")
    );
    assert!(
        cause("registry.internal", files.clone())
            .await
            .contains("other names")
    );

    // A client learns that its certificate is rejected when it reads the first answer.
    for authority in [&other, &Authority::new("one")] {
        let (certificate, key) = authority.issue(&own).write(at, "rejected");
        let connector = tls::Connector {
            tls: ClientTls::load(TlsFiles::new(&ca, certificate, key)).unwrap(),
            server_name: "localhost".try_into().unwrap(),
            address: tls::Destination::Address(([127, 0, 0, 1], port).into()),
        };
        let endpoint = tls::endpoint(http::Uri::from_static("https://localhost")).unwrap();
        let mut directory = DirectoryServiceClient::new(endpoint.connect_with_connector_lazy(connector));
        let read = directory.list_changes(pb::ListChangesRequest::default()).await;
        let cause = tls::cause(&read.unwrap_err());
        assert_eq!(cause, "it does not accept the client certificate");
    }

    // A certificate of another authority is rejected, and counts no longer once the files have changed.
    let (foreign, foreign_key) = other.issue(&own).write(at, "changing");
    let tls = ClientTls::load(TlsFiles::new(&ca, &foreign, &foreign_key)).unwrap();
    let addresses = Addresses::parse(&format!("https://localhost:{port}")).unwrap();
    let channel = HopChannel::new(Target::new(addresses, Some(tls.clone())).unwrap(), None);
    assert_eq!(read(&channel).await, Err(Code::Unavailable));
    std::fs::write(&foreign, "-----BEGIN CERTIFICATE-----\nhalf").unwrap();
    let looked = [tls.reload(), tls.reload()];
    // The first look waits for a second one, and the channel may have taken the first.
    assert!(looked.iter().any(Result::is_err), "a half-written file");
    assert_eq!(tls.generation(), 0);
    authority.issue(&own).write(at, "changing");
    assert!(tls.reload().is_ok() && tls.reload().is_ok());
    assert_eq!(tls.generation(), 1);
    let again = async {
        while read(&channel).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_peer_without_tls_is_named_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("one");
    let replica = Replica::start(Behaviour::Answer).await;
    let files = TlsFiles {
        authorities: authority.write(directory.path(), "ca.pem"),
        identity: None,
    };
    let mut connector = tls::Connector {
        tls: ClientTls::load(files).unwrap(),
        server_name: "localhost".try_into().unwrap(),
        address: tls::Destination::Address(replica.address),
    };
    let connected = Service::call(&mut connector, http::Uri::from_static("https://x")).await;
    let cause = tls::cause(&connected.err().unwrap());
    assert!(
        cause.contains("does not speak TLS") || cause.contains("eof"),
        "{cause}"
    );
}
