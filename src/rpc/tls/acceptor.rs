//! How a listener shakes hands: which configuration a connection gets, and whose certificate it presented.
//!
//! Where partners may present certificates, the handshake lets every certificate through, because a partner's may be
//! self-signed. It still verifies that the client holds the private key. A certificate counts as a workload's or an
//! operator's only if it verifies against the client CA, as it must where partners present none, and its chain passes through
//! no authority of partners, whom a client CA may have signed.

use std::{collections::HashSet, io, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    LazyConfigAcceptor, TlsAcceptor,
    rustls::{
        DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
        client::danger::HandshakeSignatureValid,
        crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, UnixTime},
        server::{
            Acceptor as HelloAcceptor,
            danger::{ClientCertVerified, ClientCertVerifier},
        },
        time_provider::TimeProvider,
    },
    server::TlsStream,
};

use super::{
    certificate::public_key,
    peer::{CallerCertificate, ClientCertificate, Peer},
};

/// Accepts the connections of a listener.
#[derive(Debug)]
pub(in crate::rpc) struct Acceptor {
    /// For every connection that `partners` is not for.
    pub(super) config: Arc<ServerConfig>,
    /// For connections to this host (RFC 6066 §3), at which partners may present certificates.
    pub(super) partners: Option<(String, Arc<ServerConfig>)>,
    /// Verifies certificates of workloads and operators; `None` without a client CA.
    pub(super) workloads: Option<Arc<dyn ClientCertVerifier>>,
    /// The authorities of partners, which vouch for no workload.
    pub(super) partner_keys: Arc<HashSet<Vec<u8>>>,
    /// Whether `config` lets certificates of partners through.
    pub(super) admits_partners: bool,
    pub(super) time: Arc<dyn TimeProvider>,
}

impl Acceptor {
    /// Shakes hands. Returns whether certificates of partners were let through, too.
    pub(super) async fn shake_hands(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, bool)> {
        let Some((host, partners)) = &self.partners else {
            let stream = TlsAcceptor::from(self.config.clone()).accept(stream).await?;
            return Ok((stream, self.admits_partners));
        };
        let start = LazyConfigAcceptor::new(HelloAcceptor::default(), stream).await?;
        let hello = start.client_hello();
        let is_for_partners = hello
            .server_name()
            .is_some_and(|name| name.eq_ignore_ascii_case(host));
        let config = if is_for_partners { partners } else { &self.config };
        let admits_partners = is_for_partners || self.admits_partners;
        Ok((start.into_stream(config.clone()).await?, admits_partners))
    }

    /// Returns whose certificate the client presented, if it presented one; `None` for one that can't be read, and
    /// for a partner's where only callers may present one.
    pub(super) fn identify(
        &self,
        chain: &[CertificateDer<'_>],
        admits_partners: bool,
    ) -> Option<Option<Peer>> {
        let Some((first, rest)) = chain.split_first() else {
            return Some(None);
        };
        let is_partners = |key: Vec<u8>| self.partner_keys.contains(&key);
        // A certificate that can't be read may be anybody's.
        let is_of_partners = !self.partner_keys.is_empty()
            && chain
                .iter()
                .any(|certificate| public_key(certificate).is_none_or(is_partners));
        if is_of_partners && !admits_partners {
            return None;
        }
        let is_verified = !admits_partners
            || self
                .workloads
                .as_ref()
                .zip(self.time.current_time())
                .is_some_and(|(verifier, now)| verifier.verify_client_cert(first, rest, now).is_ok());
        let peer = match is_verified && !is_of_partners {
            true => Peer::Caller(CallerCertificate::read(first)?),
            false => Peer::Client(ClientCertificate::read(chain)?),
        };
        Some(Some(peer))
    }
}

/// Lets every certificate through whose private key the client holds.
#[derive(Debug)]
pub(super) struct AnyCertificate(pub(super) WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a client presents whichever certificate it has (RFC 8446 §4.2.4).
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
