//! TLS of the HTTP client: whom it trusts, which suites it offers, and the certificate that it presents.

use std::{io, net::SocketAddr, sync::Arc};

use accord::{
    testing::certificates::{Pair, presenting},
    text::opaque::sha256,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::{CryptoProvider, aws_lc_rs::default_provider},
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// A client that trusts this authority, offers every suite, and presents this certificate.
pub fn tls(authority: &[u8], pair: Option<&Pair>) -> Arc<ClientConfig> {
    tls_with(default_provider(), authority, pair)
}

/// The same with the suites of this provider alone.
pub fn tls_with(provider: CryptoProvider, authority: &[u8], pair: Option<&Pair>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(provider));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    Arc::new(presenting(config, pair))
}

/// Connects to a server of this name at this address.
pub async fn connect(
    address: SocketAddr,
    host: &'static str,
    tls: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(host).unwrap();
    TlsConnector::from(tls).connect(name, stream).await
}

/// The thumbprint of a certificate (RFC 8705 §3.1).
pub fn thumbprint(pair: &Pair) -> String {
    URL_SAFE_NO_PAD.encode(sha256(&pair.der()))
}
