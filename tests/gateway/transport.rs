//! TLS, and requests that no HTTP client would send.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::with_stand_in;
use crate::harness::envoy::Gateway;

tests!(
    tls_before_1_2_is_rejected,
    nothing_is_answered_without_tls,
    an_ambiguous_request_is_rejected,
);

/// Sends a request line and header lines unchanged, over TLS and HTTP/1.1. Returns the response. The request asks to
/// close the connection.
pub async fn raw(gateway: &Gateway, line: &str, headers: &str, body: &str) -> String {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(gateway.certificate()).unwrap())
        .unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(gateway.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .unwrap();
    let request = format!("{line}\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n{body}");
    tls.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Envoy keeps the connection of a rejected request open for a while: the response is complete before that.
    while !is_whole(&answer) {
        let mut part = [0; 4096];
        match tls.read(&mut part).await {
            // After a rejection, a close without `close_notify` is fine.
            Ok(0) | Err(_) => break,
            Ok(read) => answer.extend(&part[..read]),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Returns whether a response is complete: its header, and a body of the announced length.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let promised = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    promised.is_some_and(|length| body.len() >= length.parse().unwrap())
}

/// A ClientHello for `localhost` that offers `version` at most, and only what TLS before 1.3 has.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    let mut extensions = Vec::new();
    let mut extension = |kind: u16, content: &[u8]| {
        extensions.extend(kind.to_be_bytes());
        extensions.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
        extensions.extend(content);
    };
    let mut server_name = vec![0, 12, 0, 0, 9];
    server_name.extend(b"localhost");
    extension(0, &server_name);
    // Groups x25519 and P-256, uncompressed points, ecdsa_secp256r1_sha256 and ecdsa_sha1.
    extension(10, &[0, 4, 0, 29, 0, 23]);
    extension(11, &[1, 0]);
    extension(13, &[0, 4, 4, 3, 2, 3]);

    let mut hello = version.to_vec();
    hello.extend([7; 32]);
    hello.push(0);
    // ECDHE-ECDSA with AES-128-GCM for TLS 1.2, with AES-128-CBC and AES-256-CBC for those before.
    hello.extend([0, 6, 0xc0, 0x2b, 0xc0, 0x09, 0xc0, 0x0a]);
    hello.extend([1, 0]);
    hello.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    hello.extend(extensions);

    let mut handshake = vec![1, 0];
    handshake.extend(u16::try_from(hello.len()).unwrap().to_be_bytes());
    handshake.extend(hello);
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(handshake.len()).unwrap().to_be_bytes());
    record.extend(handshake);
    record
}

/// Sends bytes and returns the first bytes of the response; none if the connection was closed.
async fn answer_to(gateway: &Gateway, sent: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(gateway.address()).await.unwrap();
    tcp.write_all(sent).await.unwrap();
    let mut answer = vec![0; 7];
    let mut filled = 0;
    while filled < answer.len() {
        match tcp.read(&mut answer[filled..]).await {
            Ok(0) | Err(_) => break,
            Ok(read) => filled += read,
        }
    }
    answer.truncate(filled);
    answer
}

async fn tls_before_1_2_is_rejected() {
    let (gateway, _) = with_stand_in().await;
    // A handshake record: the server goes on.
    let answer = answer_to(&gateway, &client_hello([3, 3])).await;
    assert_eq!(answer[0], 22, "{answer:?}");
    for before in [[3, 2], [3, 1], [3, 0]] {
        // A fatal alert: protocol_version.
        let answer = answer_to(&gateway, &client_hello(before)).await;
        assert_eq!(
            (answer[0], &answer[5..]),
            (21, &[2, 70][..]),
            "{before:?}: {answer:?}"
        );
    }
}

async fn nothing_is_answered_without_tls() {
    let (gateway, stand_in) = with_stand_in().await;
    for sent in [
        "GET /firm/jwks.json HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = answer_to(&gateway, sent.as_bytes()).await;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    assert!(stand_in.taken().is_empty());
}

async fn an_ambiguous_request_is_rejected() {
    let (gateway, stand_in) = with_stand_in().await;
    let line = "POST /firm/oauth2/token HTTP/1.1";
    let twice = "transfer-encoding: chunked\r\ncontent-length: 5\r\n";
    let lengths = "content-length: 2\r\ncontent-length: 5\r\n";
    let odd = "transfer-encoding: chunked, identity\r\n";
    let upgrade = "upgrade: websocket\r\nsec-websocket-version: 13\r\n";
    for headers in [twice, lengths, odd] {
        let answer = raw(&gateway, line, headers, "0\r\n\r\n").await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{headers}: {answer}");
        assert!(stand_in.taken().is_empty(), "{headers}");
    }
    let upgrade = format!("GET /firm/sign-in HTTP/1.1\r\nconnection: upgrade\r\n{upgrade}");
    let answer = raw(&gateway, upgrade.trim_end(), "", "").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let connect = raw(&gateway, "CONNECT localhost:22 HTTP/1.1", "", "").await;
    assert!(!connect.starts_with("HTTP/1.1 2"), "{connect}");
    let old = raw(&gateway, "GET /firm/sign-in HTTP/1.0", "", "").await;
    assert!(old.starts_with("HTTP/1.1 426"), "{old}");
    assert!(stand_in.taken().is_empty());
}
