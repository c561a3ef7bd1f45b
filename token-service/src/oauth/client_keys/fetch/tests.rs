//! Servers that answer badly on purpose, and names that lead elsewhere.

#![allow(clippy::unwrap_used)]

use std::{collections::VecDeque, sync::Mutex};

use accord::{
    testing::{
        certificates::{Authority, KeyKind, Pair, Subject},
        https::{HttpsServer, ok},
    },
    text::jwk::certificate::public_key,
};

use super::*;

const HOST: &str = "keys.partner.example";

/// A server of keys.
pub(in crate::oauth::client_keys) struct KeyServer(HttpsServer);

impl KeyServer {
    /// Answers each request with these bytes, and then keeps the connection open if `stays` is set.
    pub(in crate::oauth::client_keys) async fn start(answer: Vec<u8>, stays: bool) -> Self {
        Self(HttpsServer::start(HOST, answer, stays).await)
    }

    pub(in crate::oauth::client_keys) fn set_answer(&self, answer: Vec<u8>) {
        self.0.set_answer(answer);
    }

    pub(in crate::oauth::client_keys) fn url(&self) -> String {
        format!("https://{HOST}:{}/jwks", self.0.address.port())
    }

    /// Fetches from it by a name that resolves as `resolver` says, where loopback is allowed or not.
    async fn fetch(
        &self,
        resolver: FakeResolver,
        is_loopback_allowed: bool,
    ) -> Result<ClientKeySet, &'static str> {
        self.fetcher_with(resolver, is_loopback_allowed)
            .fetch(&self.url())
            .await
    }

    pub(in crate::oauth::client_keys) fn fetcher(&self) -> KeySetFetcher {
        self.fetcher_with(FakeResolver::always("127.0.0.1"), true)
    }

    fn fetcher_with(&self, resolver: FakeResolver, is_loopback_allowed: bool) -> KeySetFetcher {
        let others = match is_loopback_allowed {
            true => AllowedNetworks::parse(&["127.0.0.1".to_owned()]).unwrap(),
            false => AllowedNetworks::default(),
        };
        let fetcher = KeySetFetcher::new(others);
        let authority = reqwest::Certificate::from_pem(self.0.authority.certificate.as_bytes()).unwrap();
        let client = client_builder(fetcher.others.clone(), Arc::new(resolver))
            .tls_certs_only([authority])
            .timeout(Duration::from_millis(500));
        fetcher.client.set(client.build().unwrap()).unwrap();
        fetcher
    }

    async fn fetched(&self) -> Result<ClientKeySet, &'static str> {
        self.fetcher().fetch(&self.url()).await
    }

    pub(in crate::oauth::client_keys) fn connections(&self) -> usize {
        self.0.connections()
    }
}

/// Resolves every name to the next of these addresses, and to the last one from then on.
struct FakeResolver(Mutex<VecDeque<&'static str>>);

impl FakeResolver {
    fn always(address: &'static str) -> Self {
        Self(Mutex::new(VecDeque::from([address])))
    }

    fn one_after_the_other(addresses: &[&'static str]) -> Self {
        Self(Mutex::new(addresses.iter().copied().collect()))
    }
}

#[tonic::async_trait]
impl HostResolver for FakeResolver {
    async fn addresses(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        assert_eq!(host, HOST);
        let mut left = self.0.lock().unwrap();
        let next = match left.len() {
            1 => left[0],
            _ => left.pop_front().unwrap(),
        };
        Ok(next
            .split(' ')
            .map(|address| SocketAddr::new(address.parse().unwrap(), 0))
            .collect())
    }
}

pub(in crate::oauth::client_keys) fn key_set(certificate: &[u8]) -> String {
    format!("{{\"keys\": [{}]}}", public_key(certificate).unwrap())
}

#[tokio::test]
async fn keys_are_fetched_and_read() {
    let pair = Pair::self_signed(&Subject::default(), KeyKind::P256);
    let server = KeyServer::start(ok(&key_set(&pair.der())), false).await;
    let keys = server.fetched().await.unwrap();
    assert!(keys.has_certificate(&pair.der()));
    for body in ["", "<html>", "[]", "{}"] {
        let server = KeyServer::start(ok(body), false).await;
        let failed = server.fetched().await.unwrap_err();
        assert_eq!(failed, "the answer is no JSON Web Key Set", "{body}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let location = "http://169.254.169.254/latest/meta-data/";
    let answer = format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
    let server = KeyServer::start(answer.into_bytes(), false).await;
    let failed = server.fetched().await.unwrap_err();
    assert_eq!(failed, "the server redirects, which is not followed");
    let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec();
    let server = KeyServer::start(answer, false).await;
    assert_eq!(
        server.fetched().await.unwrap_err(),
        "the server answers with another status than 200"
    );
}

#[tokio::test]
async fn a_slow_answer_and_a_large_one_are_given_up() {
    let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec();
    for answer in [Vec::new(), begun] {
        let server = KeyServer::start(answer, true).await;
        assert_eq!(
            server.fetched().await.unwrap_err(),
            "the server does not answer in time"
        );
    }
    let large = " ".repeat(10 * 1024 * 1024);
    let mut endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    endless.extend(large.bytes());
    for answer in [ok(&large), endless] {
        let server = KeyServer::start(answer, false).await;
        assert_eq!(
            server.fetched().await.unwrap_err(),
            "the answer is larger than 64 KiB"
        );
    }
}

#[tokio::test]
async fn an_address_inside_is_not_connected_to() {
    let server = KeyServer::start(ok("{\"keys\": []}"), false).await;
    for inside in [
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "10.0.0.1 127.0.0.1",
        "169.254.169.254",
    ] {
        let failed = server.fetch(FakeResolver::always(inside), false).await;
        assert_eq!(failed.unwrap_err(), NotAllowed::RULE, "{inside}");
    }
    let fetcher = KeySetFetcher::new(AllowedNetworks::default());
    let port = server.0.address.port();
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"] {
        let failed = fetcher.fetch(&format!("https://{host}:{port}/")).await;
        assert_eq!(failed.unwrap_err(), NotAllowed::RULE, "{host}");
    }
    let failed = fetcher.fetch(&format!("http://{HOST}/")).await;
    assert_eq!(failed.unwrap_err(), "the URL is not https");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn the_address_that_was_checked_is_the_one_that_is_connected_to() {
    // A second look would find an address inside.
    let server = KeyServer::start(ok("{\"keys\": []}"), false).await;
    let rebound = FakeResolver::one_after_the_other(&["127.0.0.1", "169.254.169.254"]);
    server.fetch(rebound, true).await.unwrap();
    assert_eq!(server.connections(), 1);
    // Of several addresses those inside are left out.
    let mixed = FakeResolver::always("10.0.0.1 127.0.0.1");
    server.fetch(mixed, true).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_server_without_a_certificate_of_the_host_is_not_trusted() {
    let mut stranger = KeyServer::start(ok("{\"keys\": []}"), false).await;
    stranger.0.authority = Authority::new("stranger");
    let failed = stranger.fetched().await.unwrap_err();
    assert_eq!(
        failed,
        "the server can't be connected to, or its certificate is not accepted"
    );
}
